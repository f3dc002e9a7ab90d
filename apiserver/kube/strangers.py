"""Whoever has not proved who it is counts as one class, and has its own room: however many come,
those who are known find theirs.

Two doors. Paths that are open to all (logins, webhooks, the version) have a room and a rate; health
has none, for what looks after the service has to be answered. And a token that was not seen good
lately waits to be judged in a room of its own, so that judging bad ones, which may ask somebody
outside, keeps nobody who was here before.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from apiserver.errors import TooManyRequests
from apiserver.rates import Buckets

RETRY_S = 1
# At a time, on open paths and with new tokens.
ROOM = 256
OPEN_PER_S = 200.0
# Tokens that were seen good; who is not among them is judged as a stranger, and then is.
FAMILIAR_MAX = 10_000
NOBODY = "who is not known"


@dataclass(slots=True)
class Strangers:
    """Of one process."""

    room: int = ROOM
    rate: Buckets = field(default_factory=lambda: Buckets(OPEN_PER_S))
    _on_open_paths: int = 0
    _judged: int = 0
    _familiar: OrderedDict[bytes, None] = field(default_factory=OrderedDict)

    @contextmanager
    def at_an_open_path(self) -> Iterator[None]:
        """For the time of a request. Raises TooManyRequests."""
        if self._on_open_paths >= self.room:
            raise _full()
        self.rate.take("", NOBODY)
        self._on_open_paths += 1
        try:
            yield
        finally:
            self._on_open_paths -= 1

    @contextmanager
    def judged(self, authorization: str) -> Iterator[None]:
        """While a header is judged; what raises was not good. Raises TooManyRequests."""
        if not authorization:
            yield
            return
        seen = hashlib.sha256(authorization.encode(errors="surrogateescape")).digest()
        if seen in self._familiar:
            self._familiar.move_to_end(seen)
            yield
            return
        if self._judged >= self.room:
            raise _full()
        self._judged += 1
        try:
            yield
        finally:
            self._judged -= 1
        self._familiar[seen] = None
        if len(self._familiar) > FAMILIAR_MAX:
            self._familiar.popitem(last=False)


def _full() -> TooManyRequests:
    return TooManyRequests(
        f"too many requests of those who are not known; try again in {RETRY_S} s",
        retry_after_s=RETRY_S,
    )
