"""What a bulk bind costs PostgreSQL, as it counts itself: rows looked at, and index entries."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from apiserver.operations import ListOptions, Operations
from apiserver.store import Store
from bench.fleet import ADMIN, DEVICE, Service
from resources.selectors import parse_fields
from tests.fakes.postgres import Cluster
from tests.fakes.waiting import PATIENCE_S

NUMBER = 3_000


async def counted(cluster: Cluster, url: str) -> tuple[int, int, int]:
    """Of devices, since the database was made: new versions of rows, those of them that made no
    index entry, and rows that were read. A session has said all when it is gone."""
    database = url.rpartition("/")[2]
    async with asyncio.timeout(PATIENCE_S):
        while cluster.execute(f"SELECT pid FROM pg_stat_activity WHERE datname = '{database}'"):
            await asyncio.sleep(0.05)
    found = cluster.execute(
        "SELECT n_tup_upd, n_tup_hot_upd, seq_tup_read + idx_tup_fetch"
        " FROM pg_stat_user_tables WHERE relname = 'device'",
        database,
    )
    updated, hot, read = found[0]
    return updated, hot, read


def without_autovacuum(cluster: Cluster, url: str) -> None:
    """Nobody makes statistics of its tables. On a slow machine it came in the middle of a test,
    once a minute, and plans with and without them read each row another number of times."""
    database = url.rpartition("/")[2]
    ours = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    for (name,) in cluster.execute(ours, database):
        cluster.execute(f"ALTER TABLE {name} SET (autovacuum_enabled = false)", database)


@pytest.mark.timeout(300)
async def test_a_device_is_looked_at_a_few_times_however_many_there_are(
    postgres: Cluster, migrated: str, tmp_path: Path
) -> None:
    url = postgres.copy_database(migrated)
    without_autovacuum(postgres, url)
    operations = Operations(await Store.open(url, data_dir=tmp_path))
    await operations.prepare()
    service = await Service.over(operations)
    await service.fill(NUMBER)
    # A row grows while it is bound first, and may have to move to another page once.
    for content in ("one", "two"):
        await service.change(content)
    request = await service.offer("three")
    await service.stop()
    before = await counted(postgres, url)
    # Without statistics, and with plans as old as the empty database.
    print(f"{NUMBER} enrolled and bound: {before[2]} read")
    assert before[2] <= 12 * NUMBER

    service = Service(Operations(await Store.open(url, data_dir=tmp_path)))
    assert (await service.bind(request))["bound"] == NUMBER
    await service.stop()
    bound = await counted(postgres, url)
    updated, hot, read = (n - o for n, o in zip(bound, before, strict=True))
    print(f"{NUMBER} bound: {updated} new versions, {hot} without index entries, {read} read")
    assert updated == NUMBER
    # Nothing that an index has moved this time: they were out of date before.
    assert hot >= 0.9 * NUMBER
    # Once to be chosen, once to be changed, and once to see that nobody is left.
    assert read <= 3.2 * NUMBER

    service = Service(Operations(await Store.open(url, data_dir=tmp_path)))
    for owners, number in (("=Fleet/web", 50), (" in (Fleet/none, web)", 0)):
        fields = parse_fields(f"metadata.owner{owners}", DEVICE.selectable)
        options = ListOptions(fields=fields, limit=50)
        page = await service.operations.list(ADMIN, DEVICE, "default", options)
        assert len(page.items) == number
    await service.stop()
    # An owner has no index of its own; that of the fleets finds his devices.
    assert (await counted(postgres, url))[2] - bound[2] < 60
