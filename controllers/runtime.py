"""Kopf watches the few kinds; a keyed queue does the work. In its own thread with its own loop.

Kopf wants a loop of its own (it cancels strangers' tasks when it ends) and keeps its bookkeeping in
annotations; our handlers are on raw events only, so it writes nothing anywhere. What it tells us is
a key, and a key is all that we take.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import kopf
import structlog

from controllers import fleets, rollouts, worklist
from controllers.client import FLIGHTCTL, HOMEPORT, Client
from controllers.queue import Key, KeyedQueue, key_of
from controllers.session import Endpoint

RESYNC_S = 300.0
STOP_S = 8.0
# plural → (group version, kind), of what is watched.
WATCHED = {
    "fleets": (FLIGHTCTL, "Fleet"),
    "rollouts": (HOMEPORT, "Rollout"),
    "backlogs": (HOMEPORT, "Backlog"),
}

log = structlog.get_logger()


def utc_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Controllers:
    """All controllers of one process."""

    def __init__(self, endpoint: Endpoint, *, now: Callable[[], str] = utc_now) -> None:
        self._endpoint = endpoint
        self._now = now
        self._stop = threading.Event()
        self._ready = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, timeout_s: float = 30.0) -> None:
        """Start the thread and wait until kopf watches. Raises TimeoutError."""
        self._thread = threading.Thread(target=self._main, name="controllers", daemon=True)
        self._thread.start()
        if not self._ready.wait(timeout_s):
            raise TimeoutError("the controllers did not start")

    def stop(self, timeout_s: float = STOP_S) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _main(self) -> None:
        logging.getLogger("kopf").setLevel(logging.ERROR)
        asyncio.run(self.run())

    async def run(self) -> None:
        """Until `stop`."""
        async with self._endpoint.session() as session:
            client = Client(session, self._endpoint.server)
            queue = KeyedQueue(lambda key: self._reconcile(client, queue, key))
            async with asyncio.TaskGroup() as group:
                helpers = [
                    group.create_task(queue.run()),
                    group.create_task(self._resync(client, queue)),
                ]
                await self._operate(queue)
                for helper in helpers:
                    helper.cancel()

    async def _operate(self, queue: KeyedQueue) -> None:
        settings = kopf.OperatorSettings()
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.peering.standalone = True
        settings.queueing.worker_limit = 200
        settings.process.ultimate_exiting_timeout = None
        settings.networking.error_backoffs = (0.5, 1, 1, 2, 2)
        await kopf.operator(
            registry=self._registry(queue),
            settings=settings,
            clusterwide=True,
            stop_flag=self._stop,
            ready_flag=self._ready,
        )

    def _registry(self, queue: KeyedQueue) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.AiohttpSession:
            session = self._endpoint.session(total_s=None)
            return kopf.AiohttpSession(server=self._endpoint.server, aiohttp_session=session)

        for plural, (api, kind) in WATCHED.items():
            group, version = api.split("/")

            @kopf.on.event(group, version, plural, registry=registry, id=f"see-{plural}")
            async def see(body: kopf.Body, kind: str = kind, **_: Any) -> None:
                await queue.add(key_of(kind, body))
                if kind == "Rollout":
                    # How a rollout ends is told on its fleet too.
                    metadata = body["metadata"]
                    fleet = body["spec"]["target"]["fleet"]
                    await queue.add(("Fleet", metadata["namespace"], fleet))

        return registry

    async def _reconcile(self, client: Client, queue: KeyedQueue, key: Key) -> float | None:
        kind, namespace, name = key
        match kind:
            case "Fleet":
                await fleets.reconcile(client, namespace, name, now=self._now)
                return None
            case "Rollout":
                return await rollouts.reconcile(client, namespace, name, now=self._now)
            case "Backlog":
                return await worklist.reconcile(client, namespace, name)
        raise AssertionError(kind)

    async def _resync(self, client: Client, queue: KeyedQueue) -> None:
        """Everything again, every five minutes: what an event was lost for is found then."""
        while True:
            await asyncio.sleep(RESYNC_S)
            for plural, (api, kind) in WATCHED.items():
                try:
                    found = await client.list_all(api, plural)
                except Exception as error:
                    log.warning("resync failed", plural=plural, error=repr(error))
                    continue
                for document in found:
                    await queue.add(key_of(kind, document))
