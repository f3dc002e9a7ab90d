"""What the controllers write down: conditions and phases that change only when they say more."""

from __future__ import annotations

import pytest

from controllers import fleets, freezing, rollouts, versions
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


@pytest.mark.parametrize(
    ("valid", "passing", "phase", "stalled"),
    [
        ("", False, "Completed", None),
        ("", False, "Active", None),
        ("", False, "Failed", "Failed"),
        ("", False, "Aborted", "Aborted"),
        ("no such branch", False, "Completed", "Invalid"),
        ("no answer", True, "Completed", None),
        ("no such branch", False, "Active", None),
    ],
)
def test_a_fleet_is_stalled_when_nothing_more_will_come_of_it(
    valid: str, passing: bool, phase: str, stalled: str | None
) -> None:
    before = fleets.conclude([], valid="broken", rollout=None, fleet=FLEET, now=NOW)
    assert by_type(before)["Stalled"]["message"] == "broken"
    rollout = {"status": {"phase": phase}}
    found = by_type(
        fleets.conclude(before, valid=valid, passing=passing, rollout=rollout, fleet=FLEET, now=NOW)
    )
    assert found.get("Stalled", {}).get("reason") == stalled


def test_the_same_conclusion_changes_nothing() -> None:
    first = fleets.conclude([], valid="", rollout={"status": {}}, fleet=FLEET, now=NOW)
    again = fleets.conclude(first, valid="", rollout={"status": {}}, fleet=FLEET, now=LATER)
    assert again == first


@pytest.mark.parametrize("phase", ["Active", "Waiting", "Suspended"])
def test_a_rollout_under_way_is_told_in_flightctls_words(phase: str) -> None:
    said = {"type": "Progressing", "status": "True", "message": "Rolling out batch 1."}
    rollout = {"status": {"phase": phase, "conditions": [said]}}
    found = by_type(fleets.conclude([], valid="", rollout=rollout, fleet=FLEET, now=NOW))
    told = found["RolloutInProgress"]
    assert (told["status"], told["reason"]) == (str(phase == "Active"), phase)
    assert told["message"] == "Rolling out batch 1."


def test_each_batch_has_its_counts() -> None:
    batches = [{"number": 0, "phase": "Completed"}, {"number": 1, "phase": "Active"}]
    counts = COUNTS | {"batches": [COUNTS | {"number": 0}]}
    waiting = Wait("Active", "Updating", "2 of 3", 1.0)
    new = rollouts.conclude({"batches": batches}, waiting, counts, generation=1, now=NOW)
    assert new["batches"][0]["counts"]["done"] == 2
    assert new["counts"]["held"] == 0, "said, or a patch would leave what was said before"
    assert "counts" not in new["batches"][1]


def test_a_rollout_that_ends_keeps_its_counts_and_when() -> None:
    waiting = Wait("Active", "Updating", "2 of 3", 1.0)
    active = rollouts.conclude({}, waiting, COUNTS, generation=1, now=NOW)
    ended = Finish("Failed", "DevicesFailed", "1 of 3 devices failed and went back.")
    final = rollouts.conclude(active, ended, COUNTS, generation=1, now=LATER)
    assert final["phase"] == "Failed"
    assert (final["startedAt"], final["finishedAt"]) == (NOW, LATER)
    assert final["counts"]["failed"] == 1
    assert by_type(final["conditions"])["Succeeded"]["status"] == "False"


def test_parameters_that_no_device_has_are_refused_by_field() -> None:
    with pytest.raises(Invalid, match=r"spec\.template\.spec\.os\.image"):
        freezing.checked({"os": {"image": "x:{{ .metadata.site }}"}}, fleets.ROOT)
    assert freezing.checked({"os": {"image": "x:{{ .metadata.name }}"}}, fleets.ROOT)


def test_sources_that_do_not_answer_are_told_beside_a_template_that_is_right() -> None:
    def said(inputs: str | None) -> dict[object, dict[str, object]]:
        found = fleets.conclude(known, valid="", rollout=None, inputs=inputs, fleet=FLEET, now=NOW)
        known[:] = found
        return by_type(found)

    known: list[dict[str, object]] = []
    assert said("")["InputsCurrent"]["status"] == "True"
    found = said("1 invalid configuration: a. Error: x")
    assert (found["InputsCurrent"]["status"], found["Valid"]["status"]) == ("False", "True")
    assert "InputsCurrent" not in said(None)


def test_events_tell_what_went_wrong_once_and_that_it_is_right_again() -> None:
    def conclude(
        known: list[dict[str, object]], valid: str, inputs: str
    ) -> list[dict[str, object]]:
        return fleets.conclude(
            known, valid=valid, rollout=None, inputs=inputs, fleet=FLEET, now=NOW
        )

    good = conclude([], "", "")
    assert fleets.worth_telling([], good) == [], "a fleet that begins well is no news"
    bad = conclude(good, "no such branch", "")
    assert fleets.worth_telling(good, bad) == [("FleetInvalid", "no such branch")]
    assert fleets.worth_telling(bad, bad) == []
    again = conclude(bad, "", "")
    assert [reason for reason, _ in fleets.worth_telling(bad, again)] == ["FleetValid"]
    away = conclude(again, "", "no answer")
    assert fleets.worth_telling(again, away) == [("DependencySyncProbeFailed", "no answer")]


def test_a_template_is_compared_without_what_stands_beside_it() -> None:
    version = {"status": {"os": {"image": "x"}, "conditions": [], "updatedAt": NOW}}
    assert versions.is_same({"os": {"image": "x"}}, [], version)
    assert not versions.is_same({"os": {"image": "y"}}, [], version)


GIT = {"name": "base", "gitRef": {"repository": "demo", "targetRevision": "main", "path": "/"}}
HTTP = {"name": "web", "httpRef": {"repository": "files", "suffix": "/a/b", "filePath": "/b"}}
PLAIN = {"name": "all", "httpRef": {"repository": "files", "filePath": "/all"}}
SECRET = {"name": "key", "secretRef": {"namespace": "ns", "name": "creds", "mountPath": "/etc"}}
INLINE = {"name": "motd", "inline": [{"path": "/etc/motd", "content": "x"}]}
SOURCES = {"config": [GIT, HTTP, PLAIN, SECRET, INLINE]}


def test_each_source_that_has_changed_is_told_as_flightctl_names_it() -> None:
    names = ("base", "web", "all", "key")
    before = {name: {"name": name, "manifest": "sha256:1", "revision": "1"} for name in names}
    after = [one | {"manifest": "sha256:2", "revision": "2"} for one in before.values()]
    found = fleets.changes(SOURCES, after, before)
    assert [words for words, _ in found] == [f"{name} gives" for name in names]
    assert [details["resourceKey"] for _, details in found if details] == [
        "git:demo/main",
        "http:files/a/b",
        "http:files/",
        "secret:ns/creds",
    ]
    assert {details["fingerprint"] for _, details in found if details} == {"2"}
    one = [after[0], *list(before.values())[1:]]
    assert [words for words, _ in fleets.changes(SOURCES, one, before)] == ["base gives"]
    # What only single devices get is no input of all.
    assert fleets.changes(SOURCES, [], {}) == [("its sources give", None)]


def test_of_a_source_that_cannot_be_read_is_told_which_and_why() -> None:
    trouble = freezing.Trouble("web", "spec.config[1].httpRef", "answered 503", is_passing=True)
    assert fleets.failure(SOURCES, freezing.Unfrozen([trouble])) == {
        "detailType": "DependencySyncProbeFailed",
        "resourceKey": "http:files/a/b",
        "error": "answered 503",
    }
    assert fleets.failure(SOURCES, None) is None
