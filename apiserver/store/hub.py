"""Who wants to know that something was committed. A level, not a queue: the last version.

Losing a wake-up is harmless: every waiter reads the change log from its own cursor, and `wait`
returns at its timeout too.
"""

from __future__ import annotations

import asyncio


class Hub:
    """The newest committed version that this process knows of."""

    def __init__(self, version: int) -> None:
        self.version = version
        self._changed = asyncio.Event()
        self._closed = False

    @property
    def closed(self) -> bool:
        return self._closed

    def publish(self, version: int) -> None:
        """Called after a commit, from the event loop. An older version than known says nothing."""
        if version > self.version:
            self.version = version
            self._wake()

    def close(self) -> None:
        """Ends every wait: the process drains."""
        self._closed = True
        self._wake()

    async def wait(self, after: int, timeout_s: float) -> int:
        """The newest version as soon as it is above `after`, at the latest after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                # No await between looking and waiting on the event of that look, so a publish
                # in between finds this waiter.
                while self.version <= after and not self._closed:
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self.version

    def _wake(self) -> None:
        # A new event for the next round; the old one, set, releases all who hold it.
        waiting, self._changed = self._changed, asyncio.Event()
        waiting.set()
