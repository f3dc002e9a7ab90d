"""Requests that wait for a signer outside, found among many that do not.

The words of the condition are looked for in the text of the status, so that a hundred thousand old
requests are not taken apart to find three; what is found may still be something else, and is judged
by who asks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select

from apiserver.store import objects
from apiserver.store.tables import OBJECT
from resources.kind import Json, Kind

if TYPE_CHECKING:
    from apiserver.store.snapshot import Snapshot

Place = tuple[str, str]  # namespace, name


def page(
    snapshot: Snapshot, kind: Kind, condition: str, *, after: Place | None, limit: int
) -> list[Json]:
    """Documents in order of (namespace, name) that have no certificate and may have the
    condition."""
    query = select(OBJECT).where(
        OBJECT.c.kind == kind.kind,
        OBJECT.c.status.contains(f'"type":"{condition}"', autoescape=True),
        ~OBJECT.c.status.contains('"certificate":"', autoescape=True),
    )
    if after is not None:
        query = query.where(
            (OBJECT.c.namespace > after[0])
            | ((OBJECT.c.namespace == after[0]) & (OBJECT.c.name > after[1]))
        )
    query = query.order_by(OBJECT.c.namespace, OBJECT.c.name).limit(limit)
    return [objects.document_of(kind, row) for row in snapshot.connection.execute(query).mappings()]
