"""Heartbeats and the sweep: what is seen is written, who is gone is said to be gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from apiserver.agentapi.presence import Presence
from apiserver.agentapi.settings import AgentApiSettings
from apiserver.auth.identity import Caller
from apiserver.operations import Operations
from apiserver.store import Store, StoreBusy, Transaction, delivering, presence, reports
from resources import registry
from tests.fakes.waiting import PATIENCE_S, until

DEVICE = registry.by_kind("Device")
CALLER = Caller(name="test", role="admin")


class Flaky(Store):
    failures = 0

    async def write(self, mutation: Callable[[Transaction], Any], *, dry_run: bool = False) -> Any:
        if self.failures:
            self.failures -= 1
            raise StoreBusy("full")
        return await super().write(mutation, dry_run=dry_run)


class House:
    def __init__(self, store: Flaky) -> None:
        self.store = store
        self.time = 1_000_000.0
        self.operations = Operations(store)
        settings = AgentApiSettings(presence_flush_s=30, presence_urgent_s=0.01)
        self.presence = Presence(store, settings, now=lambda: self.time)

    async def add(self, name: str) -> str:
        document = {"metadata": {"name": name}, "spec": {}}
        stored = await self.store.write(
            lambda tx: self.operations.insert_in(tx, CALLER, DEVICE, document, "default")
        )
        return str(stored["metadata"]["uid"])

    async def connected(self, name: str) -> bool:
        found = await self.store.read(lambda s: delivering.delivery(s, "default", name))
        assert found is not None
        return found.connected

    async def last_seen(self, uid: str) -> float | None:
        return await self.store.read(lambda s: presence.last_seen(s, uid))


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    store = await Flaky.open(data_dir=tmp_path)
    assert isinstance(store, Flaky)
    made = House(store)
    await made.operations.prepare()
    yield made
    await store.close()


async def test_heartbeats_move_no_version_but_the_first_one_connects(house: House) -> None:
    uid = await house.add("a")
    house.presence.saw(uid, is_connected=False)
    await house.presence.flush()
    assert await house.connected("a")
    before = house.store.hub.version
    house.time += 60
    house.presence.saw(uid, is_connected=True)
    await house.presence.flush()
    assert await house.last_seen(uid) == house.time
    assert house.store.hub.version == before


async def test_who_was_not_seen_for_five_minutes_is_disconnected(house: House) -> None:
    silent, living = await house.add("silent"), await house.add("living")
    for uid in (silent, living):
        house.presence.saw(uid, is_connected=False)
    await house.presence.flush()
    house.time += 299
    assert await house.presence.sweep() == 0
    house.presence.saw(living, is_connected=True)
    house.time += 2
    assert await house.presence.sweep() == 1
    assert not await house.connected("silent")
    assert await house.connected("living"), "its heartbeat was flushed before the sweep"


async def test_what_could_not_be_written_is_kept_and_newer_sightings_win(house: House) -> None:
    one, other = await house.add("a"), await house.add("b")
    house.presence.saw(one, is_connected=True)
    house.presence.saw(other, is_connected=True)
    house.store.failures = 1
    with pytest.raises(StoreBusy):
        await house.presence.flush()
    first, house.time = house.time, house.time + 10
    house.presence.saw(other, is_connected=True)
    await house.presence.flush()
    assert await house.last_seen(one) == first
    assert await house.last_seen(other) == house.time


async def test_a_device_that_came_back_is_written_at_once(house: House) -> None:
    uid = await house.add("a")
    flushing = asyncio.create_task(house.presence.keep_flushing())
    house.presence.saw(uid, is_connected=False)
    async with asyncio.timeout(PATIENCE_S):
        while not await house.connected("a"):
            await asyncio.sleep(0.01)
    flushing.cancel()
    await asyncio.gather(flushing, return_exceptions=True)


async def test_a_first_report_leaves_a_last_seen_behind_even_if_the_process_dies(
    house: House,
) -> None:
    """Otherwise a device that reported once and died with the service would be online for ever."""
    uid = await house.add("a")

    def report(tx: Transaction) -> None:
        reports.put(tx, reports.Report("default", "a", {}))
        house.presence.record_first(tx, [uid])

    await house.store.write(report)
    successor = Presence(house.store, AgentApiSettings(), now=lambda: house.time + 301)
    assert await successor.sweep() == 1
    assert not await house.connected("a")


@asynccontextmanager
async def sweeping(house: House, hold_s: float) -> AsyncIterator[None]:
    """All the time, while polls are held so long; a device that has called once."""
    settings = AgentApiSettings(sweep_grace_s=0.01, sweep_every_s=0.01, hold_s=hold_s)
    loop = asyncio.get_running_loop()
    house.presence = Presence(house.store, settings, now=lambda: house.time + loop.time())
    uid = await house.add("a")
    house.presence.saw(uid, is_connected=False)
    await house.presence.flush()
    task = asyncio.create_task(house.presence.keep_sweeping())
    try:
        # It has looked at the clock once.
        await asyncio.sleep(0.1)
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_clock_that_jumps_does_not_call_the_whole_fleet_gone(house: House) -> None:
    """Nobody has had a chance to call yet."""
    async with sweeping(house, hold_s=600):
        with capture_logs() as logs:
            house.time += 3600
            await until(lambda: [each["event"] for each in logs] == ["clock jumped"])
        assert await house.connected("a")


async def test_who_does_not_call_within_a_poll_after_the_clock_has_jumped_is_gone(
    house: House,
) -> None:
    async with sweeping(house, hold_s=0.1):
        house.time += 3600

        async def is_gone() -> bool:
            return not await house.connected("a")

        await until(is_gone)
