"""Counters against the devices that they count: a difference is a defect of ours, and is repaired.

Counters move by deltas in the transactions that change devices, so they are right unless a delta is
forgotten somewhere. Looking costs a scan over one fleet's devices and takes no lock; only what
looks wrong is counted once more, under the lock, and set right there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Table, func, select, tuple_, union

from apiserver.store.devices import COUNTED
from apiserver.store.tables import COUNTER, DEVICE

if TYPE_CHECKING:
    from apiserver.store.snapshot import Snapshot, Transaction

# (namespace, fleet); the fleet is empty for devices of none.
Place = tuple[str, str]
# (dimension, state) → how many more there are than were counted.
Difference = dict[tuple[str, str], int]


def places(snapshot: Snapshot, after: Place, limit: int) -> Sequence[Place]:
    """The next fleets that have devices or counters, in order."""
    having = [
        select(table.c.namespace, table.c.fleet).where(
            tuple_(table.c.namespace, table.c.fleet) > tuple_(*after)
        )
        for table in (DEVICE, COUNTER)
    ]
    every = union(*having).subquery()
    query = select(every).order_by(every.c.namespace, every.c.fleet).limit(limit)
    return [(row.namespace, row.fleet) for row in snapshot.connection.execute(query)]


def difference(snapshot: Snapshot, place: Place) -> Difference:
    """What the counters of one fleet are wrong by; empty where they are right."""
    found: Counter[tuple[str, str]] = Counter()
    columns = [DEVICE.c[column] for column in COUNTED.values()]
    devices = select(*columns, func.count().label("n")).where(_in(DEVICE, place)).group_by(*columns)
    for row in snapshot.connection.execute(devices).mappings():
        for dimension, column in COUNTED.items():
            found[dimension, row[column]] += row["n"]
    for row in snapshot.connection.execute(select(COUNTER).where(_in(COUNTER, place))).mappings():
        found[row["dimension"], row["state"]] -= row["n"]
    return {key: by for key, by in found.items() if by}


def repair(tx: Transaction, place: Place) -> Difference:
    """Set the counters of one fleet right. Returns what they were wrong by."""
    wrong = difference(tx, place)
    for (dimension, state), by in wrong.items():
        tx.tally((*place, dimension, state), by)
    tx.writes += len(wrong)
    return wrong


def _in(table: Table, place: Place) -> ColumnElement[bool]:
    return (table.c.namespace == place[0]) & (table.c.fleet == place[1])
