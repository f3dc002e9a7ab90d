"""The audit on both databases: with the change or not at all, in one order, whole in its file."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apiserver import auditfile, housekeeping
from apiserver.auditing import Act, entry, noted
from apiserver.auth.identity import Caller
from apiserver.operations import Operations, WriteOptions
from apiserver.store import Store, Transaction, auditlog
from apiserver.store.auditlog import Row, Wanted
from resources import registry
from resources.kind import Json
from tests.fakes import sql
from tests.fakes.waiting import until

FLEET = registry.by_kind("Fleet")
ADA = Caller("ada", role="admin", source="test")


@pytest.fixture
async def operations(database_url: str, tmp_path: Path) -> AsyncIterator[Operations]:
    store = await Store.open(database_url, data_dir=tmp_path)
    made = Operations(store)
    await made.prepare()
    yield made
    await store.close()


def fleet(name: str) -> Json:
    spec = {"selector": {"matchLabels": {"fleet": name}}, "template": {"spec": {}}}
    return {"metadata": {"name": name}, "spec": spec}


async def create(operations: Operations, name: str) -> None:
    await operations.create(ADA, FLEET, "default", fleet(name), WriteOptions())


async def told(store: Store) -> list[Row]:
    return await store.read(lambda s: auditlog.page(s, Wanted(), 0, 10_000))


async def test_there_is_an_entry_for_each_change_and_for_nothing_else(
    operations: Operations,
) -> None:
    """Good writes, refused ones and such as fail after they wrote, all in the same batches."""
    store = operations.store

    def work(tx: Transaction) -> list[Json]:
        tx.next_version()
        return [{}]

    def spoil(tx: Transaction) -> None:
        noted(Act(ADA, "create", FLEET, "default"), work)(tx)
        raise RuntimeError("after it wrote, and after it was told")

    works = [create(operations, f"f{n % 40}") for n in range(60)]
    works += [store.write(spoil) for _ in range(5)]
    outcomes = await asyncio.gather(*works, return_exceptions=True)
    made = [each for each in outcomes if not isinstance(each, BaseException)]
    rows = await told(store)
    assert len(made) == len(rows) == 40
    assert [row.id for row in rows] == sorted({row.id for row in rows})
    versions = {row.spec["object"]["name"]: row.spec["object"]["resourceVersion"] for row in rows}
    stored = await store.read(lambda s: s.list(FLEET, "default"))
    assert versions == {d["metadata"]["name"]: d["metadata"]["resourceVersion"] for d in stored}


async def test_it_is_kept_as_long_as_was_said_and_numbers_never_come_again(
    operations: Operations, database_url: str, tmp_path: Path
) -> None:
    for n in range(5):
        await create(operations, f"f{n}")
    store = operations.store
    assert await store.write(lambda tx: auditlog.forget(tx, 0, keep=3)) == 2
    assert await housekeeping.forget_audit(operations, datetime.now(UTC) - timedelta(days=1)) == 0
    assert await housekeeping.forget_audit(operations, datetime.now(UTC) + timedelta(days=1)) == 3
    assert await told(store) == []
    await create(operations, "later")
    assert [row.id for row in await told(store)] == [6]
    url = sql.place(tmp_path, database_url)
    assert sql.rows(url, "SELECT audit_version FROM store_meta")[0][0] == 6


def lines(path: Path) -> list[int]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [int(each["metadata"]["resourceVersion"]) for each in found]


async def test_the_file_is_whole_wherever_the_process_died(
    operations: Operations, tmp_path: Path
) -> None:
    path, store = tmp_path / "audit.jsonl", operations.store
    for n in range(5):
        await create(operations, f"f{n}")
    await auditfile.write(store, path, auditfile.prepare(path))
    assert path.stat().st_mode & 0o777 == 0o600
    content = path.read_bytes()
    await create(operations, "later")
    ends = [n for n, byte in enumerate(content) if byte == ord("\n")]
    for cut in (0, 1, ends[0], ends[0] + 1, ends[2] - 7, len(content) - 1, len(content)):
        path.write_bytes(content[:cut])
        await auditfile.write(store, path, auditfile.prepare(path))
        assert lines(path) == [1, 2, 3, 4, 5, 6], cut


async def test_who_moves_the_file_away_gets_a_new_one(
    operations: Operations, tmp_path: Path
) -> None:
    path, store = tmp_path / "audit.jsonl", operations.store
    await create(operations, "a")
    task = asyncio.create_task(auditfile.keep_writing(store, path, auditfile.prepare(path)))
    try:
        await until(lambda: path.exists() and lines(path) == [1])
        path.rename(tmp_path / "old")
        await create(operations, "b")
        await until(lambda: path.exists() and lines(path) == [2])
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_two_servers_tell_in_one_order(
    new_database: Callable[[str], str], tmp_path: Path
) -> None:
    """Who has read up to a number has missed nothing, whichever process wrote."""
    url = new_database("postgresql")
    stores = [await Store.open(url) for _ in range(2)]
    seen: list[int] = []

    async def write(store: Store, n: int) -> None:
        about = {"kind": "Fleet", "name": f"f{n}"}
        await store.write(lambda tx: tx.audit([entry(ADA, "create", about, 201)]))

    async def follow() -> None:
        while len(seen) < 60:
            last = seen[-1] if seen else 0
            rows = await stores[0].read(lambda s, n=last: auditlog.page(s, Wanted(), n, 100))
            seen.extend(row.id for row in rows)

    async with asyncio.timeout(50):
        await asyncio.gather(follow(), *(write(stores[n % 2], n) for n in range(60)))
    assert seen == list(range(1, 61))
    for store in stores:
        await store.close()
