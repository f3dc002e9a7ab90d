"""Values that are plain, or sealed by another key than the first, sealed again, a few at a time.

Each step is one short transaction and looks for what is left, so it does not matter how often a
process dies in between. Nothing that anybody sees changes: no version, no row of the log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson
from sqlalchemy import ColumnElement, bindparam, func, select, update

from apiserver.store import keys, sealing
from apiserver.store.contents import is_secret
from apiserver.store.objects import dumps
from apiserver.store.prepared import Prepared
from apiserver.store.tables import CONTENT, OBJECT
from resources import digest, masking, registry

if TYPE_CHECKING:
    from apiserver.store.snapshot import Snapshot, Transaction

# A transaction of it holds other writers up for some milliseconds.
ROWS_A_STEP = 100
BYTES_A_STEP = 4 << 20
# Where keyed digests end; their index has the same condition.
_SECRET = CONTENT.c.digest < digest.KEYED_PREFIX.replace(":", ";")
_KINDS = {kind.kind: kind for kind in registry.KINDS if masking.secret_paths(kind.model)}

_SET_BODY = Prepared(
    update(CONTENT).where(CONTENT.c.digest == bindparam("of")), ("body", "sealed_by")
)
_SET_SPEC = Prepared(update(OBJECT).where(OBJECT.c.uid == bindparam("of")), ("spec",))


@dataclass(frozen=True, slots=True)
class Step:
    """`done` values were sealed again. `after` is where objects go on; `is_last` when no value is
    left, and the keys that none needs any more are forgotten."""

    done: int
    after: str = ""
    is_last: bool = False


def left(snapshot: Snapshot) -> int:
    """About how many values are to be sealed again: contents, and objects that may hold some."""
    others = keys.others(snapshot)
    if not others:
        return 0
    contents = select(func.count()).select_from(CONTENT).where(_SECRET, _by(others))
    objects = select(func.count()).select_from(OBJECT).where(OBJECT.c.kind.in_(_KINDS))
    execute = snapshot.connection.execute
    return int(execute(contents).scalar_one() + execute(objects).scalar_one())


def step(tx: Transaction, after: str = "") -> Step:
    """The next few: objects in the order of their uids, then contents, then the end."""
    others = keys.others(tx)
    if not others or tx.keys.first == sealing.PLAIN:
        return Step(0, is_last=True)
    keys.name(tx.connection, tx.keys, tx.store_uid)
    tx.writes += 1
    if sealing.PLAIN in others and tx.dialect.is_sqlite:
        # What was plain is not to stay in the free part of a page. It holds for this connection
        # until it is closed, and costs little.
        tx.connection.exec_driver_sql("PRAGMA secure_delete=ON").close()
    keys.reseal_content_key(tx.connection, tx.keys)
    rows, done = _objects(tx, after)
    if rows:
        return Step(done, after=rows)
    done = _contents(tx, others)
    if done:
        return Step(done, after=after)
    # Somebody may have written with another key behind our back.
    if any(_needs(tx, spec, kind) for _, kind, spec in _specs(tx, "", 0)):
        return Step(0)
    keys.forget(tx.connection, others)
    return Step(0, is_last=True)


def _by(names: list[str]) -> ColumnElement[bool]:
    return CONTENT.c.sealed_by.in_(names)


def _specs(tx: Transaction, after: str, limit: int) -> list[tuple[str, str, str]]:
    query = select(OBJECT.c.uid, OBJECT.c.kind, OBJECT.c.spec).where(
        OBJECT.c.kind.in_(_KINDS), OBJECT.c.uid > after, OBJECT.c.spec.is_not(None)
    )
    query = query.order_by(OBJECT.c.uid)
    rows = tx.connection.execute(query.limit(limit) if limit else query)
    return [(row.uid, row.kind, row.spec) for row in rows]


def _needs(tx: Transaction, spec: str, kind: str) -> bool:
    return bool(sealing.sealed_by(_KINDS[kind], {"spec": orjson.loads(spec)}) - {tx.keys.first})


def _objects(tx: Transaction, after: str) -> tuple[str, int]:
    """The uid of the last one looked at, and how many were changed."""
    found = _specs(tx, after, ROWS_A_STEP)
    changed = []
    for uid, kind, spec in found:
        if _needs(tx, spec, kind):
            part = tx.keys.opened(_KINDS[kind], uid, {"spec": orjson.loads(spec)})
            sealed = tx.keys.sealed(_KINDS[kind], uid, part)
            changed.append({"of": uid, "spec": dumps(sealed["spec"])})
    _SET_SPEC.run_many(tx.connection, changed)
    return (found[-1][0] if found else ""), len(changed)


def _contents(tx: Transaction, others: list[str]) -> int:
    sizes = select(CONTENT.c.digest, func.length(CONTENT.c.body).label("size"))
    chosen: list[str] = []
    total = 0
    for row in tx.connection.execute(sizes.where(_SECRET, _by(others)).limit(ROWS_A_STEP)):
        if chosen and total + row.size > BYTES_A_STEP:
            break
        chosen.append(row.digest)
        total += row.size
    stored = select(CONTENT).where(CONTENT.c.digest.in_(chosen))
    changed = []
    for row in tx.connection.execute(stored).all():
        assert is_secret(row.digest), "the condition says so"
        about = sealing.about_content(row.digest)
        plain = tx.keys.open(row.sealed_by, bytes(row.body), about)
        sealed = tx.keys.seal(plain, about)
        changed.append({"of": row.digest, "body": sealed, "sealed_by": tx.keys.first})
    _SET_BODY.run_many(tx.connection, changed)
    return len(changed)
