"""What a watcher is given of the change log: `operations` asks again and again.

Rows and objects are read in one snapshot, and `store.watchrule` decides each row alone. That is
what makes the promise of watches (architecture §4) hold from whatever version a watch begins.

Watchers that ask for the same and stand at the same version get the same look. A look stays true,
for it says what followed a version when it was taken; who comes late goes on from where it ends.

Those who have seen everything wait at one feed for each selection. A commit wakes the feed, which
looks once, and only what their selection has to tell wakes the watchers.
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
# Commits that follow each other are looked at together: many devices report in such a time, and no
# person sees it.
GATHER_S = 0.02
# How often a feed looks whether anybody waits at it still.
FEED_S = 60.0

Selection = tuple[str, str | None, str, str]


@dataclass(frozen=True, slots=True)
class Step:
    """Events up to `cursor`; `caught_up`: there was nothing beyond it."""

    batch: WatchBatch
    cursor: int
    caught_up: bool


class Feed:
    """Who waits for what comes after `cursor`, by the version up to which each has seen all."""

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor
        self.waiting: dict[asyncio.Future[Step], int] = {}
        self.running: asyncio.Task[None] | None = None

    def tell(self, step: Step) -> None:
        """Go on to where a look from `cursor` ends."""
        was, self.cursor = self.cursor, step.cursor
        if not step.batch.events:
            return
        for waiter, seen in list(self.waiting.items()):
            if seen <= was:
                self._answer(waiter, step)
            elif seen < step.cursor:
                # Some of it is no news: it looks from where it stands.
                self._answer(waiter, _nothing(seen, caught_up=False))

    def quit(self, problem: BaseException | None) -> None:
        """Nobody waits any longer."""
        for waiter in list(self.waiting):
            if problem is None:
                self.give_up(waiter)
            elif not waiter.done():
                waiter.set_exception(problem)

    def give_up(self, waiter: asyncio.Future[Step]) -> None:
        """Nothing came for it: all that there is by now it has seen."""
        self._answer(waiter, _nothing(max(self.cursor, self.waiting[waiter]), caught_up=True))

    def _answer(self, waiter: asyncio.Future[Step], step: Step) -> None:
        if not waiter.done():
            waiter.set_result(step)


class Looks:
    """The looks of one process. Callers leave the documents in them as they are."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._under_way: dict[tuple[Selection, int], asyncio.Task[Step]] = {}
        self._taken: OrderedDict[tuple[Selection, int], Step] = OrderedDict()
        self._events = 0
        self._feeds: dict[Selection, Feed] = {}

    async def following(
        self, kind: Kind, namespace: str | None, options: WatchOptions, cursor: int, wait_s: float
    ) -> Step:
        """What comes after `cursor`, up to which the caller has seen all; nothing when that time is
        over or the process drains. Raises what a look raises."""
        selection = _selection(kind, namespace, options)
        feed = self._feeds.get(selection)
        if feed is None:
            feed = self._feeds[selection] = Feed(cursor)
            feed.running = asyncio.create_task(self._feed(feed, kind, namespace, options))
        if cursor < feed.cursor:
            return await self.look(kind, namespace, options, cursor)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Step] = loop.create_future()
        feed.waiting[waiter] = cursor
        # One timer and one future, since thousands wait here.
        timer = loop.call_later(wait_s, feed.give_up, waiter)
        try:
            return await waiter
        finally:
            timer.cancel()
            del feed.waiting[waiter]

    async def _feed(
        self, feed: Feed, kind: Kind, namespace: str | None, options: WatchOptions
    ) -> None:
        """Until nobody waits at it: who comes next begins another."""
        hub, problem = self._store.hub, None
        try:
            while feed.waiting and not hub.closed:
                if await hub.wait(feed.cursor, FEED_S) <= feed.cursor:
                    continue
                if not hub.may_have_moved(kind.kind, feed.cursor):
                    feed.tell(_nothing(hub.version, caught_up=True))
                    continue
                feed.tell(await self.look(kind, namespace, options, feed.cursor))
                await asyncio.sleep(GATHER_S)
        except Exception as error:  # is raised again by each who waits
            problem = error
        finally:
            del self._feeds[_selection(kind, namespace, options)]
            feed.quit(problem)

    async def look(
        self, kind: Kind, namespace: str | None, options: WatchOptions, cursor: int
    ) -> Step:
        """What follows `cursor`, a page at most. Raises Expired when the log ends before it."""
        key = (_selection(kind, namespace, options), cursor)
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

    def _keep(self, key: tuple[Selection, int], looking: asyncio.Task[Step]) -> None:
        del self._under_way[key]
        if looking.cancelled() or looking.exception() is not None:
            return
        step = looking.result()
        # One that got nowhere says nothing once there is more.
        if step.cursor > key[1]:
            self._taken[key] = step
            self._events += len(step.batch.events)
            while len(self._taken) > KEPT or (self._events > KEPT_EVENTS and len(self._taken) > 1):
                _, dropped = self._taken.popitem(last=False)
                self._events -= len(dropped.batch.events)


def _selection(kind: Kind, namespace: str | None, options: WatchOptions) -> Selection:
    return kind.resource, namespace, str(options.labels), str(options.fields or "")


def _nothing(cursor: int, *, caught_up: bool) -> Step:
    return Step(WatchBatch(()), cursor, caught_up)


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
