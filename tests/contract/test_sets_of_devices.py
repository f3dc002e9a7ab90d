"""What touches many devices takes a few statements for each thousand, and does to each what it
would do to it alone. On both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from apiserver import acting, restored, resuming
from apiserver.auth.identity import ADMIN, Caller
from apiserver.operations import Operations, WriteOptions
from apiserver.store import Store, Transaction, devices, overriding, presence, recount
from apiserver.store.tables import DEVICE as ROWS
from resources import pause, registry

Json = dict[str, Any]
PERSON = Caller(name="ada", role=ADMIN)
DEVICE, FLEET = registry.by_kind("Device"), registry.by_kind("Fleet")
NUMBER = 1_010
SPEC = {"applications": [{"name": "web", "appType": "container", "image": "quay.io/x/web:1"}]}


@pytest.fixture
async def operations(tmp_path: Path, database_url: str) -> AsyncIterator[Operations]:
    store = await Store.open(database_url, data_dir=tmp_path)
    operations = Operations(store)
    await operations.prepare()

    def fill(tx: Transaction) -> None:
        for number in range(NUMBER):
            document = {
                "metadata": {"name": f"d{number:04}", "labels": {"half": str(number % 2)}},
                "spec": SPEC,
            }
            operations.insert_in(tx, PERSON, DEVICE, document, "default")

    await store.write(fill)
    yield operations
    await store.close()


async def counted(operations: Operations, column: Any) -> dict[Any, int]:
    def count(snapshot: Any) -> dict[Any, int]:
        found: dict[Any, int] = {}
        for (value,) in snapshot.connection.execute(select(column)):
            found[value] = found.get(value, 0) + 1
        for fleet in ("", "web"):
            assert not recount.difference(snapshot, ("default", fleet))
        return found

    return await operations.store.read(count)


async def test_a_thousand_devices_go_come_back_are_told_to_stop_and_are_resumed(
    operations: Operations,
) -> None:
    """One store for all of it, since it takes longest to fill."""
    await sweep_and_return(operations)
    await stop_in_a_fleet(operations)
    await restore_and_resume(operations)


async def sweep_and_return(operations: Operations) -> None:
    uids = await operations.store.read(
        lambda s: [uid for (uid,) in s.connection.execute(select(ROWS.c.uid))]
    )
    await operations.store.write(lambda tx: presence.record(tx, dict.fromkeys(uids, 1.0)))
    assert await counted(operations, ROWS.c.summary_status) == {"Online": NUMBER}
    gone = [await operations.store.write(lambda tx: presence.sweep(tx, 2.0)) for _ in range(3)]
    assert gone == [presence.SWEEP_LIMIT, NUMBER - presence.SWEEP_LIMIT, 0]
    assert await counted(operations, ROWS.c.summary_status) == {"Unknown": NUMBER}


async def stop_in_a_fleet(operations: Operations) -> None:
    spec = {"selector": {"matchLabels": {"half": "0"}}, "template": {"spec": SPEC}}
    fleet = {"metadata": {"name": "web"}, "spec": spec}
    await operations.create(PERSON, FLEET, "default", fleet, WriteOptions())
    body = {"application": "web", "action": "stop"}
    await acting.act(operations, PERSON, FLEET, "default", "web", body)
    wishes = await counted(operations, ROWS.c.fleet_overrides)
    assert wishes.pop(None) == NUMBER // 2
    assert list(wishes.values()) == [NUMBER // 2]
    # One whose wish was lost, as by a crash, is found and given it.
    lost = update(ROWS).where(ROWS.c.name == "d0000").values(fleet_overrides=None)

    def lose(tx: Transaction) -> None:
        tx.connection.execute(lost)
        tx.writes += 1

    await operations.store.write(lose)
    given = [
        await operations.store.write(lambda tx: overriding.hand_down(tx, "default", "web"))
        for _ in range(2)
    ]
    assert given == [1, 0]


async def restore_and_resume(operations: Operations) -> None:
    assert await restored.declare(operations) == NUMBER
    assert await counted(operations, ROWS.c.summary_status) == {"AwaitingReconnect": NUMBER}
    assert await counted(operations, ROWS.c.pause) == {pause.AWAITING: NUMBER}

    def all_ahead(tx: Transaction) -> None:
        rows = list(tx.connection.execute(select(ROWS)).mappings())
        devices.save_all(
            tx,
            (devices.Change(row, {"pause": pause.AHEAD, "reported_version": 40}) for row in rows),
        )

    await operations.store.write(all_ahead)
    assert await counted(operations, ROWS.c.summary_status) == {"ConflictPaused": NUMBER}
    half = {"resumedDevices": NUMBER // 2}
    assert await resuming.resume(operations, PERSON, "default", {"labelSelector": "half=1"}) == half
    assert await counted(operations, ROWS.c.pause) == {0: NUMBER // 2, pause.AHEAD: NUMBER // 2}
    assert (await counted(operations, ROWS.c.rendered_version))[41] == NUMBER // 2
    assert await resuming.resume(operations, PERSON, "default", {}) == half
    assert await counted(operations, ROWS.c.rendered_version) == {41: NUMBER}
