"""What the controllers write down: conditions and phases that change only when they say more."""

from __future__ import annotations

import pytest

from controllers import fleets, freezing, rollouts
from resources.errors import Invalid
from resources.rollout_plan import Finish, Wait

NOW, LATER = "2026-11-23T00:00:00Z", "2026-11-23T01:00:00Z"
FLEET = {"metadata": {"name": "web", "generation": 3}, "spec": {"template": {"spec": {}}}}
COUNTS = {
    "selected": 3,
    "bound": 3,
    "rendered": 3,
    "done": 2,
    "failed": 1,
    "timedOut": 0,
    "disconnected": 0,
    "failures": [{"cause": "health", "count": 1, "example": "d1"}],
}


def by_type(conditions: list[dict[str, object]]) -> dict[object, dict[str, object]]:
    return {condition["type"]: condition for condition in conditions}


def test_a_fleet_that_cannot_be_frozen_says_so_and_is_not_ready() -> None:
    said = fleets.conclude([], valid="spec.x: no", rollout=None, fleet=FLEET, now=NOW)
    found = by_type(said)
    assert found["Valid"]["status"] == "False"
    assert found["Valid"]["message"] == "spec.x: no"
    assert found["Ready"]["reason"] == "Invalid"


def test_a_fleet_is_ready_when_its_rollout_completed() -> None:
    rollout = {"status": {"phase": "Completed"}}
    found = by_type(fleets.conclude([], valid="", rollout=rollout, fleet=FLEET, now=NOW))
    assert found["Ready"]["status"] == "True"
    assert found["RolloutInProgress"]["status"] == "False"


def test_the_same_conclusion_changes_nothing() -> None:
    first = fleets.conclude([], valid="", rollout={"status": {}}, fleet=FLEET, now=NOW)
    again = fleets.conclude(first, valid="", rollout={"status": {}}, fleet=FLEET, now=LATER)
    assert again == first


def test_a_policy_that_is_not_carried_out_yet_is_named() -> None:
    policy = {"deviceSelection": {"strategy": "BatchSequence"}}
    fleet = FLEET | {"spec": {"rolloutPolicy": policy}}
    rollout = {"status": {"phase": "Active"}}
    found = by_type(fleets.conclude([], valid="", rollout=rollout, fleet=fleet, now=NOW))
    assert "deviceSelection" in str(found["RolloutInProgress"]["message"])


def test_a_rollout_that_ends_keeps_its_counts_and_when() -> None:
    waiting = Wait("Active", "Updating", "2 of 3", 1.0)
    active = rollouts.conclude({}, waiting, COUNTS, generation=1, now=NOW)
    ended = Finish("Failed", "DevicesFailed", "1 of 3 devices failed and went back.")
    final = rollouts.conclude(active, ended, COUNTS, generation=1, now=LATER)
    assert final["phase"] == "Failed"
    assert (final["startedAt"], final["finishedAt"]) == (NOW, LATER)
    assert final["counts"]["failed"] == 1
    assert by_type(final["conditions"])["Succeeded"]["status"] == "False"


@pytest.mark.parametrize(
    ("template", "field"),
    [
        ({"config": [{"name": "a", "gitRef": {}}]}, r"config\[0\].gitRef"),
        ({"os": {"image": "x:{{ .metadata.name }}"}}, "os.image"),
    ],
)
def test_what_cannot_be_frozen_yet_is_named_by_field(
    template: dict[str, object], field: str
) -> None:
    with pytest.raises(Invalid, match=field):
        freezing.frozen({"spec": {"template": {"spec": template}}})


def test_the_newest_version_is_the_one_with_the_highest_number() -> None:
    assert freezing.newest(["web.v2", "web.v10", "web.v9"]) == "web.v10"
    assert freezing.newest([]) is None


def test_a_template_is_compared_without_what_stands_beside_it() -> None:
    version = {"status": {"os": {"image": "x"}, "conditions": [], "updatedAt": NOW}}
    assert freezing.is_same({"os": {"image": "x"}}, version)
    assert not freezing.is_same({"os": {"image": "y"}}, version)
