"""Watch events as bytes: one JSON object a line, in the representation that was asked for.

A change that a hundred watchers see is written once: frames of MODIFIED are kept by (uid, version,
shape) for a while. Others are not kept. An ADDED may be the state at the start of a watch, in which
counts are filled in that move without a version; a DELETED shows who left a selection as it is by
now; and in tables ages change.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from datetime import datetime

import orjson

from apiserver.errors import StatusError
from apiserver.wire import accept, shapes, table
from resources.kind import Json, Kind

KEPT_BYTES_MAX = 8 * 1024 * 1024
Key = tuple[str, str, str]


class Frames:
    """The last frames, bounded by their bytes. Used from the event loop only."""

    def __init__(self, limit_bytes: int = KEPT_BYTES_MAX) -> None:
        self._limit = limit_bytes
        self._size = 0
        self._kept: OrderedDict[Key, bytes] = OrderedDict()

    def get(self, key: Key, make: Callable[[], bytes]) -> bytes:
        """The frame under `key`, made if it is not there."""
        frame = self._kept.get(key)
        if frame is not None:
            self._kept.move_to_end(key)
            return frame
        frame = make()
        self._kept[key] = frame
        self._size += len(frame)
        while self._size > self._limit:
            _, dropped = self._kept.popitem(last=False)
            self._size -= len(dropped)
        return frame

    def kept(self) -> list[bytes]:
        """The frames that are kept, oldest first."""
        return list(self._kept.values())


class Writer:
    """Frames of one watch; it knows whether its first event is gone, which carries the columns."""

    def __init__(
        self,
        kind: Kind,
        shape: str,
        frames: Frames,
        *,
        now: Callable[[], datetime],
        include: str = "Metadata",
    ) -> None:
        self._kind = kind
        self._shape = shape
        self._frames = frames
        self._now = now
        self._include = include
        self._columns_sent = False

    def event(self, type_: str, document: Json) -> bytes:
        """An ADDED, MODIFIED or DELETED."""
        if self._shape == accept.TABLE:
            return _line(type_, self._table([document], document["metadata"]))
        metadata = document["metadata"]
        if type_ != "MODIFIED":
            return self._plain(type_, document)
        key = (metadata.get("uid", ""), metadata.get("resourceVersion", ""), self._shape)
        return self._frames.get(key, lambda: self._plain(type_, document))

    def bookmark(self, version: str, *, initial_end: bool) -> bytes:
        document = shapes.bookmark(self._kind, version, initial_end=initial_end)
        if self._shape == accept.TABLE:
            return _line("BOOKMARK", self._table([], document["metadata"]))
        return self._plain("BOOKMARK", document)

    def error(self, error: StatusError) -> bytes:
        """A failure inside a stream whose headers said 200 already."""
        return _line("ERROR", error.document())

    def _plain(self, type_: str, document: Json) -> bytes:
        return _line(type_, shapes.partial(document) if self._shape else document)

    def _table(self, documents: list[Json], metadata: Json) -> Json:
        kept: Json = {k: metadata[k] for k in ("resourceVersion", "annotations") if k in metadata}
        if documents:
            kept.pop("annotations", None)
        made = table.table(
            self._kind,
            documents,
            now=self._now(),
            include=self._include,
            metadata=kept,
            with_columns=not self._columns_sent,
        )
        self._columns_sent = True
        return made


def _line(type_: str, document: Json) -> bytes:
    return orjson.dumps({"type": type_, "object": document}) + b"\n"
