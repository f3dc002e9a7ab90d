"""What holds for all tests: a property is about values, never about how busy the machine is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.fakes.postgres import Cluster

# A test that may take longer than this begins first, or all would wait for it in the end.
LONG_S = 120

settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


def may_take_s(item: pytest.Item) -> float:
    """The test's own limit, 0 for whoever has the house's."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker and marker.args else 0.0


def long_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Each worker begins with a piece of the list as long as anybody's; at its head are the long
    ones in turn."""
    long = sorted((item for item in items if may_take_s(item) > LONG_S), key=may_take_s)[::-1]
    short = [item for item in items if may_take_s(item) <= LONG_S]
    pieces: list[pytest.Item] = []
    for worker in range(workers):
        head = long[worker::workers]
        rest = max(0, (len(items) - len(pieces)) // (workers - worker) - len(head))
        pieces += [*head, *short[:rest]]
        del short[:rest]
    return pieces


def long_files_first(items: list[pytest.Item]) -> list[pytest.Item]:
    """The tests of a file that shares devices stay in their order."""
    limits: dict[Path, float] = {}
    for item in items:
        limits[item.path] = max(limits.get(item.path, 0.0), may_take_s(item))
    return sorted(items, key=lambda item: -limits[item.path])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    workers = getattr(config, "workerinput", {}).get("workercount")
    if any(item.get_closest_marker("e2e") for item in items):
        items[:] = long_files_first(items)
    elif workers:
        items[:] = long_first(items, workers)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """A PostgreSQL of this session's own; whoever asks makes databases in it."""
    from tests.fakes import postgres

    if why := postgres.missing():
        pytest.skip(why)
    with postgres.running() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def migrated(postgres: Cluster) -> str:
    """The URL of a database with our schema, of which copies are made: a tenth of a second each."""

    from apiserver.store.postgres import PostgresDatabase

    async def migrate(url: str) -> None:
        await (await PostgresDatabase.open(url)).close()

    url = postgres.create_database()
    asyncio.run(migrate(url))
    return url


@pytest.fixture(scope="session")
def new_database(request: pytest.FixtureRequest) -> Callable[[str], str]:
    """By the name of a store, what `--database` is given for a fresh one; the data directory makes
    SQLite's. For fixtures that outlive a test; a test asks for `database_url`."""

    def made(store: str) -> str:
        if store == "sqlite":
            return ""
        cluster: Cluster = request.getfixturevalue("postgres")
        return cluster.copy_database(request.getfixturevalue("migrated"))

    return made


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, new_database: Callable[[str], str]) -> str:
    """A test that asks runs on both stores, with a database of its own."""
    return new_database(request.param)
