"""A commit makes one look for all watchers that ask for the same, and wakes those who are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apiserver.auth.identity import Caller
from apiserver.operations import Operations, WatchBatch, WatchEvent, WatchOptions, WriteOptions
from apiserver.store import Snapshot, Store
from apiserver.watching import Feed, Step
from resources import registry
from resources.kind import Kind
from resources.selectors import parse_labels
from tests.fakes.waiting import until

FLEET = registry.by_kind("Fleet")
ADMIN = Caller(name="admin", role="admin")
WATCHERS = 50
EVENT = WatchEvent("MODIFIED", {})


class Counting(Store):
    reads = 0

    async def read(self, query: Callable[[Snapshot], Any]) -> Any:
        self.reads += 1
        return await super().read(query)


def waiting(operations: Operations) -> int:
    """How many watchers have seen all that there is."""
    return sum(len(feed.waiting) for feed in operations._looks._feeds.values())


async def test_fifty_watchers_read_once_for_each_selection(tmp_path: Path) -> None:
    store = await Counting.open(data_dir=tmp_path)
    assert isinstance(store, Counting)
    operations = Operations(store)
    await operations.prepare()
    seen: list[list[str]] = [[] for _ in range(WATCHERS)]

    async def watch(number: int) -> None:
        labels = parse_labels("n=2" if number % 2 else "n")
        version = store.hub.version
        options = WatchOptions(labels=labels, resource_version=version, timeout_s=30.0)
        async for batch in operations.watch(ADMIN, FLEET, "default", options):
            seen[number].extend(event.document["metadata"]["name"] for event in batch.events)

    async def create(name: str, n: str) -> None:
        document = {
            "metadata": {"name": name, "labels": {"n": n}},
            "spec": {"template": {"spec": {}}},
        }
        await operations.create(ADMIN, FLEET, "default", document, WriteOptions())

    watchers = [asyncio.create_task(watch(number)) for number in range(WATCHERS)]
    await until(lambda: waiting(operations) == WATCHERS)
    before = store.reads
    await create("a", "1")
    await create("b", "2")
    while not all(seen[n][-1:] == ["b"] for n in range(WATCHERS)):
        await asyncio.sleep(0.01)
    # Two commits, two selections; a look that began between the commits makes one more of each.
    assert store.reads - before <= 6
    assert seen == [["b"] if n % 2 else ["a", "b"] for n in range(WATCHERS)]
    store.hub.close()
    await asyncio.gather(*watchers)
    await store.close()


async def test_a_commit_of_another_kind_makes_nobody_read(tmp_path: Path) -> None:
    store = await Counting.open(data_dir=tmp_path)
    assert isinstance(store, Counting)
    operations = Operations(store)
    await operations.prepare()
    seen: list[str] = []

    async def watch() -> None:
        options = WatchOptions(resource_version=store.hub.version, timeout_s=30.0)
        async for batch in operations.watch(ADMIN, FLEET, "default", options):
            seen.extend(event.document["metadata"]["name"] for event in batch.events)

    async def create(kind: Kind, name: str, spec: dict[str, Any]) -> None:
        document = {"metadata": {"name": name}, "spec": spec}
        await operations.create(ADMIN, kind, "default", document, WriteOptions())

    watcher = asyncio.create_task(watch())
    await until(lambda: waiting(operations) == 1)
    before = store.reads
    for number in range(5):
        await create(registry.by_kind("Organization"), f"org-{number}", {"displayName": "o"})
        await asyncio.sleep(0.05)
    assert store.reads == before
    await create(FLEET, "a", {"template": {"spec": {}}})
    while seen != ["a"]:
        await asyncio.sleep(0.01)
    store.hub.close()
    await watcher
    await store.close()


async def test_what_a_selection_does_not_tell_wakes_none_of_its_watchers(tmp_path: Path) -> None:
    store = await Store.open(data_dir=tmp_path)
    operations = Operations(store)
    await operations.prepare()
    asked: list[int] = []
    following = operations._looks.following

    async def counted(*args: Any) -> Step:
        asked.append(args[3])
        return await following(*args)

    operations._looks.following = counted  # type: ignore[method-assign]
    labels, last = parse_labels("n=2"), [""]

    async def watch() -> None:
        options = WatchOptions(labels=labels, resource_version=store.hub.version, timeout_s=30.0)
        async for batch in operations.watch(ADMIN, FLEET, "default", options):
            last[0] = batch.events[-1].document["metadata"]["name"]

    async def create(name: str, n: str) -> None:
        metadata = {"name": name, "labels": {"n": n}}
        document = {"metadata": metadata, "spec": {"template": {"spec": {}}}}
        await operations.create(ADMIN, FLEET, "default", document, WriteOptions())

    watcher = asyncio.create_task(watch())
    while not asked:
        await asyncio.sleep(0.01)
    for number in range(20):
        await create(f"other-{number}", "1")
    await asyncio.sleep(0.2)
    assert len(asked) == 1
    await create("mine", "2")
    while last != ["mine"]:
        await asyncio.sleep(0.01)
    store.hub.close()
    await watcher
    await store.close()


async def test_each_is_told_what_it_has_not_seen() -> None:
    feed = Feed(10)
    waiters = {seen: asyncio.get_running_loop().create_future() for seen in (10, 15, 20, 25)}
    feed.waiting = {waiter: seen for seen, waiter in waiters.items()}
    step = Step(WatchBatch([EVENT]), 20, caught_up=True)
    feed.tell(step)
    assert waiters[10].result() is step
    again = waiters[15].result()
    assert (list(again.batch.events), again.cursor, again.caught_up) == ([], 15, False)
    assert not waiters[20].done()
    assert not waiters[25].done()


async def test_a_look_without_events_moves_the_feed_and_wakes_nobody() -> None:
    feed = Feed(10)
    waiter = asyncio.get_running_loop().create_future()
    feed.waiting = {waiter: 10}
    feed.tell(Step(WatchBatch([]), 20, caught_up=True))
    assert not waiter.done()
    step = Step(WatchBatch([EVENT]), 30, caught_up=True)
    feed.tell(step)
    assert waiter.result() is step


async def test_who_gives_up_has_seen_all_that_the_feed_has() -> None:
    feed = Feed(10)
    waiter = asyncio.get_running_loop().create_future()
    feed.waiting = {waiter: 10}
    feed.tell(Step(WatchBatch([]), 20, caught_up=True))
    feed.give_up(waiter)
    told = waiter.result()
    assert (list(told.batch.events), told.cursor, told.caught_up) == ([], 20, True)


async def test_a_look_that_fails_fails_for_all_who_wait() -> None:
    feed = Feed(10)
    waiters = [asyncio.get_running_loop().create_future() for _ in range(2)]
    feed.waiting = dict.fromkeys(waiters, 10)
    feed.quit(RuntimeError("gone"))
    assert [str(waiter.exception()) for waiter in waiters] == ["gone", "gone"]
