"""The audit as JSON lines in a file, for those who collect logs.

What is in the database is followed, so the file is complete however often the process dies: at the
start its last whole line says where to go on, and half a line is cut off. Each process that has
such a file writes all there is, not only its own. Who moves the file away gets a new one.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import orjson
import structlog

from apiserver.store import Snapshot, Store, auditlog
from apiserver.store.auditlog import Wanted
from apiserver.trail import shown
from resources.kind import Json

EVERY_S = 1.0
PAGE = 500
# A line is a few hundred bytes; what is longer is none of ours.
LINE_BYTES_MAX = 64 * 1024

log = structlog.get_logger()


async def keep_writing(store: Store, path: Path, last: int) -> None:
    """Runs until it is cancelled; `last` is what `prepare` found."""
    while True:
        try:
            last = await write(store, path, last)
        except Exception:  # a full disk may have room again: the next round goes on from there
            log.warning("audit log could not be written", path=str(path), exc_info=True)
        await asyncio.sleep(EVERY_S)


async def write(store: Store, path: Path, last: int) -> int:
    """Append what came after `last`; the number of the last line."""
    while True:
        found = await store.read(partial(_after, last))
        if not found:
            return last
        await asyncio.to_thread(_append, path, found)
        last = _number(found[-1])


def prepare(path: Path) -> int:
    """Cut off half a line; the number in the last one, 0 where there is none."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with open(descriptor, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - LINE_BYTES_MAX))
        tail = file.read()
        whole, newline, half = tail.rpartition(b"\n")
        if half:
            file.truncate(size - len(half))
        line = whole.rpartition(b"\n")[2] if newline else b""
    try:
        return _number(orjson.loads(line))
    except (ValueError, KeyError, TypeError):
        return 0


def _after(last: int, snapshot: Snapshot) -> list[Json]:
    return [shown(snapshot, row) for row in auditlog.page(snapshot, Wanted(), last, PAGE)]


def _number(document: Json) -> int:
    return int(document["metadata"]["resourceVersion"])


def _append(path: Path, documents: Sequence[Json]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with open(descriptor, "ab") as file:
        # A failure before may have left half a line of ours.
        start = file.tell()
        try:
            file.write(
                b"".join(orjson.dumps(d, option=orjson.OPT_APPEND_NEWLINE) for d in documents)
            )
            file.flush()
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(descriptor, start)
            raise
