"""A database that was restored from a backup, made fit to be served from.

Two things are wrong with it. Its versions were given out once already, for other changes than those
that are to come, so everybody who followed them must be made to begin anew: the next version lies
far above any that can have been, and the log below it is forgotten. And its devices went on
meanwhile: all of them are awaited (`resources.pause`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import delete, select, text, update

from apiserver.store import recount
from apiserver.store.tables import CHANGE, DEVICE, META, PRESENCE
from resources import pause, summary

if TYPE_CHECKING:
    from apiserver.store.snapshot import Transaction

# More versions than a service gives out in its life; 9000 restores fit into what JSON can count.
APART = 10**12
_PLACES = 1_000


def mark(tx: Transaction) -> int:
    """How many devices are awaited. Nobody may serve from this database meanwhile."""
    _begin_anew(tx)
    awaited = _await_devices(tx)
    tx.connection.execute(delete(PRESENCE))
    place = ("", "")
    while places := recount.places(tx, place, _PLACES):
        for place in places:
            recount.repair(tx, place)
    for namespace in tx.connection.execute(select(DEVICE.c.namespace).distinct()).scalars():
        tx.backlog_moved(namespace)
    return awaited


def _begin_anew(tx: Transaction) -> None:
    tx.version = (tx.version // APART + 1) * APART
    tx.writes += 1
    tx.connection.execute(delete(CHANGE))
    tx.connection.execute(update(META).values(compacted=tx.version))


def _await_devices(tx: Transaction) -> int:
    """But those that are to be taken out of service: they are told so, whatever they run."""
    number = tx.connection.execute(
        text("SELECT count(*) FROM device WHERE decommissioning = 0")
    ).scalar_one()
    tx.connection.execute(
        text(
            "UPDATE device SET pause = :pause, connected = 0,"
            " summary_status = 'AwaitingReconnect', summary_info = :awaiting,"
            " updated_status = 'Unknown', updated_info = :awaiting,"
            " applications_status = 'Unknown', applications_info ="
            " CASE WHEN seen = 1 THEN :disconnected ELSE :never END,"
            " resource_version = :first + x.n - 1"
            " FROM (SELECT uid AS of_uid, row_number() OVER (ORDER BY namespace, name) AS n"
            " FROM device WHERE decommissioning = 0) x WHERE device.uid = x.of_uid"
        ),
        {
            "pause": pause.AWAITING,
            "awaiting": summary.AWAITING,
            "disconnected": summary.DISCONNECTED,
            "never": summary.NEVER_SEEN,
            "first": tx.next_version(number),
        },
    )
    return int(number)
