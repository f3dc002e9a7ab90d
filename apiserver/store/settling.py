"""Something large that goes on, and those who do better to wait for its end."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Settling:
    """Several may go on at a time; it is settled when none does."""

    def __init__(self) -> None:
        self._under_way = 0
        self._settled = asyncio.Event()
        self._settled.set()

    @property
    def is_under_way(self) -> bool:
        return self._under_way > 0

    @contextmanager
    def under_way(self) -> Iterator[None]:
        """For as long as the block takes, however it ends."""
        self._under_way += 1
        self._settled.clear()
        try:
            yield
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._settled.set()

    async def settled(self, timeout_s: float) -> None:
        """As soon as nothing goes on, at the latest after `timeout_s`."""
        if not self.is_under_way:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._settled.wait()
