"""A commit wakes all watchers, and one of them reads for all that ask for the same."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from apiserver.auth.identity import Caller
from apiserver.operations import Operations, WatchOptions, WriteOptions
from apiserver.store import Snapshot, Store
from resources import registry
from resources.selectors import parse_labels

FLEET = registry.by_kind("Fleet")
ADMIN = Caller(name="admin", role="admin")
WATCHERS = 50


class Counting(Store):
    reads = 0

    async def read(self, query: Callable[[Snapshot], Any]) -> Any:
        self.reads += 1
        return await super().read(query)


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
    await asyncio.sleep(0.5)
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
