"""The audit as a kind that is read: AuditEvents out of rows, in order of time.

Their names are their numbers, and so are their versions, which are a sequence of their own: a watch
goes on from the number that it has seen. Events of what is in no namespace are in none, and are
seen by who may read all namespaces.

A namespace that was deleted and made again is another organisation: in it nothing is shown of what
was before it.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NoReturn, TypeVar

from apiserver import errors, showing
from apiserver.auth.identity import Caller
from apiserver.store import Snapshot, Store, auditlog
from apiserver.store.auditlog import Row, Wanted
from apiserver.verbs import ListOptions, Page, WatchBatch, WatchEvent, WatchOptions
from resources import timestamps
from resources.kind import Json, Kind
from resources.objectpath import get_path
from resources.registry import AUDIT_EVENT, ORGANIZATION
from resources.selectors import FieldSelector, LabelSelector

T = TypeVar("T")

# Also of a list without a limit: an audit is longer than what one answer may be.
PAGE_MAX = 5_000
WATCH_PAGE = 500
# How often a watch looks; auditors are few.
LOOK_S = 0.5
_DIGITS = 12


class Trail:
    """The verbs that read; there are no others."""

    def __init__(self, store: Store, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._monotonic = monotonic

    async def get(self, caller: Caller, kind: Kind, namespace: str, name: str) -> Json:
        number = int(name) if name.isascii() and name.isdigit() and len(name) == _DIGITS else 0

        def read(snapshot: Snapshot) -> Json | None:
            row = auditlog.one(snapshot, _wanted(snapshot, namespace, None), number)
            return None if row is None else shown(snapshot, row)

        document = await self._store.read(read)
        if document is None:
            raise errors.not_found(AUDIT_EVENT, name)
        return document

    async def list_as(
        self,
        caller: Caller,
        kind: Kind,
        namespace: str | None,
        options: ListOptions,
        write: Callable[[Page], T],
    ) -> T:
        """A page of at most PAGE_MAX, whatever was asked for."""

        def read(snapshot: Snapshot) -> T:
            asked = options.resource_version
            if options.match == "Exact" and asked != snapshot.audit_version:
                raise errors.Expired("the requested resource version is not the current one")
            if asked is not None and asked > snapshot.audit_version:
                raise errors.Timeout("Too large resource version", retry_after_s=1)
            return write(_page(snapshot, namespace, options))

        return await self._store.read(read)

    async def reach(self, version: int, timeout_s: float) -> int:
        return await self._store.read(lambda snapshot: snapshot.audit_version)

    async def watch(
        self, caller: Caller, kind: Kind, namespace: str | None, options: WatchOptions
    ) -> AsyncIterator[WatchBatch]:
        """Events until the timeout or the drain. Raises Expired when they were forgotten."""
        deadline = self._monotonic() + options.timeout_s
        cursor, is_initial = options.resource_version or 0, not options.resource_version
        bookmarked, told = self._monotonic(), cursor
        while True:
            look = partial(
                _look,
                namespace=namespace,
                options=options,
                cursor=cursor,
                is_initial=is_initial,
            )
            events, cursor, caught_up = await self._store.read(look)
            if events:
                yield WatchBatch(events)
            if not caught_up:
                continue
            now = self._monotonic()
            ending = now >= deadline or self._store.hub.closed
            if is_initial and options.send_initial:
                yield WatchBatch([_bookmark(cursor, initial_end=True)])
                bookmarked, told = now, cursor
            elif options.bookmarks and (
                now - bookmarked >= options.bookmark_s or (ending and cursor != told)
            ):
                yield WatchBatch([_bookmark(cursor)])
                bookmarked, told = now, cursor
            is_initial = False
            if ending:
                return
            await asyncio.sleep(min(LOOK_S, deadline - now))

    async def create(self, *_: Any, **__: Any) -> NoReturn:
        raise errors.MethodNotAllowed("the audit is written by the service", kind=AUDIT_EVENT)

    update = patch = apply = delete = delete_collection = create


def shown(snapshot: Snapshot, row: Row) -> Json:
    """The document of a row."""
    return {
        "apiVersion": AUDIT_EVENT.api_version,
        "kind": AUDIT_EVENT.kind,
        "metadata": {
            "name": _name(row.id),
            **({"namespace": row.namespace} if row.namespace else {}),
            "uid": str(uuid.uuid5(uuid.UUID(snapshot.store_uid), f"audit {row.id}")),
            "resourceVersion": str(row.id),
            "generation": 1,
            "creationTimestamp": timestamps.of_seconds(row.at),
        },
        "spec": row.spec,
    }


def _name(number: int) -> str:
    """Sorts as the number does."""
    return f"{number:0{_DIGITS}d}"


def _page(snapshot: Snapshot, namespace: str | None, options: ListOptions) -> Page:
    version = snapshot.audit_version if options.version is None else options.version
    limit = min(options.limit or PAGE_MAX, PAGE_MAX)
    found: list[Json] = []
    for document in _documents(snapshot, namespace, options.fields, _after(options)):
        if not _matches(document, options.labels, options.fields):
            continue
        if len(found) == limit:
            last = found[-1]["metadata"]
            return Page(found, version, (last.get("namespace", ""), last["name"]))
        found.append(document)
    return Page(found, version)


def _after(options: ListOptions) -> int:
    name = options.after[1] if options.after else ""
    return int(name) if name.isascii() and name.isdigit() else 0


def _documents(
    snapshot: Snapshot, namespace: str | None, fields: FieldSelector | None, after: int
) -> Iterable[Json]:
    wanted = _wanted(snapshot, namespace, fields)
    while rows := auditlog.page(snapshot, wanted, after, WATCH_PAGE):
        for row in rows:
            yield shown(snapshot, row)
        after = rows[-1].id


def _look(
    snapshot: Snapshot,
    *,
    namespace: str | None,
    options: WatchOptions,
    cursor: int,
    is_initial: bool,
) -> tuple[Sequence[WatchEvent], int, bool]:
    """Events above `cursor`, up to which number, and whether that is all."""
    if not is_initial and cursor < auditlog.oldest(snapshot):
        raise errors.Expired(f"too old resource version: {cursor}; list again")
    wanted = _wanted(snapshot, namespace, options.fields)
    rows = auditlog.page(snapshot, wanted, cursor, WATCH_PAGE)
    caught_up = len(rows) < WATCH_PAGE
    documents = (shown(snapshot, row) for row in rows)
    events = [
        WatchEvent("ADDED", document)
        for document in documents
        if _matches(document, options.labels, options.fields)
    ]
    return events, max(cursor, snapshot.audit_version) if caught_up else rows[-1].id, caught_up


def _wanted(snapshot: Snapshot, namespace: str | None, fields: FieldSelector | None) -> Wanted:
    """What the database can tell apart; the rest is `_matches`."""
    equal = {
        each.key: each.values
        for each in (fields.requirements if fields else ())
        if each.operator in ("=", "in") and "" not in each.values
    }
    if namespace is None:
        return Wanted(equal=equal)
    return Wanted(namespace, equal, _begun(snapshot, namespace))


def _begun(snapshot: Snapshot, namespace: str) -> int:
    """Since when there is this namespace, in unix seconds."""
    found = snapshot.get(ORGANIZATION, "", namespace)
    if found is None:
        return 0
    return int(datetime.fromisoformat(found["metadata"]["creationTimestamp"]).timestamp())


def _matches(document: Json, labels: LabelSelector, fields: FieldSelector | None) -> bool:
    if not labels.matches({}):
        return False
    return fields is None or fields.matches(
        {each.key: _text(get_path(document, each.key)) for each in fields.requirements}
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _bookmark(cursor: int, *, initial_end: bool = False) -> WatchEvent:
    return WatchEvent("BOOKMARK", showing.bookmark(AUDIT_EVENT, cursor), initial_end=initial_end)
