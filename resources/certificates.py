"""CertificateSigningRequest: a certificate is asked for, and a signer gives it or not.

The rules are about form and about which signers may be asked this way. Signatures, names in the
request and who may ask are the signers' business.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from resources import formats, pem
from resources.errors import FORBIDDEN, INVALID, NOT_SUPPORTED, REQUIRED, FieldError
from resources.kind import Json
from resources.meta import (
    ATOMIC,
    Complaints,
    Condition,
    Document,
    Int32,
    Model,
    complain,
    conditions,
    mapping,
    raise_all,
    text,
)

ENROLLMENT = "flightctl.io/enrollment"
RENEWAL = "flightctl.io/device-management-renewal"
SERVICE_CLIENT = "flightctl.io/device-svc-client"
# `enrollment` is the name that older command lines write.
SIGNERS = (ENROLLMENT, "enrollment", RENEWAL, SERVICE_CLIENT)
_ELSEWHERE = {
    "flightctl.io/device-enrollment": "create an EnrollmentRequest instead",
    "flightctl.io/server-svc": "server certificates are made by the service itself",
    "ca": f"this signer is gone; use {ENROLLMENT}",
}
USAGES = ("clientAuth", "CA:false")
# What an authority lives. Devices' own certificates get less and are not refused for asking; of an
# enrolment certificate, which nothing renews, a person has to know how long it is good for.
ENROLLMENT_DAYS_MAX = 3650


_Values = Annotated[list[str], Field(json_schema_extra=ATOMIC)]


class CertificateSigningRequestSpec(Model):
    request: str = Field(
        description="The certificate request: PEM, and that once more in base64.",
        json_schema_extra={"format": "byte"},
    )
    signer_name: str = Field(min_length=1, description="Who is asked to sign.")
    usages: list[str] | None = Field(
        None,
        description="What the certificate is for; must hold clientAuth and CA:false.",
        json_schema_extra=ATOMIC,
    )
    expiration_seconds: Int32 | None = Field(
        None, description="Wanted lifetime; the signer may give less."
    )
    username: str | None = Field(None, description="Who asked. Set by the service.")
    uid: str | None = Field(None, description="Identity of who asked. Set by the service.")
    extra: dict[str, _Values] | None = Field(
        None, description="More about who asked. Set by the service."
    )


class CertificateSigningRequestStatus(Model):
    certificate: str | None = Field(
        None,
        description="The certificate, once issued: PEM, and that once more in base64.",
        json_schema_extra={"format": "byte"},
    )
    conditions: list[Condition] | None = conditions(
        "Approved or Denied by someone; Issued while, and after, a signer outside is asked; Failed "
        "if it could not be signed."
    )


class CertificateSigningRequest(Document):
    """A certificate that is asked for."""

    spec: CertificateSigningRequestSpec = Field(description="What is asked, and of whom.")
    status: CertificateSigningRequestStatus | None = Field(None, description="What became of it.")


def check(document: Json) -> None:
    """The rules for a whole CertificateSigningRequest."""
    raise_all(_check(mapping(document, "spec")))


def _check(spec: Json) -> Complaints:
    request = text(spec, "request")
    if request is not None:
        yield from complain("spec.request", _request(request))
    signer = text(spec, "signerName")
    if signer in _ELSEWHERE:
        yield FieldError("spec.signerName", FORBIDDEN, _ELSEWHERE[signer])
    elif signer and signer not in SIGNERS:
        detail = f"{formats.shown(signer)} is not known; ask one of {', '.join(SIGNERS)}"
        yield FieldError("spec.signerName", NOT_SUPPORTED, detail)
    usages = spec.get("usages")
    for usage in USAGES:
        if usages is None or (isinstance(usages, list) and usage not in usages):
            yield FieldError("spec.usages", REQUIRED, f"must hold {usage}")
    expiration = spec.get("expirationSeconds")
    if isinstance(expiration, int) and expiration < 1:
        yield FieldError("spec.expirationSeconds", INVALID, "must be at least 1")
    most_s = ENROLLMENT_DAYS_MAX * 86_400
    if signer in (ENROLLMENT, "enrollment") and isinstance(expiration, int) and expiration > most_s:
        detail = f"{ENROLLMENT} signs for {ENROLLMENT_DAYS_MAX} days ({most_s} seconds) at most"
        yield FieldError("spec.expirationSeconds", INVALID, detail)


def _request(request: str) -> str | None:
    blob = formats.decoded(request)
    if blob is None:
        return "must be the PEM in base64"
    if blob.startswith(pem.TPM_MAGIC):
        return None
    try:
        return pem.request_or_tpm(blob.decode("ascii"))
    except UnicodeDecodeError:
        return "must be the PEM in base64"
