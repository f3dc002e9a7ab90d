"""Rows of the audit: written in the transaction of what they tell of, then only read and forgotten.

They have a sequence of their own, given out under the store lock like versions, so that who has
read up to a number has missed nothing. It is in the way of no other watch, and moves no version.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Connection, Select, bindparam, delete, insert, select

from apiserver.store.prepared import Prepared
from apiserver.store.tables import AUDIT

if TYPE_CHECKING:
    from apiserver.store.snapshot import Snapshot, Transaction

# However long they are kept: some 700 MB.
ROWS_MAX = 1_000_000
# A transaction of forgetting stays short.
FORGOTTEN_A_STEP = 5_000

_INSERT = Prepared(insert(AUDIT))
_BY_FIELD = {
    "spec.user": AUDIT.c.user_name,
    "spec.verb": AUDIT.c.verb,
    "spec.object.kind": AUDIT.c.kind,
    "spec.object.name": AUDIT.c.name,
}


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be written: `columns` are asked for, `spec` is what is shown."""

    namespace: str
    user: str
    verb: str
    kind: str
    name: str
    spec: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Row:
    id: int
    at: int
    namespace: str
    spec: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Wanted:
    """`equal`: field path → the values that it may have. Paths without a column are the caller's
    to look at."""

    namespace: str | None = None
    equal: Mapping[str, Sequence[str]] | None = None
    since_s: int = 0


def write(connection: Connection, after: int, now_s: int, entries: Sequence[Entry]) -> int:
    """The number of the last one, which the caller notes in the same transaction."""
    rows = (
        {
            "id": number,
            "at": now_s,
            "namespace": entry.namespace,
            "user_name": entry.user,
            "verb": entry.verb,
            "kind": entry.kind,
            "name": entry.name,
            "spec": orjson.dumps(entry.spec).decode(),
        }
        for number, entry in enumerate(entries, after + 1)
    )
    _INSERT.run_many(connection, rows)
    return after + len(entries)


def page(snapshot: Snapshot, wanted: Wanted, after: int, limit: int) -> list[Row]:
    """Rows above `after`, in order."""
    query = _chosen(wanted).where(AUDIT.c.id > after).order_by(AUDIT.c.id).limit(limit)
    return [
        Row(row.id, row.at, row.namespace, orjson.loads(row.spec))
        for row in snapshot.connection.execute(query)
    ]


def one(snapshot: Snapshot, wanted: Wanted, number: int) -> Row | None:
    found = page(snapshot, wanted, number - 1, 1)
    return found[0] if found and found[0].id == number else None


def oldest(snapshot: Snapshot) -> int:
    """The number before the first that is kept: who asks from an older one has missed some."""
    first = snapshot.connection.execute(
        select(AUDIT.c.id).order_by(AUDIT.c.id).limit(1)
    ).scalar_one_or_none()
    return snapshot.audit_version if first is None else int(first) - 1


def _chosen(wanted: Wanted) -> Select[Any]:
    query = select(AUDIT.c.id, AUDIT.c.at, AUDIT.c.namespace, AUDIT.c.spec)
    if wanted.namespace is not None:
        query = query.where(AUDIT.c.namespace == wanted.namespace)
    if wanted.since_s:
        query = query.where(AUDIT.c.at >= wanted.since_s)
    for path, values in (wanted.equal or {}).items():
        if path in _BY_FIELD:
            query = query.where(_BY_FIELD[path].in_(list(values)))
    return query


def forget(tx: Transaction, before_s: int, keep: int = ROWS_MAX) -> int:
    """Of the oldest, those from before that time or above that number; how many those were."""
    tx.writes += 1
    first = select(AUDIT.c.id, AUDIT.c.at).order_by(AUDIT.c.id).limit(FORGOTTEN_A_STEP).subquery()
    old = (first.c.at < bindparam("before")) | (first.c.id <= bindparam("floor"))
    gone = tx.connection.execute(
        delete(AUDIT).where(AUDIT.c.id.in_(select(first.c.id).where(old))),
        {"before": before_s, "floor": tx.audit_version - keep},
    )
    return gone.rowcount
