"""What watches promise, while everything that can happen happens: four API servers on PostgreSQL of
which one is killed every few seconds, writers at all of them, bulk changes from a fifth process,
watchers that list, watch, are cut off and go on elsewhere.

The promise (see `apiserver/store/watchrule.py`): at every bookmark, and once writes stop, what a
client has built up equals a list at that version; versions rise strictly; no delete is missed. And
nothing that was acknowledged is lost, and the log has no gap.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from sqlalchemy import select

from apiserver.operations import Operations
from apiserver.store import Snapshot, Store
from apiserver.store.tables import CHANGE
from apiserver.store.watchrule import Change
from bench.fleet import Service
from cli import kubeconfig
from resources import registry
from resources.kind import Kind
from tests.fakes.apiserver_process import Replicas
from tests.fakes.postgres import Cluster
from tests.fakes.watch_rig import OUTAGES, Broken, Client, Selection, judge

SOAK = bool(os.environ.get("HOMEPORT_SOAK"))
RUN_S = 900.0 if SOAK else 12.0
SEED = int(os.environ.get("HOMEPORT_SEED", "7443"))
SERVERS, WRITERS = 4, 8
KILL_EVERY_S, KILLS_MIN = (2.0, 5.0), 3
DEVICES = 60
FLEET = registry.by_kind("Fleet")
DEVICE = registry.by_kind("Device")
FLEETS = "/apis/flightctl.io/v1beta1/namespaces/default/fleets"
DEVICES_PATH = FLEETS.replace("fleets", "devices")
MERGE = {"Content-Type": "application/merge-patch+json"}

SELECTIONS = [
    Selection(FLEET),
    Selection(FLEET, labels="n=1"),
    Selection(FLEET, labels="n!=1,t"),
    Selection(FLEET, fields="spec.template.spec.os.image=img:1"),
    Selection(DEVICE),
    Selection(DEVICE, labels="group=1"),
    Selection(DEVICE, fields="status.updated.status=OutOfDate"),
    Selection(DEVICE, labels="!group", fields="metadata.owner=Fleet/web"),
]


class Site:
    """The servers, who is alive of them, and what was acknowledged."""

    def __init__(self, replicas: Replicas, choice: random.Random) -> None:
        self.replicas = replicas
        self.random = choice
        self.stopping = asyncio.Event()
        self.acknowledged: dict[int, str] = {}
        self.counts: Counter[str] = Counter()

    def server(self) -> str:
        return self.random.choice(list(self.replicas.processes.values())).url

    async def kill_for_ever(self) -> None:
        """One after the other, each started again at once; two at least are alive at any time."""
        async with asyncio.TaskGroup() as group:
            while not await self._stopped(self.random.uniform(*KILL_EVERY_S)):
                alive = list(self.replicas.processes)
                if len(alive) <= SERVERS - 2:
                    continue
                victim = self.random.choice(alive)
                self.replicas.kill(victim)
                self.counts["kills"] += 1
                group.create_task(self._start(victim))

    async def _start(self, which: int) -> None:
        process = self.replicas.launch(which)
        await asyncio.to_thread(self.replicas.ready, which, process)
        self.counts["starts"] += 1

    async def _stopped(self, within_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.stopping.wait()
        return self.stopping.is_set()

    async def write_for_ever(self, session: aiohttp.ClientSession, number: int) -> None:
        choice = random.Random(f"{SEED} {number}")
        write = self._write_fleet if number % 4 else self._write_device
        while not self.stopping.is_set():
            try:
                await write(session, choice)
            except OUTAGES:
                self.counts["writes cut off"] += 1
                await asyncio.sleep(0.05)

    async def _write_fleet(self, session: aiohttp.ClientSession, choice: random.Random) -> None:
        name, what = f"f{choice.randint(0, 40)}", choice.random()
        labels = {"n": str(choice.randint(0, 2)), "t": choice.choice([None, "x"])}
        spec = {"template": {"spec": {"os": {"image": f"img:{choice.randint(0, 2)}"}}}}
        path = f"{FLEETS}/{name}"
        if what < 0.3:
            metadata = {"name": name, "labels": {"n": labels["n"]}}
            made = {**_typed(FLEET), "metadata": metadata, "spec": spec}
            await self._send(session, "POST", FLEETS, made)
        elif what < 0.85:
            change = {"metadata": {"labels": labels}, "spec": spec}
            await self._send(session, "PATCH", path, change, headers=MERGE)
        else:
            await self._send(session, "DELETE", path)

    async def _write_device(self, session: aiohttp.ClientSession, choice: random.Random) -> None:
        name, what = f"d{choice.randint(0, DEVICES - 1):06}", choice.random()
        site = choice.choice(["a", "a", "a", "b"])
        labels = {"group": choice.choice([None, "1", "2"]), "site": site}
        path = f"{DEVICES_PATH}/{name}"
        if what < 0.15:
            metadata = {"name": name, "labels": {"site": site}}
            made = {**_typed(DEVICE), "metadata": metadata, "spec": {}}
            await self._send(session, "POST", DEVICES_PATH, made)
        elif what < 0.93:
            change = {"metadata": {"labels": labels}}
            await self._send(session, "PATCH", path, change, headers=MERGE)
        else:
            await self._send(session, "DELETE", path)

    async def _send(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        **more: Any,
    ) -> None:
        async with session.request(method, self.server() + path, json=body, **more) as response:
            answer = await response.json()
            self.counts[f"{method} {response.status}"] += 1
            if response.status in (200, 201) and "uid" in answer.get("metadata", {}):
                version = int(answer["metadata"]["resourceVersion"])
                self.acknowledged[version] = answer["metadata"]["uid"]
            elif response.status == 503:
                raise ConnectionError(answer["message"])
            elif response.status not in (200, 201, 404, 409):
                raise Broken(f"{method} {path}: {response.status} {answer}")

    async def bind_for_ever(self, service: Service) -> None:
        """Bulk changes, from a process of its own: this one."""
        while not self.stopping.is_set():
            self.counts["bound"] += (await service.change(str(self.counts["bound"])))["bound"]
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def sessions(replicas: Replicas) -> AsyncIterator[aiohttp.ClientSession]:
    """An administrator's at every server: they have one authority. Connections are many and short,
    for servers die."""
    access = kubeconfig.load(replicas.kubeconfig)
    connector = aiohttp.TCPConnector(ssl=access.context, limit=0)
    timeout = aiohttp.ClientTimeout(total=60, sock_connect=10)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield session
        # What a kill cut off is closed by the loop's next rounds.
        await asyncio.sleep(0.1)


def _typed(kind: Kind) -> dict[str, Any]:
    return {"apiVersion": kind.api_version, "kind": kind.kind}


def read_log(snapshot: Snapshot) -> list[Change]:
    return [
        *snapshot.changes(FLEET, None, 0, 10**9),
        *snapshot.changes(DEVICE, None, 0, 10**9),
    ]


def versions(snapshot: Snapshot) -> dict[int, str]:
    rows = snapshot.connection.execute(select(CHANGE.c.resource_version, CHANGE.c.uid))
    return {row.resource_version: row.uid for row in rows}


# A busy machine takes minutes to start and start again what a quiet one starts in seconds.
@pytest.mark.timeout(RUN_S + 600)
async def test_what_watches_promise_holds_over_kills(postgres: Cluster, tmp_path: Path) -> None:
    print(f"HOMEPORT_SEED={SEED}, {RUN_S:.0f} s, {SERVERS} servers, {WRITERS} writers")
    url = postgres.create_database()
    store = await Store.open(url)
    service = await Service.over(await prepared(store))
    await service.fill(DEVICES)
    choice = random.Random(SEED)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        (tmp_path / "servers").mkdir()
        replicas = stack.enter_context(Replicas(tmp_path / "servers", url, SERVERS))
        session = await stack.enter_async_context(sessions(replicas))
        site = Site(replicas, choice)
        clients = [
            Client(each, session, site.server, random.Random(f"{SEED} {each}"))
            for each in SELECTIONS
        ]
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.watch_until(site.stopping))
            for number in range(WRITERS - 1):
                group.create_task(site.write_for_ever(session, number))
            group.create_task(site.bind_for_ever(service))
            group.create_task(site.kill_for_ever())
            await asyncio.sleep(RUN_S)
            # A busy machine takes long to start a server again; then it takes longer.
            while site.counts["kills"] < KILLS_MIN:
                await asyncio.sleep(0.5)
            site.stopping.set()
        end = await store.read(lambda snapshot: snapshot.version)
        for client in clients:
            await client.catch_up(end)
        ran_s = time.monotonic() - began
        log = await store.read(read_log)
        found = await store.read(versions)
        listed = {}
        for each in SELECTIONS:
            labels, fields = each.parsed()
            items = await store.read(
                lambda s, e=each, la=labels, fi=fields: s.list(
                    e.kind, "default", labels=la, fields=fi
                )
            )
            listed[each] = {
                d["metadata"]["uid"]: int(d["metadata"]["resourceVersion"]) for d in items
            }

    assert sorted(found) == list(range(1, end + 1)), "the log has a gap"
    lost = {v: uid for v, uid in site.acknowledged.items() if found.get(v) != uid}
    assert not lost, f"acknowledged and not there: {lost}"
    judged = sum(judge(client, log) for client in clients)
    for client in clients:
        assert client.known == listed[client.selection], client.selection
    seen: Counter[str] = sum((client.counts for client in clients), Counter())
    print(f"{end} versions in {ran_s:.0f} s, {len(site.acknowledged)} acknowledged singly")
    print(f"service: {dict(site.counts)}")
    print(f"watchers: {dict(seen)}")
    print(f"states of clients compared with the log: {judged}")
    assert judged >= RUN_S
    assert seen["DELETED"]
    assert site.counts["bound"]


async def prepared(store: Store) -> Operations:
    operations = Operations(store)
    await operations.prepare()
    return operations
