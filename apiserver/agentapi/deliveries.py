"""Which device has what to fetch, and who waits for it.

Theory of operation. A poll registers its waiter first and reads the version second, so a change
between the two finds the waiter. One task (`follow`) tails the change log for the whole process: it
reads the names that changed, forgets what was remembered of them, and looks up, all together, those
that somebody waits for; only a waiter whose version differs is woken. A lost or late round delays
and loses nothing, since a poll that ends empty is followed by one that looks for itself.

What is remembered of a device is true as of `seen`, the version that the tail has read up to. It is
used when the store stands at `seen`, or when it says "nothing new", which only leads to waiting,
and the tail ends that. A look-up older than `seen` is never remembered: what changed since was
forgotten before it came.

A delivery is marked durably *before* the answer leaves. A mark without a delivery costs nothing,
for the device asks again; a delivery without a mark could never be told from stored state, and the
device's later report that this version failed would count for nothing (law 4).

Where thousands are to be told, some are looked up while others are told, a few in each turn of the
loop, so that a person's request waits for a short turn. What devices report meanwhile is heard
afterwards (`tellings`): the first of them would otherwise take the processor from the last, who is
the one that the fleet waits for.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import orjson
import structlog

from apiserver import errors
from apiserver.agentapi.settings import AgentApiSettings
from apiserver.store import Snapshot, Store, delivering, devices
from apiserver.store.delivering import Delivery
from apiserver.store.gathering import Gathering
from apiserver.store.settling import Settling
from resources import registry

Key = tuple[str, str]  # namespace, name

DEVICE = registry.by_kind("Device")
# Bodies of so many devices are built while nothing else is answered: about 50 ms.
WAKE_CHUNK = 500
# Single polls, which look and mark in sets.
CHUNK = 500
WAITING_MAX = 16_384
# So many at once, or each waits for three turns of a busy loop in which only one is served.
WAKES = 4
# So many answers leave in one turn of the loop: some 15 ms.
TELL_CHUNK = 100
# Thousands who are told, and report, take the processor from a bind that is under way. As long as
# one of 10 000 may take.
BULK_S = 3.0
_LOOK_AGAIN_S = 30.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Found:
    """What a poll is told: the device as it is, and its body where that was built already."""

    delivery: Delivery
    body: bytes | None = None

    def is_news(self, known: str) -> bool:
        """Whether a device that knows `known` has something to fetch."""
        return self.delivery.is_news(known)


@dataclass(slots=True, eq=False)
class Waiter:
    """One poll. Its future gives what is new, None for nothing, or Gone."""

    known: str
    news: asyncio.Future[Found | Gone | None] = field(repr=False)
    # Whether whoever polls may not any more: asked when that may have changed.
    is_out: Callable[[], bool] = field(default=lambda: False, repr=False)

    def tell(self, news: Found | Gone | None) -> None:
        if not self.news.done():
            self.news.set_result(news)


class Gone:
    """The device was deleted."""


GONE = Gone()


@dataclass(slots=True)
class _Looked:
    version: int
    found: dict[Key, Delivery]
    bodies: dict[Key, bytes]

    def told(self, key: Key) -> Found | None:
        """What there is for a device; None where it is gone."""
        delivery = self.found.get(key)
        return None if delivery is None else Found(delivery, self.bodies.get(key))


class Deliveries:
    """The waiters and the memory of one process."""

    def __init__(self, store: Store, settings: AgentApiSettings) -> None:
        self._store = store
        self._settings = settings
        self._seen = store.hub.version
        self._known: OrderedDict[Key, Delivery] = OrderedDict()
        self._bodies: OrderedDict[Key, bytes] = OrderedDict()
        self._bodies_bytes = 0
        self._waiters: dict[Key, list[Waiter]] = {}
        # Changed and waited for, but not looked up yet: survives a round that failed.
        self._due: set[Key] = set()
        # While more are told than one look-up finds.
        self.tellings = Settling()
        self._marks = Gathering(self._mark_all, chunk=CHUNK, limit=WAITING_MAX)
        self._looks = Gathering(self._look_all, chunk=CHUNK, limit=WAITING_MAX)
        self._closed = False

    # --- polls --------------------------------------------------------------------------------

    def enter(self, key: Key, known: str, is_out: Callable[[], bool] = lambda: False) -> Waiter:
        """Register a poll. The oldest of too many of one device ends empty: its connection was
        most probably lost unseen."""
        waiter = Waiter(known, asyncio.get_running_loop().create_future(), is_out)
        if self._closed:
            waiter.tell(None)
        polls = self._waiters.setdefault(key, [])
        polls.append(waiter)
        if len(polls) > self._settings.polls_per_device:
            polls.pop(0).tell(None)
        return waiter

    def show_out(self) -> None:
        """End the polls of those who may not any more. Of 10 000 polls each is asked: 2 ms."""
        for polls in self._waiters.values():
            for waiter in polls:
                if waiter.is_out():
                    waiter.tell(None)

    def leave(self, key: Key, waiter: Waiter) -> None:
        polls = self._waiters.get(key)
        if polls is not None and waiter in polls:
            polls.remove(waiter)
            if not polls:
                del self._waiters[key]

    async def look(self, key: Key, known: str | None) -> Found:
        """What there is for a device now. Raises NotFound exactly when the device is gone."""
        delivery = self._known.get(key)
        if delivery is not None:
            found = Found(delivery, self._bodies.get(key))
            is_fresh = self._store.hub.version == self._seen
            if is_fresh or (known is not None and not found.is_news(known)):
                return found
        return await self.look_again(key, known)

    async def body(self, key: Key, found: Found) -> bytes:
        """The bytes to answer with. The mark is durable when this returns."""
        if found.body is None:
            found = await self.look_again(key, None)
        if found.body is None:
            raise errors.Conflict("no rendered version for device", kind=DEVICE, name=key[1])
        delivery = found.delivery
        if delivery.delivered_version < delivery.rendered_version:
            await self._marks.put((delivery.uid, delivery.rendered_version))
            self._note_delivered(key, delivery)
        return found.body

    async def look_again(self, key: Key, known: str | None) -> Found:
        """What the store says now, whatever is remembered. Raises NotFound."""
        found = await self._looks.put((key, known))
        if found is None:
            raise errors.not_found(DEVICE, key[1])
        return found

    async def _look_all(self, polls: Sequence[tuple[Key, str | None]]) -> list[Found | None]:
        knowns: dict[Key, set[str | None]] = {}
        for key, known in polls:
            knowns.setdefault(key, set()).add(known)
        looked = await self._store.read(lambda s: _look(s, knowns))
        self._remember(looked)
        return [looked.told(key) for key, _ in polls]

    async def _mark_all(self, marks: Sequence[tuple[str, int]]) -> list[None]:
        await self._store.write(lambda tx: delivering.mark_delivered(tx, marks))
        return [None] * len(marks)

    # --- the tail -----------------------------------------------------------------------------

    async def follow(self) -> None:
        """Until the store closes. Failures are logged and retried: this task is the only one that
        wakes polls."""
        while not self._store.hub.closed:
            try:
                if not self._due:  # left over by a round that failed
                    await self._store.hub.wait(self._seen, _LOOK_AGAIN_S)
                    await self._store.hub.bulks.settled(BULK_S)
                await self._catch_up()
                await asyncio.sleep(self._settings.coalesce_s)
            except Exception:
                log.warning("change log could not be followed", seen=self._seen, exc_info=True)
                await asyncio.sleep(self._settings.retry_s)
        self.release()

    def release(self) -> None:
        """End every poll, and every later one at once: the process drains."""
        self._closed = True
        for polls in self._waiters.values():
            for waiter in polls:
                waiter.tell(None)

    async def serve_polls(self) -> None:
        """Until it is cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._marks.run())
            group.create_task(self._looks.run())

    async def _catch_up(self) -> None:
        if self._store.hub.version > self._seen:
            version, changed = await self._store.read(self._changed)
            if changed is None:
                # Compacted past us, after a very long pause: nothing remembered can be trusted.
                changed = [*self._known, *self._waiters]
            # No await from here to the end of this block: `_remember` compares with `_seen`, and
            # must not see the new one before everything older is forgotten.
            # Of the many that changed, only those that somebody asked about cost anything.
            moved = set(changed)
            for key in moved & self._known.keys():
                self._forget(key)
            self._due |= moved & self._waiters.keys()
            self._seen = version
        if self._due:
            is_bulk = len(self._due) > WAKE_CHUNK
            with self.tellings.under_way() if is_bulk else nullcontext():
                await self._wake_all(list(self._due))

    async def _wake_all(self, due: Sequence[Key]) -> None:
        chunks = _chunks(due, WAKE_CHUNK)

        async def wake() -> None:
            # All take from the same iterator, so none waits for the slowest.
            for chunk in chunks:
                await self._wake(chunk)

        async with asyncio.TaskGroup() as wakes:
            for _ in range(WAKES):
                wakes.create_task(wake())

    def _changed(self, snapshot: Snapshot) -> tuple[int, Iterable[Key] | None]:
        if self._seen < snapshot.compacted:
            return snapshot.version, None
        return snapshot.version, snapshot.changed_names(DEVICE, self._seen)

    async def _wake(self, chunk: Sequence[Key]) -> None:
        knowns: dict[Key, set[str | None]] = {
            key: {waiter.known for waiter in self._waiters.get(key, ())} for key in chunk
        }
        looked = await self._store.read(lambda s: _look(s, knowns))
        marks = [
            (found.uid, found.rendered_version)
            for key, found in looked.found.items()
            if key in looked.bodies and found.delivered_version < found.rendered_version
        ]
        if marks:
            await self._mark_all(marks)
        for key in looked.bodies:
            looked.found[key] = _as_delivered(looked.found[key])
        self._remember(looked)
        for some in _chunks(chunk, TELL_CHUNK):
            for key in some:
                self._tell(key, looked)
            self._due.difference_update(some)
            await asyncio.sleep(0)

    def _tell(self, key: Key, looked: _Looked) -> None:
        delivery = looked.found.get(key)
        for waiter in self._waiters.get(key, ()):
            if delivery is None:
                waiter.tell(GONE)
            elif Found(delivery).is_news(waiter.known):
                # Without a body the poll came while we looked; it builds its own, and marks it.
                waiter.tell(Found(delivery, looked.bodies.get(key)))

    # --- memory -------------------------------------------------------------------------------

    def _remember(self, looked: _Looked) -> None:
        if looked.version < self._seen:
            return
        for key, delivery in looked.found.items():
            self._forget(key)
            self._known[key] = delivery
            body = looked.bodies.get(key)
            if body is not None:
                self._bodies[key] = body
                self._bodies_bytes += len(body)
        while self._bodies_bytes > self._settings.remembered_bodies_bytes:
            _, dropped = self._bodies.popitem(last=False)
            self._bodies_bytes -= len(dropped)
        while len(self._known) > self._settings.remembered_devices:
            self._forget(next(iter(self._known)))

    def _forget(self, key: Key) -> None:
        self._known.pop(key, None)
        body = self._bodies.pop(key, None)
        if body is not None:
            self._bodies_bytes -= len(body)

    def _note_delivered(self, key: Key, delivery: Delivery) -> None:
        if self._known.get(key) == delivery:
            self._known[key] = _as_delivered(delivery)


def _chunks(keys: Sequence[Key], size: int) -> Iterator[Sequence[Key]]:
    for start in range(0, len(keys), size):
        yield keys[start : start + size]


def _as_delivered(delivery: Delivery) -> Delivery:
    return replace(delivery, delivered_version=delivery.rendered_version)


def _look(snapshot: Snapshot, wanted: dict[Key, set[str | None]]) -> _Looked:
    """Deliveries of all these devices, and bodies of those that differ from what one of their
    polls knows (None: knows nothing), in one snapshot."""
    found = delivering.deliveries(snapshot, wanted)
    news = {
        delivery.uid: key
        for key, delivery in found.items()
        if any(delivery.is_news(known) for known in wanted[key])
    }
    rows = devices.rows_by_uid(snapshot.connection, news) if news else {}
    specs = snapshot.documents.fetch(
        snapshot.connection, {row["rendered_digest"] for row in rows.values()}
    )
    bodies = {
        news[uid]: orjson.dumps(
            delivering.document_of(DEVICE, row, specs[row["rendered_digest"]]),
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for uid, row in rows.items()
    }
    return _Looked(snapshot.version, found, bodies)
