"""A list that stays true: what is there now, then each change, for as long as somebody looks.

The invariant: what comes out, put together, is what the server has; nothing is missed and nothing
comes twice. A connection that ends is opened again from the last version that was heard of; where
the server no longer knows what changed since (410), the list is read again, and only what differs
from what was told before is told. Losing the server is said once, and having it back too.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from cli.client import QUIET_MAX_S, Client, Refused, Unreachable, refused_by

Json = dict[str, Any]

PAGE = 500
PAUSE_MIN_S, PAUSE_MAX_S = 0.25, 15.0
# Answers that a server gives while it starts or stops; the others are meant.
PASSING = (429, 500, 503, 504)


@dataclass(frozen=True, slots=True)
class Change:
    """`item` is an object, or the row of a Table."""

    type: str
    item: Json


class Ended(Exception):
    """The time that the caller gave is over."""


def listed(client: Client, path: str, query: dict[str, str], accept: str) -> Json:
    """The whole list, page by page, as one document."""
    document = client.ask("GET", path, query=query | {"limit": str(PAGE)}, accept=accept)
    part = "rows" if document.get("kind") == "Table" else "items"
    token = document["metadata"].get("continue")
    while token:
        asked = query | {"limit": str(PAGE), "continue": token}
        page = client.ask("GET", path, query=asked, accept=accept)
        document[part] = [*(document.get(part) or ()), *(page.get(part) or ())]
        token = page["metadata"].get("continue")
    for key in ("continue", "remainingItemCount"):
        document["metadata"].pop(key, None)
    return document


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Watch:
    """One list, followed."""

    def __init__(
        self,
        client: Client,
        path: str,
        query: dict[str, str],
        accept: str,
        *,
        tell: Callable[[str], None] = say,
    ) -> None:
        self._client = client
        self._path = path
        self._query = query
        self._accept = accept
        self._tell = tell
        self._version = ""
        self._known: dict[str, Json] = {}

    def begin(self) -> Json:
        """The list as it is."""
        document = listed(self._client, self._path, self._query, self._accept)
        self._version = document["metadata"]["resourceVersion"]
        self._known = {_uid(item): item for item in items_of(document)}
        return document

    def changes(self, until: float | None = None) -> Iterator[Change]:
        """Each change as it comes. Raises Ended at `until` of the monotonic clock."""
        pause_s, lost = PAUSE_MIN_S, False
        while True:
            try:
                for event in self._stream(until):
                    if lost:
                        self._tell("the server is back")
                    pause_s, lost = PAUSE_MIN_S, False
                    yield from self._heard(event)
                _left(until)
            except Unreachable as problem:
                _left(until)
                if not lost:
                    self._tell(f"warning: {problem}; trying again")
                lost = True
            except Refused as refused:
                if refused.code not in (410, *PASSING):
                    raise
                if refused.code == 410:
                    yield from self._again()
            time.sleep(min(pause_s, _left(until)))
            pause_s = min(2 * pause_s, PAUSE_MAX_S)

    def _stream(self, until: float | None) -> Iterator[Json]:
        left_s = min(_left(until), QUIET_MAX_S)
        query = self._query | {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version,
        }
        return self._client.stream(self._path, query=query, accept=self._accept, quiet_max_s=left_s)

    def _heard(self, event: Json) -> Iterator[Change]:
        document = event["object"]
        if event["type"] == "ERROR":
            raise refused_by(document)
        if version := (document.get("metadata") or {}).get("resourceVersion"):
            self._version = version
        if event["type"] == "BOOKMARK":
            return
        for item in items_of(document):
            self._version = _version(item) or self._version
            if event["type"] == "DELETED":
                self._known.pop(_uid(item), None)
            else:
                self._known[_uid(item)] = item
            yield Change(event["type"], item)

    def _again(self) -> Iterator[Change]:
        """The difference between what was told and what is."""
        before = self._known
        self.begin()
        for uid, item in before.items():
            if uid not in self._known:
                yield Change("DELETED", item)
        for uid, item in self._known.items():
            if uid not in before:
                yield Change("ADDED", item)
            elif _version(before[uid]) != _version(item):
                yield Change("MODIFIED", item)


def items_of(document: Json) -> list[Json]:
    """The rows of a Table, the items of a list, or the object itself."""
    if document.get("kind") == "Table":
        return document.get("rows") or []
    if "items" in document:
        return document["items"] or []
    return [document]


def metadata_of(item: Json) -> Json:
    """Of an object, or of the row that stands for it."""
    found: Json = (item["object"] if "cells" in item else item).get("metadata") or {}
    return found


def _uid(item: Json) -> str:
    metadata = metadata_of(item)
    return str(metadata.get("uid") or f"{metadata.get('namespace')}/{metadata.get('name')}")


def _version(item: Json) -> str:
    return str(metadata_of(item).get("resourceVersion") or "")


def _left(until: float | None) -> float:
    if until is None:
        return float("inf")
    left_s = until - time.monotonic()
    if left_s <= 0:
        raise Ended
    return left_s
