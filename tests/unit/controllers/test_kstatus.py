"""What Flux and others conclude from what we say of each kind, by kstatus' rules [simulated]."""

from __future__ import annotations

from typing import Any

import pytest

from controllers import fleets, rollouts
from resources import readiness
from resources.meta import Condition
from resources.rollout_plan import Finish, Wait
from tests.fakes import kstatus
from tests.fakes.kstatus import CURRENT, FAILED, IN_PROGRESS, TERMINATING

Json = dict[str, Any]
NOW = "2026-11-26T00:00:00Z"
COUNTS = dict.fromkeys(("selected", "done", "failed", "timedOut", "disconnected"), 0) | {
    "bound": 0,
    "rendered": 0,
    "failures": [],
}
DECISIONS: dict[str, Wait | Finish] = {
    "Active": Wait("Active", "Updating", "1 of 2", 1.0),
    "Waiting": Wait("Waiting", "NeedsApproval", "batch 2", 1.0),
    "Suspended": Wait("Suspended", "Paused", "", 1.0),
    "Completed": Finish("Completed", "AllDone", ""),
    "Failed": Finish("Failed", "DevicesFailed", "1 of 3 failed"),
    "Aborted": Finish("Aborted", "Aborted", ""),
}
ENDS = {"Completed": CURRENT, "Failed": FAILED, "Aborted": FAILED}


def rollout(phase: str) -> Json:
    status = rollouts.conclude({}, DECISIONS[phase], COUNTS, generation=1, now=NOW)
    return {"metadata": {"name": "web.v1", "generation": 1}, "status": status}


def fleet(
    phase: str | None, *, valid: str = "", passing: bool = False, generation: int = 3
) -> Json:
    """A fleet of generation 3 after the controllers have looked at this `generation` of it."""
    metadata = {"name": "web", "generation": generation}
    looked_at = {"metadata": metadata, "spec": {"template": {"spec": {}}}}
    said = fleets.conclude(
        [],
        valid=valid,
        passing=passing,
        rollout=rollout(phase) if phase else None,
        fleet=looked_at,
        now=NOW,
    )
    status = {"conditions": said, "observedGeneration": generation}
    return {"metadata": metadata | {"generation": 3}, "status": status}


@pytest.mark.parametrize("phase", DECISIONS)
def test_a_rollout(phase: str) -> None:
    assert kstatus.status_of(rollout(phase)) == ENDS.get(phase, IN_PROGRESS)


@pytest.mark.parametrize("phase", DECISIONS)
def test_a_fleet_is_what_its_rollout_is(phase: str) -> None:
    assert kstatus.status_of(fleet(phase)) == ENDS.get(phase, IN_PROGRESS)


@pytest.mark.parametrize(
    ("document", "read_as"),
    [
        pytest.param(fleet("Completed", generation=2), IN_PROGRESS, id="changed since"),
        pytest.param(fleet("Completed", valid="no branch"), FAILED, id="invalid"),
        pytest.param(
            fleet("Completed", valid="no answer", passing=True), IN_PROGRESS, id="may yet pass"
        ),
        pytest.param(fleet("Active", valid="no branch"), IN_PROGRESS, id="the last one goes on"),
        pytest.param(fleet(None), IN_PROGRESS, id="valid and not rolled out yet"),
    ],
)
def test_a_fleet_of_which_more_is_to_be_said(document: Json, read_as: str) -> None:
    assert kstatus.status_of(document) == read_as


def test_a_fleet_that_nobody_has_looked_at_is_not_done() -> None:
    """As `bindings.summarised` shows it."""
    unseen = {"conditions": [], "observedGeneration": 0}
    document = {"metadata": {"generation": 1}, "status": unseen}
    assert kstatus.status_of(document) == IN_PROGRESS


def test_what_is_being_deleted() -> None:
    gone = fleet("Completed")
    gone["metadata"]["deletionTimestamp"] = NOW
    assert kstatus.status_of(gone) == TERMINATING


def said(type_: str, status: str = "True", reason: str = "R", of: int = 1) -> Json:
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": f"{type_} says so",
        "lastTransitionTime": NOW,
        "observedGeneration": of,
    }


def device(updated: str, *conditions: Json, info: str = "", **parts: Any) -> tuple[str, Json]:
    status = {"updated": {"status": updated, "info": info}, "conditions": list(conditions)}
    annotations = {f"{key}": "x" for key in parts.pop("annotations", ())}
    return "Device", {"status": status | parts, "annotations": annotations}


def stored(kind: str, *conditions: Json, **status: Any) -> tuple[str, Json]:
    return kind, {"status": {"conditions": list(conditions)} | status}


ERROR = said("Updating", "False", "Error")
INVALID = said("SpecValid", "False", "Invalid")
SYNCED = [said(type_) for type_ in ("Accessible", "ResourceParsed", "Synced")]
OTHERS: dict[str, tuple[tuple[str, Json], str]] = {
    "repository not tried": (stored("Repository"), IN_PROGRESS),
    "repository read": (stored("Repository", said("Accessible")), CURRENT),
    "repository not read": (stored("Repository", said("Accessible", "False")), FAILED),
    "repository changed since": (stored("Repository", said("Accessible", of=7)), IN_PROGRESS),
    "repository changed since it failed": (
        stored("Repository", said("Accessible", "False", of=7)),
        IN_PROGRESS,
    ),
    "sync not looked at": (stored("ResourceSync"), IN_PROGRESS),
    "sync without access": (stored("ResourceSync", said("Accessible", "False")), FAILED),
    "sync not parsed": (
        stored("ResourceSync", said("Accessible"), said("ResourceParsed", "False")),
        FAILED,
    ),
    "sync applies a commit": (
        stored("ResourceSync", *SYNCED[:2], said("Synced", "False", "NewHashDetected")),
        IN_PROGRESS,
    ),
    "sync not applied": (stored("ResourceSync", *SYNCED[:2], said("Synced", "False")), FAILED),
    "sync applied": (stored("ResourceSync", *SYNCED, observedGeneration=1), CURRENT),
    "request pending": (stored("EnrollmentRequest"), IN_PROGRESS),
    "request approved": (stored("EnrollmentRequest", said("Approved")), CURRENT),
    "request denied": (stored("EnrollmentRequest", said("Denied")), FAILED),
    "device has it": (device("UpToDate"), CURRENT),
    "device updates": (device("Updating", said("Updating")), IN_PROGRESS),
    "device is behind": (device("OutOfDate"), IN_PROGRESS),
    "device is away": (device("Unknown"), IN_PROGRESS),
    "device went back": (device("OutOfDate", ERROR, info="Updating says so"), FAILED),
    "device has something newer to try": (device("OutOfDate", ERROR, info="not yet"), IN_PROGRESS),
    "device lacks a label": (
        device("OutOfDate", annotations=[readiness.ROLLOUT_ERROR]),
        FAILED,
    ),
    "device waits for a source": (
        device("OutOfDate", INVALID, annotations=[readiness.ROLLOUT_ERROR]),
        IN_PROGRESS,
    ),
    "device cannot be rendered": (device("OutOfDate", INVALID), FAILED),
    "device is paused": (device("OutOfDate", annotations=[readiness.CONFLICT_PAUSED]), FAILED),
    "device's application broke": (
        device("UpToDate", applicationsSummary={"status": "Error"}),
        FAILED,
    ),
    "device is decommissioned": (
        device("UpToDate", lifecycle={"status": "Decommissioned"}),
        FAILED,
    ),
}


@pytest.mark.parametrize(("made", "read_as"), OTHERS.values(), ids=OTHERS)
def test_the_others_are_read_from_their_own_conditions(
    made: tuple[str, Json], read_as: str
) -> None:
    kind, parts = made
    annotations = parts.get("annotations") or {}
    metadata = {"generation": 1, "creationTimestamp": NOW, "annotations": annotations}
    document = {"metadata": metadata, "status": parts["status"]}
    shown = readiness.shown(kind, document)
    assert kstatus.status_of(shown) == read_as
    conditions = shown["status"]["conditions"]
    assert conditions[: len(parts["status"]["conditions"])] == parts["status"]["conditions"]
    assert readiness.own(conditions) == parts["status"]["conditions"], "nothing of it is stored"
    for condition in conditions:
        Condition.model_validate(condition)
    assert readiness.shown(kind, shown) == shown


def test_a_sync_that_has_not_brought_the_new_revision_is_not_done() -> None:
    status = {"observedGeneration": 1, "conditions": [{"type": "Synced", "status": "True"}]}
    document = {"metadata": {"generation": 2}, "status": status}
    assert kstatus.status_of(document) == IN_PROGRESS
