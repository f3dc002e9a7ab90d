"""The rollout planner: tables of what it decides."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from resources import rollout_plan
from resources.rollout_plan import Bind, Decision, Finish, Note, Wait

Json = dict[str, Any]
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def counts(
    total: int,
    unbound: int = 0,
    done: int = 0,
    failed: int = 0,
    away: int = 0,
    blocked: int = 0,
    late: int = 0,
    held: int = 0,
    batches: tuple[Json, ...] = (),
) -> Json:
    return {
        "total": total,
        "unbound": unbound,
        "held": held,
        "done": done,
        "failed": failed,
        "timedOut": late,
        "disconnected": away,
        "blocked": blocked,
        "batches": list(batches),
    }


def batch(number: int, selected: int, done: int = 0, failed: int = 0, unbound: int = 0) -> Json:
    return counts(selected, unbound, done, failed) | {"number": number, "selected": selected}


def decide(progress: Json, *, policy: Json | None = None, **more: Any) -> Decision:
    rollout = {
        "spec": {"target": {"policy": policy}, "control": more.pop("control", {})},
        "status": more.pop("status", {"batches": [{"number": 0, "phase": "Active"}]}),
    }
    return rollout_plan.plan(rollout, progress, now=NOW, **more)


# --- one batch ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control", "progress", "superseded", "expected"),
    [
        pytest.param({"aborted": True}, counts(3, 3), False, "Aborted", id="aborted"),
        pytest.param({}, counts(3, 3), True, "Superseded", id="superseded"),
        pytest.param({"paused": True}, counts(3, 3), False, "Paused", id="paused"),
        pytest.param({"revert": True}, counts(3, 3), True, "Reverted", id="revert"),
        pytest.param({}, counts(3, done=1), False, "Updating", id="some are under way"),
        pytest.param({}, counts(3, done=3), False, "Completed", id="all done"),
        pytest.param({}, counts(0), False, "Completed", id="no devices"),
        pytest.param({}, counts(3, done=2, failed=1), False, "DevicesFailed", id="failed"),
        pytest.param({}, counts(3, done=2, late=1), False, "TimedOut", id="late"),
        pytest.param({}, counts(3, done=2, blocked=1), False, "Completed", id="blocked"),
    ],
)
def test_it_waits_or_ends_for_the_right_reason(
    control: Json, progress: Json, superseded: bool, expected: str
) -> None:
    decision = decide(progress, control=control, superseded=superseded)
    assert isinstance(decision, Wait | Finish)
    assert decision.reason == expected


def test_it_binds_what_is_unbound_and_notes_that_it_has_begun() -> None:
    assert decide(counts(5, 4, 1), status={}) == Bind(0)
    assert decide(counts(5, 4, 1), status={}, spent={Bind(0)}) == Note(0, "Active")
    assert decide(counts(5, 0, 5), status={}) == Note(0, "Active")


def test_it_looks_less_often_when_only_disconnected_devices_are_left() -> None:
    busy, quiet = decide(counts(5, done=3, away=1)), decide(counts(5, done=4, away=1))
    assert isinstance(busy, Wait)
    assert isinstance(quiet, Wait)
    assert quiet.recheck_s > busy.recheck_s


def test_it_looks_less_often_the_longer_it_takes_within_bounds() -> None:
    looks = []
    for age_s in (0.0, 300.0, 1e6):
        decision = decide(counts(5, done=3), age_s=age_s)
        assert isinstance(decision, Wait)
        looks.append(decision.recheck_s)
    assert looks == [rollout_plan.BUSY_S, 10.0, rollout_plan.QUIET_S]


def test_what_cannot_be_bound_is_not_bound_again_at_once_and_ends_when_overdue() -> None:
    progress = counts(3, unbound=2, done=1)
    waiting = decide(progress, spent={Bind(0)})
    assert isinstance(waiting, Wait)
    assert waiting.recheck_s == rollout_plan.QUIET_S
    assert "2 could not be bound" in waiting.message
    ended = decide(progress, spent={Bind(0)}, overdue=True)
    assert isinstance(ended, Finish)
    assert ended.reason == "TimedOut"


def test_what_failed_or_is_away_is_told_while_it_waits() -> None:
    decision = decide(counts(6, done=2, failed=1, away=1, late=1))
    assert isinstance(decision, Wait)
    assert decision.message == (
        "2 of 6 devices run the new template, 1 failed, 1 took too long, 1 are disconnected."
    )


def test_what_waits_for_something_from_outside_is_said_to_and_nothing_else_of_it() -> None:
    progress = counts(5, unbound=3, done=2) | {"waiting": 2}
    waiting = decide(progress, spent={Bind(0)})
    assert isinstance(waiting, Wait)
    assert waiting.message.endswith(
        "new template, 2 wait for what they take from outside, 1 could not be bound."
    )


def test_what_the_budget_holds_is_asked_for_once_a_look() -> None:
    progress = counts(4, done=1, held=2)
    assert decide(progress) == Bind(0)
    waiting = decide(progress, spent={Bind(0)})
    assert isinstance(waiting, Wait)
    assert "2 wait for the disruption budget" in waiting.message


@pytest.mark.parametrize(
    ("policy", "failed", "phase"),
    [
        (None, 1, "Failed"),
        ({"successThreshold": "90%"}, 1, "Completed"),
        ({"successThreshold": "95%"}, 1, "Failed"),
        ({"deviceSelection": {"strategy": "BatchSequence"}}, 1, "Completed"),
        ({"deviceSelection": {"strategy": "BatchSequence"}}, 2, "Failed"),
    ],
)
def test_a_policy_that_allows_for_failures_is_met_all_the_same(
    policy: Json | None, failed: int, phase: str
) -> None:
    decision = decide(counts(10, done=10 - failed, failed=failed), policy=policy)
    assert isinstance(decision, Finish)
    assert decision.phase == phase
    assert f"{failed} of 10 devices did not succeed: {failed} failed" in decision.message


@pytest.mark.parametrize(
    ("most", "lost", "aborts"),
    [(2, 2, False), (2, 3, True), (0, 1, True), ("10%", 1, False), ("10%", 2, True)],
)
def test_too_many_failures_abort_in_the_middle_of_a_batch(
    most: int | str, lost: int, aborts: bool
) -> None:
    decision = decide(counts(10, 5, 0, lost - 1, late=1), policy={"maxFailures": most})
    assert isinstance(decision, Finish) == aborts
    if isinstance(decision, Finish):
        assert (decision.phase, decision.reason) == ("Aborted", "TooManyFailures")


@pytest.mark.parametrize("wanted", [None, "Stop", "Revert"])
def test_what_becomes_of_devices_after_too_many_failures_is_told(wanted: str | None) -> None:
    policy = {"maxFailures": 0, "onTooManyFailures": wanted}
    decision = decide(counts(3, failed=1), policy=policy)
    assert isinstance(decision, Finish)
    assert ("They are taken back" in decision.message) == (wanted == "Revert")


def test_who_could_not_be_rendered_is_not_said_to_have_gone_back() -> None:
    decision = decide(counts(4, done=1, failed=2, late=1) | {"refused": 2})
    assert isinstance(decision, Finish)
    assert decision.message == (
        "3 of 4 devices did not succeed: 2 could not be rendered, 1 took too long."
    )


# --- timers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("timers", "held", "recheck_s"),
    [
        ({}, 0, 30.0),
        ({"lateInS": 12.5}, 0, 12.5),
        ({"lateInS": 86_400.0}, 0, 30.0),
        ({"placeInS": 4.0}, 0, 30.0),
        ({"placeInS": 4.0}, 2, 4.0),
        ({"placeInS": 0.0, "lateInS": 9.0}, 2, rollout_plan.SOON_S),
    ],
)
def test_it_looks_again_when_a_clock_brings_something_about(
    timers: Json, held: int, recheck_s: float
) -> None:
    progress = counts(5, done=3, held=held) | timers
    waiting = decide(progress, age_s=1e6, spent={Bind(0, select=True)})
    assert isinstance(waiting, Wait)
    assert waiting.recheck_s == recheck_s


def test_what_waits_for_its_minute_says_so() -> None:
    waiting = decide(counts(5, done=3, held=2) | {"placeInS": 4.0}, spent={Bind(0)})
    assert isinstance(waiting, Wait)
    assert waiting.message == "3 of 5 devices run the new template, 2 wait for their minute."


# --- several batches ----------------------------------------------------------------------------

TWO = {
    "deviceSelection": {
        "strategy": "BatchSequence",
        "sequence": [{"limit": 2}, {"limit": "50%", "successThreshold": "60%"}],
    }
}


def record(*phases: str, **first: Any) -> Json:
    batches: list[Json] = [{"number": n, "phase": phase} for n, phase in enumerate(phases)]
    batches[0] |= first
    current = max((n for n, phase in enumerate(phases) if phase != "Pending"), default=0)
    return {"batches": batches, "currentBatch": current}


def test_batches_follow_each_other() -> None:
    first = batch(0, 2, done=2)
    begun = record("Active", "Pending", "Pending")
    assert decide(counts(10, 8, 2, batches=(first,)), policy=TWO, status=begun) == Note(
        0, "Completed", 100
    )
    ended = record("Completed", "Pending", "Pending", successPercentage=100)
    progress = counts(10, 8, 2, batches=(first,))
    assert decide(progress, policy=TWO, status=ended) == Note(1, "Pending")
    assert decide(progress, policy=TWO, status=ended | {"currentBatch": 1}) == Bind(1)


def test_a_batch_waits_for_its_own_devices_alone() -> None:
    progress = counts(10, 8, 1, batches=(batch(0, 2, done=1),))
    decision = decide(progress, policy=TWO, status=record("Active", "Pending", "Pending"))
    assert isinstance(decision, Wait)
    assert decision.message == "Rolling out batch 1: 1 of 2 devices run the new template."


def test_devices_of_a_batch_that_must_be_bound_again_are() -> None:
    progress = counts(10, 9, 1, batches=(batch(0, 2, done=1, unbound=1),))
    begun = record("Active", "Pending", "Pending")
    assert decide(progress, policy=TWO, status=begun) == Bind(0, select=False)


def test_a_record_that_is_behind_is_made_up_for_by_the_devices() -> None:
    progress = counts(10, 3, 7, batches=(batch(0, 2, 2), batch(1, 5, 5)))
    assert decide(progress, policy=TWO, status={}) == Bind(1)


@pytest.mark.parametrize(
    ("percentage", "control", "expected"),
    [
        (60, {}, "begins"),
        (59, {}, "SuccessThreshold"),
        (59, {"approved": 1}, "SuccessThreshold"),
        (59, {"approved": 2}, "begins"),
        (None, {}, "begins"),
    ],
)
def test_the_batch_about_to_begin_says_how_much_of_the_last_one_it_wants(
    percentage: int | None, control: Json, expected: str
) -> None:
    first = {} if percentage is None else {"successPercentage": percentage}
    status = record("Completed", "Pending", "Pending", **first) | {"currentBatch": 1}
    members = (batch(0, 100, 59, 41),) if percentage else ()
    decision = decide(counts(10, 10, batches=members), policy=TWO, status=status, control=control)
    if expected == "begins":
        assert decision == Bind(1)
        return
    assert isinstance(decision, Wait)
    assert (decision.phase, decision.reason) == ("Suspended", expected)
    assert "Batch 1 succeeded on 59% of its devices, less than 60%" in decision.message


def test_the_last_report_of_a_batch_that_had_devices_counts() -> None:
    """flightctl keeps the report where a batch had none."""
    status = record("Completed", "Completed", "Pending", successPercentage=50)
    decision = decide(
        counts(10, 10, batches=(batch(0, 2, 1, 1),)),
        policy=TWO,
        status=status | {"currentBatch": 2},
    )
    assert isinstance(decision, Wait)
    assert "less than 90%" in decision.message
    assert "Final implicit batch begins when it is approved." in decision.message


def test_what_is_tried_again_may_open_the_gate_that_it_had_closed() -> None:
    """50 % when the batch ended; 100 % after another try."""
    status = record("Completed", "Pending", "Pending", successPercentage=50) | {"currentBatch": 1}
    asked = counts(10, 9, 1, batches=(batch(0, 2, 1, unbound=1),))
    assert decide(asked, policy=TWO, status=status) == Bind(0 + 1, select=False)
    spent = {Bind(1, select=False)}
    going = decide(
        counts(10, 8, 1, batches=(batch(0, 2, 1),)), policy=TWO, status=status, spent=spent
    )
    assert isinstance(going, Wait)
    assert going.reason == "SuccessThreshold"
    after = counts(10, 8, 2, batches=(batch(0, 2, 2),))
    assert decide(after, policy=TWO, status=status) == Bind(1)


def test_manual_approval_holds_every_batch_but_the_first() -> None:
    policy = TWO | {"approval": "Manual"}
    assert decide(counts(10, 10), policy=policy, status={}) == Bind(0)
    status = record("Completed", "Pending", "Pending", successPercentage=100) | {"currentBatch": 1}
    held = decide(counts(10, 8, batches=(batch(0, 2, 2),)), policy=policy, status=status)
    assert held == Wait(
        "Waiting", "Approval", "Waiting for batch 2 to be approved.", rollout_plan.QUIET_S
    )
    approved = decide(
        counts(10, 8, batches=(batch(0, 2, 2),)),
        policy=policy,
        status=status,
        control={"approved": 2},
    )
    assert approved == Bind(1)


@pytest.mark.parametrize(
    ("finished", "waits_s"), [("2026-11-26T11:59:50Z", 20), ("2026-11-26T11:59:29Z", None)]
)
def test_a_batch_is_watched_before_the_next_begins(finished: str, waits_s: int | None) -> None:
    policy = TWO | {"bakeTime": "30s"}
    status = record("Completed", "Pending", "Pending", successPercentage=100, finishedAt=finished)
    decision = decide(counts(10, 8, batches=(batch(0, 2, 2),)), policy=policy, status=status)
    if waits_s is None:
        assert decision == Note(1, "Pending")
        return
    assert isinstance(decision, Wait)
    assert (decision.reason, decision.recheck_s) == ("Baking", waits_s)


def test_the_last_batch_takes_what_is_left_and_ends_with_all_devices() -> None:
    status = record("Completed", "Completed", "Active", successPercentage=100)
    joined = counts(10, 2, 8, batches=(batch(0, 2, 2), batch(1, 3, 3), batch(2, 3, 3)))
    assert decide(joined, policy=TWO, status=status) == Bind(2)
    ended = decide(counts(10, 0, 10, batches=joined["batches"]), policy=TWO, status=status)
    assert isinstance(ended, Finish)


def test_a_note_keeps_what_the_record_says_of_other_batches() -> None:
    status = rollout_plan.noted({}, Note(0, "Active"), TWO, "t1")
    status = rollout_plan.noted(status, Note(0, "Completed", 90), TWO, "t2")
    status = rollout_plan.noted(status, Note(1, "Pending"), TWO, "t3")
    assert status == {
        "currentBatch": 1,
        "batches": [
            {
                "number": 0,
                "phase": "Completed",
                "limit": 2,
                "startedAt": "t1",
                "finishedAt": "t2",
                "successPercentage": 90,
            },
            {"number": 1, "phase": "Pending", "limit": "50%"},
            {"number": 2, "phase": "Pending"},
        ],
    }


@pytest.mark.parametrize(
    ("status", "policy", "expected"),
    [
        ({}, None, {"batch": 0, "select": True}),
        ({}, TWO, {"batch": 0, "select": False}),
        (record("Completed", "Active", "Pending"), TWO, {"batch": 1, "select": False}),
        (record("Completed", "Completed", "Active"), TWO, {"batch": 2, "select": True}),
        ({"phase": "Completed"}, TWO, {"batch": 2, "select": True}),
    ],
)
def test_late_joiners_wait_for_the_last_batch(
    status: Json, policy: Json | None, expected: Json
) -> None:
    rollout = {"spec": {"target": {"policy": policy}}, "status": status}
    assert rollout_plan.for_late_joiners(rollout) == expected


@pytest.mark.parametrize(
    ("limit", "population", "reached", "chosen", "room"),
    [
        (None, 10, 0, 0, None),
        ("100%", 10, 3, 0, None),
        (4, 10, 9, 1, 3),
        (4, 10, 0, 5, 0),
        ("25%", 10, 0, 0, 3),
        ("24%", 10, 0, 0, 2),
        ("50%", 10, 3, 0, 2),
        ("50%", 10, 6, 0, 0),
        ("0%", 10, 0, 0, 0),
        ("50%", 0, 0, 0, 0),
    ],
)
def test_limits_are_flightctls(
    limit: int | str | None, population: int, reached: int, chosen: int, room: int | None
) -> None:
    found = rollout_plan.may_choose(limit, population=population, reached=reached, chosen=chosen)
    assert found == room


@pytest.mark.parametrize(
    ("budget", "total", "available", "unavailable", "allowed"),
    [
        ({"maxUnavailable": 2}, 10, 10, 0, 2),
        ({"maxUnavailable": 2}, 10, 9, 1, 1),
        ({"maxUnavailable": 2}, 10, 7, 3, 0),
        ({"minAvailable": 8}, 10, 10, 0, 2),
        ({"minAvailable": 8}, 10, 8, 2, 0),
        # Of a small group one may still go.
        ({"minAvailable": 8}, 3, 3, 0, 1),
        ({"minAvailable": 1}, 1, 1, 0, 1),
        ({"minAvailable": 8, "maxUnavailable": 1}, 10, 10, 0, 1),
    ],
)
def test_budgets_are_flightctls(
    budget: Json, total: int, available: int, unavailable: int, allowed: int
) -> None:
    found = rollout_plan.may_disturb(
        budget, total=total, available=available, unavailable=unavailable
    )
    assert found == allowed
