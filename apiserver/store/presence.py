"""Last-seen: a narrow side table. Heartbeats are not changes; going and coming back are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from apiserver.store import devices
from apiserver.store.dialect import Dialect
from apiserver.store.prepared import Prepared
from apiserver.store.tables import DEVICE, PRESENCE

if TYPE_CHECKING:
    from apiserver.store.snapshot import Snapshot, Transaction

SWEEP_LIMIT = 1_000


def _noting(dialect: str) -> Any:
    insert = Dialect(dialect).upsert(PRESENCE)
    return insert.on_conflict_do_update(
        index_elements=["uid"], set_={"last_seen": insert.excluded.last_seen}
    )


_NOTE = Prepared(_noting)


def record(tx: Transaction, seen: Mapping[str, float]) -> None:
    """Note when devices (by uid) were last seen, unix seconds; who was away is back.

    The process that sees a poll sets connected; the sweep only takes it away.
    """
    _NOTE.run_many(tx.connection, ({"uid": u, "last_seen": at} for u, at in seen.items()))
    tx.writes += len(seen)
    uids = list(seen)
    for start in range(0, len(uids), 500):
        part = uids[start : start + 500]
        away = select(DEVICE).where(DEVICE.c.uid.in_(part), DEVICE.c.connected == 0)
        for row in list(tx.connection.execute(away).mappings()):
            devices.save(tx, row, {"connected": 1, "seen": 1})


def sweep(tx: Transaction, older_than: float) -> int:
    """Set disconnected who was not seen since `older_than`; at most a thousand, call again.

    Presence is read again here, under the lock: who came back meanwhile is left alone.
    """
    gone = (
        select(DEVICE)
        .join(PRESENCE, PRESENCE.c.uid == DEVICE.c.uid)
        .where(DEVICE.c.connected == 1, PRESENCE.c.last_seen < older_than)
        .limit(SWEEP_LIMIT)
    )
    rows = list(tx.connection.execute(gone).mappings())
    for row in rows:
        devices.save(tx, row, {"connected": 0})
    return len(rows)


def last_seen(snapshot: Snapshot, uid: str) -> float | None:
    query = select(PRESENCE.c.last_seen).where(PRESENCE.c.uid == uid)
    found = snapshot.connection.execute(query).scalar()
    return None if found is None else float(found)
