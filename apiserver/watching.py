"""What one look at the change log gives a watcher: `operations` looks again and again.

Rows and objects are read in one snapshot, and `store.watchrule` decides each row alone. That is
what makes the promise of watches (architecture §4) hold from whatever version a watch begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from apiserver import errors, showing
from apiserver.store import Snapshot, Store, watchrule
from apiserver.verbs import WatchEvent, WatchOptions
from resources.kind import Json, Kind

PAGE = 500


@dataclass(frozen=True, slots=True)
class Step:
    """Events up to `cursor`; `caught_up`: there was nothing beyond it."""

    events: Sequence[WatchEvent]
    cursor: int
    caught_up: bool


async def look(
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
        return Step(_events(snapshot, kind, rows, matches), at, caught_up)

    return await store.read(read)


def _events(
    snapshot: Snapshot, kind: Kind, rows: Any, matches: watchrule.Matches
) -> Sequence[WatchEvent]:
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
