"""What a database is to the store: transactions that run synchronous code, on SQLite or PostgreSQL.

A function given to `read` or `transact` gets a Connection with its transaction open, and never
commits itself. Both databases run it in a thread (see `threads`), so that building a long list
holds up nobody who waits for something else. Faults come up as what they mean: `StoreUnavailable`
and its kinds where the database is at fault, and what was raised everywhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from apiserver.store.dialect import Dialect

T = TypeVar("T")
Publish = Callable[[int], None]

_MIGRATIONS = Path(__file__).with_name("migrations")


class StoreLocked(Exception):
    """Another process has this data directory open."""


class StoreTooNew(Exception):
    """The database was written by a newer Homeport than this one."""


class StoreUnavailable(Exception):
    """The database cannot be reached, opened, read or written."""


class StoreFull(StoreUnavailable):
    """There is no room left for the database. Nothing of the transaction was kept."""


class StoreUnreachable(StoreUnavailable):
    """There is no connection, or it was lost before the commit. Nothing was kept."""


class CommitUnanswered(StoreUnavailable):
    """The connection was lost while the transaction was committed: it is there as a whole, or it is
    not there at all."""


Faults = tuple[type[Exception], ...]


class Database(Protocol):
    """What the sequencer and the readers need of a database. `faults` are what its statements may
    raise, by themselves or through SQLAlchemy."""

    dialect: Dialect
    faults: Faults

    async def read(self, query: Callable[[Connection], T]) -> T: ...

    async def transact(self, work: Callable[[Connection], T], *, commit: bool = True) -> T: ...

    async def follow(self, publish: Publish) -> None:
        """Publish versions that other processes commit, until cancelled."""

    async def close(self) -> None: ...


def migrate(connection: Connection, to: str = "head") -> None:
    """Bring the schema to this version. Raises StoreTooNew when it is ahead of us."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    if inspect(connection).has_table("alembic_version"):
        current = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if current is not None and current not in known:
            raise StoreTooNew(
                f"the database has schema {current}, which this version of Homeport does not know; "
                "start the version that wrote it, or a newer one"
            )
    command.upgrade(config, to)
