"""Connections and transactions of the two databases; what runs inside is synchronous on both.

SQLite: one writer thread with one connection, several reader threads with one each; a lock file
keeps other processes out. PostgreSQL: asyncpg under SQLAlchemy, whose `run_sync` runs the same
synchronous code in a greenlet. A function given to `read` or `transact` gets a Connection with its
transaction open, and never commits itself.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from apiserver.store.dialect import Dialect
from apiserver.store.tables import SCRATCH

T = TypeVar("T")

READERS = 3
_MIGRATIONS = Path(__file__).with_name("migrations")


class StoreLocked(Exception):
    """Another process has this data directory open."""


class StoreTooNew(Exception):
    """The database was written by a newer Homeport than this one."""


class StoreUnavailable(Exception):
    """The database cannot be reached, opened, read or written."""


class StoreFull(StoreUnavailable):
    """There is no room left for the database. Nothing of the transaction was kept."""


FAULTS = (sqlite3.Error, SQLAlchemyError)


def refusal_of(fault: BaseException | None) -> StoreUnavailable | None:
    """What a fault of SQLite itself means: not of a statement, but of the file and its disk."""
    if isinstance(fault, DBAPIError):
        fault = fault.orig
    if not isinstance(fault, sqlite3.Error):
        return None
    # The extended codes have the plain one in their last byte.
    match getattr(fault, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return StoreFull("the disk of the database is full; nothing was changed")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return StoreUnavailable(f"the database file is damaged: {fault}; restore a backup")
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY:
            return StoreUnavailable(f"the database file cannot be used: {fault}")
        case _:
            return None


class Database(Protocol):
    """What the sequencer and the readers need of a database."""

    dialect: Dialect

    async def read(self, query: Callable[[Connection], T]) -> T: ...

    async def transact(self, work: Callable[[Connection], T], *, commit: bool = True) -> T: ...

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


class SqliteDatabase:
    """The embedded default: WAL, synchronous=FULL."""

    dialect = Dialect("sqlite")

    def __init__(self, path: Path) -> None:
        self._lock = _lock_file(path.with_name(path.name + ".lock"))
        # What SQLite puts beside the file gets the same mode.
        path.touch(mode=0o600)
        self._engine = _sqlite_engine(path)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="store-reader")
        self._own = threading.local()
        self._opened: list[Connection] = []
        try:
            with self._engine.connect() as connection:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
                connection.exec_driver_sql("BEGIN IMMEDIATE")
                migrate(connection)
                connection.commit()
        except BaseException as error:
            self._engine.dispose()
            self._lock.close()
            if refusal := refusal_of(error):
                raise refusal from error
            raise

    def _connection(self) -> Connection:
        connection: Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._engine.connect()
            self._opened.append(connection)
            for name, columns in SCRATCH.items():
                connection.exec_driver_sql(f"CREATE TEMP TABLE IF NOT EXISTS {name} ({columns})")
            connection.commit()
        return connection

    def _run(self, begin: str, work: Callable[[Connection], T], commit: bool) -> T:
        connection = self._connection()
        try:
            # Python's sqlite3 opens no transaction for a SELECT; we open every one ourselves.
            connection.exec_driver_sql(begin)
            result = work(connection)
            if commit:
                self.commit(connection)
            else:
                connection.rollback()
        except BaseException as error:
            self._drop(connection)
            if refusal := refusal_of(error) or refusal_of(error.__cause__):
                raise refusal from error
            raise
        return result

    def _drop(self, connection: Connection) -> None:
        """Never use a connection again on which something was raised: a cursor that the exception
        keeps alive would hold SQLite's old snapshot open, and later reads would see the past; and
        after a full disk SQLite may have ended the transaction by itself."""
        self._own.connection = None
        self._opened.remove(connection)
        # Closing rolls back too, and what we are here for is the error that came before.
        with suppress(*FAULTS):
            connection.rollback()
        with suppress(*FAULTS):
            connection.close()

    def commit(self, connection: Connection) -> None:
        """The one point where a transaction becomes durable."""
        connection.commit()

    async def read(self, query: Callable[[Connection], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._readers, self._run, "BEGIN", query, False)

    async def transact(self, work: Callable[[Connection], T], *, commit: bool = True) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._writer, self._run, "BEGIN IMMEDIATE", work, commit)

    async def close(self) -> None:
        await asyncio.to_thread(self._writer.shutdown)
        await asyncio.to_thread(self._readers.shutdown)
        for connection in self._opened:
            connection.close()
        self._engine.dispose()
        self._lock.close()


class PostgresDatabase:
    """For more than one replica."""

    dialect = Dialect("postgresql")

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    @classmethod
    async def open(cls, url: str) -> PostgresDatabase:
        engine = create_async_engine(url, pool_size=8, max_overflow=4)
        try:
            async with engine.begin() as connection:
                await connection.run_sync(cls.dialect.take_store_lock)
                await connection.run_sync(migrate)
        except (OSError, DBAPIError) as error:
            await engine.dispose()
            raise StoreUnavailable(f"cannot open the database: {error}") from error
        return cls(engine)

    async def read(self, query: Callable[[Connection], T]) -> T:
        async with self._engine.connect() as connection:
            await connection.execution_options(
                isolation_level="REPEATABLE READ", postgresql_readonly=True
            )
            async with connection.begin():
                return await connection.run_sync(query)

    async def transact(self, work: Callable[[Connection], T], *, commit: bool = True) -> T:
        async with self._engine.connect() as connection, connection.begin() as transaction:
            await connection.run_sync(self.dialect.take_store_lock)
            result = await connection.run_sync(work)
            if not commit:
                await transaction.rollback()
            return result

    async def close(self) -> None:
        await self._engine.dispose()


def _sqlite_engine(path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        # One connection belongs to one thread by construction; NullPool hands none around.
        poolclass=NullPool,
        connect_args={"isolation_level": None, "check_same_thread": False, "timeout": 30},
        query_cache_size=1000,
    )

    @event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: object) -> None:
        for pragma in (
            "synchronous=FULL",
            "foreign_keys=ON",
            "temp_store=MEMORY",
            "cache_size=-16000",
            "busy_timeout=30000",
        ):
            connection.execute(f"PRAGMA {pragma}")

    return engine


def _lock_file(path: Path) -> IO[str]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    lock = os.fdopen(descriptor, "r+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = lock.read().strip() or "another process"
        lock.close()
        raise StoreLocked(f"{path.parent} is in use by {holder}; stop it first") from error
    lock.truncate(0)
    lock.write(f"process {os.getpid()}\n")
    lock.flush()
    return lock
