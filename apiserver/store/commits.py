"""Which batches are in the database, so that a commit whose answer was lost can be told apart from
one that did not happen.

Each transaction that writes notes its process and number in that process's row. Who lost the answer
takes the store lock, which waits for the end of the old transaction wherever that still runs, and
looks. A row of each process, not one for all: others may have committed since. On SQLite nothing is
noted: the answer of a commit cannot be lost between a process and itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, bindparam, delete, select

from apiserver.store.dialect import Dialect
from apiserver.store.prepared import Prepared
from apiserver.store.tables import COMMIT

if TYPE_CHECKING:
    from apiserver.store.snapshot import Transaction

# Longer than anybody tries to find out.
KEPT_S = 3_600


def _noting(dialect: str) -> Any:
    insert = Dialect(dialect).upsert(COMMIT)
    renewed = {"number": insert.excluded.number, "at": insert.excluded.at}
    return insert.on_conflict_do_update(index_elements=["writer"], set_=renewed)


_NOTE = Prepared(_noting)
_LAST = Prepared(select(COMMIT.c.number).where(COMMIT.c.writer == bindparam("writer")))


def note(tx: Transaction, writer: str, number: int) -> None:
    """Part of the transaction that it is about."""
    if not tx.dialect.is_sqlite:
        _NOTE.run(tx.connection, {"writer": writer, "number": number, "at": tx.now_s})


def is_there(connection: Connection, writer: str, number: int) -> bool:
    """Whether the last batch of `writer` that was committed is this one. Under the store lock."""
    found = _LAST.first(connection, {"writer": writer})
    return found is not None and int(found["number"]) == number


def forget(tx: Transaction) -> None:
    """Rows of processes that have long ended."""
    tx.connection.execute(delete(COMMIT).where(COMMIT.c.at < tx.now_s - KEPT_S))
