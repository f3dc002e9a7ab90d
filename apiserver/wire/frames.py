"""Watch events as bytes: one JSON object a line, in the representation that was asked for.

What one watch writes of a batch of events serves all others that were given the same batch: the
documents in it are the same, so the bytes are. Only tables are written by each watch for itself,
for they carry ages, and the columns with the first event. Beyond a batch nothing is kept: some
documents carry counts that move without a version. Lines are joined to pieces, since each write
costs more than a line; a piece stays small, since a client that is slow holds one in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import orjson

from apiserver.errors import StatusError
from apiserver.wire import accept, shapes, table
from resources.kind import Json, Kind

PIECE_BYTES = 64 << 10


class Writer:
    """Frames of one watch; it knows whether its first event is gone, which carries the columns."""

    def __init__(
        self,
        kind: Kind,
        shape: str,
        *,
        now: Callable[[], datetime],
        include: str = "Metadata",
    ) -> None:
        self._kind = kind
        self._shape = shape
        self._now = now
        self._include = include
        self._columns_sent = False

    def pieces(
        self, events: Sequence[tuple[str, Json]], written: dict[str, Sequence[bytes]]
    ) -> Iterable[bytes]:
        """Events that follow each other, as few pieces. `written` belongs to these events: what is
        there by shape is taken, what is not is left there."""
        if self._shape == accept.TABLE:
            return _joined(self.event(*event) for event in events)
        found = written.get(self._shape)
        if found is None:
            found = written[self._shape] = list(_joined(self.event(*event) for event in events))
        return found

    def event(self, type_: str, document: Json) -> bytes:
        """An ADDED, MODIFIED or DELETED."""
        if self._shape == accept.TABLE:
            return _line(type_, self._table([document], document["metadata"]))
        return self._plain(type_, document)

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


def _joined(lines: Iterable[bytes]) -> Iterable[bytes]:
    held, size = [], 0
    for line in lines:
        held.append(line)
        size += len(line)
        if size >= PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)
