"""Whom a rollout waits for wakes it, in the transaction in which it gets there, on both databases;
who passes no gate wakes nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from apiserver.store import Transaction, devices, sets, stirring
from tests.fakes.rollout_model import Device, Model
from tests.fakes.rollout_rig import ADMIN, PLAIN, ROLLOUT, Rolling, Site, opened

Json = dict[str, Any]


@pytest_asyncio.fixture
async def site(tmp_path: Path, database_url: str) -> AsyncIterator[Site]:
    async with opened(database_url, tmp_path) as found:
        yield found


async def bound(site: Site, policy: Json, number: int = 4) -> Rolling:
    model = Model([Device(f"d{n}") for n in range(number)], policy)
    rolling = await Rolling.begin(site, "web", model)
    await rolling.bind(0, select=True, limit=100)
    return rolling


async def mark_of(rolling: Rolling, name: str = "web.v2-1") -> str | None:
    rollout = await rolling.site.operations.get(ADMIN, ROLLOUT, "default", name)
    found: str | None = (rollout["metadata"].get("annotations") or {}).get(stirring.STIRRED)
    return found


async def test_the_last_of_a_batch_wakes_its_rollout_and_none_before_it(site: Site) -> None:
    rolling = await bound(site, {})
    for device in reversed(rolling.model.devices[1:]):
        await rolling.happens(device, "done")
        assert await mark_of(rolling) is None
    await rolling.happens(rolling.model.devices[0], "done")
    assert await mark_of(rolling) is not None


async def test_nobody_waits_for_one_that_took_too_long(site: Site) -> None:
    model = Model(
        [Device(f"d{n}") for n in range(3)], {"defaultUpdateTimeout": "600s", "maxFailures": 9}
    )
    rolling = await Rolling.begin(site, "web", model)
    await rolling.bind(0, select=True, limit=1)
    site.clock.now += timedelta(seconds=601)
    await rolling.bind(0, select=True, limit=100)
    await rolling.happens(model.devices[1], "done")
    assert await mark_of(rolling) is None
    await rolling.happens(model.devices[2], "done")
    assert await mark_of(rolling) is not None


async def test_a_failure_wakes_it_at_once(site: Site) -> None:
    rolling = await bound(site, {})
    await rolling.happens(rolling.model.devices[2], "failed")
    assert await mark_of(rolling) is not None


async def test_where_devices_are_held_each_that_makes_room_wakes_it(site: Site) -> None:
    rolling = await bound(site, {"disruptionBudget": {"maxUnavailable": 2}})
    await rolling.happens(rolling.model.devices[1], "done")
    first = await mark_of(rolling)
    assert first is not None
    await rolling.bind(0, select=True, limit=100)
    await rolling.happens(rolling.model.devices[0], "done")
    assert await mark_of(rolling) != first


@pytest.mark.parametrize("how", ["deleted", "relabelled", "with its fleet"])
async def test_who_is_waited_for_and_leaves_wakes_it_too(site: Site, how: str) -> None:
    rolling = await bound(site, {})
    for device in rolling.model.devices[1:]:
        await rolling.happens(device, "done")

    def leave(tx: Transaction) -> None:
        row = devices.row_by_name(tx.connection, "default", "web-d0")
        assert row is not None
        if how == "deleted":
            devices.remove(tx, row, {"metadata": {"name": "web-d0"}})
        elif how == "relabelled":
            devices.save(tx, row, {"labels": "{}"})
            sets.reown(tx, "default", sets.UID, {"uid": row["uid"]})
        else:
            tx.connection.exec_driver_sql("DELETE FROM fleet_selector")
            sets.reown(tx, "default", sets.UIDS_OF_FLEET, {"fleet": "web"})

    await site.write(leave)
    assert await mark_of(rolling) is not None


async def test_a_status_that_says_nothing_new_of_the_update_wakes_nobody(site: Site) -> None:
    rolling = await bound(site, {}, number=2)
    await rolling.happens(rolling.model.devices[0], "done")
    for what in ("goes", "comes"):
        await rolling.happens(rolling.model.devices[1], what)
    assert await mark_of(rolling) is None


async def test_what_has_ended_is_not_woken(site: Site) -> None:
    rolling = await bound(site, {}, number=1)

    def end(document: Json) -> Json:
        return document | {"status": {"phase": "Aborted"}}

    where = "default", "web.v2-1"
    await site.operations.patch(ADMIN, ROLLOUT, *where, end, PLAIN, subresource="status")
    await rolling.happens(rolling.model.devices[0], "done")
    assert await mark_of(rolling) is None
