"""EnrollmentRequest: a machine asks to become a device; someone allowed to says yes.

The rules are about form. Whether the signature holds, and the request's name is that of the key,
is found out where certificates are read, at creation and again at approval.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field, ValidationError

from resources import device, formats, pem
from resources.devicestatus import OsMode
from resources.errors import INVALID, TYPE_INVALID, FieldError
from resources.kind import Json
from resources.meta import (
    OPEN,
    Complaints,
    Condition,
    Document,
    Model,
    Timestamp,
    check_labels,
    checked,
    complain,
    conditions,
    mapping,
    raise_all,
    text,
)

# A shorter name could not tell keys apart.
MIN_NAME = 16


class EnrollmentRequestSpec(Model):
    csr: str = Field(
        description="Certificate request of the device's key, as PEM, or a TPM's bundle in base64."
    )
    # Reported by an agent, so kept as it came and checked beside.
    device_status: dict[str, Any] | None = Field(
        None,
        description="What the device reports of itself, as in a Device's status.",
        json_schema_extra=OPEN,
    )
    labels: dict[str, str] | None = Field(
        None, description="Labels that the device proposes for itself."
    )
    known_rendered_version: str | None = Field(
        None, description="Version of the specification that the device already runs, if any."
    )
    os_mode: OsMode | None = Field(
        None, description="Whether the OS is replaced as an image or kept up by packages."
    )


class Approval(Model):
    approved: bool = Field(description="True admits the device.")
    labels: dict[str, str] | None = Field(None, description="Labels that the device gets.")
    replace_labels: bool | None = Field(
        None, description="True drops the labels that the device proposed. Default false."
    )


class ApprovalStatus(Approval):
    approved_by: str = Field(description="Who decided.")
    approved_at: Timestamp = Field(description="When it was decided.")


class EnrollmentCertificate(Model):
    """Ours: by what it came, as the connection proved."""

    common_name: str = Field(description="Name in the certificate that it came with.")
    fingerprint: str = Field(description="SHA-256 of that certificate, in hexadecimal.")
    authority: str = Field(description="Key identifier of who signed that certificate.")


class EnrollmentRequestStatus(Model):
    approval: ApprovalStatus | None = Field(None, description="The decision, once there is one.")
    certificate: str | None = Field(
        None, description="The management certificate as PEM, once the request is approved."
    )
    enrollment_certificate: EnrollmentCertificate | None = Field(
        None, description="The certificate that the machine came with."
    )
    conditions: list[Condition] | None = conditions(
        "Approved once someone said yes; Issued while and after a signer outside is asked; Failed "
        "if it refused; TPMVerified if the key was shown to live in a TPM; Ready, Reconciling and "
        "Stalled for programs that wait."
    )


class EnrollmentRequest(Document):
    """A machine that asks to become a device."""

    spec: EnrollmentRequestSpec = Field(description="What the machine says and asks.")
    status: EnrollmentRequestStatus | None = Field(None, description="What became of it.")


def check(document: Json) -> None:
    """The rules for a whole EnrollmentRequest."""
    raise_all(_check(document))


def _check(document: Json) -> Complaints:
    name = text(mapping(document, "metadata"), "name")
    if name and len(name) < MIN_NAME:
        detail = f"is the name of the device's key: {MIN_NAME} characters at least"
        yield FieldError("metadata.name", INVALID, detail)
    spec = mapping(document, "spec")
    csr = text(spec, "csr")
    if csr is not None:
        yield from complain("spec.csr", pem.request_or_tpm(csr))
    yield from check_labels(spec.get("labels"), "spec.labels")
    version = text(spec, "knownRenderedVersion")
    if version and not (version.isascii() and version.isdigit()):
        detail = f"{formats.shown(version)} is no version: a whole number in digits"
        yield FieldError("spec.knownRenderedVersion", INVALID, detail)
    if isinstance(spec.get("deviceStatus"), dict):
        yield from device.check_agent_status(spec["deviceStatus"], "spec.deviceStatus")
    yield from checked(
        mapping(document, "status", "approval"), "approvedBy", "status.approval", _some
    )
    yield from check_labels(
        mapping(document, "status", "approval").get("labels"), "status.approval.labels"
    )


def _some(value: str) -> str | None:
    return None if value else "must not be empty"


def check_approval(approval: Json) -> list[FieldError]:
    """What is wrong with the body of an approval."""
    complaints = list(check_labels(approval.get("labels"), "labels"))
    try:
        Approval.model_validate(approval)
    except ValidationError as problem:
        for error in problem.errors(include_url=False, include_context=False, include_input=False):
            path = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error["loc"])
            complaints.append(FieldError(path.lstrip("."), TYPE_INVALID, error["msg"]))
    return complaints
