"""How many requests are in work at a time, and who has to come back later: 429 with Retry-After.

The store reads in few threads, and agents' polls read in the same. Lists are what is slow, so fewer
of them run at once than there are readers: a get, a write or an agent always finds one free. What
is too much is said at once, before anything is read, and one caller cannot fill the room: each may
have a share of it in work and waiting, and so many writes and lists a second.

The invariant: whoever came in goes out, whatever happens in between, so the counts are true.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from apiserver.errors import TooManyRequests
from apiserver.rates import Buckets

RETRY_S = 1
# One reader of the store's three is left to everybody else.
LISTS_AT_ONCE = 2
# A list that waited so long would be answered to somebody who gave up.
WAIT_S_MAX = 20.0


@dataclass(frozen=True, slots=True)
class Room:
    """`most` inside (in work or waiting), `each` of one caller."""

    most: int
    each: int


ROOMS: Mapping[str, Room] = {
    "list": Room(96, 32),
    "watch": Room(8192, 2048),
    "": Room(1024, 256),
}
_LISTS = frozenset({"list", "deletecollection"})
# A watch begins with a list, mostly.
_LIKE_LISTS = _LISTS | {"watch"}
_READS = frozenset({"get"})
WRITES_PER_S, LISTS_PER_S = 500.0, 50.0


@dataclass(slots=True)
class Gate:
    """The way in to the resources of one face."""

    rooms: Mapping[str, Room] = field(default_factory=lambda: ROOMS)
    lists_at_once: int = LISTS_AT_ONCE
    wait_s: float = WAIT_S_MAX
    writes: Buckets = field(default_factory=lambda: Buckets(WRITES_PER_S, "writes"))
    lists: Buckets = field(default_factory=lambda: Buckets(LISTS_PER_S, "lists and watches"))
    _inside: Counter[tuple[str, str]] = field(default_factory=Counter)
    _turn: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        self._turn = asyncio.Semaphore(self.lists_at_once)

    @asynccontextmanager
    async def entered(
        self, verb: str, caller: str, *, is_paced: bool = True
    ) -> AsyncIterator[None]:
        """For the time of a request. Raises TooManyRequests. Who is not `is_paced` is part of the
        service, and has a pace of its own."""
        if is_paced and verb not in _READS:
            (self.lists if verb in _LIKE_LISTS else self.writes).take(caller)
        name = "list" if verb in _LISTS else "watch" if verb == "watch" else ""
        room = self.rooms[name]
        if self._inside[name, caller] >= room.each:
            raise _full(f"{caller} has {room.each} of these requests in work already")
        if self._inside[name, ""] >= room.most:
            raise _full("too many requests are in work")
        keys = ((name, caller), (name, ""))
        self._inside.update(keys)
        try:
            if name == "list":
                async with self._its_turn():
                    yield
            else:
                yield
        finally:
            self._inside.subtract(keys)
            for key in keys:
                if not self._inside[key]:
                    del self._inside[key]

    @asynccontextmanager
    async def _its_turn(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.wait_s):
                await self._turn.acquire()
        except TimeoutError:
            raise _full("other lists are in work") from None
        try:
            yield
        finally:
            self._turn.release()


def _full(why: str) -> TooManyRequests:
    return TooManyRequests(f"{why}; try again in {RETRY_S} s", retry_after_s=RETRY_S)
