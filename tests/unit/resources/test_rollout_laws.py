"""Whole rollouts over a model of devices: what holds whatever the policy, the devices and the
moments at which the controllers die."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from resources import rollout_plan
from resources.rollout_plan import Bind, Finish, Note, Wait
from tests.fakes.rollout_model import Device, Model

Json = dict[str, Any]
START = datetime(2026, 11, 26, tzinfo=UTC)
# Where nobody is bound a look leaves a record only if it lives through all its steps: of a dozen
# at each of which one in three dies, one look in a hundred.
LOOKS_MAX = 5_000


@dataclass
class Run:
    """The controllers' loop over a model. `dies`: chance that a look ends before each of its steps,
    and so leaves no record of what it did."""

    model: Model
    control: Json = field(default_factory=dict)
    dies: float = 0.0
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    status: Json = field(default_factory=dict)
    bound: list[tuple[Bind, Json]] = field(default_factory=list)
    end: Finish | None = None
    waits: Wait | None = None

    @property
    def now(self) -> datetime:
        return START + timedelta(seconds=self.model.now)

    def look(self) -> None:
        spent: set[Bind] = set()
        status = copy.deepcopy(self.status)
        for _ in range(40):
            if self.chance.random() < self.dies:
                return
            progress = self.model.progress()
            target = {"policy": self.model.policy}
            rollout = {"spec": {"target": target, "control": self.control}, "status": status}
            decision = rollout_plan.plan(rollout, progress, now=self.now, spent=spent)
            match decision:
                case Note():
                    stamp = self.now.strftime("%Y-%m-%dT%H:%M:%SZ")
                    status = rollout_plan.noted(status, decision, self.model.policy, stamp)
                case Bind():
                    self.bound.append((decision, copy.deepcopy(progress)))
                    taken = self.model.bind(
                        decision.batch, select=decision.select, limit=decision.limit
                    )
                    if taken < decision.limit:
                        spent.add(decision)
                    self.check()
                case Wait():
                    self.waits, self.status = decision, status
                    return
                case Finish():
                    self.end, self.status = decision, status
                    return

    def check(self) -> None:
        """What must hold of the devices after each binding."""
        policy = self.model.policy
        for number, batch in enumerate(rollout_plan.batches_of(policy)):
            limit = batch.get("limit")
            members = [d for d in self.model.devices if d.batch == number]
            if isinstance(limit, int):
                assert len(members) <= limit
            if limit is not None:
                assert all(self.model._matches(batch, d) for d in members)
        budget = policy.get("disruptionBudget")
        for members in self.model.groups(budget).values() if budget else ():
            busy = sum(self.model.is_busy(d) for d in members)
            if budget.get("maxUnavailable") is not None:
                assert busy <= budget["maxUnavailable"]
            if budget.get("minAvailable") is not None and busy:
                rest = sum(d.connected and not self.model.is_busy(d) for d in members)
                assert rest >= min(budget["minAvailable"], len(members) - 1)
        most = policy.get("maxDevicesPerMinute")
        assert most is None or len(self.model.given_lately()) <= most
        self.check_gates()

    def check_gates(self) -> None:
        """A batch has devices only if each before it had ended."""
        numbers = [d.batch for d in self.model.devices if d.batch is not None]
        newest = max(numbers, default=0)
        for device in self.model.devices:
            if device.batch is not None and device.batch < newest and not device.retry:
                is_late = device.since < self.model.cutoff
                assert device.state in ("done", "failed") or is_late, device

    def go(self, failing: set[str], hours: float = 1.0) -> None:
        """Until it has ended, or waits for people; each step devices report."""
        for _ in range(LOOKS_MAX):
            self.look()
            if self.end or (self.waits and self.waits.phase != "Active"):
                return
            for device in self.model.devices:
                if device.state == "updating" and device.connected:
                    device.state = "failed" if device.name in failing else "done"
            self.model.now += hours * 3600
        raise AssertionError(f"it did not end: {self.waits}")


LABELS = st.fixed_dictionaries(
    {}, optional={"site": st.sampled_from("ab"), "ring": st.sampled_from("12")}
)
LIMITS = st.one_of(st.integers(1, 5), st.sampled_from(["0%", "10%", "50%", "100%"]), st.none())
BATCHES = st.builds(
    lambda site, limit, threshold: {
        key: value
        for key, value in (
            ("selector", site and {"matchLabels": {"site": site}}),
            ("limit", limit),
            ("successThreshold", threshold),
        )
        if value is not None
    },
    st.one_of(st.none(), st.sampled_from("ab")),
    LIMITS,
    st.one_of(st.none(), st.sampled_from(["0%", "50%", "100%"])),
)
BUDGETS = st.one_of(
    st.none(),
    st.builds(
        lambda most, least, by: {
            key: value
            for key, value in (
                ("maxUnavailable", most if most or not least else None),
                ("minAvailable", least),
                ("groupBy", by),
            )
            if value
        },
        st.integers(1, 3),
        st.one_of(st.none(), st.integers(1, 4)),
        st.one_of(st.none(), st.just(["site"]), st.just(["site", "ring"])),
    ),
)
POLICIES = st.builds(
    lambda sequence, budget, threshold, rate: {
        key: value
        for key, value in (
            (
                "deviceSelection",
                sequence and {"strategy": "BatchSequence", "sequence": sequence},
            ),
            ("disruptionBudget", budget),
            ("successThreshold", threshold),
            ("maxDevicesPerMinute", rate),
        )
        if value
    },
    st.lists(BATCHES, max_size=3),
    BUDGETS,
    st.one_of(st.none(), st.sampled_from(["0%", "80%"])),
    st.one_of(st.none(), st.integers(1, 3)),
)


@st.composite
def devices(draw: st.DrawFn) -> list[Device]:
    labels = draw(st.lists(LABELS, max_size=14))
    away = draw(st.sets(st.integers(0, 13), max_size=2))
    return [
        Device(f"d{number:02}", given_labels, connected=number not in away)
        for number, given_labels in enumerate(labels)
    ]


@settings(max_examples=120)
@given(POLICIES, devices(), st.sets(st.integers(0, 13), max_size=4), st.integers(0, 1_000))
def test_it_always_ends_and_passes_no_gate_and_no_budget(
    policy: Json, there: list[Device], failing: set[int], seed: int
) -> None:
    model = Model(there, policy)
    run = Run(model, {"approved": 10}, dies=0.2, chance=random.Random(seed))
    run.go({f"d{number:02}" for number in failing})
    assert run.end is not None
    assert all(d.is_bound for d in there), "nobody is left out"
    lost = model.progress()["failed"] + model.progress()["timedOut"]
    assert (run.end.phase == "Failed") <= (lost > 0)


@settings(max_examples=80)
@given(POLICIES, devices(), st.sets(st.integers(0, 13), max_size=4), st.integers(0, 5))
def test_what_failed_and_is_tried_again_is_tried_once_for_each_retry_and_then_it_ends(
    policy: Json, there: list[Device], failing: set[int], looks: int
) -> None:
    """Asked for before the end: within the batches, the budget and the minute."""
    model = Model(there, policy)
    run = Run(model, {"approved": 10})
    names = {f"d{number:02}" for number in failing}
    for _ in range(looks):
        run.look()
        if run.end:
            return
        for device in there:
            if device.state == "updating" and device.connected:
                device.state = "failed" if device.name in names else "done"
        model.now += 3600
    tried = {d.name for d in there if d.state == "failed"}
    run.control["retry"] = model.retry = 1
    run.go(set())
    assert run.end is not None
    assert {d.name for d in there if d.state == "failed"} == set()
    assert tried <= {d.name for d in there if d.retry == 1}


@settings(max_examples=80)
@given(POLICIES, devices(), st.sets(st.integers(0, 13), max_size=4), st.integers(0, 1_000))
def test_it_ends_the_same_however_often_the_controllers_die(
    policy: Json, there: list[Device], failing: set[int], seed: int
) -> None:
    ends = []
    for dies in (0.0, 0.3):
        run = Run(Model(copy.deepcopy(there), policy), dies=dies, chance=random.Random(seed))
        run.go({f"d{number:02}" for number in failing})
        waits = run.waits.reason if run.waits and run.end is None else ""
        states = [(d.name, d.batch, d.state) for d in run.model.devices]
        ends.append((run.end and run.end.reason, waits, states))
    assert ends[0] == ends[1]


@given(st.integers(0, 200), st.integers(0, 100), st.integers(0, 200), st.integers(0, 50))
def test_a_percentage_is_of_all_and_counts_what_was_reached(
    population: int, percent: int, reached: int, chosen: int
) -> None:
    reached = min(reached, population)
    room = rollout_plan.may_choose(
        f"{percent}%", population=population, reached=reached, chosen=chosen
    )
    if percent == 100:
        assert room is None
        return
    assert room is not None
    assert 0 <= room <= population
    share = population * percent / 100
    assert room == 0 or abs(reached + room - share) <= 0.5


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 20), st.data())
def test_a_budget_is_never_overdrawn_and_lets_one_go_at_least(
    most: int, least: int, total: int, data: st.DataObject
) -> None:
    budget = {"maxUnavailable": most, "minAvailable": least}
    busy = data.draw(st.integers(0, total))
    rest = data.draw(st.integers(0, total - busy))
    allowed = rollout_plan.may_disturb(budget, total=total, available=rest, unavailable=busy)
    if allowed:
        assert busy + allowed <= most
        assert rest - allowed >= min(least, total - 1)
    if busy == 0 and rest == total:
        assert allowed >= 1
