"""EnrollmentPolicy: which machines are let in without a person, and as what.

All that a policy demands must hold; one that demands nothing is no policy. What a machine proves
are its key (`devices`), the certificate that it came with (the three lists of certificates) and its
TPM. Its labels, serial number and system information are what it says of itself: whoever has an
enrolment certificate can say it too. So a good policy names a certificate, or keys, beside them,
and has a limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Annotated, Any

from pydantic import Field

from resources import formats, selectors
from resources.errors import INVALID, REQUIRED, FieldError
from resources.kind import Json
from resources.meta import (
    ATOMIC,
    Complaints,
    Count,
    Document,
    LabelSelector,
    Model,
    Timestamp,
    check_labels,
    check_selector,
    mapping,
    raise_all,
    text,
)

# As many as a delivery note has lines; more are several policies.
LISTED_MAX = 1000
_HEX = re.compile(r"[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2})*")
_FINGERPRINT_DIGITS = 64
# Of the certificates that CertificateSigningRequests ask for.
_ISSUED_PREFIX = "client-enrollment-"

Listed = Annotated[
    list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=LISTED_MAX)
]
DEMANDS = (
    "selector",
    "serialNumbers",
    "systemInfo",
    "devices",
    "certificateRequests",
    "certificateFingerprints",
    "certificateAuthorities",
    "tpmVerified",
    "tpmKeys",
)


def _listed(description: str) -> Any:
    return Field(None, description=description, json_schema_extra=ATOMIC)


class EnrollmentPolicySpec(Model):
    selector: LabelSelector | None = Field(
        None,
        description="Labels that the machine must propose for itself. An empty one lets in whoever "
        "has an enrolment certificate.",
        json_schema_extra={"x-kubernetes-map-type": "atomic"},
    )
    serial_numbers: Listed | None = _listed(
        "Serial numbers, of which the machine must say that one is its own (productSerial)."
    )
    system_info: dict[str, str] | None = Field(
        None,
        min_length=1,
        description="What the machine must say of itself, by name as in a Device's "
        "status.systemInfo, or customInfo.NAME.",
    )
    devices: Listed | None = _listed(
        "Names of devices, which are the fingerprints of their keys, wherever these are kept."
    )
    certificate_requests: Listed | None = _listed(
        "Names of CertificateSigningRequests, with the certificate of one of which it must come."
    )
    certificate_fingerprints: Listed | None = _listed(
        "SHA-256 of certificates in hexadecimal, with one of which it must come."
    )
    certificate_authorities: Listed | None = _listed(
        "Key identifiers of authorities in hexadecimal, one of which must have signed the "
        "certificate that it comes with."
    )
    tpm_verified: bool | None = Field(
        None, description="True: its key must have been shown to live in a TPM of a trusted maker."
    )
    tpm_keys: Listed | None = _listed(
        "SHA-256 of endorsement keys (their DER) in hexadecimal: its key must live in a TPM of one "
        "of these."
    )
    labels: dict[str, str] | None = Field(
        None, description="Labels that the device gets, before those that it proposes."
    )
    replace_labels: bool | None = Field(
        None, description="True drops the labels that the machine proposed. Default false."
    )
    limit: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = Field(
        None, description="How many it lets in, in all its life."
    )


class EnrollmentPolicyStatus(Model):
    admitted: Count | None = Field(None, description="How many it has let in.")
    last_admitted: str | None = Field(None, description="The one that it let in last.")
    last_admitted_at: Timestamp | None = Field(None, description="When that was.")


class EnrollmentPolicy(Document):
    """Machines that are let in without a person."""

    spec: EnrollmentPolicySpec = Field(description="Whom it lets in: all of it must hold.")
    status: EnrollmentPolicyStatus | None = Field(None, description="Whom it has let in.")


def check(document: Json) -> None:
    """The rules for a whole EnrollmentPolicy."""
    raise_all(_check(mapping(document, "spec")))


def _check(spec: Json) -> Complaints:
    if all(spec.get(key) in (None, False) for key in DEMANDS):
        yield FieldError("spec", REQUIRED, f"demand something: one of {', '.join(DEMANDS)}")
    yield from check_selector(spec.get("selector"), "spec.selector", must_select=False)
    yield from check_labels(spec.get("labels"), "spec.labels")
    for key, digits in (
        ("certificateFingerprints", _FINGERPRINT_DIGITS),
        ("certificateAuthorities", 0),
        ("tpmKeys", _FINGERPRINT_DIGITS),
    ):
        listed = spec.get(key)
        for index, value in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(value, str) and not _is_hex(value, digits):
                what = f"{digits} hexadecimal digits" if digits else "hexadecimal digits"
                detail = f"{formats.shown(value)} is not {what}; colons may be in it"
                yield FieldError(f"spec.{key}[{index}]", INVALID, detail)


def _is_hex(value: str, digits: int) -> bool:
    return bool(_HEX.fullmatch(value)) and (not digits or len(plain(value)) == digits)


def plain(fingerprint: str) -> str:
    """The digits that `openssl` wrote, as they are compared."""
    return fingerprint.replace(":", "").lower()


def is_exhausted(policy: Json) -> bool:
    """Whether it has let in as many as it may."""
    limit = policy["spec"].get("limit")
    return limit is not None and (mapping(policy, "status").get("admitted") or 0) >= limit


def admits(policy: Json, request: Json, endorsement: Callable[[], str] = str) -> bool:
    """Whether the policy lets in whoever made this EnrollmentRequest. `endorsement` reads what TPM
    it was shown to have; empty for none."""
    if is_exhausted(policy):
        return False
    spec = policy["spec"]
    asked = mapping(request, "spec")
    said = mapping(asked, "deviceStatus", "systemInfo")
    shown = mapping(request, "status", "enrollmentCertificate")
    labels = mapping(asked, "labels")
    selector = spec.get("selector")
    if selector is not None and not selectors.from_match(selector).matches(labels):
        return False
    wanted = spec.get("systemInfo") or {}
    if any(_said(said, key) != value for key, value in wanted.items()):
        return False
    tpm = endorsement() if spec.get("tpmVerified") or spec.get("tpmKeys") else ""
    if spec.get("tpmVerified") and not tpm:
        return False
    issued = _of_request(text(shown, "commonName") or "")
    return all(
        demanded is None or value in demanded
        for demanded, value in (
            (spec.get("serialNumbers"), said.get("productSerial")),
            (spec.get("devices"), request["metadata"]["name"]),
            (_requests(spec.get("certificateRequests")), issued),
            (_digits(spec.get("certificateFingerprints")), shown.get("fingerprint")),
            (_digits(spec.get("certificateAuthorities")), shown.get("authority")),
            (_digits(spec.get("tpmKeys")), tpm),
        )
    )


def _of_request(name: str) -> str:
    return name.removeprefix(_ISSUED_PREFIX)


def _requests(listed: list[str] | None) -> list[str] | None:
    return None if listed is None else [_of_request(each) for each in listed]


def _digits(listed: list[str] | None) -> list[str] | None:
    return None if listed is None else [plain(each) for each in listed]


def _said(info: Json, key: str) -> Any:
    """What it says under that name; nothing where it says nothing."""
    group, dot, name = key.partition(".")
    if dot and group == "customInfo":
        return mapping(info, "customInfo").get(name)
    return info.get(key)
