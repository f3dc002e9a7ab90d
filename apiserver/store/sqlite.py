"""SQLite, the embedded default: one file, WAL, synchronous=FULL, one process."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from apiserver.store import locking, transacting
from apiserver.store.database import Faults, Publish, StoreFull, StoreUnavailable, migrate
from apiserver.store.dialect import Dialect
from apiserver.store.tables import SCRATCH
from apiserver.store.threads import Threads

T = TypeVar("T")

READERS = 3


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


class SqliteDatabase:
    """The file is locked from here to `close`."""

    dialect = Dialect("sqlite")
    faults: Faults = (sqlite3.Error, SQLAlchemyError)

    def __init__(self, path: Path) -> None:
        self._lock = locking.lock(path.with_name(path.name + ".lock"))
        # What SQLite puts beside the file gets the same mode.
        path.touch(mode=0o600)
        self._engine = _sqlite_engine(path)
        self._threads = Threads(self._connect, readers=READERS, faults=self.faults)
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

    def _connect(self) -> Connection:
        connection = self._engine.connect()
        for name, columns in SCRATCH.items():
            connection.exec_driver_sql(f"CREATE TEMP TABLE IF NOT EXISTS {name} ({columns})")
        connection.commit()
        return connection

    def _run(self, begin: str, work: Callable[[Connection], T], commit: bool) -> T:
        try:
            connection = self._threads.connection()
            # Python's sqlite3 opens no transaction for a SELECT; we open every one ourselves.
            transacting.begin(connection, begin)
            result = work(connection)
            if commit:
                self.commit(connection)
            else:
                transacting.roll_back(connection)
        except BaseException as error:
            # Never use a connection again on which something was raised: a cursor that the
            # exception keeps alive would hold SQLite's old snapshot open, and later reads would see
            # the past; and after a full disk SQLite may have ended the transaction by itself.
            self._threads.drop()
            if refusal := refusal_of(error) or refusal_of(error.__cause__):
                raise refusal from error
            raise
        return result

    def commit(self, connection: Connection) -> None:
        """The one point where a transaction becomes durable."""
        transacting.commit(connection)

    async def read(self, query: Callable[[Connection], T]) -> T:
        return await self._threads.read(lambda: self._run("BEGIN", query, False))

    async def transact(self, work: Callable[[Connection], T], *, commit: bool = True) -> T:
        return await self._threads.write(lambda: self._run("BEGIN IMMEDIATE", work, commit))

    async def follow(self, publish: Publish) -> None:
        """There is nobody else."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        await self._threads.close()
        self._engine.dispose()
        self._lock.close()


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
