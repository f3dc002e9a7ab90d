"""The rollout planner: a table of what it decides, and laws over all counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources import rollout_plan
from resources.rollout_plan import Bind, Finish, Wait


def counts(
    total: int, unbound: int = 0, done: int = 0, failed: int = 0, away: int = 0, blocked: int = 0
) -> dict[str, int]:
    return {
        "total": total,
        "unbound": unbound,
        "done": done,
        "failed": failed,
        "disconnected": away,
        "blocked": blocked,
    }


@pytest.mark.parametrize(
    ("control", "progress", "superseded", "overdue", "expected"),
    [
        pytest.param({"aborted": True}, counts(3, 3), False, False, "Aborted", id="aborted"),
        pytest.param({}, counts(3, 3), True, False, "Superseded", id="superseded"),
        pytest.param({"paused": True}, counts(3, 3), False, False, "Paused", id="paused"),
        pytest.param({"paused": True}, counts(3, 3), False, True, "Paused", id="paused for long"),
        pytest.param(
            {"revert": True}, counts(3, 3), False, False, "RevertNotSupported", id="revert"
        ),
        pytest.param({}, counts(3, done=1), False, False, "Updating", id="some are under way"),
        pytest.param({}, counts(3, done=3), False, False, "Completed", id="all done"),
        pytest.param({}, counts(0), False, False, "Completed", id="no devices"),
        pytest.param({}, counts(3, done=2, failed=1), False, False, "DevicesFailed", id="failed"),
        pytest.param({}, counts(3, done=2, away=1), False, True, "TimedOut", id="overdue"),
        pytest.param({}, counts(3, done=2, blocked=1), False, False, "Completed", id="blocked"),
    ],
)
def test_it_waits_or_ends_for_the_right_reason(
    control: dict[str, bool],
    progress: dict[str, int],
    superseded: bool,
    overdue: bool,
    expected: str,
) -> None:
    rollout = {"spec": {"control": control}}
    decision = rollout_plan.plan(rollout, progress, superseded=superseded, overdue=overdue)
    assert isinstance(decision, Wait | Finish)
    assert decision.reason == expected


def test_it_binds_what_is_unbound() -> None:
    decision = rollout_plan.plan({}, counts(5, 4, 1), superseded=False, overdue=False)
    assert decision == Bind(batch=0, limit=4)


def test_it_looks_less_often_when_only_disconnected_devices_are_left() -> None:
    busy = rollout_plan.plan({}, counts(5, done=3, away=1), superseded=False, overdue=False)
    quiet = rollout_plan.plan({}, counts(5, done=4, away=1), superseded=False, overdue=False)
    assert isinstance(busy, Wait)
    assert isinstance(quiet, Wait)
    assert quiet.recheck_s > busy.recheck_s


def test_it_looks_less_often_the_longer_it_takes_within_bounds() -> None:
    looks = []
    for age_s in (0.0, 300.0, 1e6):
        decision = rollout_plan.plan({}, counts(5, done=3), age_s=age_s)
        assert isinstance(decision, Wait)
        looks.append(decision.recheck_s)
    assert looks == [rollout_plan.BUSY_S, 10.0, rollout_plan.QUIET_S]


def test_what_cannot_be_bound_is_not_bound_again_at_once_and_ends_when_overdue() -> None:
    progress = counts(3, unbound=2, done=1)
    waiting = rollout_plan.plan({}, progress, stuck=True)
    assert isinstance(waiting, Wait)
    assert waiting.recheck_s == rollout_plan.QUIET_S
    assert "2 could not be bound" in waiting.message
    ended = rollout_plan.plan({}, progress, stuck=True, overdue=True)
    assert isinstance(ended, Finish)
    assert ended.reason == "TimedOut"


def test_what_failed_or_is_away_is_told_while_it_waits() -> None:
    decision = rollout_plan.plan({}, counts(5, done=2, failed=1, away=1))
    assert isinstance(decision, Wait)
    assert decision.message == "2 of 5 devices run the new template, 1 failed, 1 are disconnected."


def test_a_binding_has_a_limit_of_its_own() -> None:
    decision = rollout_plan.plan({}, counts(50_000, unbound=50_000))
    assert decision == Bind(batch=0, limit=rollout_plan.LIMIT)


def test_what_a_policy_asks_beyond_one_batch_is_named() -> None:
    assert rollout_plan.unplanned({"deviceSelection": {"strategy": "BatchSequence"}}) == [
        "deviceSelection"
    ]
    assert rollout_plan.unplanned({"successThreshold": "90%"}) == []
    assert rollout_plan.unplanned(None) == []


@given(st.integers(0, 50_000), st.data())
def test_it_never_binds_more_than_is_unbound_nor_ends_early(
    total: int, data: st.DataObject
) -> None:
    unbound = data.draw(st.integers(0, total))
    done = data.draw(st.integers(0, total - unbound))
    failed = data.draw(st.integers(0, total - unbound - done))
    progress = counts(total, unbound, done, failed)
    decision = rollout_plan.plan({}, progress, superseded=False, overdue=False)
    if isinstance(decision, Bind):
        assert 0 < decision.limit <= unbound
    if isinstance(decision, Finish):
        assert unbound == 0
        assert done + failed == total
        assert (decision.phase == "Completed") == (failed == 0)
