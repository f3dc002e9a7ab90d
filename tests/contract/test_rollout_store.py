"""Batches and budgets in the store, on both databases, compared with a model of them: the same
devices, the same bindings, the same reports, and after each step the same devices in the same
batches, the same that were given something, and the same counts."""

from __future__ import annotations

import itertools
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from apiserver import bindings
from apiserver.auth.identity import Caller
from apiserver.errors import StatusError
from apiserver.operations import Operations, WriteOptions
from apiserver.store import Store, Transaction, devices
from resources import registry
from tests.fakes.rollout_model import Device, Model

Json = dict[str, Any]
ADMIN = Caller(name="admin", role="admin")
PLAIN = WriteOptions()
FLEET, VERSION, ROLLOUT = (
    registry.by_kind(kind) for kind in ("Fleet", "TemplateVersion", "Rollout")
)
RUNS, STEPS, TIMEOUT_S = 12, 25, 600
STATES = ("total", "unbound", "held", "done", "failed", "timedOut", "disconnected")


@dataclass
class Clock:
    now: datetime = datetime(2026, 11, 26, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Site:
    operations: Operations
    clock: Clock

    async def write(self, change: Any) -> Any:
        return await self.operations.store.write(change)


@pytest_asyncio.fixture
async def site(tmp_path: Path, database_url: str) -> AsyncIterator[Site]:
    clock = Clock()
    store = await Store.open(database_url, data_dir=tmp_path, clock=clock)
    operations = Operations(store)
    await operations.prepare()
    yield Site(operations, clock)
    await store.close()


class Rolling:
    """One fleet in the store, beside the model of it."""

    def __init__(self, site: Site, name: str, model: Model) -> None:
        self.site, self.name, self.model = site, name, model
        self.generation = 0

    @classmethod
    async def begin(cls, site: Site, name: str, model: Model) -> Rolling:
        """Devices that run the first version, and the second offered under the model's policy."""
        rolling = cls(site, name, model)
        document = {
            "metadata": {"name": name},
            "spec": {
                "selector": {"matchLabels": {"fleet": name}},
                "template": {"spec": template("start")},
            },
        }
        await site.operations.create(ADMIN, FLEET, "default", document, PLAIN)
        await site.write(rolling._insert)
        await rolling.offer("one", {})
        answer = await rolling._ask({})
        assert answer["bound"] == len(model.devices)
        await site.write(partial(rolling._each, change=run_what_is_given))
        await rolling.offer("two", model.policy)
        return rolling

    def _insert(self, tx: Transaction) -> None:
        for device in self.model.devices:
            metadata = {
                "name": self.in_store(device),
                "namespace": "default",
                "uid": f"uid-{self.in_store(device)}",
                "creationTimestamp": tx.timestamp,
                "labels": {"fleet": self.name, **device.labels},
            }
            bindings.insert_device(tx, {"metadata": metadata, "spec": {}})

    def in_store(self, device: Device) -> str:
        return f"{self.name}-{device.name}"

    async def offer(self, content: str, policy: Json) -> None:
        self.generation += 1
        version = f"{self.name}.v{self.generation}"
        status = template(content) | {"conditions": []}
        document = {"metadata": {"name": version}, "spec": {"fleet": self.name}, "status": status}
        await self.site.operations.create(ADMIN, VERSION, "default", document, PLAIN)
        target = {"fleet": self.name, "templateVersion": version} | (
            {"policy": policy} if policy else {}
        )
        rollout = {"metadata": {"name": f"{version}-1"}, "spec": {"target": target}}
        await self.site.operations.create(ADMIN, ROLLOUT, "default", rollout, PLAIN)

    async def _ask(self, request: Json) -> Json:
        version = f"{self.name}.v{self.generation}"
        asked = {"templateVersion": version, "rollout": f"{version}-1"} | request
        return await self.site.operations.bind(ADMIN, "default", self.name, asked)

    async def bind(self, batch: int, *, select: bool, limit: int) -> None:
        self.model.now = self.site.clock.now.timestamp()
        answer = await self._ask({"batch": batch, "select": select, "limit": limit})
        assert answer["bound"] == self.model.bind(batch, select=select, limit=limit)

    def _each(self, tx: Transaction, change: Any) -> None:
        for device in self.model.devices:
            row = devices.row_by_name(tx.connection, "default", self.in_store(device))
            assert row is not None
            if changes := change(row, device):
                devices.save(tx, row, changes)

    async def happens(self, device: Device, what: str) -> None:
        """Something that a device does, or that befalls it, in both."""
        if what in ("done", "failed"):
            if device.state != "updating" or not device.connected:
                return
            device.state = "done" if what == "done" else "failed"
        else:
            device.connected = what == "comes"
        change = partial(OF[what], only=device)
        await self.site.write(partial(self._each, change=change))

    async def compare(self) -> None:
        self.model.now = self.site.clock.now.timestamp()
        version = f"{self.name}.v{self.generation}"
        found = await self.site.operations.progress(ADMIN, "default", self.name, f"{version}-1")
        wanted = self.model.progress()
        for state in STATES:
            assert found[state] == wanted[state], state
        for ours, theirs in itertools.zip_longest(found["batches"], wanted["batches"]):
            assert {s: ours[s] for s in (*STATES, "number")} == {
                s: theirs[s] for s in (*STATES, "number")
            }
        rows = await self.site.operations.store.read(
            lambda s: {
                device.name: devices.row_by_name(s.connection, "default", self.in_store(device))
                for device in self.model.devices
            }
        )
        for device in self.model.devices:
            row = rows[device.name]
            assert row is not None
            assert (row["template_version"] == version) == device.is_bound, device
            assert (row["rendered_template_version"] == version) == device.given, device
            assert (row["render_needed"] == 1) == (device.is_bound and not device.given), device
            if device.is_bound:
                assert row["rollout_batch"] == device.batch, device


def template(content: str) -> Json:
    return {"config": [{"name": "motd", "inline": [{"path": "/etc/motd", "content": content}]}]}


def run_what_is_given(row: Any, device: Device) -> Json:
    return {"connected": int(device.connected), "seen": 1} | {
        "reported_version": row["rendered_version"]
    }


def _succeeds(row: Any, device: Device, only: Device) -> Json:
    return {"reported_version": row["rendered_version"]} if device is only else {}


def _fails(row: Any, device: Device, only: Device) -> Json:
    failed = {"failed_version": row["rendered_version"], "failed_digest": row["rendered_digest"]}
    return failed if device is only else {}


def _comes(row: Any, device: Device, only: Device) -> Json:
    return {"connected": 1} if device is only else {}


def _goes(row: Any, device: Device, only: Device) -> Json:
    return {"connected": 0} if device is only else {}


OF = {"done": _succeeds, "failed": _fails, "comes": _comes, "goes": _goes}


def a_policy(chance: random.Random) -> Json:
    policy: Json = {"defaultUpdateTimeout": f"{TIMEOUT_S}s"}
    sequence = []
    for _ in range(chance.randint(0, 3)):
        batch: Json = {}
        if chance.random() < 0.5:
            batch["selector"] = chance.choice(
                [
                    {"matchLabels": {"site": "a"}},
                    {"matchExpressions": [{"key": "site", "operator": "NotIn", "values": ["a"]}]},
                ]
            )
        if chance.random() < 0.7:
            batch["limit"] = chance.choice([1, 2, 4, "10%", "40%", "75%", "100%"])
        sequence.append(batch)
    if sequence:
        policy["deviceSelection"] = {"strategy": "BatchSequence", "sequence": sequence}
    if not sequence or chance.random() < 0.6:
        budget: Json = {}
        if chance.random() < 0.7:
            budget["maxUnavailable"] = chance.randint(1, 4)
        if not budget or chance.random() < 0.5:
            budget["minAvailable"] = chance.randint(1, 6)
        if chance.random() < 0.6:
            budget["groupBy"] = chance.choice([["site"], ["site", "ring"]])
        policy["disruptionBudget"] = budget
    return policy


def some_devices(chance: random.Random) -> list[Device]:
    found = []
    for number in range(chance.randint(3, 20)):
        labels = {"site": chance.choice("ab")} if chance.random() < 0.8 else {}
        if chance.random() < 0.5:
            labels["ring"] = chance.choice("12")
        found.append(Device(f"d{number:02}", labels, connected=chance.random() < 0.9))
    return found


@pytest.mark.timeout(300)
async def test_the_store_binds_gives_and_counts_as_the_model_does(site: Site) -> None:
    compared = 0
    for run in range(RUNS):
        chance = random.Random(run)
        model = Model(some_devices(chance), a_policy(chance))
        rolling = await Rolling.begin(site, f"fleet-{run}", model)
        last = len((model.policy.get("deviceSelection") or {}).get("sequence") or ())
        batch = 0
        for _ in range(STEPS):
            what = chance.choice(["bind", "bind", "done", "done", "failed", "goes", "comes", "on"])
            if what == "bind":
                select = chance.random() < 0.7
                await rolling.bind(batch, select=select, limit=chance.choice([1, 3, 100]))
                batch = min(last, batch + (chance.random() < 0.4))
            elif what == "on":
                site.clock.now += timedelta(seconds=chance.choice([1, 60, TIMEOUT_S]))
            else:
                await rolling.happens(chance.choice(model.devices), what)
            await rolling.compare()
            compared += 1
    print(f"states of store and model compared: {compared}")


async def test_a_later_attempt_is_the_only_one_that_binds(site: Site) -> None:
    model = Model(some_devices(random.Random(5)), {})
    rolling = await Rolling.begin(site, "again", model)
    target = {"fleet": "again", "templateVersion": "again.v2"}
    rollout = {"metadata": {"name": "again.v2-2"}, "spec": {"target": target}}
    await site.operations.create(ADMIN, ROLLOUT, "default", rollout, PLAIN)
    with pytest.raises(StatusError) as refused:
        await rolling.bind(0, select=True, limit=10)
    assert refused.value.code == 409
    assert "again.v2-2 has taken its place" in str(refused.value)


async def test_what_one_attempt_held_the_next_one_gives(site: Site) -> None:
    """A change of the policy in the middle loses nobody who was waiting for the budget."""
    policy = {"disruptionBudget": {"maxUnavailable": 1}}
    model = Model([Device(f"d{n}") for n in range(5)], policy)
    rolling = await Rolling.begin(site, "held", model)
    await rolling.bind(0, select=True, limit=10)
    await rolling.compare()
    target = {"fleet": "held", "templateVersion": "held.v2"}
    rollout = {"metadata": {"name": "held.v2-2"}, "spec": {"target": target}}
    await site.operations.create(ADMIN, ROLLOUT, "default", rollout, PLAIN)
    asked = {"templateVersion": "held.v2", "rollout": "held.v2-2"}
    answer = await site.operations.bind(ADMIN, "default", "held", asked)
    assert (answer["bound"], answer["rendered"]) == (4, 4)
    progress = await site.operations.progress(ADMIN, "default", "held", "held.v2-2")
    assert (progress["rendered"], progress["unbound"], progress["held"]) == (5, 0, 0)
