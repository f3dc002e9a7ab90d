"""Polls and the change log: what is remembered is never stale, what fails is tried again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from apiserver import bindings
from apiserver.agentapi import deliveries
from apiserver.agentapi.deliveries import GONE, TELL_CHUNK, WAKES, Deliveries, Found, Key
from apiserver.agentapi.settings import AgentApiSettings
from apiserver.auth.identity import Caller
from apiserver.errors import NotFound
from apiserver.operations import Operations
from apiserver.store import Snapshot, Store, StoreBusy, Transaction, delivering, devices
from bench.fleet import Service
from resources import registry
from tests.fakes.waiting import PATIENCE_S

DEVICE = registry.by_kind("Device")
CALLER = Caller(name="test", role="admin")
MANY = 1_100
FAST = AgentApiSettings(coalesce_s=0.001, retry_s=0.01)


class Gate(Store):
    """The store, with reads that can be held back after they were read and writes that fail."""

    reads = 0
    hold: asyncio.Event | None = None
    failures = 0

    async def read(self, query: Callable[[Snapshot], Any]) -> Any:
        self.reads += 1
        result = await super().read(query)
        hold, self.hold = self.hold, None
        if hold is not None:
            await hold.wait()
        return result

    async def held(self) -> None:
        """Until a read is."""
        async with asyncio.timeout(PATIENCE_S):
            while self.hold is not None:
                await asyncio.sleep(0.001)

    async def write(self, mutation: Callable[[Transaction], Any], **how: bool) -> Any:
        if self.failures:
            self.failures -= 1
            raise StoreBusy("full")
        return await super().write(mutation, **how)


class House:
    def __init__(self, store: Gate, settings: AgentApiSettings = FAST) -> None:
        self.store = store
        self.operations = Operations(store)
        self.deliveries = Deliveries(store, settings)
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        for work in (self.deliveries.follow(), self.deliveries.serve_polls()):
            self.tasks.append(loop.create_task(work))

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def add(self, name: str) -> Key:
        document = {"metadata": {"name": name}, "spec": {}}
        await self.store.write(
            lambda tx: self.operations.insert_in(tx, CALLER, DEVICE, document, "default")
        )
        return "default", name

    async def change(self, key: Key, text: str) -> None:
        inline = [{"path": "/etc/x", "content": text}]
        spec = {"config": [{"name": "x", "inline": inline}]}

        def change(tx: Transaction) -> None:
            old = tx.get(DEVICE, *key)
            row = devices.row_by_name(tx.connection, *key)
            assert old is not None
            assert row is not None
            bindings.update_device(tx, row, old, old | {"spec": spec})

        await self.store.write(change)

    async def delete(self, key: Key) -> None:
        def delete(tx: Transaction) -> None:
            found = tx.get(DEVICE, *key)
            assert found is not None
            tx.delete(DEVICE, found)

        await self.store.write(delete)

    async def caught_up(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.deliveries._seen < self.store.hub.version or self.deliveries._due:
                await asyncio.sleep(0.002)

    async def delivered(self, key: Key) -> int:
        found = await Store.read(self.store, lambda s: delivering.delivery(s, *key))
        assert found is not None
        return found.delivered_version


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    # Who is not woken is not to be saved by a look from time to time.
    monkeypatch.setattr(deliveries, "_LOOK_AGAIN_S", 3600.0)
    store = await Gate.open(data_dir=tmp_path)
    assert isinstance(store, Gate)
    made = House(store)
    await made.operations.prepare()
    made.start()
    yield made
    await made.stop()
    await store.close()


async def test_a_second_look_asks_nobody(house: House) -> None:
    key = await house.add("a")
    await house.caught_up()
    await house.deliveries.look(key, None)
    before = house.store.reads
    for known in (None, "1", "7"):
        assert (await house.deliveries.look(key, known)).delivery.rendered_version == 1
    assert house.store.reads == before


async def test_a_look_that_was_overtaken_is_not_remembered(house: House) -> None:
    """It read version 1; before it could be remembered the tail passed the change to 2."""
    key = await house.add("a")
    await house.caught_up()
    house.store.hold = release = asyncio.Event()
    looking = asyncio.create_task(house.deliveries.look(key, None))
    await house.store.held()
    await house.change(key, "new")
    await house.caught_up()
    release.set()
    assert (await looking).delivery.rendered_version == 1, "true when it was read"
    assert (await house.deliveries.look(key, "1")).delivery.rendered_version == 2


async def test_what_is_newer_than_the_tail_is_asked_for(house: House) -> None:
    key = await house.add("a")
    await house.caught_up()
    await house.deliveries.look(key, None)
    house.store.hold = asyncio.Event()  # the tail's next read hangs
    await house.change(key, "new")
    await house.store.held()
    assert (await house.deliveries.look(key, None)).delivery.rendered_version == 2


async def test_a_change_tells_those_who_wait_for_it(house: House) -> None:
    key, other = await house.add("a"), await house.add("b")
    waiter, bystander = house.deliveries.enter(key, "1"), house.deliveries.enter(other, "1")
    await house.change(key, "new")
    async with asyncio.timeout(PATIENCE_S):
        news = await waiter.news
    assert isinstance(news, Found)
    assert news.delivery.rendered_version == 2
    assert news.body is not None
    assert b"L2V0Yy94" not in news.body
    assert b'"/etc/x"' in news.body
    assert not bystander.news.done()


async def test_who_is_told_has_been_marked_before(house: House) -> None:
    key = await house.add("a")
    waiter = house.deliveries.enter(key, "1")
    await house.change(key, "new")
    async with asyncio.timeout(PATIENCE_S):
        await waiter.news
    assert await house.delivered(key) == 2


async def test_a_first_answer_is_marked_before_it_leaves_and_only_once(house: House) -> None:
    key = await house.add("a")
    await house.caught_up()
    found = await house.deliveries.look(key, None)
    assert await house.deliveries.body(key, found)
    assert await house.delivered(key) == 1
    house.store.failures = 1  # a second mark would fail
    assert await house.deliveries.body(key, await house.deliveries.look(key, None))
    assert house.store.failures == 1


async def test_an_answer_that_could_not_be_marked_does_not_leave(house: House) -> None:
    key = await house.add("a")
    found = await house.deliveries.look(key, None)
    house.store.failures = 1
    with pytest.raises(StoreBusy):
        await house.deliveries.body(key, found)
    assert await house.deliveries.body(key, found)


async def test_a_round_that_fails_is_made_again(house: House) -> None:
    key = await house.add("a")
    await house.caught_up()
    waiter = house.deliveries.enter(key, "1")
    house.store.hold = gate = asyncio.Event()
    await house.change(key, "new")
    house.store.failures = 2
    gate.set()
    async with asyncio.timeout(PATIENCE_S):
        news = await waiter.news
    assert isinstance(news, Found)
    assert house.store.failures == 0


async def test_a_deletion_tells_those_who_wait_and_is_not_found_after(house: House) -> None:
    key = await house.add("a")
    await house.deliveries.look(key, None)
    waiter = house.deliveries.enter(key, "1")
    await house.delete(key)
    async with asyncio.timeout(PATIENCE_S):
        assert await waiter.news is GONE
    with pytest.raises(NotFound):
        await house.deliveries.look(key, "1")


async def test_the_oldest_of_too_many_polls_ends_empty(house: House) -> None:
    key = await house.add("a")
    polls = [house.deliveries.enter(key, "1") for _ in range(3)]
    assert polls[0].news.result() is None
    assert not polls[1].news.done()
    for poll in polls:
        house.deliveries.leave(key, poll)
    assert not house.deliveries._waiters


async def test_after_a_drain_nobody_waits(house: House) -> None:
    key = await house.add("a")
    early = house.deliveries.enter(key, "1")
    house.deliveries.release()
    late = house.deliveries.enter(key, "1")
    assert early.news.result() is None
    assert late.news.result() is None


async def test_memory_is_bounded(tmp_path: Path) -> None:
    store = await Gate.open(data_dir=tmp_path)
    assert isinstance(store, Gate)
    settings = AgentApiSettings(remembered_devices=3, remembered_bodies_bytes=3_000)
    house = House(store, settings)
    await house.operations.prepare()
    keys = [await house.add(f"d{number}") for number in range(8)]
    house.start()
    await house.caught_up()
    for key in keys:
        await house.deliveries.look(key, None)
    assert len(house.deliveries._known) == 3
    held = house.deliveries._bodies
    assert house.deliveries._bodies_bytes == sum(map(len, held.values())) <= 3_000
    assert set(held) <= set(house.deliveries._known)
    await house.stop()
    await store.close()


async def test_random_changes_are_never_lost(house: House) -> None:
    """Each of several devices polls in a loop; each sees the last version in the end."""
    keys = [await house.add(f"d{number}") for number in range(5)]

    async def follow(key: Key) -> None:
        known = "1"
        while known != "11":
            waiter = house.deliveries.enter(key, known)
            found = await house.deliveries.look(key, known)
            if not found.is_news(known):
                news = await waiter.news
                assert isinstance(news, Found)
                found = news
            house.deliveries.leave(key, waiter)
            assert await house.deliveries.body(key, found)
            known = str(found.delivery.rendered_version)

    async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
        for key in keys:
            group.create_task(follow(key))
        for round_ in range(10):
            for key in keys:
                await house.change(key, str(round_))


async def test_thousands_are_told_a_few_a_turn_and_meanwhile_say_that_it_goes_on(
    house: House,
) -> None:
    fleet = await Service.over(house.operations)
    await fleet.fill(MANY)
    await house.caught_up()
    polls = [house.deliveries.enter(("default", f"d{n:06}"), "0") for n in range(MANY)]
    told = [0]
    await fleet.change("new")
    async with asyncio.timeout(PATIENCE_S):
        while told[-1] < MANY:
            told.append(sum(poll.news.done() for poll in polls))
            if 0 < told[-1] < MANY:
                # Who reports now is heard when all of them have been told.
                assert house.deliveries.tellings.is_under_way
            # The store's threads, which look them up, get no turn from a loop that always has one.
            time.sleep(0.001)
            await asyncio.sleep(0)
    turns = [later - earlier for earlier, later in pairwise(told)]
    assert max(turns) <= WAKES * TELL_CHUNK
    await house.deliveries.tellings.settled(60)
    assert all(isinstance(poll.news.result(), Found) for poll in polls)
