"""Kopf watches the few kinds and says which object to look at. In a thread and a loop of its own.

When a kopf operator ends it cancels every task of its loop that is younger than itself, and it ends
on errors that a restarting API server gives (a refused list, an expired watch). So nothing else
lives in its loop, and it is started again until it is told to stop; a new one lists everything,
so nothing that happened in between is missed.

Our handlers are on raw events only. For these kopf keeps no bookkeeping: it writes no annotation
and no finalizer, so a deletion never waits for controllers. The storages below say so a second
time: they keep nothing even if somebody adds another sort of handler.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

import aiohttp
import kopf
import structlog

from controllers.session import Endpoint

REQUEST_S = 30.0
WORKERS = 200
FIRST_S, LONGEST_S = 0.5, 10.0
ENDINGS, ENDING_S = 10, 0.5

log = structlog.get_logger()

# plural → (group version, kind)
Watched = Mapping[str, tuple[str, str]]
See = Callable[[str, Mapping[str, Any]], None]


class NoProgress(kopf.ProgressStorage):
    """Remembers no handler's progress: ours have none."""

    def fetch(self, *, key: Any, body: kopf.Body) -> None:
        return None

    def store(self, *, key: Any, record: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        pass

    def purge(self, *, key: Any, body: kopf.Body, patch: kopf.Patch) -> None:
        pass

    def touch(self, *, body: kopf.Body, patch: kopf.Patch, value: str | None) -> None:
        pass

    def clear(self, *, essence: Any) -> Any:
        return essence


class NoDiffBase(kopf.DiffBaseStorage):
    """Remembers no earlier state of an object: what is wrong is computed from what is stored."""

    def fetch(self, *, body: kopf.Body) -> None:
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: Any) -> None:
        pass


class Watching:
    """Calls `see(kind, document)` for what is there and for every change, in kopf's thread."""

    def __init__(
        self,
        endpoint: Endpoint,
        watched: Watched,
        see: See,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint = endpoint
        self._watched = watched
        self._see = see
        self._monotonic = monotonic
        self._stop = threading.Event()
        self._halting = threading.Lock()
        self._halt: Callable[[], object] | None = None
        self.ready = threading.Event()
        self._thread = threading.Thread(target=self._main, name="kopf", daemon=True)

    def start(self) -> None:
        # Kopf logs each refused attempt with its traceback; ours says it once for each restart.
        logging.getLogger("kopf").setLevel(logging.CRITICAL)
        self._thread.start()

    def stop(self, timeout_s: float) -> bool:
        """Whether it has ended in time."""
        with self._halting:
            self._stop.set()
            if self._halt is not None:
                self._halt()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _main(self) -> None:
        wait_s = FIRST_S
        while not self._stop.is_set():
            started = self._monotonic()
            error: object = "ended by itself"
            try:
                asyncio.run(self._operate())
            except Exception as problem:
                error = repr(problem)
            if self._stop.is_set():
                return
            if self._monotonic() - started > LONGEST_S:
                wait_s = FIRST_S
            log.warning("watching interrupted", error=error, retry_s=wait_s)
            self._stop.wait(wait_s)
            wait_s = min(LONGEST_S, wait_s * 2)

    async def _operate(self) -> None:
        # A flag of this loop, not a threading.Event: kopf would wait for that in an executor
        # thread, and a failed operator could not end before the flag is set.
        loop, flag = asyncio.get_running_loop(), asyncio.Event()
        with self._halting:
            if self._stop.is_set():
                return
            self._halt = functools.partial(loop.call_soon_threadsafe, flag.set)
        sessions: list[aiohttp.ClientSession] = []
        root: Collection[asyncio.Task[Any]] = ()
        try:
            root = await kopf.spawn_tasks(
                registry=self._registry(sessions),
                settings=settings(),
                clusterwide=True,
                stop_flag=flag,
                ready_flag=self.ready,
            )
            await asyncio.wait(root, return_when=asyncio.FIRST_COMPLETED)
        finally:
            with self._halting:
                self._halt = None
            problems = [t.exception() for t in root if t.done() and not t.cancelled()]
            await _end(root)
            for session in sessions:
                await session.close()
        for problem in problems:
            if problem is not None:
                raise problem

    def _registry(self, sessions: list[aiohttp.ClientSession]) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.AiohttpSession:
            session = self._endpoint.session(total_s=None)
            sessions.append(session)
            return kopf.AiohttpSession(server=self._endpoint.server, aiohttp_session=session)

        for plural, (api, kind) in self._watched.items():
            group, version = api.split("/")

            @kopf.on.event(group, version, plural, registry=registry, id=f"see-{plural}")
            async def see(body: kopf.Body, kind: str = kind, **_: Any) -> None:
                self._see(kind, body)

        return registry


async def _end(root: Collection[asyncio.Task[Any]]) -> None:
    """End kopf's tasks: those it began with, then what they left. Again and again, for a watch that
    is cancelled together with its stopper takes that for an order to connect anew, and kopf's own
    way of ending then waits for it without end."""
    ours = asyncio.current_task()
    for number in range(ENDINGS):
        left = asyncio.all_tasks() - {ours}
        if not left:
            return
        for task in left if number else left.intersection(root):
            task.cancel()
        await asyncio.wait(left, timeout=ENDING_S)
    log.error("watching left tasks behind", tasks=[task.get_name() for task in left])


def settings() -> kopf.OperatorSettings:
    """What kopf may do: watch, and nothing else."""
    result = kopf.OperatorSettings()
    result.posting.enabled = False
    result.scanning.disabled = True
    result.peering.standalone = True
    result.queueing.worker_limit = WORKERS
    result.process.ultimate_exiting_timeout = None
    result.networking.request_timeout = REQUEST_S
    result.networking.connect_timeout = 5.0
    result.networking.error_backoffs = (0.5, 1, 1, 2, 2)
    result.persistence.progress_storage = NoProgress()
    result.persistence.diffbase_storage = NoDiffBase()
    result.persistence.finalizer = "homeport.dev/never-written"
    return result
