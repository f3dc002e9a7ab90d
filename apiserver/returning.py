"""A device that comes back after its certificate expired: it asks again, and stays who it is.

It can't renew any more, so it enrols again with the same key, and so under its old name. Its old
request gives way to the new one, and a person decides anew. What the device was (owner, labels,
history) is kept: only who has the key that the name is made of can ask under it, which a new CSR
has proved.

Only a certificate that expired makes room. While it has not, a second request is the repetition of
one whose answer was lost, and the answer is what it always was.
"""

from __future__ import annotations

from datetime import datetime

from cryptography import x509

from apiserver import errors
from apiserver.store import Transaction
from resources import conditions
from resources.kind import Json
from resources.registry import DEVICE, ENROLLMENT_REQUEST

EXPIRED = "CertificateExpired"


def is_over(request: Json, now: datetime) -> bool:
    """Whether the certificate that the request led to has expired."""
    pem = (request.get("status") or {}).get("certificate")
    if not pem:
        return False
    try:
        return x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc <= now
    except ValueError:
        # Not one of ours: people may write a status.
        return False


def status(now: str) -> Json:
    """Of the new request."""
    message = "Its certificate expired, and it asks for another. Approving keeps the device."
    return {
        "conditions": conditions.set_condition(
            None, EXPIRED, conditions.TRUE, EXPIRED, message, now
        )
    }


def kept(tx: Transaction, request: Json, approval: Json) -> tuple[Json, Json] | None:
    """The device that comes back, as it is and with the labels that the approval gives it; None
    where there is none yet. Raises Conflict for a device that is not the one that comes back."""
    metadata = request["metadata"]
    name = metadata["name"]
    device = tx.get(DEVICE, metadata["namespace"], name)
    if device is None:
        return None
    said = (request.get("status") or {}).get("conditions")
    if not conditions.is_true(said, EXPIRED):
        # The reference answers 500; nothing went wrong here, so this says what to do.
        why = "a device of this name already exists: delete it, or deny this request"
        raise errors.conflict(ENROLLMENT_REQUEST, name, why)
    if conditions.get(device["status"].get("conditions"), "DeviceDecommissioning") is not None:
        why = "the device was decommissioned: delete it, and it may enrol as a new one"
        raise errors.conflict(ENROLLMENT_REQUEST, name, why)
    old = {} if approval.get("replaceLabels") else device["metadata"].get("labels") or {}
    labels = {**old, **(approval.get("labels") or {})}
    return device, device | {"metadata": device["metadata"] | {"labels": labels}}
