"""What a step of a rollout is told as, of its fleet: the events of flightctl's vocabulary. Pure.

A step is told once, by who writes it down. Of single devices a rollout tells nothing: each tells
itself what it does about it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from resources import conditions, rollout_plan
from resources.kind import Json
from resources.news import News

_STOPPED = ("Suspended", "Failed", "Aborted")


def of(old: Json | None, new: Json) -> list[News]:
    """What is to be told of a Rollout that was `old`, or was not there, and is `new`."""
    return [*_of_beginning(old, new), *_of_batches(old, new), *_of_phase(old, new)]


def _of_beginning(old: Json | None, new: Json) -> Iterator[News]:
    if old is not None:
        return
    name, version, number = new["metadata"]["name"], _version(new), len(_sequence(new))
    reverts = new["spec"]["target"].get("reverts")
    instead = f", instead of {reverts}" if reverts else ""
    yield News("FleetRolloutCreated", f"{name} brings {version}{instead}.")
    how = "to all devices at once" if number == 1 else f"in {number} batches"
    strategy = {"rolloutStrategy": "None" if number == 1 else "Batched"}
    said = f"{version} is rolled out {how}."
    yield _news("FleetRolloutStarted", said, new, strategy)


def _of_batches(old: Json | None, new: Json) -> Iterator[News]:
    sequence = _sequence(new)
    if len(sequence) == 1:
        return
    before = {record["number"]: record["phase"] for record in _status(old).get("batches") or ()}
    for record in _status(new).get("batches") or ():
        number, phase = record["number"], record["phase"]
        if phase == before.get(number, "Pending"):
            continue
        name = rollout_plan.name_of(number, sequence, capital=True)
        if phase == "Active":
            said = f"{name} of {_version(new)} has begun."
            yield _news("FleetRolloutBatchDispatched", said, new, {"batch": str(number)})
        elif phase == "Completed":
            said = f"{name}: {_reached(record, new)}."
            report = {"batch": str(number)} | _report(record)
            yield _news("FleetRolloutBatchCompleted", said, new, report)


def _of_phase(old: Json | None, new: Json) -> Iterator[News]:
    phase = _status(new).get("phase")
    if phase == _status(old).get("phase"):
        return
    if phase == "Completed":
        yield _news("FleetRolloutCompleted", f"{_reached(_status(new), new)}.", new)
    elif phase in _STOPPED:
        found = conditions.get(_status(new).get("conditions"), "Progressing") or {}
        said = f"{phase}: {found.get('message') or _version(new)}"
        yield _news("FleetRolloutFailed", said, new)


def _news(reason: str, message: str, rollout: Json, more: Json | None = None) -> News:
    # flightctl names a version within its fleet.
    version = _version(rollout).rpartition(".")[2]
    details = {"detailType": reason, "templateVersion": version}
    return News(reason, message, details | (more or {}))


def _report(record: Json) -> Json:
    """What became of a batch. Of no devices all have succeeded."""
    counts: dict[str, int] = record.get("counts") or {}
    total, done = counts.get("selected", 0), counts.get("done", 0)
    return {
        "successPercentage": done * 100 // total if total else 100,
        "total": total,
        "successful": done,
        "failed": counts.get("failed", 0),
        "timedOut": counts.get("timedOut", 0),
    }


def _reached(counted: Json, rollout: Json) -> str:
    counts: dict[str, Any] = counted.get("counts") or {}
    return (
        f"{counts.get('done', 0)} of {counts.get('selected', 0)} devices have {_version(rollout)}"
    )


def _status(rollout: Json | None) -> Json:
    return (rollout or {}).get("status") or {}


def _sequence(rollout: Json) -> Any:
    return rollout_plan.batches_of(rollout["spec"]["target"].get("policy"))


def _version(rollout: Json) -> str:
    return str(rollout["spec"]["target"]["templateVersion"])
