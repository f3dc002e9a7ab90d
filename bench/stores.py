"""`python -m bench.stores`: what lists, writes and watches cost on SQLite and on PostgreSQL.

The API server is a process of its own, asked over TLS; this process is the clients, and shares its
cores. So CPU is what to compare with other runs, and times are upper bounds. Devices are of three
kilobytes; beyond the first thousand they are copies of rows, made in SQL. PostgreSQL is the
machine's own, in a cluster made for the run, and waits for its disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import orjson
from sqlalchemy import Connection, text

from apiserver.operations import Operations
from apiserver.store import Store, Transaction, recount
from apiserver.store.tables import DEVICE, DEVICE_LABEL
from bench import wire
from bench.__main__ import Figure, latency, show, yardstick
from bench.fleet import Service
from cli import kubeconfig
from tests.fakes import apiserver_process, postgres

BASE = "/apis/flightctl.io/v1beta1/namespaces/default"
MERGE = {"Content-Type": "application/merge-patch+json"}
REAL, BIND_WATCHERS, BOUND = 1_000, 10, 10_000
WRITES_A_SECOND, WATCHED_S, WRITES = 10, 10.0, 400
STATUS = {f"custom{n}": "a value of some length, as devices report them" for n in range(38)}


@dataclass(slots=True)
class Site:
    """A server over a store that was filled, and an administrator's session with it."""

    server: apiserver_process.Process
    session: aiohttp.ClientSession
    scope: str
    watchers: int
    figures: list[Figure] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.server.process.pid

    def note(self, what: str, value: float, unit: str, goal: str = "-") -> None:
        print(f"# {self.scope}: {what}: {value:,.2f} {unit}", file=sys.stderr)
        self.figures.append(Figure(what, value, unit, goal, "-", self.scope))

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        async with self.session.get(self.server.url + BASE + path, params=query) as response:
            body: dict[str, Any] = orjson.loads(await response.read())
            assert response.status == 200, body
            return body

    async def patch(self, name: str, change: dict[str, Any]) -> int:
        url = f"{self.server.url}{BASE}/{name}"
        async with self.session.patch(url, json=change, headers=MERGE) as response:
            body = orjson.loads(await response.read())
            assert response.status == 200, body
            return int(body["metadata"]["resourceVersion"])


async def fill(url: str, data: Path, devices: int) -> None:
    """A store with a fleet that selects the first BOUND devices, and so many devices."""
    store = await Store.open(url, data_dir=data)
    operations = Operations(store)
    await operations.prepare()
    service = await Service.over(operations)
    await service.fill(min(REAL, devices))
    for number in range(min(REAL, devices)):
        await service.report(f"d{number:06}", number, STATUS)
    if devices > REAL:
        await store.write(partial(_copy, devices=devices))
        for place in await store.read(lambda s: recount.places(s, ("", ""), 100)):
            await store.write(partial(recount.repair, place=place))
    await store.close()


def _copy(tx: Transaction, devices: int) -> None:
    """Copies of the first devices under names, uids and serial numbers of their own; those beyond
    BOUND are of another site and of no fleet."""
    run: Callable[..., Any] = lambda sql, **values: tx.connection.execute(text(sql), values)  # noqa: E731
    series = "WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM k WHERE i < :rounds)"
    number = f"(CAST(substr(d.name, 2) AS INTEGER) + k.i * {REAL})"
    name = f"'d' || substr('000000' || CAST({number} AS TEXT), -6)"
    if not tx.dialect.is_sqlite:
        name = f"'d' || lpad(CAST({number} AS TEXT), 6, '0')"
    is_near = f"{number} < {BOUND}"
    own = {
        "uid": f"'uid-' || {number}",
        "name": name,
        "resource_version": str(tx.next_version()),
        "fleet": f"CASE WHEN {is_near} THEN d.fleet ELSE '' END",
        "owner": f"CASE WHEN {is_near} THEN d.owner END",
        "labels": f"CASE WHEN {is_near} THEN d.labels ELSE replace(d.labels, '\"a\"', '\"b\"') END",
    }
    rounds = devices // REAL - 1
    columns = [column.name for column in DEVICE.columns]
    values = ", ".join(own.get(column, f"d.{column}") for column in columns)
    run(
        f"INSERT INTO device ({', '.join(columns)}) {series} SELECT {values} FROM device d, k",
        rounds=rounds,
    ) if tx.dialect.is_sqlite else run(
        f"{series} INSERT INTO device ({', '.join(columns)}) SELECT {values} FROM device d, k",
        rounds=rounds,
    )
    _copy_labels(tx.connection)


def _copy_labels(connection: Connection) -> None:
    columns = ", ".join(column.name for column in DEVICE_LABEL.columns)
    new = "FROM device d WHERE NOT EXISTS (SELECT 1 FROM device_label l WHERE l.uid = d.uid)"
    site = "CASE WHEN d.fleet = '' THEN 'b' ELSE 'a' END"
    serial = "CAST(CAST(substr(d.name, 2) AS INTEGER) AS TEXT)"
    rows = " UNION ALL ".join(
        f"SELECT d.uid, '{key}', {value}, d.namespace, d.name {new}"
        for key, value in (("site", site), ("serial", serial))
    )
    assert columns == "uid, key, value, namespace, name"
    connection.execute(text(f"INSERT INTO device_label ({columns}) {rows}"))


async def lists(site: Site) -> None:
    asked = {
        "by label, many match": {"labelSelector": "site=a"},
        "by label, one matches": {"labelSelector": "serial=7"},
        "by field": {"fieldSelector": "status.summary.status=Online"},
    }
    for what, query in asked.items():
        p50, p99 = await latency(partial(site.get, "/devices", limit="100", **query), 100)
        site.note(f"list of 100 {what}, p50", p50, "ms", "5 ms")
        site.note(f"list of 100 {what}, p99", p99, "ms", "25 ms")
    began, cpu, token, number = time.perf_counter(), wire.cpu_s(site.pid), "", 0
    while True:
        more = {"continue": token} if token else {}
        page = await site.get("/devices", limit="500", **more)
        number += len(page["items"])
        token = page["metadata"].get("continue", "")
        if not token:
            break
    site.note(f"all {number} in pages of 500", time.perf_counter() - began, "s")
    site.note("CPU of the server for it", wire.cpu_s(site.pid) - cpu, "s")


async def writes(site: Site) -> None:
    for clients in (1, 64):
        cpu, began = wire.cpu_s(site.pid), time.perf_counter()

        async def client(which: int, clients: int = clients) -> None:
            for n in range(which, WRITES, clients):
                change = {"metadata": {"annotations": {"acme.io/n": f"{clients}-{n}"}}}
                await site.patch(f"devices/d{n % REAL:06}", change)

        await asyncio.gather(*(client(which) for which in range(clients)))
        wall = time.perf_counter() - began
        site.note(f"patches of devices, {clients} client(s)", WRITES / wall, "/s")
        cpu_ms = (wire.cpu_s(site.pid) - cpu) / WRITES * 1000
        site.note("CPU of the server for one", cpu_ms, "ms")


async def watch(
    site: Site, path: str, query: dict[str, str], see: Callable[[dict[str, Any]], bool]
) -> None:
    """Until `see` says that it has seen enough."""
    query = query | {"watch": "true", "timeoutSeconds": "600"}
    async with site.session.get(site.server.url + BASE + path, params=query) as response:
        assert response.status == 200, await response.text()
        async for line in response.content:
            if see(orjson.loads(line)):
                return


async def bulk(site: Site) -> None:
    """A fleet change of BOUND devices, and ten watchers that want each of them."""
    now = (await site.get("/devices", limit="1"))["metadata"]["resourceVersion"]
    version = {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "TemplateVersion",
        "metadata": {"name": "web.bench"},
        "spec": {"fleet": "web"},
        "status": {"config": [], "conditions": []},
    }
    rollout = {
        "apiVersion": "homeport.dev/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "web.bench-1"},
        "spec": {"target": {"fleet": "web", "templateVersion": "web.bench"}},
    }
    rollouts = "/apis/homeport.dev/v1alpha1/namespaces/default/rollouts"
    connector = aiohttp.UnixConnector(str(site.server.data / "controllers.sock"))
    async with aiohttp.ClientSession(connector=connector) as controllers:

        async def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
            async with controllers.post(f"http://localhost{path}", json=body) as response:
                answer: dict[str, Any] = orjson.loads(await response.read())
                assert response.status in (200, 201), answer
                return answer

        await post(f"{BASE}/templateversions", version)
        await post(rollouts, rollout)

        def wanting() -> Callable[[dict[str, Any]], bool]:
            missing = {f"d{n:06}" for n in range(BOUND)}

            def see(event: dict[str, Any]) -> bool:
                annotations = event["object"]["metadata"].get("annotations") or {}
                if annotations.get("fleet-controller/templateVersion") == "bench":
                    missing.discard(event["object"]["metadata"]["name"])
                return not missing

            return see

        following = {"resourceVersion": now}
        watchers = [
            asyncio.create_task(watch(site, "/devices", following, wanting()))
            for _ in range(BIND_WATCHERS)
        ]
        await asyncio.sleep(1)
        cpu, began = wire.cpu_s(site.pid), time.perf_counter()
        asked = {"templateVersion": "web.bench", "rollout": "web.bench-1"}
        answer = await post(f"{BASE}/fleets/web/bindings", asked)
        bound = time.perf_counter() - began
        assert answer["bound"] == BOUND, answer
        await asyncio.gather(*watchers)
    site.note(f"{BOUND} devices bound", bound, "s", "< 1 s")
    site.note(f"until {BIND_WATCHERS} watchers have all", time.perf_counter() - began, "s")
    site.note("CPU of the server for it", wire.cpu_s(site.pid) - cpu, "s")


async def fan_out(site: Site) -> None:
    """Many watchers of the fleets, and how long each event takes to each of them."""
    before = wire.resident_mb(site.pid)
    sent: dict[str, float] = {}
    taken: list[float] = []
    number = int(WATCHED_S * WRITES_A_SECOND)

    def counting() -> Callable[[dict[str, Any]], bool]:
        left = number

        def see(event: dict[str, Any]) -> bool:
            nonlocal left
            mark = (event["object"]["metadata"].get("annotations") or {}).get("acme.io/n", "")
            if mark in sent:
                taken.append((time.perf_counter() - sent[mark]) * 1000)
                left -= 1
            return left <= 0

        return see

    now = (await site.get("/fleets"))["metadata"]["resourceVersion"]
    watchers = [
        asyncio.create_task(watch(site, "/fleets", {"resourceVersion": now}, counting()))
        for _ in range(site.watchers)
    ]
    await asyncio.sleep(15)
    site.note("memory for a watcher", (wire.resident_mb(site.pid) - before) / site.watchers, "MB")
    cpu, began = wire.cpu_s(site.pid), time.perf_counter()
    for n in range(number):
        await asyncio.sleep(max(0.0, began + n / WRITES_A_SECOND - time.perf_counter()))
        sent[f"fan-{n}"] = time.perf_counter()
        await site.patch("fleets/web", {"metadata": {"annotations": {"acme.io/n": f"fan-{n}"}}})
    # A superseded event never comes: whoever is slow gets the last state at once.
    await asyncio.wait(watchers, timeout=20)
    for watcher in watchers:
        watcher.cancel()
    await asyncio.gather(*watchers, return_exceptions=True)
    taken.sort()
    what = f"event to one of {site.watchers} watchers, {WRITES_A_SECOND} writes/s"
    site.note(f"{what}, p50", taken[len(taken) // 2], "ms")
    site.note(f"{what}, p99", taken[int(len(taken) * 0.99)], "ms", "< 250 ms")
    site.note("events that came, of those written", len(taken) / number / site.watchers * 100, "%")
    site.note(
        "CPU of the server for an event", (wire.cpu_s(site.pid) - cpu) / len(taken) * 1e6, "µs"
    )


PARTS: dict[str, Callable[[Site], Awaitable[None]]] = {
    "lists": lists,
    "writes": writes,
    "bulk": bulk,
    "fan-out": fan_out,
}


async def measure(
    name: str, url: str, data: Path, devices: int, parts: list[str], watchers: int
) -> list[Figure]:
    began = time.perf_counter()
    await fill(url, data, devices)
    async with AsyncExitStack() as stack:
        options = ("--database", url) if url else ()
        server = stack.enter_context(apiserver_process.running(data, *options))
        access = kubeconfig.load(server.kubeconfig)
        connector = aiohttp.TCPConnector(ssl=access.context, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_read=120)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=timeout, read_bufsize=2**20)
        )
        site = Site(server, session, f"{name}, {devices}", watchers)
        for part in parts:
            if part != "bulk" or devices >= BOUND:
                await PARTS[part](site)
        site.note("memory of the server, at the end", wire.resident_mb(site.pid), "MB")
    print(f"# {name}, {devices} devices: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return site.figures


async def main(sizes: list[int], parts: list[str], watchers: int, out: Path | None) -> int:
    figures = [Figure("yardstick: additions in Python", yardstick(), "million/s", "-", "-", "-")]
    with tempfile.TemporaryDirectory() as directory:
        for devices in sizes:
            data = Path(directory) / f"sqlite-{devices}"
            figures += await measure("SQLite", "", data, devices, parts, watchers)
        if why := postgres.missing():
            print(f"# no PostgreSQL: {why}", file=sys.stderr)
        else:
            with postgres.running(fsync=True) as cluster:
                for devices in sizes:
                    data = Path(directory) / f"postgres-{devices}"
                    url = cluster.create_database()
                    figures += await measure("PostgreSQL", url, data, devices, parts, watchers)
    show(figures)
    if out is not None:
        out.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, nargs="*", default=[10_000, 100_000])
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--watchers", type=int, default=1_000)
    parser.add_argument("--json", type=Path, default=None, help="write the figures there too")
    arguments = parser.parse_args()
    sys.exit(
        asyncio.run(main(arguments.devices, arguments.parts, arguments.watchers, arguments.json))
    )
