"""A full disk: a clear refusal, nothing half-written, and all is well when there is room."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from apiserver import refusing
from apiserver.store import Store, StoreFull
from bench.fleet import ADMIN, FLEET, PLAIN, Service

PAGES = 400


@dataclass
class Room:
    """What the database may have, asked when a connection is opened."""

    pages: int = PAGES


@pytest.fixture
def room() -> Room:
    return Room()


@pytest.fixture
async def service(tmp_path: Path, room: Room) -> AsyncIterator[Service]:
    """SQLite's own limit on its pages stands in for the disk's end: the same error, from the same
    place in it."""

    def limited(connection: Any, _record: object) -> None:
        connection.execute(f"PRAGMA max_page_count={room.pages}")

    event.listen(Engine, "connect", limited)
    try:
        started = await Service.start(tmp_path)
        yield started
        await started.stop()
    finally:
        event.remove(Engine, "connect", limited)


async def write(service: Service, name: str, size: int = 50_000) -> None:
    document = {
        "metadata": {"name": name, "annotations": {"big": "x" * size}},
        "spec": {"template": {"spec": {}}},
    }
    await service.operations.create(ADMIN, FLEET, "default", document, PLAIN)


async def fill(service: Service) -> list[str]:
    """Names that were acknowledged before the refusal."""
    written = []
    for number in range(PAGES):
        try:
            await write(service, f"f{number}")
        except StoreFull:
            return written
        written.append(f"f{number}")
    raise AssertionError("the disk was never full")


async def names_and_log(store: Store) -> tuple[set[str], list[int]]:
    def look(snapshot: Any) -> tuple[set[str], list[int]]:
        names = {d["metadata"]["name"] for d in snapshot.list(FLEET, None)}
        rows = snapshot.connection.exec_driver_sql(
            "SELECT resource_version FROM change ORDER BY resource_version"
        )
        return names, [row[0] for row in rows]

    return await store.read(look)


async def test_a_full_disk_refuses_and_loses_nothing(service: Service) -> None:
    written = await fill(service)
    names, versions = await names_and_log(service.operations.store)
    assert names == {"web", *written}
    assert versions == list(range(1, service.operations.store.hub.version + 1))


async def test_who_still_fits_is_served_beside_who_does_not(service: Service) -> None:
    """One batch: a fault of the database undoes all of it, and each is run again alone."""
    written = await fill(service)
    big = [write(service, f"big{n}") for n in range(4)]
    small = [write(service, f"small{n}", size=10) for n in range(4)]
    mixed = [work for pair in zip(big, small, strict=True) for work in pair]
    answers = await asyncio.gather(*mixed, return_exceptions=True)
    assert all(isinstance(answer, StoreFull) for answer in answers[::2]), answers
    kept = {f"small{n}" for n, answer in enumerate(answers[1::2]) if answer is None}
    names, versions = await names_and_log(service.operations.store)
    assert names == {"web", *written} | kept
    assert versions == list(range(1, service.operations.store.hub.version + 1))


async def test_with_room_again_writes_go_on_without_a_restart(service: Service, room: Room) -> None:
    await fill(service)
    # The connection that met the fault is gone; a new one sees the room.
    room.pages = 9 * PAGES
    await write(service, "later")
    names, _ = await names_and_log(service.operations.store)
    assert "later" in names


def test_people_are_told_what_to_do_and_clients_do_not_wait() -> None:
    told = refusing.of_store(StoreFull("the disk of the database is full; nothing was changed"))
    assert told is not None
    assert (told.code, told.retry_after_s) == (507, 0)
    assert "disk of the database is full" in told.message
