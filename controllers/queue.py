"""A keyed queue: each key is worked on by one worker at a time, once however often it is asked for.

Level-triggered: a key says *look there*, never *what happened*. Asking for a key that is being
worked on makes it run once more afterwards. A worker answers when to look again, or fails: then it
is looked at again after a back-off that grows to five minutes. Nothing is lost by losing an
`add`, since everything is added again at every resync.

What changes all the time, as a rollout does while a thousand devices report, is not looked at all
the time: between two looks that were asked for lies a rest of some times what the last one took, so
that the API server has most of its time for devices.

All of it belongs to one event loop; `add` from another thread goes through `call_soon_threadsafe`.
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
# How soon a key is tried again that failed while something about it changed.
CHANGED_S = 1.0
# The rest between two looks at what changes all the time: so many times what a look takes, up to
# what nobody notices who waits for a rollout.
REST_TIMES, REST_S_MAX = 4.0, 0.5

log = structlog.get_logger()


class Terminal(Exception):
    """Trying again does not help; what stands in the way is told on the object."""


def backoff_s(failures: int) -> float:
    """How long to wait after so many failures in a row, before jitter."""
    grown: float = FIRST_S * 2.0 ** min(failures, 16)
    return min(LONGEST_S, grown)


def _jitter() -> float:
    return random.uniform(0.8, 1.2)  # noqa: S311 - spreads retries, protects nothing


class KeyedQueue:
    """Runs `worker` for keys, `parallel` at a time. `worker` returns seconds until it wants to look
    again, or None. The clock is that of the running loop."""

    def __init__(
        self, worker: Worker, *, parallel: int = 4, jitter: Callable[[], float] = _jitter
    ) -> None:
        self._worker = worker
        self._parallel = parallel
        self._jitter = jitter
        self._due: list[tuple[float, int, Key]] = []
        self._when: dict[Key, float] = {}
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        # Until when those rest that were looked at a moment ago.
        self._resting: dict[Key, float] = {}
        self._sequence = 0
        self._changed = asyncio.Event()

    def add(self, key: Key, after_s: float = 0.0) -> None:
        """Look at `key` after `after_s`, and not before its rest is over; an earlier appointment
        stays."""
        when = asyncio.get_running_loop().time() + after_s
        self._schedule(key, max(when, self._resting.get(key, 0.0)))
        self._changed.set()

    async def run(self) -> None:
        """Works until cancelled; cancels what is being worked on then."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                while len(self._running) < self._parallel and (key := self._pop()) is not None:
                    self._running.add(key)
                    group.create_task(self._work(key), name=f"reconcile {'/'.join(key)}")
                await self._wait()

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

    def _pop(self) -> Key | None:
        """The key that is due, if any, without the appointments that an earlier one replaced."""
        now = asyncio.get_running_loop().time()
        while self._due:
            when, _, key = self._due[0]
            if self._when.get(key) == when:
                if when > now:
                    return None
                del self._when[key]
                heapq.heappop(self._due)
                return key
            heapq.heappop(self._due)
        return None

    async def _wait(self) -> None:
        """Until something was added or ended, or the next key is due."""
        due = self._due[0][0] if self._due and len(self._running) < self._parallel else None
        try:
            async with asyncio.timeout_at(due):
                await self._changed.wait()
        except TimeoutError:
            pass

    async def _work(self, key: Key) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        after_s = await self._attempt(key)
        self._running.discard(key)
        now = loop.time()
        rest_s = min(REST_S_MAX, REST_TIMES * (now - began))
        self._resting = {each: end for each, end in self._resting.items() if end > now}
        self._resting[key] = now + rest_s
        if key in self._again:
            self._again.discard(key)
            # A failing worker that causes a change of its own must not spin.
            after_s = min(CHANGED_S, after_s or 0.0) if key in self._failures else rest_s
        if after_s is not None:
            self._schedule(key, now + after_s)
        self._changed.set()

    async def _attempt(self, key: Key) -> float | None:
        try:
            after_s = await self._worker(key)
        except Terminal as problem:
            log.warning("reconcile refused", key=key, error=str(problem))
            after_s = None
        except Exception as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            wait_s = backoff_s(failures) * self._jitter()
            log.warning("reconcile failed", key=key, error=repr(error), retry_s=round(wait_s, 1))
            return wait_s
        self._failures.pop(key, None)
        return after_s


def key_of(kind: str, document: Any) -> Key:
    """(kind, namespace, name) of a document."""
    metadata = document["metadata"]
    return kind, metadata.get("namespace", ""), metadata["name"]
