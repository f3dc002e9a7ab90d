"""Requests that are approved and wait for a signer outside: how that is written on them. Pure.

One condition says it, `Issued`: False while the signer has the order, Unknown while the signer
can't be asked (so that the transition time is since when), True at the end. It carries the
generation that was approved: what was changed since was not approved.
"""

from __future__ import annotations

import base64

from resources import conditions
from resources.kind import Json

CONDITION = "Issued"

PENDING = "SigningPending"
UNAVAILABLE = "SignerUnavailable"
UNUSABLE = "SignerAnswerUnusable"
ISSUED = "CertificateIssued"
FAILED = "SigningFailed"

NOT_ASKED = "Approved; its signer is outside and will be asked."


def is_waiting(document: Json) -> bool:
    """Whether a signer outside is to be asked for this request's certificate."""
    status = document.get("status") or {}
    said = status.get("conditions")
    found = conditions.get(said, CONDITION)
    return (
        found is not None
        and found.get("status") != conditions.TRUE
        and not status.get("certificate")
        and conditions.is_true(said, "Approved")
        and conditions.get(said, "Denied") is None
        and conditions.get(said, "Failed") is None
    )


def is_as_approved(document: Json) -> bool:
    found = conditions.get((document.get("status") or {}).get("conditions"), CONDITION) or {}
    return bool(found.get("observedGeneration") == document["metadata"].get("generation"))


def unavailable_since(document: Json) -> str:
    """Since when its signer can't be asked, as far as that is written on it; "" if it is not."""
    found = conditions.get((document.get("status") or {}).get("conditions"), CONDITION) or {}
    return str(found["lastTransitionTime"]) if found.get("status") == conditions.UNKNOWN else ""


def started(status: Json, generation: int, message: str, now: str) -> Json:
    """The status of a request that is approved in this moment. An earlier failure is past."""
    kept = [c for c in status.get("conditions") or () if c.get("type") not in ("Failed", CONDITION)]
    return status | {
        "conditions": conditions.set_condition(
            kept, CONDITION, conditions.FALSE, PENDING, message, now, generation
        )
    }


def noted(document: Json, reason: str, message: str, now: str) -> Json:
    """The document, saying why there is no certificate yet."""
    status = document["status"]
    found = conditions.get(status["conditions"], CONDITION) or {}
    value = conditions.UNKNOWN if reason == UNAVAILABLE else conditions.FALSE
    said = conditions.set_condition(
        status["conditions"],
        CONDITION,
        value,
        reason,
        message,
        now,
        found.get("observedGeneration"),
    )
    return document | {"status": status | {"conditions": said}}


def issued(document: Json, leaf: bytes, message: str, now: str) -> Json:
    """The document with its certificate: PEM on an EnrollmentRequest, in base64 on a
    CertificateSigningRequest."""
    status = document["status"]
    said = conditions.set_condition(
        status["conditions"],
        CONDITION,
        conditions.TRUE,
        ISSUED,
        message,
        now,
        document["metadata"].get("generation"),
    )
    is_text = document["kind"] == "EnrollmentRequest"
    certificate = leaf.decode() if is_text else base64.b64encode(leaf).decode()
    return document | {"status": status | {"conditions": said, "certificate": certificate}}


def failed(document: Json, message: str, now: str) -> Json:
    """The document of a request that will get no certificate, unless a person approves it again."""
    status = document["status"]
    kept = [c for c in status["conditions"] if c.get("type") != CONDITION]
    said = conditions.set_condition(kept, "Failed", conditions.TRUE, FAILED, message, now)
    return document | {"status": status | {"conditions": said}}
