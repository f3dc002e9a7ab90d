"""What programs that wait (`kubectl wait`, Flux and Argo CD by kstatus' rules) make of kinds whose
own conditions are flightctl's. Pure.

Ready, Reconciling and Stalled are drawn from those when a document is shown, and are stored
nowhere: so they cannot be stale, move no version, and never come to flightctl's faces, whose list
of conditions is closed. Fleets and Rollouts have theirs from their controllers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Literal

from resources import conditions

Json = dict[str, Any]
State = Literal["Ready", "Reconciling", "Stalled"]

TYPES: Final = ("Ready", "Reconciling", "Stalled")
ROLLOUT_ERROR: Final = "fleet-controller/lastRolloutError"
CONFLICT_PAUSED: Final = "device-controller/conflictPaused"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`Stalled`: nothing comes of it until somebody does something."""

    state: State
    reason: str
    message: str = ""
    since: str = ""


def own(said: Iterable[Json] | None) -> list[Json]:
    """The conditions without those that are drawn here: what may be stored."""
    return [c for c in said or () if c.get("type") not in TYPES]


def shown(kind: str, document: Json) -> Json:
    """The document with the three conditions, where the kind has them from here."""
    judge = _JUDGES.get(kind)
    if judge is None:
        return document
    metadata, status = document["metadata"], document.get("status") or {}
    kept = own(status.get("conditions"))
    verdict = judge(document, status, kept)
    since = verdict.since or metadata["creationTimestamp"]
    for type_ in TYPES if verdict.state == "Stalled" else TYPES[:2]:
        kept = conditions.set_condition(
            kept,
            type_,
            conditions.TRUE if type_ == verdict.state else conditions.FALSE,
            verdict.reason,
            verdict.message,
            since,
            metadata.get("generation"),
        )
    return document | {"status": status | {"conditions": kept}}


def _repository(document: Json, _status: Json, said: list[Json]) -> Verdict:
    return _last_try(document, said, "Accessible") or Verdict("Ready", "Accessible")


def _sync(document: Json, status: Json, said: list[Json]) -> Verdict:
    for type_ in ("Accessible", "ResourceParsed", "Synced"):
        found = conditions.get(said, type_)
        if found and found.get("reason") == "NewHashDetected":
            return _of("Reconciling", found)
        if verdict := _last_try(document, said, type_):
            return verdict
    synced = conditions.get(said, "Synced") or {}
    if status.get("observedGeneration") != document["metadata"].get("generation"):
        return _of("Reconciling", synced | {"reason": "NotLookedAt"})
    return _of("Ready", synced)


def _last_try(document: Json, said: list[Json], type_: str) -> Verdict | None:
    """What there is to say of a condition that is not true of the object as it is now."""
    found = conditions.get(said, type_)
    if found is None:
        return Verdict("Reconciling", "NotLookedAt", "The controllers have not looked at it yet.")
    if found.get("observedGeneration", 0) not in (0, document["metadata"].get("generation")):
        return _of("Reconciling", found | {"reason": "NotLookedAt"})
    return None if found["status"] == conditions.TRUE else _of("Stalled", found)


def _request(_document: Json, _status: Json, said: list[Json]) -> Verdict:
    for type_, state in (("Denied", "Stalled"), ("Approved", "Ready")):
        found = conditions.get(said, type_)
        if found and found["status"] == conditions.TRUE:
            return _of(state, found)
    return Verdict("Reconciling", "NeedsApproval", "Nobody has approved or denied it yet.")


def _device(document: Json, status: Json, said: list[Json]) -> Verdict:
    updating = conditions.get(said, "Updating") or {}
    since = str(updating.get("lastTransitionTime") or "")
    updated = status.get("updated") or {}
    word, info = str(updated.get("status") or "Unknown"), str(updated.get("info") or "")
    if stopped := _stopped(document, status, said):
        return Verdict("Stalled", *stopped, since)
    is_refused = updating.get("reason") == "Error" and info == updating.get("message")
    if word == "OutOfDate" and is_refused:
        return Verdict("Stalled", "UpdateFailed", info, since)
    if word != "UpToDate":
        return Verdict("Reconciling", word, info, since)
    applications = status.get("applicationsSummary") or {}
    if applications.get("status") == "Error":
        info = str(applications.get("info") or "An application has failed.")
        return Verdict("Stalled", "ApplicationError", info, since)
    return Verdict("Ready", "UpToDate", info, since)


def _stopped(document: Json, status: Json, said: list[Json]) -> tuple[str, str] | None:
    """Why the service does nothing for the device until somebody does something for it."""
    if (status.get("lifecycle") or {}).get("status") == "Decommissioned":
        return "Decommissioned", "Nothing is left to do but to delete it."
    annotations = document["metadata"].get("annotations") or {}
    if CONFLICT_PAUSED in annotations:
        return "ConflictPaused", str((status.get("summary") or {}).get("info") or "")
    specification = conditions.get(said, "SpecValid") or {}
    is_invalid = specification.get("status") == conditions.FALSE
    error = annotations.get(ROLLOUT_ERROR)
    # With both, something from outside is missing, and is asked for again.
    if error and not is_invalid:
        return "NotRendered", str(error)
    if is_invalid and not error:
        return "SpecInvalid", str(specification.get("message") or "")
    return None


def _of(state: Any, condition: Json) -> Verdict:
    """In the words of the condition that decides."""
    return Verdict(
        state,
        str(condition.get("reason") or condition.get("type")),
        str(condition.get("message") or ""),
        str(condition.get("lastTransitionTime") or ""),
    )


_JUDGES: Final[dict[str, Callable[[Json, Json, list[Json]], Verdict]]] = {
    "Device": _device,
    "EnrollmentRequest": _request,
    "Repository": _repository,
    "ResourceSync": _sync,
}
