"""What may be forgotten: old rows of the log, contents nobody points at, old events and history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, exists, select, update

from apiserver.store import commits, contents
from apiserver.store.tables import CHANGE, EVENT, HISTORY, META

if TYPE_CHECKING:
    from apiserver.store.snapshot import Transaction

CHANGE_KEPT_S = 3600
CHANGE_KEPT_ROWS = 50_000
# A transaction of it stays short; the next one goes on.
CHANGE_STEP = 10_000
EVENT_KEPT_S = 7 * 24 * 3600
HISTORY_KEPT_S = 90 * 24 * 3600


def compact(tx: Transaction) -> int:
    """Forget what is past its time. Returns how many rows of the log went."""
    connection, now_s = tx.connection, tx.now_s
    newest_kept = tx.version - CHANGE_KEPT_ROWS
    oldest_young = connection.execute(
        select(CHANGE.c.resource_version)
        .where(CHANGE.c.at >= now_s - CHANGE_KEPT_S)
        .order_by(CHANGE.c.resource_version)
        .limit(1)
    ).scalar()
    border = newest_kept if oldest_young is None else min(newest_kept, oldest_young - 1)
    border = min(border, tx.compacted + CHANGE_STEP)
    gone = 0
    if border > tx.compacted:
        gone = connection.execute(
            delete(CHANGE).where(CHANGE.c.resource_version <= border)
        ).rowcount
        connection.execute(update(META).values(compacted=border))
    contents.sweep(connection, now_s)
    connection.execute(delete(EVENT).where(EVENT.c.last_at < now_s - EVENT_KEPT_S))
    later = HISTORY.alias()
    superseded = exists(
        select(later.c.uid).where(
            later.c.uid == HISTORY.c.uid, later.c.rendered_version > HISTORY.c.rendered_version
        )
    )
    old = HISTORY.c.from_at < now_s - HISTORY_KEPT_S
    connection.execute(delete(HISTORY).where(old, superseded))
    commits.forget(tx)
    tx.writes += 1
    return gone
