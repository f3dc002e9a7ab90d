"""Devices of a fleet under a rollout, as plain objects: what the API server's binding and counting
mean, said a second time without SQL. The planner is tried on it, and the store is compared with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from resources import rollout_plan, selectors

Json = dict[str, Any]
State = Literal["before", "updating", "done", "failed"]


@dataclass
class Device:
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    connected: bool = True
    batch: int | None = None
    given: bool = False
    state: State = "before"
    since: float = 0.0
    # Which of the retries it has had.
    retry: int = 0

    @property
    def is_bound(self) -> bool:
        return self.batch is not None


@dataclass
class Model:
    devices: list[Device]
    policy: Json
    now: float = 0.0
    retry: int = 0

    @property
    def cutoff(self) -> float:
        return self.now - rollout_plan.timeout_s(self.policy)

    # --- what the API server does ---------------------------------------------------------

    def bind(self, batch: int, *, select: bool, limit: int) -> int:
        chosen = self._choose(batch, limit) if select else self._once_more(batch)[:limit]
        for device in chosen:
            device.batch = batch if device.batch is None else device.batch
            device.since, device.retry = self.now, self.retry
            device.given, device.state = False, "before"
            if not self.is_held:
                self._give(device)
        if self.is_held:
            for device in self._allowed()[: min(limit, self._room_in_minute())]:
                self._give(device)
        return len(chosen)

    @property
    def is_held(self) -> bool:
        return rollout_plan.holds(self.policy)

    def _tries_again(self, device: Device) -> bool:
        return device.state == "failed" and device.retry < self.retry

    def _once_more(self, number: int) -> list[Device]:
        members = [d for d in self.devices if d.batch is not None and d.batch <= number]
        return [d for d in members if self._tries_again(d)]

    def _choose(self, number: int, limit: int) -> list[Device]:
        batches = rollout_plan.batches_of(self.policy)
        batch, left = batches[number], [d for d in self.devices if not d.is_bound]
        if number == len(batches) - 1:
            return [d for d in self.devices if not d.is_bound or self._tries_again(d)][:limit]
        matching = [d for d in self.devices if self._matches(batch, d)]
        room = rollout_plan.may_choose(
            batch.get("limit"),
            population=len(matching),
            reached=sum(d.is_bound for d in matching),
            chosen=sum(d.batch == number for d in self.devices),
        )
        fitting = [d for d in left if d.connected and d in matching]
        return fitting[: limit if room is None else min(limit, room)]

    def _matches(self, batch: Json, device: Device) -> bool:
        selector = batch.get("selector")
        return not selector or selectors.from_match(selector).matches(device.labels)

    def _allowed(self) -> list[Device]:
        """Those that the budget lets go now."""
        budget, found = self.policy.get("disruptionBudget"), list[Device]()
        if budget is None:
            return [d for d in self.devices if d.is_bound and not d.given]
        for members in self.groups(budget).values():
            busy = [d for d in members if self.is_busy(d)]
            allowed = rollout_plan.may_disturb(
                budget,
                total=len(members),
                available=sum(d.connected and d not in busy for d in members),
                unavailable=len(busy),
            )
            waiting = [d for d in members if d.is_bound and not d.given and d.connected]
            found += waiting[:allowed]
        return [d for d in self.devices if d in found]

    def _room_in_minute(self) -> int:
        most = self.policy.get("maxDevicesPerMinute")
        return len(self.devices) if most is None else max(0, most - len(self.given_lately()))

    def given_lately(self) -> list[Device]:
        return [d for d in self.devices if d.given and d.since > self.now - 60]

    def _give(self, device: Device) -> None:
        device.given, device.state, device.since = True, "updating", self.now

    def groups(self, budget: Json) -> dict[tuple[str | None, ...], list[Device]]:
        found: dict[tuple[str | None, ...], list[Device]] = {}
        for device in self.devices:
            key = tuple(device.labels.get(label) for label in budget.get("groupBy") or ())
            found.setdefault(key, []).append(device)
        return found

    def is_busy(self, device: Device) -> bool:
        if device.state != "updating":
            return False
        return device.connected or device.since >= self.cutoff

    # --- what it counts -------------------------------------------------------------------

    def progress(self) -> Json:
        batches: dict[int, list[Device]] = {}
        for device in self.devices:
            if device.batch is not None:
                batches.setdefault(device.batch, []).append(device)
        answer = self._counted(self.devices)
        answer["selected"] = sum(d.is_bound for d in self.devices)
        answer["batches"] = [
            {"number": number} | self._counted(members)
            for number, members in sorted(batches.items())
        ]
        return answer

    def _waits_for_minute(self, device: Device) -> bool:
        """And will have it, so it is not late."""
        if device.given or not self.policy.get("maxDevicesPerMinute"):
            return False
        is_flowing = any(d.given and d.since >= self.cutoff for d in self.devices)
        return is_flowing or not self.policy.get("disruptionBudget")

    def _counted(self, members: list[Device]) -> Json:
        states = Counter(self._state_of(d) for d in members)
        bound = sum(d.is_bound and not self._tries_again(d) for d in members)
        rendered = sum(d.given and not self._tries_again(d) for d in members)
        held = bound - rendered if self.is_held else 0
        return {
            "total": len(members),
            "selected": len(members),
            "bound": bound,
            "rendered": rendered,
            "unbound": len(members) - bound,
            "held": held,
            "blocked": 0,
            "waiting": 0,
        } | {state: states[state] for state in ("done", "failed", "timedOut", "disconnected")}

    def _state_of(self, device: Device) -> str:
        if self._tries_again(device):
            return ""
        if device.state in ("done", "failed"):
            return device.state
        if device.is_bound and device.since < self.cutoff and not self._waits_for_minute(device):
            return "timedOut"
        return "disconnected" if device.is_bound and not device.connected else ""
