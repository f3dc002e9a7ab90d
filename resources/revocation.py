"""CertificateRevocation: certificates that count no more, though they have not expired.

It names a device, all of whose certificates are refused and who gets no new one, or one certificate
by its serial number. It is a level and no command: deleting it gives back what it took. It concerns
certificates of its own organisation only, so nobody revokes another's.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from pydantic import Field

from resources import formats
from resources.errors import INVALID, REQUIRED, FieldError
from resources.kind import Json
from resources.meta import Complaints, Document, Model, Timestamp, mapping, raise_all, text

# No certificate of a device lives longer (`pki.signers.LIFETIME`), and none is given out meanwhile.
DEVICE_KEPT = timedelta(days=366)
# No certificate at all outlives the authority that signed it (`pki.generations.CA_LIFETIME`).
SERIAL_KEPT = timedelta(days=3650)
_SERIAL = re.compile(r"[0-9A-Fa-f]{1,2}(:[0-9A-Fa-f]{2}){0,31}|[0-9A-Fa-f]{1,64}")


class CertificateRevocationSpec(Model):
    device: str | None = Field(
        None, description="Device whose certificates are refused, those to come too."
    )
    serial: str | None = Field(
        None, description="Serial number of one certificate, in hexadecimal; colons may be in it."
    )
    reason: str | None = Field(None, max_length=1024, description="Why, for people.")
    until: Timestamp | None = Field(
        None,
        description="When the certificate would have expired; then this is deleted. Default: "
        "366 days from its creation for a device, 10 years for a serial number.",
    )


class CertificateRevocation(Document):
    """Certificates that count no more."""

    spec: CertificateRevocationSpec = Field(
        description="Which ones. Exactly one of device, serial."
    )


def check(document: Json) -> None:
    """The rules for a whole CertificateRevocation."""
    raise_all(_check(mapping(document, "spec")))


def _check(spec: Json) -> Complaints:
    named = [key for key in ("device", "serial") if spec.get(key)]
    if len(named) != 1:
        yield FieldError("spec", REQUIRED, "name either a device or a serial number")
    device = text(spec, "device")
    if device and (complaint := formats.subdomain(device)):
        yield FieldError("spec.device", INVALID, complaint)
    serial = text(spec, "serial")
    if serial and not _SERIAL.fullmatch(serial):
        detail = f"{formats.shown(serial)} is no serial number: write hexadecimal digits"
        yield FieldError("spec.serial", INVALID, detail)
    until = text(spec, "until")
    try:
        _seconds(until or "2026-01-01T00:00:00Z")
    except ValueError:
        yield FieldError("spec.until", INVALID, f"{formats.shown(until)} is no moment")


def serial_of(written: str) -> int:
    """The number that `openssl x509 -serial`, or an agent, wrote."""
    return int(written.replace(":", ""), 16)


def ends_at(document: Json) -> float:
    """From when on nothing that it revokes could be used anyway: seconds since 1970."""
    spec = document["spec"]
    if spec.get("until"):
        return _seconds(spec["until"])
    kept = DEVICE_KEPT if spec.get("device") else SERIAL_KEPT
    return _seconds(document["metadata"]["creationTimestamp"]) + kept.total_seconds()


def _seconds(timestamp: str) -> float:
    return datetime.fromisoformat(timestamp.upper()).timestamp()
