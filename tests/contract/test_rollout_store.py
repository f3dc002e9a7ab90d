"""Batches and budgets in the store, on both databases, compared with a model of them: the same
devices, the same bindings, the same reports, and after each step the same devices in the same
batches, the same that were given something, and the same counts."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from apiserver.errors import StatusError
from apiserver.store import recount
from tests.fakes.rollout_model import Device, Model
from tests.fakes.rollout_rig import ADMIN, PLAIN, ROLLOUT, Rolling, Site, opened

Json = dict[str, Any]
RUNS, STEPS, TIMEOUT_S = 12, 25, 600
WHAT = [
    *("bind", "bind", "bind", "done", "done", "failed", "failed", "goes", "comes", "on", "on"),
    *("again", "mark"),
]


@pytest_asyncio.fixture
async def site(tmp_path: Path, database_url: str) -> AsyncIterator[Site]:
    async with opened(database_url, tmp_path) as found:
        yield found


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
    if chance.random() < 0.3:
        policy["maxDevicesPerMinute"] = chance.choice([1, 3, 8])
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
            what = chance.choice(WHAT)
            if what == "bind":
                select = chance.random() < 0.7
                await rolling.bind(batch, select=select, limit=chance.choice([1, 3, 100]))
                batch = min(last, batch + (chance.random() < 0.4))
            elif what == "again":
                await rolling.try_again()
            elif what == "mark":
                await rolling.mark()
            elif what == "on":
                site.clock.now += timedelta(seconds=chance.choice([1, 60, TIMEOUT_S]))
            else:
                await rolling.happens(chance.choice(model.devices), what)
            await rolling.compare()
            compared += 1
        place = "default", rolling.name
        assert await site.operations.store.read(lambda s, at=place: recount.difference(s, at)) == {}
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
