"""Clients that build up what they are told by watches, and the log that says what they should know.

A client keeps `uid → version` of what is in its selection. At every bookmark it notes what it
knows; afterwards the change log, read from the database, says what a list at that version would
have said.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from apiserver.store.watchrule import Change
from resources.kind import Json, Kind
from resources.selectors import EVERYTHING, FieldSelector, LabelSelector, parse_fields, parse_labels

# What a killed server, or one that starts, looks like to a client.
OUTAGES = (aiohttp.ClientError, ConnectionError, TimeoutError)
PAGE = 40

Known = dict[str, int]


class Broken(AssertionError):
    """The promise was broken."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What a client asks for."""

    kind: Kind
    labels: str = ""
    fields: str = ""

    @property
    def query(self) -> dict[str, str]:
        asked = {"labelSelector": self.labels, "fieldSelector": self.fields}
        return {key: value for key, value in asked.items() if value}

    def parsed(self) -> tuple[LabelSelector, FieldSelector | None]:
        labels = parse_labels(self.labels) if self.labels else EVERYTHING
        fields = parse_fields(self.fields, self.kind.selectable) if self.fields else None
        return labels, fields


@dataclass(slots=True)
class Client:
    """One watcher: lists or asks for the initial events, watches for a few seconds, goes on from
    the last thing that it saw at whatever server comes next."""

    selection: Selection
    session: aiohttp.ClientSession
    server: Callable[[], str]
    random: random.Random
    known: Known = field(default_factory=dict)
    cursor: int = 0
    # (version, what was known there, how it came to be), to be judged by the log.
    notes: list[tuple[int, Known, str]] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def path(self) -> str:
        kind = self.selection.kind
        return f"/apis/{kind.group}/{kind.version}/namespaces/default/{kind.plural}"

    async def watch_until(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            try:
                if not self.cursor or self.random.random() < 0.05:
                    await self._start()
                else:
                    await self._resume()
            except OUTAGES:
                self.counts["cut off"] += 1
                await asyncio.sleep(0.1)

    async def catch_up(self, version: int) -> None:
        """Once writes have stopped: until everything up to `version` was seen."""
        while self.cursor < version:
            await self._resume(timeout_s=1)

    async def _start(self) -> None:
        self.known, self.cursor = {}, 0
        if self.random.random() < 0.5:
            await self._list()
        else:
            more = {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
            await self._stream(self._timeout_s() + 2, more)

    async def _list(self) -> None:
        """In pages, each from whatever server: they carry the first one's version, and the watch
        repairs what changed between them. So it is noted only if there was one page."""
        token, pages, known = "", 0, {}
        while True:
            query = self.selection.query | {"limit": str(PAGE)}
            if token:
                query["continue"] = token
            async with self.session.get(self.server() + self.path, params=query) as response:
                body = await response.json()
                if response.status == 503:
                    raise ConnectionError(body["message"])
                if response.status != 200:
                    raise Broken(f"list: {response.status} {body}")
            for item in body["items"]:
                known[item["metadata"]["uid"]] = _version(item)
            pages += 1
            token = body["metadata"].get("continue", "")
            if not token:
                break
        self.known, self.cursor = known, int(body["metadata"]["resourceVersion"])
        self.counts["lists"] += 1
        if pages == 1:
            self._note("list")

    async def _resume(self, timeout_s: int = 0) -> None:
        await self._stream(timeout_s or self._timeout_s(), {"resourceVersion": str(self.cursor)})

    def _timeout_s(self) -> int:
        return self.random.randint(1, 4)

    async def _stream(self, timeout_s: int, more: Mapping[str, str]) -> None:
        query = self.selection.query | dict(more)
        query |= {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(timeout_s)}
        self.counts["streams"] += 1
        last = self.cursor
        initial = "sendInitialEvents" in more
        async with self.session.get(self.server() + self.path, params=query) as response:
            if response.status in (503, 504):
                raise ConnectionError(await response.text())
            if response.status != 200:
                raise Broken(f"watch: {response.status} {await response.text()}")
            async for event in _events(response):
                version = _version(event["object"])
                if event["type"] == "BOOKMARK":
                    if version < last:
                        raise Broken(f"bookmark {version} after {last}")
                    initial = False
                    self.cursor = last = version
                    self._note("bookmark")
                    continue
                if not initial and version <= last:
                    raise Broken(f"version {version} after {last}")
                if not initial:
                    self.cursor = last = version
                self._see(event)

    def _see(self, event: Json) -> None:
        self.counts[event["type"]] += 1
        uid = event["object"]["metadata"]["uid"]
        if event["type"] == "DELETED":
            self.known.pop(uid, None)
        elif event["type"] in ("ADDED", "MODIFIED"):
            self.known[uid] = _version(event["object"])
        else:
            raise Broken(str(event))

    def _note(self, how: str) -> None:
        self.counts[f"{how}s"] += how == "bookmark"
        self.notes.append((self.cursor, dict(self.known), how))


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[Json]:
    """A line that was cut off by a kill is no event."""
    async for line in response.content:
        if not line.endswith(b"\n"):
            return
        event: Json = json.loads(line)
        if event["type"] == "ERROR":
            status = event["object"]
            if status["code"] in (503, 504):
                raise ConnectionError(status["message"])
            raise Broken(str(status))
        yield event


def _version(document: Json) -> int:
    return int(document["metadata"]["resourceVersion"])


def judge(client: Client, log: Iterable[Change]) -> int:
    """Compare all notes of a client with the log; how many those were. Raises Broken."""
    labels, fields = client.selection.parsed()
    alive: dict[str, tuple[int, Any, Any]] = {}
    expected: Known = {}
    rows = iter([row for row in log if row.kind == client.selection.kind.kind])
    row = next(rows, None)
    for version, known, how in sorted(client.notes, key=lambda note: note[0]):
        while row is not None and row.version <= version:
            _apply(alive, expected, row, labels, fields)
            row = next(rows, None)
        if known != expected:
            wrong = {
                uid: (known.get(uid), expected.get(uid))
                for uid in known.keys() | expected.keys()
                if known.get(uid) != expected.get(uid)
            }
            raise Broken(f"{client.selection}: at the {how} {version} (known, listed): {wrong}")
    return len(client.notes)


def _apply(
    alive: dict[str, tuple[int, Any, Any]],
    expected: Known,
    row: Change,
    labels: LabelSelector,
    fields: FieldSelector | None,
) -> None:
    if row.type == "DELETED":
        alive.pop(row.uid, None)
        expected.pop(row.uid, None)
        return
    _, *before = alive.get(row.uid, (0, {}, {}))
    now = row.new if row.new is not None else tuple(before)
    alive[row.uid] = (row.version, now[0], now[1])
    if labels.matches(now[0]) and (fields is None or fields.matches(now[1])):
        expected[row.uid] = row.version
    else:
        expected.pop(row.uid, None)
