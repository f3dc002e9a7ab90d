"""Calls of the store of one kind that come by the thousand, done in sets.

Theory of operation. What waits is taken together and done at once, and each of those who wait is
answered with its own part; meanwhile the next ones gather. So at most one mutation of a kind is in
the sequencer's queue, and ten thousand devices that report at once hold up a person's write, or the
next thousand of a rollout, for no longer than one set takes.

A set that fails for a reason of its own is tried again one by one, so that a stranger's fault costs
nobody else anything. Faults of the database are everybody's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import structlog

from apiserver.store.database import StoreUnavailable
from apiserver.store.sequencer import StoreBusy

T = TypeVar("T")
R = TypeVar("R")

log = structlog.get_logger()


@dataclass(slots=True)
class _Waiting(Generic[T, R]):
    item: T
    answer: asyncio.Future[R] = field(repr=False)


class Gathering(Generic[T, R]):
    """`do` gives an answer for each of its items, in order, of which there are `chunk` at most;
    `limit` may wait."""

    def __init__(
        self, do: Callable[[Sequence[T]], Awaitable[Sequence[R]]], *, chunk: int, limit: int
    ) -> None:
        self._do = do
        self._chunk = chunk
        self._limit = limit
        self._waiting: deque[_Waiting[T, R]] = deque()
        self._work = asyncio.Event()

    async def put(self, item: T) -> R:
        """The answer. Raises StoreBusy, or what `do` raised."""
        if len(self._waiting) >= self._limit:
            raise StoreBusy("too many calls are waiting")
        answer: asyncio.Future[R] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(item, answer))
        self._work.set()
        return await answer

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            while self._waiting:
                size = min(self._chunk, len(self._waiting))
                await self._put([self._waiting.popleft() for _ in range(size)])

    async def _put(self, taken: list[_Waiting[T, R]]) -> None:
        # Whoever went away before the start has changed its mind.
        taken = [each for each in taken if not each.answer.done()]
        items = [each.item for each in taken]
        try:
            answers = await self._do(items) if items else ()
        except Exception as error:  # belongs to those who wait for it, who answer with it
            if len(taken) > 1 and not isinstance(error, StoreUnavailable | StoreBusy):
                log.warning("set done one by one", size=len(taken), error=str(error))
                for each in taken:
                    await self._put([each])
                return
            for each in taken:
                if not each.answer.done():
                    each.answer.set_exception(error)
            return
        for each, answer in zip(taken, answers, strict=True):
            if not each.answer.done():
                each.answer.set_result(answer)
