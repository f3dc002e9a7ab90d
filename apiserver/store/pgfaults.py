"""What PostgreSQL and its client library say, and what that means to us.

A fault of a statement is a defect and goes up as it is. A fault of the server, of the way to it or
of how it is set up is somebody's to mend, and is said in one line: what is wrong, where, what to
do.
"""

from __future__ import annotations

import psycopg
from psycopg import errors as pg
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from apiserver.store.database import StoreFull, StoreUnavailable, StoreUnreachable

# The server went away, is not the one that takes writes any more, or takes no more connections.
_GONE = (
    pg.AdminShutdown,
    pg.CrashShutdown,
    pg.CannotConnectNow,
    pg.IdleInTransactionSessionTimeout,
    pg.ReadOnlySqlTransaction,
    pg.TooManyConnections,
    pg.ConnectionException,
    pg.ConnectionFailure,
    pg.ConnectionDoesNotExist,
)


def driver_error(fault: BaseException | None) -> psycopg.Error | None:
    """The driver's error that this is, or that SQLAlchemy has wrapped."""
    if isinstance(fault, DBAPIError):
        fault = fault.orig
    return fault if isinstance(fault, psycopg.Error) else None


def is_lost(fault: BaseException | None) -> bool:
    """Whether this ended the connection, and so the transaction that was open on it."""
    error = driver_error(fault)
    if isinstance(error, _GONE):
        return True
    # Without a code of the server it is the library's: a socket that closed, broke or timed out.
    return (
        isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not error.sqlstate
    )


def refusal_of(fault: BaseException | None) -> StoreUnavailable | None:
    """What a fault means that is not of a statement, but of the server."""
    if is_lost(fault):
        return StoreUnreachable("the database cannot be reached; nothing was changed")
    match driver_error(fault):
        case pg.DiskFull():
            return StoreFull("the disk of the database is full; nothing was changed")
        case pg.LockNotAvailable():
            return StoreUnavailable(
                "another API server has held the write lock for long; nothing was changed"
            )
        case pg.QueryCanceled():
            return StoreUnavailable("the database took too long to answer; nothing was changed")
        case pg.IoError() | pg.DataCorrupted() | pg.IndexCorrupted() | pg.OutOfMemory() as error:
            return StoreUnavailable(f"the database cannot go on: {_first_line(error)}")
        case _:
            return None


def at_start(fault: BaseException, url: URL) -> StoreUnavailable | None:
    """The same while a server starts: more is a person's to mend, who reads one line of it."""
    error = driver_error(fault)
    if error is None:
        return None
    where = place(url)
    said = _last_line(error)
    if isinstance(error, pg.InsufficientPrivilege):
        return StoreUnavailable(
            f"{where}: {_first_line(error)}; make the user the owner of the database: "
            f'ALTER DATABASE "{url.database}" OWNER TO "{url.username}"'
        )
    if not is_lost(error):
        return refusal_of(error)
    for words, advice in _ADVICE:
        if words in said:
            return StoreUnavailable(f"{where}: {said}; {advice}")
    return StoreUnavailable(f"{where}: {said}")


_ADVICE = (
    ("password authentication failed", "correct the user or the password of --database"),
    ("no password supplied", "give it in $PGPASSWORD or in a ~/.pgpass file"),
    ("does not exist", "create it, or correct --database"),
    ("refused", "start the server, or correct the host and port of --database"),
    ("no pg_hba.conf entry", "let this machine in by pg_hba.conf"),
    ("too many clients", "raise max_connections of the server"),
    ("remaining connection slots", "raise max_connections of the server"),
    ("resolve host", "correct the host of --database"),
    ("timeout expired", "is the host of --database right, and does a firewall let it through?"),
)
_BEFORE_WHAT_IS_SAID = ("FATAL: ", "failed: ", "fe_sendauth: ")


def place(url: URL) -> str:
    """The database without its password, as messages name it."""
    shown = URL.create("postgresql", url.username, None, url.host, url.port, url.database)
    return f"cannot use {shown.render_as_string()}"


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().partition("\n")[0]


def _last_line(error: psycopg.Error) -> str:
    """What the server said, without how the library came to it: it tries several addresses, and
    the last is as good as any."""
    lines = str(error).strip().splitlines()
    said = [line for line in lines if any(mark in line for mark in _BEFORE_WHAT_IS_SAID)]
    line = (said or lines)[-1]
    for mark in _BEFORE_WHAT_IS_SAID:
        line = line.rpartition(mark)[2].strip()
    return line
