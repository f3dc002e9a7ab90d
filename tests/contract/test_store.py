"""The store on both databases: versions, log, selectors, dry runs, group commit, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from apiserver.store import Snapshot, Store, StoreLocked, StoreTooNew, Transaction, database
from resources import digest, registry
from resources.kind import Json
from resources.selectors import parse_fields, parse_labels

FLEET = registry.by_kind("Fleet")


@pytest.fixture
async def store(database_url: str, tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(database_url, data_dir=tmp_path)
    yield opened
    await opened.close()


def fleet(name: str, **labels: str) -> Json:
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "generation": 1,
            "creationTimestamp": "2026-11-23T00:00:00Z",
            "labels": labels,
        },
        "spec": {"template": {"spec": {"os": {"image": f"img-{name}"}}}},
    }


async def test_versions_are_consecutive_and_the_log_is_gapless(store: Store) -> None:
    await asyncio.gather(
        *(store.write(lambda tx, n=n: tx.insert(FLEET, fleet(f"f{n}"))) for n in range(100))
    )
    rows = await store.read(lambda s: s.changes(FLEET, None, 0, 1_000))
    assert [row.version for row in rows] == list(range(1, 101))
    assert store.hub.version == 100


async def test_a_write_that_changes_nothing_gets_no_version(store: Store) -> None:
    stored = await store.write(lambda tx: tx.insert(FLEET, fleet("a")))
    same = await store.write(lambda tx: tx.update(FLEET, stored, dict(stored)))
    assert same["metadata"]["resourceVersion"] == "1"
    assert store.hub.version == 1


async def test_a_mutation_that_fails_after_writing_costs_its_neighbours_nothing(
    store: Store,
) -> None:
    def spoil(tx: Transaction) -> None:
        tx.insert(FLEET, fleet("bad"))
        raise ValueError("after writing")

    results = await asyncio.gather(
        store.write(lambda tx: tx.insert(FLEET, fleet("a"))),
        store.write(spoil),
        store.write(lambda tx: tx.insert(FLEET, fleet("b"))),
        return_exceptions=True,
    )
    assert isinstance(results[1], ValueError)
    listed = await store.read(lambda s: s.list(FLEET, "default"))
    assert [d["metadata"]["name"] for d in listed] == ["a", "b"]
    assert sorted(int(d["metadata"]["resourceVersion"]) for d in listed) == [1, 2]


async def test_a_dry_run_leaves_nothing(store: Store) -> None:
    shown = await store.write(lambda tx: tx.insert(FLEET, fleet("a")), dry_run=True)
    assert shown["metadata"]["name"] == "a"
    assert await store.read(lambda s: s.get(FLEET, "default", "a")) is None
    assert await store.read(lambda s: s.version) == 0


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("site=a", ["f1", "f2"]),
        ("site!=a", ["f3", "f4"]),
        ("site in (a,b),tier", ["f2"]),
        ("!site", ["f4"]),
        ("(site,tier) in ((a,1))", ["f2"]),
        ("site=a,tier!=1", ["f1"]),
    ],
)
async def test_label_selectors_mean_in_sql_what_they_mean_in_python(
    store: Store, selector: str, expected: list[str]
) -> None:
    rows = [fleet("f1", site="a"), fleet("f2", site="a", tier="1"), fleet("f3", site="b")]
    for document in [*rows, fleet("f4")]:
        await store.write(lambda tx, d=document: tx.insert(FLEET, d))
    wanted = parse_labels(selector)
    found = await store.read(lambda s: s.list(FLEET, "default", labels=wanted))
    assert [d["metadata"]["name"] for d in found] == expected
    everything = await store.read(lambda s: s.list(FLEET, None))
    matched = [d for d in everything if wanted.matches(d["metadata"].get("labels", {}))]
    assert [d["metadata"]["name"] for d in matched] == expected


async def test_pages_go_on_by_key(store: Store) -> None:
    for n in range(5):
        await store.write(lambda tx, n=n: tx.insert(FLEET, fleet(f"f{n}")))
    page = await store.read(lambda s: s.list(FLEET, None, after=("default", "f1"), limit=2))
    assert [d["metadata"]["name"] for d in page] == ["f2", "f3"]


async def test_fields_select(store: Store) -> None:
    for n in range(3):
        await store.write(lambda tx, n=n: tx.insert(FLEET, fleet(f"f{n}")))
    fields = parse_fields("spec.template.spec.os.image=img-f1", FLEET.selectable)
    found = await store.read(lambda s: s.list(FLEET, None, fields=fields))
    assert [d["metadata"]["name"] for d in found] == ["f1"]


async def test_a_second_process_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreLocked, match="in use by process"):
        await Store.open(data_dir=tmp_path)


async def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    import sqlite3

    opened = await Store.open(data_dir=tmp_path)
    await opened.close()
    connection = sqlite3.connect(tmp_path / "homeport.db")
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    with pytest.raises(StoreTooNew, match="9999"):
        await Store.open(data_dir=tmp_path)


async def test_what_was_acknowledged_is_there_after_reopening(tmp_path: Path) -> None:
    opened = await Store.open(data_dir=tmp_path)
    await opened.write(lambda tx: tx.insert(FLEET, fleet("a")))
    await opened.close()
    again = await Store.open(data_dir=tmp_path)
    assert again.hub.version == 1
    assert await again.read(lambda s: s.get(FLEET, "default", "a")) is not None
    await again.close()


async def test_a_read_that_failed_half_way_does_not_hold_the_past(store: Store) -> None:
    kept: list[object] = []

    def fail(snapshot: Snapshot) -> None:
        # The cursor is not read to its end, and stays referenced, as from a traceback.
        cursor = snapshot.connection.exec_driver_sql(
            "SELECT a.uid FROM change a, change b, change c"
        )
        kept.append(cursor)
        cursor.fetchone()
        raise ValueError("half way")

    for name in ("a", "b"):
        await store.write(lambda tx, name=name: tx.insert(FLEET, fleet(name)))
    for _ in range(10):
        with pytest.raises(ValueError, match="half way"):
            await store.read(fail)
    await store.write(lambda tx: tx.insert(FLEET, fleet("c")))
    for _ in range(10):
        assert await store.read(lambda s: s.version) == 3


async def test_a_store_that_is_older_than_the_key_of_secrets_gets_one_and_keeps_it(
    tmp_path: Path,
) -> None:
    """The first schema, with its one row, as the first release wrote it."""
    engine = create_engine(f"sqlite:///{tmp_path / 'homeport.db'}")
    with engine.begin() as connection:
        database.migrate(connection, "0001")
        connection.exec_driver_sql("INSERT INTO store_meta VALUES (1, 'uid', 7, 0, 0, '', 0)")
    engine.dispose()
    digests = set()
    for _ in range(2):
        store = await Store.open(data_dir=tmp_path)
        assert store.hub.version == 7
        digests.add(await store.read(lambda s: s.digest_of(b"secret", is_secret=True)))
        await store.close()
    assert len(digests) == 1
    assert digests != {digest.keyed(b"", b"secret")}


async def test_what_is_urgent_goes_before_all_that_waits(store: Store) -> None:
    order: list[int] = []

    def write(number: int, tx: Transaction) -> None:
        order.append(number)
        tx.insert(FLEET, fleet(f"f{number}"))

    waiting = [
        asyncio.create_task(store.write(partial(write, number), is_urgent=number == 199))
        for number in range(200)
    ]
    await asyncio.gather(*waiting)
    assert order[0] == 199
    assert order[1:] == list(range(199))


async def test_objects_are_found_by_what_their_specification_says(store: Store) -> None:
    for name in ("a", "ab", "b"):
        await store.write(lambda tx, name=name: tx.insert(FLEET, fleet(name)))  # type: ignore[misc]
    found = await store.read(lambda s: s.saying(FLEET, "default", "image", "img-a"))
    assert [each["metadata"]["name"] for each in found] == ["a"]
    assert not await store.read(lambda s: s.saying(FLEET, "other", "image", "img-a"))
    assert not await store.read(lambda s: s.saying(FLEET, "default", "image", "img"))
