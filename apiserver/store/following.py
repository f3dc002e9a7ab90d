"""Devices that follow outside sources by themselves, having no fleet that does it for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import or_, select

from apiserver.store.tables import DEVICE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from apiserver.store.snapshot import Snapshot


def is_frozen(snapshot: Snapshot, row: Mapping[str, Any]) -> bool:
    """Whether the device was rendered from sources that were fetched for the spec that it has."""
    kept = row["inputs_digest"]
    if kept is None:
        return False
    document = snapshot.documents.fetch(snapshot.connection, [kept])[kept]
    return bool(document["spec"] == row["spec_digest"])


def page(snapshot: Snapshot, namespace: str, *, after: str, limit: int) -> list[dict[str, Any]]:
    """Of the devices without owner, by name: those whose sources are to be fetched, and those that
    were rendered from fetched ones, with their specs and what they were rendered from."""
    query = (
        select(
            DEVICE.c.name,
            DEVICE.c.uid,
            DEVICE.c.generation,
            DEVICE.c.spec_digest,
            DEVICE.c.inputs_digest,
            DEVICE.c.render_needed,
            DEVICE.c.spec_valid,
        )
        .where(DEVICE.c.namespace == namespace, DEVICE.c.name > after)
        .where(DEVICE.c.fleet == "", DEVICE.c.owner.is_(None), DEVICE.c.decommissioning == 0)
        .where(DEVICE.c.pause == 0)
        .where(or_(DEVICE.c.render_needed == 1, DEVICE.c.inputs_digest.is_not(None)))
        .order_by(DEVICE.c.name)
        .limit(limit)
    )
    rows = snapshot.connection.execute(query).all()
    wanted = {digest for row in rows for digest in (row.spec_digest, row.inputs_digest) if digest}
    documents = snapshot.documents.fetch(snapshot.connection, wanted)
    return [
        {
            "name": row.name,
            "uid": row.uid,
            "generation": row.generation,
            "renderNeeded": bool(row.render_needed),
            "specValid": row.spec_valid == "True",
            "spec": documents[row.spec_digest],
            "inputs": documents[row.inputs_digest]["inputs"] if row.inputs_digest else [],
        }
        for row in rows
    ]
