"""A keyed queue: each key is worked on by one worker at a time, once however often it is asked for.

Level-triggered: a key says *look there*, never *what happened*. Asking for a key that is being
worked on makes it run once more afterwards. A worker answers when to look again, or fails: then it
is looked at again after a back-off that grows to five minutes. Nothing is lost by losing an
`add`, since everything is added again at every resync.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Awaitable, Callable
from typing import Any

import structlog

Key = tuple[str, ...]
Worker = Callable[[Key], Awaitable[float | None]]

FIRST_S, LONGEST_S = 0.2, 300.0

log = structlog.get_logger()


class Terminal(Exception):
    """Trying again does not help; what stands in the way is told on the object."""


class KeyedQueue:
    """Runs `worker` for keys, `parallel` at a time. `worker` returns seconds until it wants to look
    again, or None."""

    def __init__(self, worker: Worker, *, parallel: int = 4) -> None:
        self._worker = worker
        self._parallel = parallel
        self._due: list[tuple[float, int, Key]] = []
        self._when: dict[Key, float] = {}
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._sequence = 0
        self._changed = asyncio.Condition()

    async def add(self, key: Key, after_s: float = 0.0) -> None:
        """Look at `key` after `after_s`; an earlier appointment stays."""
        async with self._changed:
            self._schedule(key, asyncio.get_running_loop().time() + after_s)
            self._changed.notify_all()

    async def run(self) -> None:
        """Works until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._parallel):
                group.create_task(self._work())

    def _schedule(self, key: Key, when: float) -> None:
        if key in self._running:
            self._again.add(key)
            return
        known = self._when.get(key)
        if known is not None and known <= when:
            return
        self._when[key] = when
        self._sequence += 1
        heapq.heappush(self._due, (when, self._sequence, key))

    async def _work(self) -> None:
        while True:
            key = await self._next()
            after_s = await self._attempt(key)
            async with self._changed:
                self._running.discard(key)
                now = asyncio.get_running_loop().time()
                if key in self._again:
                    self._again.discard(key)
                    self._schedule(key, now)
                elif after_s is not None:
                    self._schedule(key, now + after_s)
                self._changed.notify_all()

    async def _next(self) -> Key:
        loop = asyncio.get_running_loop()
        async with self._changed:
            while True:
                self._drop_stale()
                timeout = None if not self._due else self._due[0][0] - loop.time()
                if timeout is not None and timeout <= 0:
                    _, _, key = heapq.heappop(self._due)
                    del self._when[key]
                    self._running.add(key)
                    return key
                try:
                    async with asyncio.timeout(timeout):
                        await self._changed.wait()
                except TimeoutError:
                    continue

    def _drop_stale(self) -> None:
        """Appointments that an earlier one replaced."""
        while self._due and self._when.get(self._due[0][2]) != self._due[0][0]:
            heapq.heappop(self._due)

    async def _attempt(self, key: Key) -> float | None:
        try:
            after_s = await self._worker(key)
        except Terminal as problem:
            log.warning("reconcile refused", key=key, error=str(problem))
        except Exception as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            grown_s: float = min(LONGEST_S, FIRST_S * 2.0 ** min(failures, 16))
            wait_s = grown_s * random.uniform(0.8, 1.2)  # noqa: S311 - jitter
            log.warning("reconcile failed", key=key, error=repr(error), retry_s=round(wait_s, 1))
            return wait_s
        else:
            self._failures.pop(key, None)
            return after_s
        self._failures.pop(key, None)
        return None


def key_of(kind: str, document: Any) -> Key:
    """(kind, namespace, name) of a document."""
    metadata = document["metadata"]
    return kind, metadata.get("namespace", ""), metadata["name"]
