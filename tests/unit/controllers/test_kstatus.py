"""What Flux and others conclude from what we say of each kind, by kstatus' rules [simulated]."""

from __future__ import annotations

from typing import Any

import pytest

from controllers import fleets, rollouts
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


@pytest.mark.parametrize(
    ("kind", "conditions"),
    [
        ("Repository", [{"type": "Accessible", "status": "False"}]),
        ("ResourceSync", [{"type": "Synced", "status": "False"}]),
        ("EnrollmentRequest", [{"type": "Approved", "status": "True"}]),
        ("CertificateSigningRequest", [{"type": "Denied", "status": "True"}]),
        ("Device", [{"type": "Updating", "status": "True"}]),
    ],
)
def test_the_others_are_current_once_stored_and_say_the_rest_in_their_own_words(
    kind: str, conditions: list[Json]
) -> None:
    """As the guide to GitOps has it: flightctl's list of their conditions is closed."""
    document = {"kind": kind, "metadata": {"generation": 1}, "status": {"conditions": conditions}}
    assert kstatus.status_of(document) == CURRENT


def test_a_sync_that_has_not_brought_the_new_revision_is_not_done() -> None:
    status = {"observedGeneration": 1, "conditions": [{"type": "Synced", "status": "True"}]}
    document = {"metadata": {"generation": 2}, "status": status}
    assert kstatus.status_of(document) == IN_PROGRESS
