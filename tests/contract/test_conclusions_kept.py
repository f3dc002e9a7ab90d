"""After any history of devices the counters are what a count gives, and each row says what the
rules conclude from it. On both stores; `CONCLUSIONS_SEED` repeats one history."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
from sqlalchemy import select

from apiserver import acting, decommissioning, restored, resuming
from apiserver.agentapi import reconnecting
from apiserver.auth.identity import ADMIN, Caller
from apiserver.errors import StatusError
from apiserver.operations import Operations, WriteOptions
from apiserver.store import Snapshot, Store, devices, overriding, presence, recount, reports
from apiserver.store.tables import DEVICE as ROWS
from resources import registry, summary
from tests.fakes.agent_client import device_status

Json = dict[str, Any]
Step = Callable[..., Awaitable[Any]]
PERSON = Caller(name="ada", role=ADMIN)
DEVICE, FLEET, TEMPLATE_VERSION, ROLLOUT = (
    registry.by_kind(kind) for kind in ("Device", "Fleet", "TemplateVersion", "Rollout")
)
SEEDS = [int(os.environ["CONCLUSIONS_SEED"])] if "CONCLUSIONS_SEED" in os.environ else [1, 2]
STEPS = 120
NAMES = [f"d{number}" for number in range(6)]
FLEETS = ["red", "blue"]
PLAIN = WriteOptions()
APPLICATION = {"name": "web", "appType": "container", "image": "quay.io/x/web:1"}


@dataclass
class World:
    operations: Operations
    versions: dict[str, int] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return self.operations.store

    async def row(self, name: str) -> devices.Row | None:
        return await self.store.read(lambda s: devices.row_by_name(s.connection, "default", name))


@pytest.fixture
async def world(tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    store = await Store.open(database_url, data_dir=tmp_path)
    operations = Operations(store)
    await operations.prepare()
    yield World(operations)
    await store.close()


def _spec(dice: random.Random) -> Json:
    files = [{"path": "/etc/motd", "content": str(dice.randrange(3))}]
    return {
        "config": [{"name": "motd", "inline": files}],
        "applications": [APPLICATION] if dice.random() < 0.5 else [],
    }


async def create_device(world: World, dice: random.Random, name: str = "") -> None:
    labels = {"colour": dice.choice([*FLEETS, "none"])}
    metadata = {"name": name or dice.choice(NAMES), "labels": labels}
    document = {"metadata": metadata, "spec": _spec(dice)}
    await world.operations.create(PERSON, DEVICE, "default", document, PLAIN)


async def relabel(world: World, dice: random.Random) -> None:
    labels = {"colour": dice.choice([*FLEETS, "none"])}

    def change(old: Json) -> Json:
        return old | {"metadata": old["metadata"] | {"labels": labels}}

    await world.operations.patch(PERSON, DEVICE, "default", dice.choice(NAMES), change, PLAIN)


async def respecify(world: World, dice: random.Random) -> None:
    spec = _spec(dice)
    await world.operations.patch(
        PERSON, DEVICE, "default", dice.choice(NAMES), lambda old: old | {"spec": spec}, PLAIN
    )


async def delete_device(world: World, dice: random.Random) -> None:
    await world.operations.delete(PERSON, DEVICE, "default", dice.choice(NAMES))


async def dismiss(world: World, dice: random.Random) -> None:
    name, wanted = dice.choice(NAMES), {"target": "Unenroll"}
    await decommissioning.decommission(world.operations, PERSON, "default", name, wanted)


async def make_fleet(world: World, dice: random.Random, name: str = "") -> None:
    name = name or dice.choice(FLEETS)
    template = {"spec": {"applications": [APPLICATION]}}
    spec = {"selector": {"matchLabels": {"colour": name}}, "template": template}
    document = {"metadata": {"name": name}, "spec": spec}
    await world.operations.create(PERSON, FLEET, "default", document, PLAIN)


async def delete_fleet(world: World, dice: random.Random) -> None:
    await world.operations.delete(PERSON, FLEET, "default", dice.choice(FLEETS))


async def bind(world: World, dice: random.Random, policy: Json | None = None) -> None:
    fleet = dice.choice(FLEETS)
    number = world.versions[fleet] = world.versions.get(fleet, 0) + 1
    name = f"{fleet}.v{number}"
    version = {"metadata": {"name": name}, "spec": {"fleet": fleet}, "status": _spec(dice)}
    target = {"fleet": fleet, "templateVersion": name} | ({"policy": policy} if policy else {})
    rollout = {"metadata": {"name": f"{fleet}-v{number}"}, "spec": {"target": target}}
    for kind, document in ((TEMPLATE_VERSION, version), (ROLLOUT, rollout)):
        await world.operations.create(PERSON, kind, "default", document, PLAIN)
    request: Json = {"templateVersion": name, "rollout": f"{fleet}-v{number}"}
    if policy:
        request["batch"] = 0
    await world.operations.bind(PERSON, "default", fleet, request)
    if policy:
        await world.operations.bind(PERSON, "default", fleet, request | {"mark": True})


async def bind_one(world: World, dice: random.Random) -> None:
    """The others wait for their batch."""
    selection = {"strategy": "BatchSequence", "sequence": [{"limit": 1}]}
    await bind(world, dice, {"deviceSelection": selection})


async def report(world: World, dice: random.Random) -> None:
    name = dice.choice(NAMES)
    row = await world.row(name)
    version = row["rendered_version"] if row else 0
    reasons = ["Rebooting", "ApplyingUpdate", "Error", "Updated"]
    reason = dice.choice(reasons)
    updating = {
        "type": "Updating",
        "status": "True" if reason in reasons[:2] else "False",
        "reason": reason,
        "message": f"at renderedVersion: {version}",
    }
    levels = ["Healthy", "Warning", "Critical", "Error", "Unknown"]
    status = device_status(
        str(dice.choice([version, version - 1, version + 3])),
        conditions=[updating],
        resources={"cpu": dice.choice(levels), "memory": "Healthy", "disk": "Healthy"},
        applications=dice.choice([[], [{"name": "web"}]]),
        applicationsSummary={"status": dice.choice(["Healthy", "Error", "Unknown"])},
        capabilities=dice.choice([{}, {"osMode": "image"}, {"osMode": "package"}]),
    )
    await world.store.write(lambda tx: reports.put(tx, reports.Report("default", name, status)))


async def call(world: World, dice: random.Random) -> None:
    name = dice.choice(NAMES)
    row = await world.row(name)
    if row is None:
        return
    known = str(row["rendered_version"] + dice.choice([0, 0, 0, 4]))
    await reconnecting.settle(world.operations, "default", name, known)
    uid = row["uid"]
    await world.store.write(lambda tx: presence.record(tx, {uid: tx.now.timestamp()}))


async def fall_silent(world: World, dice: random.Random) -> None:
    await world.store.write(lambda tx: presence.sweep(tx, tx.now.timestamp() + 1))


async def restore(world: World, dice: random.Random) -> None:
    await restored.declare(world.operations)


async def resume(world: World, dice: random.Random) -> None:
    body = dice.choice([{}, {"labelSelector": "colour=red"}])
    await resuming.resume(world.operations, PERSON, "default", body)


async def act(world: World, dice: random.Random) -> None:
    kind, names = dice.choice([(DEVICE, NAMES), (FLEET, FLEETS)])
    body = {"application": "web", "action": dice.choice(["stop", "start"])}
    await acting.act(world.operations, PERSON, kind, "default", dice.choice(names), body)


OFTEN: list[Step] = [create_device, relabel, respecify, make_fleet, bind, bind_one]
OFTEN += [report, report, call, act, fall_silent]
SELDOM: list[Step] = [delete_device, dismiss, delete_fleet, restore, resume]


@pytest.mark.parametrize("seed", SEEDS)
async def test_after_any_history_counters_and_conclusions_are_right(
    world: World, seed: int
) -> None:
    dice = random.Random(seed)
    for name in NAMES:
        await create_device(world, dice, name)
    for name in FLEETS:
        await make_fleet(world, dice, name)
    done: list[str] = []
    for number in range(STEPS):
        step = dice.choice(OFTEN * 3 + SELDOM)
        try:
            await step(world, dice)
        except StatusError as refused:
            done.append(f"{step.__name__} {refused.reason}")
        else:
            done.append(step.__name__)
        if number % 5 == 4:
            wrong = await world.store.read(_wrong)
            assert not wrong, f"seed {seed}: {wrong} after {done}"
    assert len({entry for entry in done if " " not in entry}) > 8, "too little was done"


def _wrong(snapshot: Snapshot) -> list[Any]:
    found: list[Any] = [
        (place, difference)
        for place in recount.places(snapshot, ("", ""), 100)
        if (difference := recount.difference(snapshot, place))
    ]
    for row in snapshot.connection.execute(select(ROWS)).mappings():
        status = orjson.loads(row["agent_status"])
        drawn = summary.derive(devices.facts_of(row, status))
        said: dict[str, tuple[Any, Any]] = {
            "summary": (row["summary_status"], drawn.summary),
            "updated": (row["updated_status"], drawn.updated),
            "applications": (row["applications_status"], drawn.applications),
            "lifecycle": (row["lifecycle_status"], drawn.lifecycle),
        }
        if row["fleet"] and not row["pause"] and not row["decommissioning"]:
            asked = overriding.of_fleet(snapshot, "default", row["fleet"])
            said["wishes"] = (row["fleet_overrides"], asked)
        found += [(row["name"], key, *pair) for key, pair in said.items() if pair[0] != pair[1]]
    return found
