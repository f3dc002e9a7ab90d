"""What one look at the change log gives a watcher: `operations` looks again and again.

Rows and objects are read in one snapshot, and `store.watchrule` decides each row alone. That is
what makes the promise of watches (architecture §4) hold from whatever version a watch begins.

Watchers that ask for the same and stand at the same version get the same look: a commit wakes all
of them, and one of them reads. A look stays true, for it says what followed a version when it was
taken; who comes late goes on from where it ends.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apiserver import errors, showing
from apiserver.store import Snapshot, Store, watchrule
from apiserver.verbs import WatchBatch, WatchEvent, WatchOptions
from resources.kind import Json, Kind

PAGE = 500
# Looks that are kept for those who come late: of a few kinds and selections, the last; and of a
# bulk change no more than a page or two, for a document takes ten kilobytes.
KEPT, KEPT_EVENTS = 16, 1_000

Key = tuple[str, str | None, str, str, int]


@dataclass(frozen=True, slots=True)
class Step:
    """Events up to `cursor`; `caught_up`: there was nothing beyond it."""

    batch: WatchBatch
    cursor: int
    caught_up: bool


class Looks:
    """The looks of one process. Callers leave the documents in them as they are."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way: dict[Key, asyncio.Task[Step]] = {}
        self._taken: OrderedDict[Key, Step] = OrderedDict()
        self._events = 0

    async def look(
        self, kind: Kind, namespace: str | None, options: WatchOptions, cursor: int
    ) -> Step:
        """What follows `cursor`, a page at most. Raises Expired when the log ends before it."""
        asked = str(options.labels), str(options.fields or "")
        key: Key = (kind.resource, namespace, *asked, cursor)
        taken = self._taken.get(key)
        if taken is not None:
            return taken
        looking = self._under_way.get(key)
        if looking is None:
            looking = asyncio.create_task(_look(self._store, kind, namespace, options, cursor))
            self._under_way[key] = looking
            looking.add_done_callback(lambda task: self._keep(key, task))
        # Whoever began it may go away; the others still wait for it.
        return await asyncio.shield(looking)

    def _keep(self, key: Key, looking: asyncio.Task[Step]) -> None:
        del self._under_way[key]
        if looking.cancelled() or looking.exception() is not None:
            return
        step = looking.result()
        # One that got nowhere says nothing once there is more.
        if step.cursor > key[-1]:
            self._taken[key] = step
            self._events += len(step.batch.events)
            while len(self._taken) > KEPT or (self._events > KEPT_EVENTS and len(self._taken) > 1):
                _, dropped = self._taken.popitem(last=False)
                self._events -= len(dropped.batch.events)


async def _look(
    store: Store, kind: Kind, namespace: str | None, options: WatchOptions, cursor: int
) -> Step:
    """What follows `cursor`, a page at most. Raises Expired when the log does not reach back."""

    def matches(labels: Mapping[str, str], fields: Mapping[str, str | None]) -> bool:
        if not options.labels.matches(labels):
            return False
        return options.fields is None or options.fields.matches(fields)

    def read(snapshot: Snapshot) -> Step:
        if cursor < snapshot.compacted:
            raise errors.Expired(
                f"too old resource version: {cursor} ({snapshot.compacted})", kind=kind
            )
        rows = snapshot.changes(kind, namespace, cursor, PAGE)
        caught_up = len(rows) < PAGE
        at = snapshot.version if caught_up else rows[-1].version
        return Step(WatchBatch(_events(snapshot, kind, rows, matches)), at, caught_up)

    return await store.read(read)


def _events(
    snapshot: Snapshot, kind: Kind, rows: Any, matches: watchrule.Matches
) -> list[WatchEvent]:
    found = snapshot.current(kind, {row.uid for row in rows}) if rows else {}
    events = []
    for row in rows:
        document, current = found.get(row.uid, (None, None))
        type_ = watchrule.decide(row, current, matches)
        if type_ is None:
            continue
        body: Json | None = document if document is not None else row.body
        if type_ == "DELETED":
            # It left the selection, or is gone: the row's version orders it, whatever the object
            # is now. One that is gone by now has its own delete row further on.
            body = showing.at_version(body or showing.tombstone(kind, row), row.version)
        assert body is not None, "a current row has its object"
        events.append(WatchEvent(type_, showing.shown(snapshot, kind, body)))
    return events
