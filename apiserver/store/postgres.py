"""PostgreSQL, for several API servers on one database.

Theory of operation. The same shape as SQLite: synchronous code in one writer thread and a few
reader threads, through psycopg, so a process has at most READERS + 2 connections. What replaces
SQLite's file lock is an advisory lock that a writing transaction takes before anything else, *in a
statement of its own*: in READ COMMITTED every statement after it sees all that the holders before
it have committed. Readers see one state: REPEATABLE READ READ ONLY.

A connection may be lost at any moment. Before the commit nothing was kept, and whoever asked may be
told so (`StoreUnreachable`), or the same is done again on another connection: readers do it here,
writers in the sequencer. In the commit it is unknown what happened (`CommitUnanswered`), and the
sequencer finds out: see `commits`. The lock is held by the transaction, so it ends with it: when
the process dies, when its machine falls silent (keep-alives), when it hangs
(idle_in_transaction_session_timeout).

PostgreSQL's text holds every character but NUL, which only a broken device would send: it is stored
as U+FFFD, and looked for as that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, TypeVar

import psycopg
from psycopg.types.string import StrDumperUnknown
from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from apiserver.store import locking, pgfaults, pglistener, transacting
from apiserver.store.database import (
    CommitUnanswered,
    Faults,
    Publish,
    StoreUnavailable,
    StoreUnreachable,
    migrate,
)
from apiserver.store.dialect import Dialect
from apiserver.store.tables import SCRATCH
from apiserver.store.threads import Threads

T = TypeVar("T")

READERS = 4
VERSION_MIN = 130_000
# After a failed attempt to connect everybody is refused for so long without another.
AWAY_S = 0.5

_READ = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
# Two statements, the second of which is the lock, in one message: what comes after it sees all that
# those have committed who had it before.
_WRITE = (
    f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; {Dialect('postgresql').taking_store_lock}"
)

# How the library connects, unless the URL says otherwise. A peer that fell silent is found out in
# half a minute by both ends.
_CONNECT = {
    "application_name": "homeport",
    "client_encoding": "utf8",
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 4,
    "tcp_user_timeout": 30_000,
}
# Settings of each session. Nobody may hold the store lock and do nothing, nor wait for ever; an
# answer without durability is none, whatever the server's default is. Plans are kept, and one that
# was made while a table was small would read all of it for each device that enrols, until there are
# statistics: so whole tables are read only where no index serves, and that is no reason to compile.
_SESSION = (
    "SELECT set_config('lock_timeout', '10s', false),"
    " set_config('enable_seqscan', 'off', false), set_config('jit', 'off', false),"
    " set_config('statement_timeout', '60s', false),"
    " set_config('idle_in_transaction_session_timeout', '20s', false),"
    " set_config('tcp_keepalives_idle', '10', false),"
    " set_config('tcp_keepalives_interval', '5', false),"
    " set_config('tcp_keepalives_count', '4', false),"
    " set_config('synchronous_commit',"
    " CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'"
    " ELSE current_setting('synchronous_commit') END, false)"
)
# The first to come migrates, and the others wait for it.
_PATIENT = "SET LOCAL lock_timeout = '120s'; SET LOCAL statement_timeout = 0"


class PostgresDatabase:
    """Open from `open` to `close`. `lock` is that of the data directory, if there is one."""

    dialect = Dialect("postgresql")
    faults: Faults = (psycopg.Error, SQLAlchemyError)

    def __init__(self, url: URL, lock: IO[str] | None) -> None:
        self._engine = _engine(url)
        self._lock = lock
        self._threads = Threads(self._connect, readers=READERS, faults=self.faults)
        self._away_until = 0.0
        # The id, given by the server, of the session that wrote last.
        self._writes_in = 0

    @classmethod
    async def open(cls, url: str, data_dir: Path | None = None) -> PostgresDatabase:
        """Migrates. Raises StoreLocked, StoreTooNew, StoreUnavailable."""
        parsed = _parse(url)
        lock = None
        if data_dir is not None:
            await asyncio.to_thread(data_dir.mkdir, mode=0o700, parents=True, exist_ok=True)
            lock = locking.lock(data_dir / "homeport.db.lock")
        database = cls(parsed, lock)
        try:
            await database._threads.write(database._prepare)
        except BaseException as error:
            await database.close()
            if refusal := pgfaults.at_start(error.__cause__ or error, parsed):
                raise refusal from error
            raise
        return database

    async def read(self, query: Callable[[Connection], T]) -> T:
        return await self._threads.read(lambda: self._read(query))

    async def transact(self, work: Callable[[Connection], T], *, commit: bool = True) -> T:
        return await self._threads.write(lambda: self._transact(work, commit))

    async def follow(self, publish: Publish) -> None:
        _, arguments = self._engine.dialect.create_connect_args(self._engine.url)
        # A session that was lost may have told of a commit that nobody here knows of: that is seen
        # by the look that is taken every second.
        await pglistener.follow(
            {**_CONNECT, **arguments}, publish, lambda session: session == self._writes_in
        )

    async def close(self) -> None:
        await self._threads.close()
        self._engine.dispose()
        if self._lock is not None:
            self._lock.close()

    # --- in the threads ---------------------------------------------------------------------

    def _prepare(self) -> None:
        # Before our first table, be it a temporary one: a server that takes no writes would refuse
        # that in words that help nobody.
        with self._engine.connect() as connection:
            _refuse_unfit(connection)
        connection = self._connect()
        try:
            connection.exec_driver_sql("BEGIN")
            connection.exec_driver_sql(_PATIENT)
            connection.exec_driver_sql(self.dialect.taking_store_lock)
            migrate(connection)
            connection.commit()
        finally:
            connection.close()

    def _connect(self) -> Connection:
        if time.monotonic() < self._away_until:
            raise StoreUnreachable("the database cannot be reached")
        try:
            connection = self._engine.connect()
            for name, columns in SCRATCH.items():
                made = f"CREATE TEMP TABLE {name} ({columns}) ON COMMIT DELETE ROWS"
                connection.exec_driver_sql(made)
        except DBAPIError as error:
            self._away_until = time.monotonic() + AWAY_S
            if refusal := pgfaults.refusal_of(error):
                raise refusal from error
            raise
        # Whom one thread reaches no other has to wait for.
        self._away_until = 0.0
        return connection

    def _read(self, query: Callable[[Connection], T]) -> T:
        """Twice, if the connection is lost: a reader changes nothing."""
        try:
            return self._run(self._begun(_READ), query)
        except StoreUnreachable:
            if time.monotonic() < self._away_until:
                raise
            return self._run(self._begun(_READ), query)

    def _transact(self, work: Callable[[Connection], T], commit: bool) -> T:
        connection = self._begun(_WRITE)
        return self._run(connection, work, self._commit if commit else None)

    def _begun(self, begin: str) -> Connection:
        """A transaction that is open, under the store lock if it is to write."""
        try:
            connection = self._threads.connection()
            transacting.begin(connection, begin)
            if begin is _WRITE:
                self._writes_in = transacting.session_of(connection)
        except BaseException as error:
            self._threads.drop()
            if refusal := pgfaults.refusal_of(error):
                raise refusal from error
            raise
        return connection

    def _run(
        self,
        connection: Connection,
        work: Callable[[Connection], T],
        commit: Callable[[Connection], None] | None = None,
    ) -> T:
        try:
            result = work(connection)
            if commit is None:
                transacting.roll_back(connection)
        except BaseException as error:
            self._end(connection, error)
            if refusal := pgfaults.refusal_of(error) or pgfaults.refusal_of(error.__cause__):
                raise refusal from error
            raise
        if commit is not None:
            commit(connection)
        return result

    def _commit(self, connection: Connection) -> None:
        """The one point where a transaction becomes durable."""
        try:
            self.commit(connection)
        except BaseException as error:
            self._threads.drop()
            if pgfaults.is_lost(error):
                raise CommitUnanswered(
                    "the connection to the database was lost during the commit; it is not known "
                    "whether the change was made"
                ) from error
            if refusal := pgfaults.refusal_of(error):
                raise refusal from error
            raise

    def commit(self, connection: Connection) -> None:
        transacting.commit(connection)

    def _end(self, connection: Connection, error: BaseException) -> None:
        """Roll back what failed. The connection stays good, unless it was lost."""
        if pgfaults.is_lost(error) or pgfaults.is_lost(error.__cause__):
            self._threads.drop()
            return
        try:
            transacting.roll_back(connection)
        except self.faults:
            self._threads.drop()


class _Dumper(StrDumperUnknown):
    """Text for PostgreSQL, which has no NUL."""

    def dump(self, obj: str) -> Any:
        return super().dump(obj.replace("\0", "�") if "\0" in obj else obj)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise StoreUnavailable(
            "--database is not postgresql://USER:PASSWORD@HOST:PORT/DATABASE; "
            "special characters in USER and PASSWORD are written as %XX"
        ) from error
    return parsed.set(drivername="postgresql+psycopg")


def _engine(url: URL) -> Engine:
    engine = create_engine(
        url,
        poolclass=NullPool,
        # Transactions are opened and ended by our own statements.
        isolation_level="AUTOCOMMIT",
        # Positional, as `prepared` and `sets` hand parameters over.
        paramstyle="format",
        connect_args={key: v for key, v in _CONNECT.items() if key not in url.query},
        query_cache_size=1000,
    )

    @event.listens_for(engine, "connect")
    def _settings(connection: psycopg.Connection[Any], _record: object) -> None:
        connection.adapters.register_dumper(str, _Dumper)
        # The server keeps the plans of as many statements as there are.
        connection.prepared_max = 1_000
        connection.execute(_SESSION)

    return engine


def _refuse_unfit(connection: Connection) -> None:
    """Raise StoreUnavailable if this server cannot keep what we store."""
    asked = (
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'),"
        " current_setting('server_encoding'), pg_is_in_recovery(),"
        " current_setting('default_transaction_read_only')::boolean"
    )
    number, version, encoding, is_standby, is_read_only = connection.exec_driver_sql(asked).one()
    if number < VERSION_MIN:
        raise StoreUnavailable(f"PostgreSQL {version} is too old; version 13 or newer is needed")
    if encoding != "UTF8":
        raise StoreUnavailable(
            f"the encoding of the database is {encoding}; create one with ENCODING 'UTF8'"
        )
    if is_standby:
        raise StoreUnavailable(
            "this PostgreSQL is in hot standby, and takes no writes; name the primary, or several "
            "hosts and target_session_attrs=read-write"
        )
    if is_read_only:
        raise StoreUnavailable(
            "this PostgreSQL is read-only by default_transaction_read_only, which somebody has set "
            "for the server, the database or the user; set it to off"
        )
