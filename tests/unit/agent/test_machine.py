"""The agent's table of states, and what it decides in each."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import errors, machine, osimage, states
from agent.states import Target
from resources import records

T = Target("7", "sha")
WHY = errors.Failure("ApplyingUpdate", "applications", "web", errors.ABORTED, "died", "now")
AWAY = errors.Failure("ApplyingUpdate", states.SERVICE, "", errors.UNAVAILABLE, "away", "now")
REBOOT = osimage.Reboot("os:2", "x.0")
BOUNDS = machine.Bounds(
    repair_interval_s=30,
    verify_interval_s=1,
    start_grace_s=30,
    stability_s=0,
    reach_s=60,
    reach_interval_s=5,
    boot_reach_s=180,
    boot_complete_s=600,
    reboot_patience_s=300,
)
SOON, LONG = machine.Wait("soon", 7.0), machine.Wait("later", 7000.0)
STATES: dict[type, Any] = {
    states.Idle: states.Idle(),
    states.Fetching: states.Fetching(T),
    states.Staging: states.Staging(T),
    states.Staged: states.Staged(T),
    states.Applying: states.Applying(T, True),
    states.Rebooting: states.Rebooting(T, "boot-1"),
    states.Verifying: states.Verifying(T, True),
    states.RollingBack: states.RollingBack(T, WHY),
    states.Refused: states.Refused(T, WHY),
    states.Decommissioning: states.Decommissioning(T),
}
EVENTS: dict[type, Any] = {
    states.Arrived: states.Arrived(Target("8")),
    states.Postponed: states.Postponed(5.0),
    states.Admitted: states.Admitted(),
    states.Fetched: states.Fetched(),
    states.Checked: states.Checked(),
    states.Opened: states.Opened(True),
    states.Later: states.Later(160.0),
    states.Applied: states.Applied(),
    states.Unchanged: states.Unchanged(),
    states.RebootOrdered: states.RebootOrdered("boot-1"),
    states.Booted: states.Booted(),
    states.Begun: states.Begun(9.0),
    states.Verified: states.Verified(),
    states.Failed: states.Failed(WHY),
    states.Restored: states.Restored(),
    states.Blameless: states.Blameless(99.0),
    states.Doubtful: states.Doubtful(99.0),
    states.Dismissed: states.Dismissed(T),
    states.Announced: states.Announced(),
}


def facts(**changes: Any) -> machine.Facts:
    return machine.Facts(**{"monotonic": 100.0, "at": "now", **changes})


def test_the_table_speaks_only_of_states_and_events_that_there_are() -> None:
    for state, event in machine.TRANSITIONS:
        assert state in STATES
        assert event in EVENTS


@pytest.mark.parametrize(
    "pair", sorted(machine.TRANSITIONS, key=str), ids=lambda p: f"{p[0].__name__}-{p[1].__name__}"
)
def test_every_row_leads_to_a_state(pair: tuple[type, type]) -> None:
    after = machine.follow(STATES[pair[0]], EVENTS[pair[1]])
    assert type(after) in STATES


def test_a_pair_that_is_not_in_the_table_is_a_bug() -> None:
    rest = set(itertools.product(STATES, EVENTS)) - set(machine.TRANSITIONS)
    assert len(rest) > 100
    for state, event in rest:
        with pytest.raises(AssertionError, match="no way from"):
            machine.follow(STATES[state], EVENTS[event])


def test_every_state_can_be_reached_and_left() -> None:
    reached = {states.Idle}
    for _ in STATES:
        for state, event in machine.TRANSITIONS:
            if state in reached:
                reached.add(type(machine.follow(STATES[state], EVENTS[event])))
    assert reached == set(STATES)
    left = {state for state, _ in machine.TRANSITIONS}
    assert left == set(STATES)


def test_between_two_specifications_nothing_newer_is_taken() -> None:
    for state in (states.Applying, states.Rebooting, states.Verifying, states.RollingBack):
        assert (state, states.Arrived) not in machine.TRANSITIONS
        assert not machine.is_open(STATES[state])


@pytest.mark.parametrize("state", STATES.values(), ids=lambda s: type(s).__name__)
def test_a_state_comes_back_from_the_journal_without_the_clocks_of_its_life(state: Any) -> None:
    assert states.decode(states.encode(state)) == states.resumed(state)


def test_a_reboot_carries_on_in_the_direction_that_it_was_ordered_in() -> None:
    ordered = states.RebootOrdered("a", "os:2", "x.0")
    there = machine.follow(states.Applying(T, True, attempt=2, stumbles=4), ordered)
    assert states.decode(states.encode(there)) == there
    arrived = machine.follow(there, states.Booted())
    assert arrived == states.Applying(T, True, attempt=2, reboots=1, rollback_before="x.0")
    assert machine.follow(arrived, states.Applied()) == states.Verifying(
        T, True, attempt=2, has_rebooted=True
    )
    back = machine.follow(states.RollingBack(T, AWAY, attempt=2, reboots=1), ordered)
    assert states.decode(states.encode(back)) == back
    assert not states.heads_for_target(back)
    assert states.heads_back(back)
    assert machine.follow(back, states.Booted()) == states.RollingBack(
        T, AWAY, attempt=2, reboots=2
    )


CHANGES = [
    pair
    for pair in sorted(machine.TRANSITIONS, key=str)
    if type(machine.follow(STATES[pair[0]], EVENTS[pair[1]])) is not pair[0]
]
COUNTED: dict[str, Any] = {"stumbles": 4, "not_before": 77.0, "deadline": 88.0}
CARRIED: dict[str, Any] = {"target": T, "attempt": 2, "doubts": 1}


@pytest.mark.parametrize("pair", CHANGES, ids=lambda p: f"{p[0].__name__}-{p[1].__name__}")
def test_what_counts_in_one_state_begins_anew_in_the_next_and_the_rest_is_carried(
    pair: tuple[type, type],
) -> None:
    before, event = STATES[pair[0]], EVENTS[pair[1]]
    given = {**COUNTED, **CARRIED, "reboots": 1}
    known = {name: value for name, value in given.items() if hasattr(before, name)}
    after: Any = machine.follow(records.replace(before, **known), event)
    for name, begun in {"stumbles": 0, "not_before": 0.0, "deadline": None}.items():
        if hasattr(after, name):
            assert getattr(after, name) == getattr(event, name, begun), name
    is_new = isinstance(event, states.Arrived | states.Dismissed)
    for name, value in CARRIED.items():
        if hasattr(after, name) and hasattr(before, name) and not is_new:
            more = isinstance(after, states.Fetching) and name == "attempt"
            more = more or (isinstance(event, states.Doubtful) and name == "doubts")
            assert getattr(after, name) == (value + 1 if more else value), name
    if isinstance(after, states.RollingBack):
        assert after.reboots == (0 if isinstance(event, states.Failed) else 1)


def test_a_doubt_is_remembered_through_the_next_attempt_and_back() -> None:
    state: Any = machine.follow(states.RollingBack(T, AWAY, attempt=1), states.Doubtful(99.0))
    assert state == states.Fetching(T, attempt=2, not_before=99.0, doubts=1)
    for event in (
        states.Postponed(5.0),
        states.Fetched(),
        states.Checked(),
        states.Opened(True),
        states.Later(5.0),
        states.Opened(True),
        states.RebootOrdered("boot-1"),
        states.Booted(),
        states.Applied(),
        states.Failed(AWAY),
        states.RebootOrdered("boot-2"),
        states.Booted(),
        states.Blameless(99.0),
    ):
        state = machine.follow(state, event)
        assert state.doubts == 1, event
        assert states.decode(states.encode(state)) == states.resumed(state)
    assert machine.follow(state, states.Arrived(Target("8"))) == states.Fetching(Target("8"))


def test_clocks_do_not_outlive_the_process() -> None:
    state = states.RollingBack(T, WHY, attempt=2, stumbles=3, not_before=50.0, deadline=60.0)
    again = states.decode(states.encode(state))
    assert again == states.RollingBack(T, WHY, attempt=2, stumbles=3)
    assert states.resumed(state) == again


@pytest.mark.parametrize(
    ("state", "given_facts", "decision"),
    [
        (states.Idle(), {}, machine.Rest(30)),
        (states.Idle(), {"plan": ("repair",)}, machine.Do(("repair",))),
        (
            states.Idle(),
            {"plan": ("repair",), "arrived": T},
            machine.Happen(states.Arrived(T)),
        ),
        (
            states.Refused(T, WHY),
            {"arrived": T, "dismissed": T},
            machine.Happen(states.Dismissed(T)),
        ),
        (states.Fetching(T, not_before=110.0), {}, machine.Rest(10.0)),
        (states.Fetching(T, not_before=500.0), {}, machine.Rest(30)),
        (
            states.Fetching(T),
            {"objection": WHY, "missing": ("pull",)},
            machine.Happen(states.Failed(WHY)),
        ),
        (states.Fetching(T), {"missing": ("pull",)}, machine.Do(("pull",))),
        (
            states.Fetching(T),
            {"plan": ("repair",), "missing": ("pull",)},
            machine.Do(("repair",)),
        ),
        (states.Fetching(T), {}, machine.Happen(states.Fetched())),
        # The window for downloads is asked for once, and only by who has something to download.
        (states.Fetching(T), {"missing": ("pull",), "wait": SOON}, machine.Rest(7.0)),
        (states.Fetching(T), {"missing": ("pull",), "wait": LONG}, machine.Rest(30)),
        (states.Fetching(T), {"wait": SOON}, machine.Happen(states.Fetched())),
        (
            states.Fetching(T),
            {"missing": ("pull",), "has_download_window": True},
            machine.Happen(states.Admitted()),
        ),
        (
            states.Fetching(T, has_begun=True),
            {"missing": ("pull",), "has_download_window": True},
            machine.Do(("pull",)),
        ),
        # A window that has let it in says no more; a full disk still does.
        (
            states.Fetching(T, has_begun=True),
            {"missing": ("pull",), "wait": LONG},
            machine.Rest(30),
        ),
        (states.Staged(T), {"wait": SOON}, machine.Rest(7.0)),
        (states.Staged(T), {"wait": LONG, "plan": ("repair",)}, machine.Do(("repair",))),
        (states.Staged(T), {"wait": LONG, "arrived": T}, machine.Happen(states.Arrived(T))),
        (states.Staged(T, not_before=104.0), {}, machine.Rest(4.0)),
        (states.Staged(T, not_before=99.0), {}, machine.Happen(states.Opened(None))),
        (states.Staging(T), {}, machine.Happen(states.Checked())),
        (states.Staging(T), {"objection": WHY}, machine.Happen(states.Failed(WHY))),
        (states.Staged(T), {"is_reachable": False}, machine.Happen(states.Opened(False))),
        (states.Applying(T), {"plan": ("step",)}, machine.Do(("step",))),
        (states.Applying(T), {}, machine.Happen(states.Unchanged())),
        (states.Applying(T), {"steps_in_target": 1}, machine.Happen(states.Applied())),
        (states.Applying(T, not_before=101.0), {"plan": ("step",)}, machine.Rest(1.0)),
        (states.Applying(T), {"objection": WHY}, machine.Happen(states.Failed(WHY))),
        (
            states.Rebooting(T, "a", "os:2"),
            {"boot_id": "a"},
            machine.Do((osimage.Reboot("os:2"),)),
        ),
        (states.Rebooting(T, "a", deadline=101.0), {"boot_id": "a"}, machine.Rest(5)),
        (
            states.Rebooting(T, "a", "os:2", deadline=100.0),
            {"boot_id": "a"},
            machine.Do((osimage.Reboot("os:2"),)),
        ),
        (states.Rebooting(T, "a"), {"boot_id": "b"}, machine.Happen(states.Booted())),
        # What is before a reboot is done first, and nothing behind it.
        (states.Applying(T), {"plan": ("step", REBOOT)}, machine.Do(("step",))),
        (
            states.Applying(T),
            {"plan": (REBOOT,), "boot_id": "a"},
            machine.Happen(states.RebootOrdered("a", "os:2", "x.0")),
        ),
        (states.RollingBack(T, WHY), {"plan": ("undo", REBOOT)}, machine.Do(("undo",))),
        (
            states.RollingBack(T, WHY),
            {"plan": (REBOOT,), "boot_id": "a"},
            machine.Happen(states.RebootOrdered("a", "os:2", "x.0")),
        ),
        (states.Verifying(T, True, has_rebooted=True), {}, machine.Happen(states.Begun(280.0))),
        (states.Verifying(T), {"is_boot_complete": False}, machine.Happen(states.Begun(700.0))),
        (
            states.Verifying(T, deadline=700.0),
            {"verdict": machine.Verdict(True), "is_boot_complete": False},
            machine.Rest(5),
        ),
        (
            states.Verifying(T, deadline=700.0),
            {"verdict": machine.Verdict(True), "is_boot_complete": True},
            machine.Happen(states.Verified()),
        ),
        (
            states.RollingBack(T, AWAY, reboots=1),
            {"is_reachable": False},
            machine.Happen(states.Begun(280.0)),
        ),
        (states.Verifying(T), {}, machine.Happen(states.Begun(130.0))),
        (states.Verifying(T, True), {}, machine.Happen(states.Begun(160.0))),
        (
            states.Verifying(T, deadline=130.0),
            {"verdict": machine.Verdict(True)},
            machine.Happen(states.Verified()),
        ),
        (states.Verifying(T, deadline=130.0), {}, machine.Rest(1)),
        (states.Verifying(T, deadline=130.0), {"plan": ("start",)}, machine.Do(("start",))),
        (states.Verifying(T, deadline=130.0, not_before=102.0), {}, machine.Rest(2.0)),
        (
            states.Verifying(T, True, deadline=160.0),
            {"verdict": machine.Verdict(True), "is_reachable": False},
            machine.Rest(5),
        ),
        (
            states.Verifying(T, True, deadline=160.0),
            {"verdict": machine.Verdict(True), "is_reachable": None},
            machine.Happen(states.Verified()),
        ),
        (
            states.Verifying(T, False, deadline=130.0),
            {"verdict": machine.Verdict(True), "is_reachable": False},
            machine.Happen(states.Verified()),
        ),
        (states.RollingBack(T, WHY), {"plan": ("undo",)}, machine.Do(("undo",))),
        (states.RollingBack(T, WHY), {}, machine.Happen(states.Restored())),
        (
            states.RollingBack(T, WHY, stumbles=13),
            {"plan": ("undo",)},
            machine.Happen(states.Restored(is_whole=False)),
        ),
        (states.RollingBack(T, WHY, not_before=103.0), {"plan": ("undo",)}, machine.Rest(3.0)),
        (
            states.RollingBack(T, AWAY),
            {"is_reachable": True},
            machine.Happen(states.Restored()),
        ),
        (
            states.RollingBack(T, AWAY),
            {"is_reachable": False},
            machine.Happen(states.Begun(160.0)),
        ),
        (states.RollingBack(T, AWAY, deadline=160.0), {"is_reachable": False}, machine.Rest(5)),
        (
            states.RollingBack(T, AWAY, attempt=1, deadline=90.0),
            {"is_reachable": False},
            machine.Happen(states.Blameless(220.0)),
        ),
        (
            states.RollingBack(T, AWAY, deadline=90.0, stumbles=13),
            {"is_reachable": False},
            machine.Happen(states.Blameless(160.0, is_whole=False)),
        ),
        # Within seconds: the way back has brought it. Later nobody knows: it is tried once more.
        (
            states.RollingBack(T, AWAY, deadline=150.0),
            {"is_reachable": True},
            machine.Happen(states.Restored()),
        ),
        (
            states.RollingBack(T, AWAY, attempt=1, deadline=140.0),
            {"is_reachable": True},
            machine.Happen(states.Doubtful(220.0)),
        ),
        (
            states.RollingBack(T, AWAY, deadline=140.0, doubts=1),
            {"is_reachable": True},
            machine.Happen(states.Restored()),
        ),
        (
            states.RollingBack(T, AWAY, deadline=140.0, stumbles=13),
            {"is_reachable": True},
            machine.Happen(states.Restored(is_whole=False)),
        ),
        (
            states.RollingBack(T, AWAY, deadline=250.0, reboots=1),
            {"is_reachable": True},
            machine.Happen(states.Restored()),
        ),
        (states.Decommissioning(T), {}, machine.Farewell()),
        (states.Decommissioning(T, is_reset=True), {}, machine.Farewell(is_reset=True)),
        (
            states.Decommissioning(T, is_wiping=True, is_reset=True),
            {},
            machine.Wipe(is_reset=True),
        ),
        (states.Decommissioning(T, is_wiping=True), {}, machine.Wipe()),
    ],
)
def test_decisions(state: Any, given_facts: dict[str, Any], decision: machine.Decision) -> None:
    assert machine.decide(state, facts(**given_facts), BOUNDS) == decision


@pytest.mark.parametrize(
    ("deadline", "is_proving", "goes_on"),
    [(115.0, True, True), (115.0, False, False), (99.0, True, False)],
    ids=["well so far", "never well", "well and ill by turns"],
)
def test_what_is_well_so_far_has_longer_than_what_is_not(
    deadline: float, is_proving: bool, goes_on: bool
) -> None:
    """30 s to become well, 20 s to stay so; it is 35 s after the beginning, or too late."""
    bounds = records.replace(BOUNDS, stability_s=20)
    verdict = machine.Verdict(None, "web", is_proving=is_proving)
    decision = machine.decide(
        states.Verifying(T, deadline=deadline), facts(verdict=verdict), bounds
    )
    assert (decision == machine.Rest(1)) == goes_on
    assert goes_on or isinstance(decision, machine.Happen)


@pytest.mark.parametrize(
    ("state", "given_facts", "words"),
    [
        (states.Applying(T), {"boots_without_commit": 6}, "6 boots without success"),
        (states.Applying(T), {"steps_in_target": 201}, "201 steps without success"),
        (states.Applying(T, stumbles=7), {}, "7 attempts without success"),
        (states.Verifying(T), {"boots_without_commit": 6}, "6 boots without success"),
        (states.Applying(T, reboots=3), {"plan": (REBOOT,)}, "3 reboots did not start"),
        (states.Verifying(T), {"plan": (REBOOT,)}, "another operating system was booted"),
        (
            states.Verifying(T, deadline=99.0),
            {"verdict": machine.Verdict(True), "is_boot_complete": False},
            "greenboot",
        ),
        # The network's own time is over though that of the health checks is not.
        (
            states.Verifying(T, True, deadline=520.0, has_rebooted=True),
            {
                "verdict": machine.Verdict(True),
                "is_reachable": False,
                "is_boot_complete": False,
            },
            "no longer reaches the service",
        ),
        (
            states.Verifying(T, deadline=99.0),
            {"verdict": machine.Verdict(None, "web", detail="no answer")},
            "no answer",
        ),
        (states.Verifying(T, deadline=99.0), {}, "did not become healthy in time"),
        (
            states.Verifying(T, deadline=200.0),
            {"verdict": machine.Verdict(False, "web", detail="gone")},
            "gone",
        ),
        (
            states.Verifying(T, True, deadline=99.0),
            {"verdict": machine.Verdict(True), "is_reachable": False},
            "no longer reaches the service",
        ),
        # The applications' own time is over though that of the network is not.
        (
            states.Verifying(T, True, deadline=130.0),
            {"verdict": machine.Verdict(None, "web", detail="no answer")},
            "no answer",
        ),
    ],
)
def test_budgets_and_verdicts_that_end_an_update(
    state: Any, given_facts: dict[str, Any], words: str
) -> None:
    decision = machine.decide(state, facts(**given_facts), BOUNDS)
    assert isinstance(decision, machine.Happen)
    assert isinstance(decision.event, states.Failed)
    assert words in decision.event.failure.detail


def test_a_large_plan_has_a_large_budget() -> None:
    plan = tuple(range(100))
    decision = machine.decide(states.Applying(T), facts(plan=plan, steps_in_target=1999), BOUNDS)
    assert decision == machine.Do(plan)


@pytest.mark.parametrize(
    ("state", "wants"),
    [
        (states.Staged(T), True),
        (states.Verifying(T, True), True),
        (states.Verifying(T, False), False),
        (states.Verifying(T, None), False),
        (states.RollingBack(T, AWAY), True),
        (states.RollingBack(T, WHY), False),
        (states.Idle(), False),
    ],
)
def test_the_service_is_only_probed_where_the_answer_counts(state: Any, wants: bool) -> None:
    assert machine.wants_probe(state) is wants


@given(
    state=st.sampled_from(list(STATES.values())),
    plan=st.sampled_from([(), ("step",), ("step", REBOOT), (REBOOT,)]),
    complete=st.sampled_from([True, None, False]),
    well=st.sampled_from([True, None, False]),
    reachable=st.sampled_from([True, None, False]),
    arrived=st.sampled_from([None, T]),
    objection=st.sampled_from([None, WHY]),
    wait=st.sampled_from([None, SOON, LONG, machine.Wait("now", 0.0)]),
    missing=st.sampled_from([(), ("pull",)]),
    steps=st.integers(0, 500),
    boots=st.integers(0, 9),
    clock=st.floats(0, 1e6),
)
def test_whatever_is_observed_the_decision_is_one_that_the_table_knows(
    state: Any,
    plan: tuple[Any, ...],
    complete: bool | None,
    well: bool | None,
    reachable: bool | None,
    arrived: Target | None,
    objection: errors.Failure | None,
    wait: machine.Wait | None,
    missing: tuple[Any, ...],
    steps: int,
    boots: int,
    clock: float,
) -> None:
    seen = machine.Facts(
        monotonic=clock,
        at="now",
        plan=plan,
        arrived=arrived,
        objection=objection,
        wait=wait,
        missing=missing,
        verdict=machine.Verdict(well),
        is_reachable=reachable,
        is_boot_complete=complete,
        boot_id="boot-1",
        steps_in_target=steps,
        boots_without_commit=boots,
    )
    decision = machine.decide(state, seen, BOUNDS)
    match decision:
        case machine.Happen(event):
            machine.follow(state, event)
        case machine.Rest(seconds):
            assert 0 < seconds <= 60
        case machine.Do(steps_to_do):
            assert steps_to_do
