"""Last-seen: a narrow side table. Heartbeats are not changes; going and coming back are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sqlalchemy import bindparam, literal_column, select

from apiserver.store import devices
from apiserver.store.devices import Change
from apiserver.store.dialect import Dialect
from apiserver.store.prepared import Prepared, among, texts
from apiserver.store.tables import DEVICE, PRESENCE

if TYPE_CHECKING:
    from apiserver.store.snapshot import Snapshot, Transaction

SWEEP_LIMIT = 1_000


def _noting(dialect: str) -> Any:
    """The later of two sightings, for another process may have written its own first; but nothing
    that a clock which was wrong has written from the future."""
    insert = Dialect(dialect).upsert(PRESENCE)
    known, told = PRESENCE.c.last_seen, insert.excluded.last_seen
    is_later = (known < told) | (known > bindparam("now"))
    return insert.on_conflict_do_update(
        index_elements=["uid"], set_={"last_seen": told}, where=is_later
    )


_NOTE = Prepared(_noting, ("uid", "last_seen"))
# No plain column: an index of all that are away would look useful.
_IS_AWAY = DEVICE.c.connected + literal_column("0") == literal_column("0")
_AWAY = Prepared(
    lambda dialect: select(DEVICE).where(among(dialect, DEVICE.c.uid, "uids"), _IS_AWAY)
)


def record(tx: Transaction, seen: Mapping[str, float]) -> None:
    """Note when devices (by uid) were last seen, unix seconds; who was away is back.

    The process that sees a poll sets connected; the sweep only takes it away.
    """
    now = tx.now.timestamp()
    rows = ({"uid": uid, "last_seen": at, "now": now} for uid, at in seen.items())
    _NOTE.run_many(tx.connection, rows)
    tx.writes += len(seen)
    uids = list(seen)
    for start in range(0, len(uids), 500):
        part = uids[start : start + 500]
        back = _AWAY.rows(tx.connection, {"uids": texts(tx.connection, part)})
        devices.save_all(tx, (Change(row, {"connected": 1, "seen": 1}) for row in back))


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
    devices.save_all(tx, (Change(row, {"connected": 0}) for row in rows))
    return len(rows)


def last_seen(snapshot: Snapshot, uid: str) -> float | None:
    query = select(PRESENCE.c.last_seen).where(PRESENCE.c.uid == uid)
    found = snapshot.connection.execute(query).scalar()
    return None if found is None else float(found)
