"""A wire to a server on the loopback: what comes down it is counted, and it can break.

Bytes are counted as they go to the client, TLS and all. `break_after` breaks every connection once
so many more bytes have come down, and tells how often it has; `down` lets nobody in.
"""

from __future__ import annotations

import threading
from functools import partial

from tests.fakes import relaying
from tests.fakes.relaying import Line, Relay


class Wire:
    def __init__(self, port: int) -> None:
        self._relay = Relay(partial(relaying.to, port), answers=self._comes_down)
        self.port = self._relay.port
        self._lock = threading.Lock()
        self.carried = 0
        # How many bytes were carried when it is to break; then it stays down, or not.
        self._break_at: int | None = None
        self._stays_down = False
        self.breaks = 0
        self._relay.start()

    def break_after(self, count: int, *, stays_down: bool) -> None:
        with self._lock:
            self._break_at = self.carried + count
            self._stays_down = stays_down

    def down(self) -> None:
        """Everything that is connected is cut off."""
        self._relay.is_closed = True
        self._relay.cut()

    def up(self) -> None:
        self._relay.is_closed = False

    def close(self) -> None:
        self._relay.close()

    def _comes_down(self, chunk: bytes, _: Line) -> bool:
        if not self._breaks(len(chunk)):
            return True
        self._relay.cut()
        return False

    def _breaks(self, count: int) -> bool:
        with self._lock:
            self.carried += count
            if self._break_at is None or self.carried < self._break_at:
                return False
            self._break_at = None
            self.breaks += 1
            self._relay.is_closed = self._stays_down
            return True
