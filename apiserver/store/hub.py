"""Who wants to know that something was committed. A level, not a queue: the last version.

Losing a wake-up is harmless: every waiter reads the change log from its own cursor, and `wait`
returns at its timeout too.

Of the commits of its own process it also knows which kinds they moved, so that who waits for one
kind need not look for nothing at each commit of another: where devices enrol, that was every third
question to the database. Of the commits of others it knows nothing, and anything may have moved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from apiserver.store.settling import Settling


@dataclass(frozen=True, slots=True)
class _Noted:
    """What the versions above `since` and up to `version` have moved."""

    since: int
    version: int
    kinds: frozenset[str]


class Hub:
    """The newest committed version that this process knows of."""

    def __init__(self, version: int) -> None:
        self.version = version
        self._noted: _Noted | None = None
        # Up to here anything may have moved; above it a kind, up to its own version.
        self._anything = version
        self._kinds: dict[str, int] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._closed = False
        # Commits that make one change together: who tells thousands of it tells them better of the
        # whole.
        self.bulks = Settling()

    @property
    def closed(self) -> bool:
        return self._closed

    def note(self, since: int, version: int, kinds: Iterable[str]) -> None:
        """What a batch of this process moves, before its commit, from the thread that writes. The
        last one before `publish` is the one that was committed."""
        self._noted = _Noted(since, version, frozenset(kinds))

    def publish(self, version: int) -> None:
        """This process has committed up to `version`. From the event loop. An older version than
        known says nothing."""
        noted = self._noted
        if version <= self.version:
            return
        if noted is None or noted.version != version:
            self.heard(version)
            return
        if noted.since > self.version:
            # Another process came in between, and we have not heard of it yet.
            self._anything = noted.since
        self._kinds |= dict.fromkeys(noted.kinds, version)
        self.version = version
        self._wake()

    def heard(self, version: int) -> None:
        """Somebody has committed up to `version`. An older version than known says nothing."""
        if version > self.version:
            self.version = self._anything = version
            self._wake()

    def may_have_moved(self, kind: str, after: int) -> bool:
        """Whether the log may have something of that kind above `after`, up to `version`."""
        return max(self._anything, self._kinds.get(kind, 0)) > after

    def close(self) -> None:
        """Ends every wait: the process drains."""
        self._closed = True
        self._wake()

    async def wait(self, after: int, timeout_s: float) -> int:
        """The newest version as soon as it is above `after`, at the latest after `timeout_s`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        # No await between looking and waiting on what was made for it, so a publish in between
        # finds this waiter. One timer and one future, since thousands wait here.
        while self.version <= after and not self._closed and loop.time() < deadline:
            waiter = loop.create_future()
            self._waiting.add(waiter)
            timer = loop.call_at(deadline, _release, waiter)
            try:
                await waiter
            finally:
                timer.cancel()
                self._waiting.discard(waiter)
        return self.version

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            _release(waiter)


def _release(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
