"""What people ask of single applications beside the specification: to stop, to start, to restart.

Two layers: a device's own overrides and its fleet's. Of `desiredState` the one that was asked for
last holds, whichever layer it is in; restarts are a device's alone. An override is laid over what
the agent is given and is never in a specification, so a template that comes and goes leaves it
alone; only an application that leaves the specification takes its override along. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping
from typing import Any, Final, Literal, get_args

from resources import digest

Json = dict[str, Any]
# Name of the application → {desiredState, desiredStateVersion, restartGeneration}.
Overrides = Mapping[str, Mapping[str, Any]]

Action = Literal["stop", "start", "restart"]
ACTIONS: Final[tuple[str, ...]] = get_args(Action)
# A fleet has no restart: when each of its devices may be disturbed is for a rollout to say.
FLEET_ACTIONS: Final = ("stop", "start")
_STATES: Final = {"stop": "stopped", "start": "running"}

STATE, VERSION, RESTARTS = "desiredState", "desiredStateVersion", "restartGeneration"
NONE: Final[Overrides] = {}


def asked(
    own: Overrides, action: str, application: str, now_ns: int, others: Overrides = NONE
) -> dict[str, Mapping[str, Any]]:
    """`own` with one more wish in it. A state is newer than any before it, in `others` (the other
    layer) too, whatever the clock says."""
    entry = dict(own.get(application) or {})
    if action == "restart":
        entry[RESTARTS] = _number(entry, RESTARTS) + 1
    else:
        known = (entry, others.get(application) or {})
        entry[STATE] = _STATES[action]
        entry[VERSION] = max(now_ns, *(_number(each, VERSION) + 1 for each in known))
    return {**own, application: entry}


def pruned(own: Overrides, applications: Container[str]) -> dict[str, Mapping[str, Any]]:
    """Without those of applications that are not there any more."""
    return {name: entry for name, entry in own.items() if name in applications}


def effective(own: Overrides, fleets: Overrides) -> dict[str, Json]:
    """What holds: application → the fields that its agent is given."""
    found: dict[str, Json] = {}
    for name in sorted(own.keys() | fleets.keys()):
        ours, theirs = own.get(name) or {}, fleets.get(name) or {}
        newer = ours if _number(ours, VERSION) >= _number(theirs, VERSION) else theirs
        state = newer.get(STATE) or ours.get(STATE) or theirs.get(STATE)
        entry: Json = {STATE: state} if state else {}
        if restarts := _number(ours, RESTARTS):
            entry[RESTARTS] = restarts
        if entry:
            found[name] = entry
    return found


def laid_over(rendered: Json, wished: Mapping[str, Json]) -> Json:
    """A rendered specification with what is asked of its applications; others' are passed over."""
    applications = rendered.get("applications")
    if not wished or not applications:
        return rendered
    return rendered | {
        "applications": [one | wished.get(one.get("name") or "", {}) for one in applications]
    }


def mark(wished: Mapping[str, Json]) -> str:
    """What makes the hash of a specification another one for each set of wishes; "" for none. An
    agent refuses a hash that failed, and what failed may work with an application stopped."""
    return hashlib.sha256(digest.canonical(wished)).hexdigest()[:16] if wished else ""


def names_of(spec: Mapping[str, Any]) -> frozenset[str]:
    """The applications that can be asked anything: those with a name of their own."""
    found = (one.get("name") for one in spec.get("applications") or ())
    return frozenset(name for name in found if name)


def _number(entry: Mapping[str, Any], key: str) -> int:
    value = entry.get(key)
    return value if isinstance(value, int) else 0
