"""Immutable documents and blobs under their digest, and a bounded cache of the parsed ones.

Safe to cache for ever: a digest never means anything else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from threading import Lock
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, delete, exists, select

from apiserver.store.dialect import Dialect
from apiserver.store.prepared import Prepared
from apiserver.store.tables import CONTENT, CONTENT_REF, DEVICE, HISTORY
from resources import digest as digests

CACHED_DOCUMENTS = 2_000
UNTOUCHED_S = 3600


def _renewing(dialect: str) -> Any:
    insert = Dialect(dialect).upsert(CONTENT)
    renewed = {"touched_at": insert.excluded.touched_at}
    return insert.on_conflict_do_update(index_elements=["digest"], set_=renewed)


_PUT = Prepared(_renewing)
_BODY = Prepared(select(CONTENT.c.body).where(CONTENT.c.digest == bindparam("digest")))


class Documents:
    """The last documents read, by digest; shared by the reader threads."""

    def __init__(self, limit: int = CACHED_DOCUMENTS) -> None:
        self._limit = limit
        self._documents: OrderedDict[str, Any] = OrderedDict()
        self._lock = Lock()

    def fetch(self, connection: Connection, wanted: Iterable[str]) -> dict[str, Any]:
        """Documents by digest. Callers must not change them. A missing one is a KeyError later:
        a device row never outlives what it points at."""
        found: dict[str, Any] = {}
        missing: list[str] = []
        with self._lock:
            for digest in set(wanted):
                if digest in self._documents:
                    self._documents.move_to_end(digest)
                    found[digest] = self._documents[digest]
                else:
                    missing.append(digest)
        if missing:
            query = select(CONTENT.c.digest, CONTENT.c.body).where(CONTENT.c.digest.in_(missing))
            fresh = {row.digest: orjson.loads(row.body) for row in connection.execute(query)}
            found |= fresh
            with self._lock:
                self._documents |= fresh
                while len(self._documents) > self._limit:
                    self._documents.popitem(last=False)
        return found


def get(connection: Connection, digest: str) -> bytes | None:
    found = _BODY.first(connection, {"digest": digest})
    return None if found is None else bytes(found["body"])


def put(connection: Connection, blobs: Iterable[bytes], now_s: int) -> None:
    """Store `blobs`; the same again renews its age, so no sweep takes it from under a writer."""
    rows = ({"digest": digests.of_bytes(b), "body": b, "touched_at": now_s} for b in blobs)
    _PUT.run_many(connection, rows)


def sweep(connection: Connection, now_s: int) -> int:
    """Remove what no device, history or other document points at and nobody touched for an hour."""
    digest = CONTENT.c.digest
    pointed = (
        exists(select(DEVICE.c.uid).where(DEVICE.c.spec_digest == digest))
        | exists(select(DEVICE.c.uid).where(DEVICE.c.rendered_digest == digest))
        | exists(select(HISTORY.c.uid).where(HISTORY.c.spec_digest == digest))
        | exists(select(HISTORY.c.uid).where(HISTORY.c.rendered_digest == digest))
        | exists(select(CONTENT_REF.c.parent).where(CONTENT_REF.c.child == digest))
    )
    old = CONTENT.c.touched_at < now_s - UNTOUCHED_S
    return connection.execute(delete(CONTENT).where(old, ~pointed)).rowcount
