"""Which attempt of a fleet counts, and which one follows it."""

from __future__ import annotations

from typing import Any

import pytest

from resources import attempts

Json = dict[str, Any]
POLICY: Json = {
    "deviceSelection": {"strategy": "BatchSequence"},
    "disruptionBudget": {"maxUnavailable": 3},
    "maxFailures": 1,
    "defaultUpdateTimeout": "1h",
}


def rollout(name: str, phase: str = "Active", **more: Any) -> Json:
    version = name.rpartition("-")[0]
    target = {"fleet": "web", "templateVersion": version} | more.pop("target", {})
    status = {"phase": phase, "finishedAt": more.pop("at", "")} | more.pop("status", {})
    return {
        "metadata": {"name": name, "creationTimestamp": more.pop("made", "")},
        "spec": {"target": target, "control": more},
        "status": status,
    }


def back(name: str, of: str, phase: str = "Active", **more: Any) -> Json:
    return rollout(name, phase, target={"reverts": of}, **more)


def test_numbers_are_those_of_our_names() -> None:
    names = ("a.v2.v3", "web.v3-1a2b3c4d", "web.v3-xyz", "web", "web.v")
    assert [attempts.version_number(name) for name in names] == [3, 3, 0, 0, 0]
    assert [name for name in names if attempts.follows_a_source(name)] == ["web.v3-1a2b3c4d"]


@pytest.mark.parametrize(
    ("there", "newest", "expected"),
    [
        pytest.param([], None, None, id="none"),
        pytest.param([rollout("web.v9-1"), rollout("web.v10-1")], None, "web.v10-1", id="newest"),
        pytest.param([rollout("web.v2-9"), rollout("web.v2-10")], "web.v2", "web.v2-10", id="last"),
        pytest.param([rollout("web.v2-1")], "web.v3", None, id="none of the newest yet"),
        pytest.param(
            [rollout("web.v2-1"), rollout("web.v3-1"), back("web.v2-2", "web.v3-1")],
            "web.v3",
            "web.v2-2",
            id="taken back",
        ),
        pytest.param(
            [
                rollout("web.v3-1"),
                back("web.v2-2", "web.v3-1"),
                back("web.v2-3", "web.v3-1"),
                back("web.v1-2", "web.v2-3"),
            ],
            "web.v3",
            "web.v1-2",
            id="tried again, and taken back further",
        ),
        pytest.param(
            [rollout("web.v3-1"), back("web.v2-2", "web.v3-1"), rollout("web.v4-1")],
            "web.v4",
            "web.v4-1",
            id="a newer version",
        ),
        pytest.param(
            [back("web.v2-2", "web.v2-3"), back("web.v2-3", "web.v2-2"), rollout("web.v2-1")],
            "web.v2",
            "web.v2-1",
            id="what takes back each other is nobody's",
        ),
    ],
)
def test_one_attempt_counts(there: list[Json], newest: str | None, expected: str | None) -> None:
    found = attempts.current(there, newest)
    assert (found and attempts.name_of(found)) == expected


def test_one_goes_back_to_what_ended_well_last_and_is_there() -> None:
    there = [
        rollout("web.v1-1", "Completed", at="2026-01-03"),
        rollout("web.v2-1", "Completed", at="2026-01-02"),
        rollout("web.v3-1", "Failed", at="2026-01-04"),
        rollout("web.v4-1", "Completed", at="2026-01-05"),
    ]
    assert attempts.last_good(there, "web.v3") == "web.v4"
    assert attempts.last_good(there, "web.v4") == "web.v1"
    assert attempts.last_good(there, "web.v4", {"web.v2"}) == "web.v2"
    assert attempts.last_good(there, "web.v4", set()) == ""


GOOD = rollout("web.v1-1", "Completed", at="2026-01-01")
THERE = {"web.v1", "web.v2"}
TOO_MANY = {"conditions": [{"type": "Succeeded", "reason": "TooManyFailures"}]}


@pytest.mark.parametrize(
    ("current", "expected"),
    [
        pytest.param(rollout("web.v2-1"), None, id="nothing is asked"),
        pytest.param(rollout("web.v2-1", revert=True), "web.v1-2", id="revert"),
        pytest.param(rollout("web.v2-1", "Completed", revert=True), "web.v1-2", id="afterwards"),
        pytest.param(rollout("web.v2-1", retry=1), None, id="it tries again itself"),
        pytest.param(rollout("web.v2-1", "Failed", retry=1), "web.v2-2", id="retry after the end"),
        pytest.param(
            rollout("web.v2-1", "Failed", retry=1, status={"retry": 1}), None, id="it has tried"
        ),
        pytest.param(
            rollout("web.v2-1", "Failed", retry=1, revert=True), "web.v1-2", id="revert goes first"
        ),
        pytest.param(
            rollout("web.v2-1", "Aborted", status=TOO_MANY), None, id="the policy lets them be"
        ),
        pytest.param(
            rollout(
                "web.v2-1",
                "Aborted",
                status=TOO_MANY,
                target={"policy": {"onTooManyFailures": "Revert"}},
            ),
            "web.v1-2",
            id="the policy takes them back",
        ),
    ],
)
def test_what_is_asked_of_an_attempt_is_another_one(current: Json, expected: str | None) -> None:
    found = attempts.follower([GOOD, current], current, THERE, POLICY)
    assert (found and found.name) == expected


def test_who_goes_back_says_from_what_and_waits_for_no_batch() -> None:
    current = rollout("web.v2-1", revert=True)
    found = attempts.follower([GOOD, current], current, THERE, POLICY)
    assert found is not None
    assert found.target == {
        "fleet": "web",
        "templateVersion": "web.v1",
        "reverts": "web.v2-1",
        "policy": {"disruptionBudget": {"maxUnavailable": 3}, "defaultUpdateTimeout": "1h"},
    }
    failed = back("web.v1-2", "web.v2-1", "Failed", retry=1)
    once_more = attempts.follower([GOOD, current, failed], failed, THERE, POLICY)
    assert once_more is not None
    assert (once_more.name, once_more.target) == ("web.v1-3", found.target)
    assert attempts.policy_of({"maxFailures": 1}, "web.v2-1") is None


def test_there_may_be_nothing_to_go_back_to() -> None:
    current = rollout("web.v2-1", revert=True)
    assert attempts.follower([current], current, THERE, POLICY) is None
    assert attempts.follower([GOOD, current], current, {"web.v2"}, POLICY) is None


def test_an_attempt_that_has_ended_tries_no_more_than_it_has() -> None:
    assert attempts.retry_in_force(rollout("web.v2-1", retry=2)) == 2
    ended = rollout("web.v2-1", "Failed", retry=2, status={"retry": 1})
    assert attempts.retry_in_force(ended) == 1
