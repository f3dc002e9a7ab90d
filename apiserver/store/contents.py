"""Immutable documents and blobs under their digest, and a bounded cache of the parsed ones.

Safe to cache for ever: a digest never means anything else. What nobody points at is swept an hour
after it was touched last. Rows of `content_ref` point from a document's digest, or from the uid of
a template version, to digests; those of a parent that is gone go with it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, delete, exists, func, select, update

from apiserver.store.dialect import Dialect
from apiserver.store.prepared import Prepared
from apiserver.store.sealing import OVERHEAD_BYTES, PLAIN, Keyring, about_content
from apiserver.store.tables import CONTENT, CONTENT_REF, DEVICE, HISTORY
from resources import digest as digests

CACHED_DOCUMENTS = 2_000
CACHED_BYTES = 64 << 20
UNTOUCHED_S = 3600
# Digests in one statement; both databases take some thirty thousand parameters.
CHUNK = 5_000


def _renewing(dialect: str) -> Any:
    insert = Dialect(dialect).upsert(CONTENT)
    renewed = {"touched_at": insert.excluded.touched_at}
    return insert.on_conflict_do_update(index_elements=["digest"], set_=renewed)


_PUT = Prepared(_renewing)
_STORED = (CONTENT.c.digest, CONTENT.c.sealed_by, CONTENT.c.body)
_BODY = Prepared(select(*_STORED).where(CONTENT.c.digest == bindparam("digest")))


class Documents:
    """The last documents read, by digest; shared by the reader threads. Bounded in number, and in
    the bytes that they were read from: a specification may hold megabytes of files."""

    def __init__(
        self, keys: Keyring, limit: int = CACHED_DOCUMENTS, bytes_max: int = CACHED_BYTES
    ) -> None:
        self._keys = keys
        self._limit = limit
        self._bytes_max = bytes_max
        self._documents: OrderedDict[str, Any] = OrderedDict()
        self._sizes: dict[str, int] = {}
        self._bytes = 0
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
            query = select(*_STORED).where(CONTENT.c.digest.in_(missing))
            fresh = [
                (row.digest, orjson.loads(_opened(self._keys, row)), len(row.body))
                for row in connection.execute(query)
            ]
            found |= {digest: document for digest, document, _ in fresh}
            self._keep(fresh)
        return found

    def _keep(self, fresh: Iterable[tuple[str, Any, int]]) -> None:
        with self._lock:
            for digest, document, size in fresh:
                self._bytes += size - self._sizes.get(digest, 0)
                self._documents[digest], self._sizes[digest] = document, size
            while len(self._documents) > self._limit or self._bytes > self._bytes_max:
                dropped, _ = self._documents.popitem(last=False)
                self._bytes -= self._sizes.pop(dropped)


def get(connection: Connection, keys: Keyring, digest: str) -> bytes | None:
    found = _BODY.first(connection, {"digest": digest})
    if found is None:
        return None
    return keys.open(found["sealed_by"], bytes(found["body"]), about_content(digest))


def put(connection: Connection, keys: Keyring, blobs: Mapping[str, bytes], now_s: int) -> None:
    """Store blobs by digest; the same again renews its age, so no sweep takes it from under a
    writer."""
    _PUT.run_many(connection, (_row(keys, each, now_s) for each in blobs.items()))


def is_secret(digest: str) -> bool:
    """Whether what has this digest is sealed."""
    return digest.startswith(digests.KEYED_PREFIX)


def _row(keys: Keyring, blob: tuple[str, bytes], now_s: int) -> dict[str, Any]:
    digest, body = blob
    sealed_by = PLAIN
    if is_secret(digest):
        sealed_by, body = keys.first, keys.seal(body, about_content(digest))
    return {"digest": digest, "body": body, "touched_at": now_s, "sealed_by": sealed_by}


def _opened(keys: Keyring, row: Any) -> bytes:
    return keys.open(row.sealed_by, bytes(row.body), about_content(row.digest))


def touch(connection: Connection, digest: str, now_s: int) -> int | None:
    """Renew the age of a blob. Its size, None when it is not there."""
    size = select(func.length(CONTENT.c.body).label("size"), CONTENT.c.sealed_by)
    found = connection.execute(size.where(CONTENT.c.digest == digest)).one_or_none()
    if found is None:
        return None
    connection.execute(update(CONTENT).where(CONTENT.c.digest == digest).values(touched_at=now_s))
    return int(found.size) - (0 if found.sealed_by == PLAIN else OVERHEAD_BYTES)


def read(connection: Connection, keys: Keyring, wanted: Sequence[str]) -> dict[str, bytes]:
    """Of these digests, the bytes of those that are there."""
    found: dict[str, bytes] = {}
    for some in _chunks(wanted):
        query = select(*_STORED).where(CONTENT.c.digest.in_(some))
        found |= {row.digest: _opened(keys, row) for row in connection.execute(query)}
    return found


def missing(connection: Connection, wanted: Iterable[str]) -> list[str]:
    """Of these digests, those that are not there."""
    left = list(dict.fromkeys(wanted))
    found: set[str] = set()
    for some in _chunks(left):
        query = select(CONTENT.c.digest).where(CONTENT.c.digest.in_(some))
        found.update(connection.execute(query).scalars())
    return [digest for digest in left if digest not in found]


def _chunks(wanted: Sequence[str]) -> Iterable[Sequence[str]]:
    return (wanted[start : start + CHUNK] for start in range(0, len(wanted), CHUNK))


# --- who points at what ---------------------------------------------------------------------


def refer(connection: Connection, dialect: Dialect, pairs: Iterable[tuple[str, str]]) -> None:
    """Note that each parent points at its child. Noting it again is nothing."""
    rows = [{"parent": parent, "child": child} for parent, child in dict.fromkeys(pairs)]
    if rows:
        connection.execute(dialect.upsert(CONTENT_REF).on_conflict_do_nothing(), rows)


def unrefer(connection: Connection, parent: str) -> None:
    """The parent is gone."""
    connection.execute(delete(CONTENT_REF).where(CONTENT_REF.c.parent == parent))


def children(connection: Connection, keys: Keyring, parents: Sequence[str]) -> dict[str, bytes]:
    """digest → bytes of all that these parents point at, in one statement however many."""
    query = (
        select(*_STORED)
        .join(CONTENT_REF, CONTENT_REF.c.child == CONTENT.c.digest)
        .where(CONTENT_REF.c.parent.in_(list(parents)))
    )
    return {row.digest: _opened(keys, row) for row in connection.execute(query)}


def sweep(connection: Connection, now_s: int) -> int:
    """Remove what no device, history or other document points at and nobody touched for an hour.
    What only that pointed at goes in the next round."""
    digest = CONTENT.c.digest
    pointed = (
        exists(select(DEVICE.c.uid).where(DEVICE.c.spec_digest == digest))
        | exists(select(DEVICE.c.uid).where(DEVICE.c.rendered_digest == digest))
        | exists(select(DEVICE.c.uid).where(DEVICE.c.inputs_digest == digest))
        | exists(select(HISTORY.c.uid).where(HISTORY.c.spec_digest == digest))
        | exists(select(HISTORY.c.uid).where(HISTORY.c.rendered_digest == digest))
        | exists(select(CONTENT_REF.c.parent).where(CONTENT_REF.c.child == digest))
    )
    old = CONTENT.c.touched_at < now_s - UNTOUCHED_S
    gone = connection.execute(delete(CONTENT).where(old, ~pointed)).rowcount
    if gone:
        parent = CONTENT_REF.c.parent
        orphaned = parent.contains(":") & ~exists(select(digest).where(digest == parent))
        connection.execute(delete(CONTENT_REF).where(orphaned))
    return gone
