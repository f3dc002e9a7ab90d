"""What holds for all tests: a property is about values, never about how busy the machine is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.fakes.postgres import Cluster

settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")


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
