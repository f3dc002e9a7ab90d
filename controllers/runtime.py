"""All controllers of one process: kopf says where to look, a keyed queue looks.

Two threads: one for kopf (`watching` says why), one with the queues, the client and the resync. A
key is all that goes from one to the other. What may have to ask a slow Git server has a queue of
its own, so that rollouts and late joiners never wait for it; and what only tries whether servers
answer, as the worst of them do not, has a third. Stopping ends the watching first, then
what is being worked on; each reconciler is level-triggered, so being cancelled anywhere only
delays.

There is no leader election here yet: one process of controllers at a time. Two do each other's work
twice, which is waste and not harm, for every binding is counted where it is made. The Lease comes
with the shape of deployment that has replicas.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog

from controllers import access, fleets, followers, rollouts, values, worklist
from controllers.client import FLIGHTCTL, HOMEPORT, ApiError, Client, Unreachable
from controllers.freezing import Freezer
from controllers.giterrors import BadRemote
from controllers.gitmirror import Mirrors
from controllers.gitprogram import Git
from controllers.gitremote import address_of
from controllers.pushes import Pushes
from controllers.queue import Key, KeyedQueue, key_of
from controllers.remotes import Known, Remotes
from controllers.repositories import Repositories
from controllers.resourcesyncs import ResourceSyncs
from controllers.secretfiles import HostCluster
from controllers.session import Endpoint
from controllers.settings import Settings
from controllers.watching import Watching
from resources import backlog, timestamps

RESYNC_S = 300.0
START_S = 30.0
STOP_S = 8.0
PARALLEL, PARALLEL_OUTSIDE, PARALLEL_TRIES = 4, 8, 16
# Not a kind: the devices of a namespace that have no fleet and follow outside sources.
FOLLOWERS = "Followers"
# Not a kind either: the note on a Repository, which must not wait for tries of Repositories.
PUSHES = "Pushes"
# And neither is this: what single devices need from outside of a template version.
VALUES = "Values"
# What is worked on by asking others than the API server.
OUTSIDE = frozenset(("Fleet", FOLLOWERS, VALUES, "ResourceSync"))
WATCHED = {
    "fleets": (FLIGHTCTL, "Fleet"),
    "repositories": (FLIGHTCTL, "Repository"),
    "resourcesyncs": (FLIGHTCTL, "ResourceSync"),
    "rollouts": (HOMEPORT, "Rollout"),
    "backlogs": (HOMEPORT, "Backlog"),
}

Json = dict[str, Any]

log = structlog.get_logger()


def utc_now() -> str:
    return timestamps.of(datetime.now(UTC))


@dataclass(frozen=True, slots=True)
class _Work:
    """What reconciles, for one run of the loop."""

    client: Client
    mirrors: Mirrors
    freezer: Freezer
    repositories: Repositories
    syncs: ResourceSyncs
    pushes: Pushes


class Controllers:
    """All controllers of one process, in threads of their own."""

    def __init__(
        self,
        endpoint: Endpoint,
        settings: Settings,
        *,
        now: Callable[[], str] = utc_now,
        resync_s: float = RESYNC_S,
    ) -> None:
        self._endpoint = endpoint
        self._settings = settings
        self._now = now
        self._resync_s = resync_s
        self._watching = Watching(endpoint, WATCHED, self._see)
        self._thread = threading.Thread(target=self._main, name="controllers", daemon=True)
        self._serving = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queues: dict[str, KeyedQueue] = {}
        # Who is to be looked at again when a Repository changed.
        self._following: set[Key] = set()
        self._finish: asyncio.Event | None = None

    def start(self, timeout_s: float = START_S) -> None:
        """Start, and wait until kopf begins to watch. Raises TimeoutError."""
        self._thread.start()
        if not (self._serving.wait(timeout_s) and self._watching.ready.wait(timeout_s)):
            self.stop()
            raise TimeoutError("the controllers did not start")
        log.info("controllers started", server=self._endpoint.server)

    def stop(self, timeout_s: float = STOP_S) -> bool:
        """Stop; whether everything ended in time. What did not ends with the process."""
        ended = self._watching.stop(timeout_s)
        if self._loop is not None and self._finish is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._finish.set)
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        ended = ended and not self._thread.is_alive()
        log.info("controllers stopped", cleanly=ended)
        return ended

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _main(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        async with self._endpoint.session() as session:
            client = Client(session, self._endpoint.server)
            self._loop, self._finish = asyncio.get_running_loop(), asyncio.Event()
            work = self._work(client)

            async def look(key: Key) -> float | None:
                return await self._reconcile(work, key)

            near = KeyedQueue(look, parallel=PARALLEL)
            far = KeyedQueue(look, parallel=PARALLEL_OUTSIDE)
            tries = KeyedQueue(look, parallel=PARALLEL_TRIES)
            self._queues = {"": near, **dict.fromkeys(OUTSIDE, far), "Repository": tries}
            async with asyncio.TaskGroup() as group:
                helpers = [group.create_task(queue.run()) for queue in (near, far, tries)]
                helpers.append(group.create_task(self._resync(work)))
                self._watching.start()
                self._serving.set()
                await self._finish.wait()
                for helper in helpers:
                    helper.cancel()

    def _work(self, client: Client) -> _Work:
        settings = self._settings
        mirrors = Mirrors(settings.mirrors, Git(settings.known_hosts))
        host = HostCluster(settings.host_kubeconfig)
        remotes = Remotes(client)
        freezer = Freezer(client, remotes, mirrors, host, poll_s=settings.poll_s)
        syncs = ResourceSyncs(client, mirrors, remotes, settings.poll_s, self._now, time.monotonic)

        async def attempt(known: Known) -> str:
            return await access.problem_of(mirrors, known)

        def wake(namespace: str, names: Sequence[str]) -> None:
            self._add([key for key in self._following if key[1] == namespace])
            self._add([("ResourceSync", namespace, sync) for sync in names])

        def changed(namespace: str, name: str) -> None:
            """Who reads a Repository looks again."""
            remotes.changed(namespace, name)
            freezer.try_again()
            wake(namespace, syncs.changed(namespace, name))

        def pushed(repository: Mapping[str, Any]) -> None:
            """Who reads a Repository asks it again, whatever it was told just now."""
            for mirror in _mirrors([repository]):
                mirrors.ask_anew(mirror)
                freezer.ask_anew(mirror)
            namespace, name = (repository["metadata"][key] for key in ("namespace", "name"))
            wake(namespace, syncs.pushed(namespace, name))

        repositories = Repositories(
            client, remotes, attempt, changed, settings.access_s, self._now, time.monotonic
        )
        return _Work(client, mirrors, freezer, repositories, syncs, Pushes(client, pushed))

    def _see(self, kind: str, document: Mapping[str, Any]) -> None:
        """In kopf's thread: what was seen becomes keys."""
        keys = [key_of(kind, document)]
        if kind == "Rollout":
            # How a rollout goes is told on its fleet too.
            metadata, target = document["metadata"], document["spec"]["target"]
            keys.append(("Fleet", metadata["namespace"], target["fleet"]))
        if kind == "Repository":
            keys.append(key_of(PUSHES, document))
        assert self._loop is not None, "kopf is started by our loop"
        try:
            self._loop.call_soon_threadsafe(self._add, keys)
        except RuntimeError:
            # Our loop has ended: the process is stopping, and the next one lists everything.
            log.debug("event dropped", keys=keys)

    def _add(self, keys: list[Key]) -> None:
        for key in keys:
            self._queues.get(key[0], self._queues[""]).add(key)

    async def _reconcile(self, work: _Work, key: Key) -> float | None:
        kind, namespace, name = key
        client, freezer = work.client, work.freezer
        match kind:
            case "Fleet":
                look = await fleets.reconcile(
                    client, namespace, name, freezer=freezer, now=self._now
                )
                self._add([("Rollout", namespace, rollout) for rollout in look.superseded])
                if look.wants:
                    self._add([(VALUES, namespace, look.wants)])
                return _sooner(self._follow(key, look.follows), look.recheck_s)
            case "Followers":
                any_ = await followers.reconcile(client, namespace, freezer=freezer, now=self._now)
                return self._follow(key, any_)
            case "Values":
                got = await values.fetch(client, namespace, name, freezer=freezer)
                if got.changed:
                    self._add([("Rollout", namespace, rollout) for rollout in got.rollouts])
                    self._add([("Backlog", namespace, backlog.NAME)])
                return self._follow(key, got.is_missing)
            case "Repository":
                return await work.repositories.reconcile(namespace, name)
            case "Pushes":
                await work.pushes.reconcile(namespace, name)
                return None
            case "ResourceSync":
                return await work.syncs.reconcile(namespace, name)
            case "Rollout":
                wants = self._wants(namespace)
                return await rollouts.reconcile(client, namespace, name, now=self._now, wants=wants)
            case "Backlog":
                self._add([(FOLLOWERS, namespace, name)])
                wants = self._wants(namespace)
                return await worklist.reconcile(client, namespace, name, wants=wants)
        raise AssertionError(kind)

    def _wants(self, namespace: str) -> Callable[[str], None]:
        return lambda version: self._add([(VALUES, namespace, version)])

    def _follow(self, key: Key, follows: bool) -> float | None:
        """When to look again at something that outside sources may change."""
        if not follows:
            self._following.discard(key)
            return None
        self._following.add(key)
        return self._settings.poll_s

    async def _resync(self, work: _Work) -> None:
        """Everything again, every five minutes: what an event was lost for is found then."""
        while True:
            await asyncio.sleep(self._resync_s)
            for plural, (api, kind) in WATCHED.items():
                try:
                    found = await work.client.list_all(api, plural)
                except (ApiError, Unreachable) as error:
                    log.warning("resync failed", plural=plural, error=repr(error))
                    continue
                self._add([key_of(kind, document) for document in found])
                if kind == "Repository":
                    await work.mirrors.forget_others(_mirrors(found))


def _sooner(one: float | None, other: float | None) -> float | None:
    return min((after_s for after_s in (one, other) if after_s is not None), default=None)


def _mirrors(repositories: Iterable[Mapping[str, Any]]) -> set[str]:
    """The names of the mirrors that are still somebody's."""
    found = set()
    for repository in repositories:
        # An HTTP server's files are not mirrored; a URL that cannot be used never was.
        if "url" in repository["spec"]:
            with suppress(BadRemote):
                found.add(address_of(repository).mirror)
    return found
