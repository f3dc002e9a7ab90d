"""Heartbeats: every call of a device says that it lives. Gathered in memory, written in batches.

The process that sees a call sets connected; the sweep takes it away from who was not seen for five
minutes, and reads last-seen again under the store lock; when the clock jumps it waits for a round
of calls first. A crash loses the heartbeats of the last seconds, which the next ones repeat. The
one thing that must not be lost is the first: a device that a status report made connected, and that
has no last-seen, could never be swept. So the first report of each device to a process writes its
last-seen in the report's own transaction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import structlog

from apiserver.agentapi.settings import AgentApiSettings
from apiserver.store import Store, Transaction, presence

FLUSH_CHUNK = 2_000
# More than a clock is slewed by between two sweeps.
CLOCK_JUMP_S = 30.0
# The name of the lease under which devices are swept, and how many rounds it is good for: when its
# holder dies the next one goes on after so many.
SWEEP = "sweep"
SWEEP_LEASES = 3

log = structlog.get_logger()


class Presence:
    def __init__(
        self, store: Store, settings: AgentApiSettings, *, now: Callable[[], float]
    ) -> None:
        self._store = store
        self._settings = settings
        self._now = now
        self._seen: dict[str, float] = {}
        self._durable: set[str] = set()
        self._urgent = asyncio.Event()

    def saw(self, uid: str, *, is_connected: bool) -> None:
        """A call of the device with this uid; `is_connected` is what the store says of it."""
        self._seen[uid] = self._now()
        if not is_connected:
            self._urgent.set()

    def record_first(self, tx: Transaction, uids: Iterable[str]) -> None:
        """Write last-seen of those devices of which this process has not, within the transaction of
        their reports."""
        if new := [uid for uid in uids if uid not in self._durable]:
            presence.record(tx, dict.fromkeys(new, self._now()))

    def recorded(self, uid: str) -> None:
        """`record_first` was committed."""
        self._durable.add(uid)

    async def flush(self) -> None:
        """Write what was seen. What can't be written is kept for the next time."""
        while self._seen:
            uids = list(self._seen)[:FLUSH_CHUNK]
            batch = {uid: self._seen.pop(uid) for uid in uids}
            try:
                await self._store.write(lambda tx, batch=batch: presence.record(tx, batch))  # type: ignore[misc]
            except BaseException:
                # Newer sightings win over those that come back.
                self._seen = batch | self._seen
                raise
            self._durable.update(batch)

    async def keep_flushing(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._settings.presence_flush_s):
                    await self._urgent.wait()
                # Those that come back together are written together.
                await asyncio.sleep(self._settings.presence_urgent_s)
            except TimeoutError:
                pass
            self._urgent.clear()
            try:
                await self.flush()
            except Exception:
                log.warning("heartbeats could not be written", waiting=len(self._seen))

    async def keep_sweeping(self) -> None:
        await asyncio.sleep(self._settings.sweep_grace_s)
        offset_s = self._offset_s()
        while True:
            was_s, offset_s = offset_s, self._offset_s()
            if abs(offset_s - was_s) > CLOCK_JUMP_S:
                # Every last-seen is of the clock before. Whoever lives calls within a poll.
                log.warning("clock jumped", by_s=round(offset_s - was_s))
                await asyncio.sleep(self._settings.hold_s + self._settings.sweep_grace_s)
                continue
            try:
                # One process of several is enough. Each writes down what it saw more often than
                # the sweep of another would call a device gone.
                if await self._store.lease(SWEEP, SWEEP_LEASES * self._settings.sweep_every_s):
                    # By the clock that was looked at: it may jump before the sweep does.
                    await self.sweep(offset_s + asyncio.get_running_loop().time())
            except Exception:
                log.warning("disconnected devices could not be marked", exc_info=True)
            await asyncio.sleep(self._settings.sweep_every_s)

    def _offset_s(self) -> float:
        """Of the wall clock, which is set by people and servers, from one that only runs."""
        return self._now() - asyncio.get_running_loop().time()

    async def sweep(self, now: float | None = None) -> int:
        """Set disconnected who was not seen for long; how many those were."""
        await self.flush()
        older_than = (self._now() if now is None else now) - self._settings.disconnected_after_s
        total = 0
        while True:
            gone = await self._store.write(lambda tx: presence.sweep(tx, older_than))
            total += gone
            if gone < presence.SWEEP_LIMIT:
                return total
