"""Conditions: one entry a type, and a transition time that moves only when the status does."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]

TRUE, FALSE, UNKNOWN = "True", "False", "Unknown"


def get(conditions: Iterable[Json] | None, type_: str) -> Json | None:
    """The condition of that type, or None."""
    return next((c for c in conditions or () if c.get("type") == type_), None)


def is_true(conditions: Iterable[Json] | None, type_: str) -> bool:
    found = get(conditions, type_)
    return found is not None and found.get("status") == TRUE


def set_condition(
    conditions: Iterable[Json] | None,
    type_: str,
    status: str,
    reason: str,
    message: str,
    now: str,
    observed_generation: int | None = None,
) -> list[Json]:
    """A new list with the condition of that type replaced in its place, or added at the end.

    `now` is RFC 3339. `lastTransitionTime` moves only when `status` changes (contract 7.5), so
    the same conclusion drawn again changes nothing and costs no write.
    """
    wanted: Json = {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": now,
    }
    if observed_generation is not None:
        wanted["observedGeneration"] = observed_generation
    result: list[Json] = []
    placed = False
    for condition in conditions or ():
        if condition.get("type") != type_:
            result.append(condition)
            continue
        if placed:
            continue
        if condition.get("status") == status and condition.get("lastTransitionTime"):
            wanted["lastTransitionTime"] = condition["lastTransitionTime"]
        result.append(wanted)
        placed = True
    if not placed:
        result.append(wanted)
    return result
