"""What one row of the change log says to one watcher. Pure; a random model tests it.

A watcher is a cursor over the log. Rows and objects are read in one snapshot, and an object is its
uid. Each row decides alone:

- by the old values it was in the selection and by the new it is not: DELETED, never skipped;
- a delete: DELETED if its last body matches;
- otherwise, if the row's version is the object's current one and the object matches: ADDED on
  creation or entry, else MODIFIED. A row that is not current is skipped; a later one brings
  the object.

So a client may see a superseded creation as MODIFIED, but at every version where a watcher has
read the whole log, what it has built up equals a list. Rules with old values only do not hold that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

EventType = Literal["ADDED", "MODIFIED", "DELETED"]
ADDED: Final = "ADDED"
MODIFIED: Final = "MODIFIED"
DELETED: Final = "DELETED"
Labels = Mapping[str, str]
Fields = Mapping[str, str | None]
Matches = Callable[[Labels, Fields], bool]


@dataclass(frozen=True, slots=True)
class Change:
    """A row of the log. `old` and `new` are (labels, fields), or None where nothing that selectors
    look at changed; a creation has no `old`, a delete no `new`. `body` is the last of a deleted
    object."""

    version: int
    kind: str
    namespace: str
    name: str
    uid: str
    type: EventType
    old: tuple[Labels, Fields] | None
    new: tuple[Labels, Fields] | None
    body: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Current:
    """The object of a uid as the snapshot has it."""

    version: int
    labels: Labels
    fields: Fields


def decide(change: Change, current: Current | None, matches: Matches) -> EventType | None:
    """The event for this row, or None."""
    if change.type == DELETED:
        assert change.old is not None, "a delete says what it was"
        return DELETED if matches(*change.old) else None
    was_in = change.old is not None and matches(*change.old)
    if was_in and change.new is not None and not matches(*change.new):
        return DELETED
    if current is None or current.version != change.version:
        return None
    if not matches(current.labels, current.fields):
        return None
    entered = change.type == ADDED or (change.old is not None and not was_in)
    return ADDED if entered else MODIFIED
