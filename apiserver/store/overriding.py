"""What people ask of single applications (`resources.overrides`), on the rows of devices.

A device has its own wishes and a copy of its fleet's. A fleet's document is where those are kept;
rows of `fleet_override` repeat them, so that who joins the fleet is given them in the statement
that takes it in, and who was left out by a crash is found. The invariant: a device whose copy is
its fleet's has a version of its specification that says so.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import orjson
from sqlalchemy import Connection, bindparam, delete, insert, select

from apiserver.store import devices
from apiserver.store.objects import dumps
from apiserver.store.prepared import Prepared
from apiserver.store.sets import CHUNK
from apiserver.store.statements import run
from apiserver.store.tables import DEVICE, FLEET_OVERRIDE
from resources import overrides
from resources.kind import Json

if TYPE_CHECKING:
    from apiserver.store.snapshot import Snapshot, Transaction

_OF_FLEET = Prepared(
    select(FLEET_OVERRIDE.c.overrides).where(
        FLEET_OVERRIDE.c.namespace == bindparam("namespace"),
        FLEET_OVERRIDE.c.fleet == bindparam("fleet"),
    )
)


def of_fleet(snapshot: Snapshot, namespace: str, fleet: str) -> str | None:
    """What is asked of the applications of a fleet, as its devices keep it."""
    found = _OF_FLEET.first(snapshot.connection, {"namespace": namespace, "fleet": fleet})
    return None if found is None else found["overrides"]


def kept_by(fleet: Json) -> str | None:
    """The same in the document of the fleet."""
    annotations = fleet["metadata"].get("annotations") or {}
    found = annotations.get(devices.FLEETS_OVERRIDES)
    return None if found is None else str(found)


def write_fleet(connection: Connection, fleet: Json, *, gone: bool = False) -> None:
    """Repeat what the document of a fleet says, or forget it."""
    place = {"namespace": fleet["metadata"]["namespace"], "fleet": fleet["metadata"]["name"]}
    where = [FLEET_OVERRIDE.c[name] == value for name, value in place.items()]
    connection.execute(delete(FLEET_OVERRIDE).where(*where))
    text = kept_by(fleet)
    if text and not gone:
        connection.execute(insert(FLEET_OVERRIDE), place | {"overrides": text})


def columns(row: devices.Row, **layers: str | None) -> dict[str, Any]:
    """Columns of a device with another `overrides` or `fleet_overrides`, and the version that says
    so where another thing holds then."""
    changed: dict[str, Any] = dict(layers)
    if row["rendered_digest"] and devices.wished(row) != devices.wished(dict(row) | layers):
        changed["rendered_version"] = max(row["rendered_version"], row["reported_version"]) + 1
    return changed


def text_of(wishes: Mapping[str, Any]) -> str | None:
    return dumps(wishes) if wishes else None


def pruned(row: devices.Row, applications: Collection[str]) -> dict[str, Any]:
    """Columns of a device whose specification has these applications now."""
    if not row["overrides"]:
        return {}
    own, _ = devices.layers(row)
    return {"overrides": text_of(overrides.pruned(own, applications))}


def prune_bound(tx: Transaction, applications: Collection[str]) -> None:
    """The same for the devices that were just bound: few of them have any of their own. It moves no
    version, since what they are given is another thing anyway."""
    found = run(
        tx.connection,
        "SELECT uid, overrides FROM bound WHERE respecified = 1 AND overrides IS NOT NULL",
        {},
    )
    rows = []
    for row in found:
        own = orjson.loads(row.overrides)
        left = overrides.pruned(own, applications)
        if left != own:
            rows.append({"of_uid": row.uid, "overrides": text_of(left)})
    _KEEP.run_many(tx.connection, rows)


_KEEP = Prepared(
    DEVICE.update().where(DEVICE.c.uid == bindparam("of_uid")),
    ("overrides",),
)


def hand_down(tx: Transaction, namespace: str, fleet: str) -> int:
    """Give the devices of a fleet what it asks; at most a thousand, call again. Those that are left
    alone get it when they are not any more."""
    text = of_fleet(tx, namespace, fleet)
    behind = (
        select(DEVICE)
        .where(DEVICE.c.namespace == namespace, DEVICE.c.fleet == fleet)
        .where(DEVICE.c.fleet_overrides.is_distinct_from(text))
        .where(DEVICE.c.pause == 0, DEVICE.c.decommissioning == 0)
        .limit(CHUNK)
    )
    rows = list(tx.connection.execute(behind).mappings())
    devices.save_all(tx, (devices.Change(row, columns(row, fleet_overrides=text)) for row in rows))
    return len(rows)


def asked_fleets(snapshot: Snapshot) -> list[tuple[str, str]]:
    """(namespace, name) of the fleets that ask anything."""
    query = select(FLEET_OVERRIDE.c.namespace, FLEET_OVERRIDE.c.fleet)
    return [(row.namespace, row.fleet) for row in snapshot.connection.execute(query)]
