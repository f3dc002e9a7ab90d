"""`python -m bench.stores`: what lists, writes and watches cost on SQLite and on PostgreSQL.

The API server is a process of its own, asked over TLS; this process is the clients, and shares its
cores. So CPU is what to compare with other runs, and times are upper bounds. CPU is that of the
server and, where there is one, of all processes of PostgreSQL. Devices are of three kilobytes, half
of which no compression makes smaller, and are up to date before they are bound, so that a bind
moves what indexes look at. Beyond the first thousand they are copies of rows, made in SQL.
PostgreSQL is the machine's own program, in a cluster made for the run, with its own defaults, and
waits for its disk.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import uvloop
from sqlalchemy import Connection, text

from apiserver.app import create_operations
from apiserver.store import Store, Transaction, recount
from apiserver.store.tables import DEVICE, DEVICE_LABEL
from bench import watchers, wire
from bench.figures import Figure, latency, show, yardstick
from bench.fleet import Service
from cli import kubeconfig
from tests.fakes import apiserver_process, postgres

BASE = "/apis/flightctl.io/v1beta1/namespaces/default"
ROLLOUTS = "/apis/homeport.dev/v1alpha1/namespaces/default/rollouts"
MERGE = {"Content-Type": "application/merge-patch+json"}
DEFAULT, FULL = [10_000], [10_000, 100_000]
REAL, BIND_WATCHERS, BOUND_MAX = 1_000, 10, 10_000
WRITES = {1: 200, 64: 1_000}
WATCHERS, WRITES_A_SECOND, WATCHED_S = 1_000, 10, 10.0
# Whoever waits longer for an event will not see it any more.
PATIENCE_S = 60.0
_MARK = re.compile(rb'"acme.io/n":"fan-(\d+)"')
_NAME = re.compile(rb'"name":"(d\d{6})"')


@dataclass(slots=True)
class Site:
    """A server over a store that was filled, and an administrator's session with it."""

    server: apiserver_process.Process
    session: aiohttp.ClientSession
    access: kubeconfig.Access
    database: postgres.Cluster | None
    scope: str
    devices: int
    watchers: int
    figures: list[Figure] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.server.process.pid

    def cpu_s(self) -> float:
        """CPU seconds of the server and its database so far."""
        return wire.cpu_s(self.pid) + (0.0 if self.database is None else cpu_s(self.database))

    def note(self, what: str, value: float, unit: str, goal: str = "-") -> None:
        print(f"# {self.scope}: {what}: {value:,.2f} {unit}", file=sys.stderr)
        self.figures.append(Figure(what, value, unit, goal, scope=self.scope))

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


def cpu_s(cluster: postgres.Cluster) -> float:
    """Of its processes that ended too: the first one has waited for them."""

    def measured() -> float:
        first, *others = cluster.processes()
        ended = Path(f"/proc/{first}/stat").read_text().rpartition(")")[2].split()[13:15]
        ticks = sum(int(word) for word in ended) / wire.TICKS_A_SECOND
        return ticks + sum(wire.cpu_s(pid) for pid in (first, *others))

    return _of_those_that_live(measured)


def memory_mb(cluster: postgres.Cluster) -> float:
    """What its processes share counts once."""

    def measured() -> float:
        rollups = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in cluster.processes())
        return sum(int(text.partition("\nPss:")[2].split()[0]) for text in rollups) / 1024

    return _of_those_that_live(measured)


def together_mb(pids: Iterable[int]) -> float:
    """Of several processes: what is each one's alone, and of each file that several have mapped the
    most that one of them has. Their resident memory added up counts Python's libraries twice; their
    proportional one leaves parts of them to whatever else runs here."""
    total_kb, shared_kb = 0, Counter[str]()
    for pid in pids:
        own: Counter[str] = Counter()
        name = ""
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            words = line.split()
            if not words[0].endswith(":"):
                name = " ".join(words[5:])
            elif words[0].startswith("Private_"):
                total_kb += int(words[1])
            elif words[0] in ("Shared_Clean:", "Shared_Dirty:"):
                own[name] += int(words[1])
        # The larger of both, file by file.
        shared_kb |= own
    return (total_kb + shared_kb.total()) / 1024


def _of_those_that_live(measured: Callable[[], float]) -> float:
    """One of the processes may end while they are looked at; then all are, again."""
    while True:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return measured()


async def fill(url: str, data: Path, devices: int, near: int = BOUND_MAX) -> None:
    """A store with a fleet that selects the first `near` devices, and so many devices."""
    store = await Store.open(url, data_dir=data)
    operations = create_operations(store)
    await operations.prepare()
    service = await Service.over(operations)
    real = min(REAL, devices)
    await service.fill(real)
    # The statuses say that they run version 2.
    await service.change("one")
    await service.change("two")
    await asyncio.gather(*(service.report(f"d{n:06}", n, _facts(n)) for n in range(real)))
    if devices > REAL:
        await store.write(partial(_copy, devices=devices, near=near))
    for place in await store.read(lambda s: recount.places(s, ("", ""), 100)):
        await store.write(partial(recount.repair, place=place))
    if url:
        # As its own housekeeping would within a minute.
        await store.write(lambda tx: tx.connection.execute(text("ANALYZE")) and None)
    counted = await store.read(lambda s: s.counters("default"))
    assert counted["updated"] == {"UpToDate": devices}, counted
    await store.close()


def _facts(number: int) -> dict[str, str]:
    """What a device says of itself: half of it is the same on all, half on none."""
    own = {
        f"custom{n}": hashlib.sha384(f"{number} {n}".encode()).hexdigest()[:46]
        for n in range(0, 38, 2)
    }
    return own | {
        f"custom{n}": "a value of some length, as devices report them" for n in range(1, 38, 2)
    }


def _copy(tx: Transaction, devices: int, near: int) -> None:
    """Copies of the first devices under names, uids and serial numbers of their own; those beyond
    `near` are of another site and of no fleet."""
    if not tx.dialect.is_sqlite:
        tx.connection.execute(text("SET LOCAL statement_timeout = 0"))
    run: Callable[..., Any] = lambda sql, **values: tx.connection.execute(text(sql), values)  # noqa: E731
    series = "WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM k WHERE i < :rounds)"
    number = f"(CAST(substr(d.name, 2) AS INTEGER) + k.i * {REAL})"
    name = f"'d' || substr('000000' || CAST({number} AS TEXT), -6)"
    if not tx.dialect.is_sqlite:
        name = f"'d' || lpad(CAST({number} AS TEXT), 6, '0')"
    is_near = f"{number} < {near}"
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
    rounds = 200
    for what, query in asked.items():
        page = partial(site.get, "/devices", limit="100", **query)
        await page()
        cpu = site.cpu_s()
        p50, p99 = await latency(page, rounds)
        site.note(f"list of 100 {what}, p50", p50, "ms", "5 ms")
        site.note(f"list of 100 {what}, p99", p99, "ms", "25 ms")
        site.note("CPU for one", (site.cpu_s() - cpu) / rounds * 1000, "ms")
    began, cpu, token, number = time.perf_counter(), site.cpu_s(), "", 0
    while True:
        more = {"continue": token} if token else {}
        listed = await site.get("/devices", limit="500", **more)
        number += len(listed["items"])
        token = listed["metadata"].get("continue", "")
        if not token:
            break
    assert number == site.devices, number
    site.note(f"all {number} in pages of 500", time.perf_counter() - began, "s")
    site.note("CPU for it", site.cpu_s() - cpu, "s")


async def writes(site: Site) -> None:
    for clients, number in WRITES.items():

        async def client(which: int, clients: int = clients, number: int = number) -> None:
            for n in range(which, number, clients):
                change = {"metadata": {"annotations": {"acme.io/n": f"{clients}-{n}"}}}
                await site.patch(f"devices/d{n % REAL:06}", change)

        cpu, began = site.cpu_s(), time.perf_counter()
        await asyncio.gather(*(client(which) for which in range(clients)))
        wall = time.perf_counter() - began
        site.note(f"patches of devices, {clients} client(s)", number / wall, "/s")
        site.note("CPU for one", (site.cpu_s() - cpu) / number * 1000, "ms")


async def bulk(site: Site) -> None:
    """A fleet change of many devices, and ten watchers that want each of them."""
    bound = min(site.devices, BOUND_MAX)
    connector = aiohttp.UnixConnector(str(site.server.data / "controllers.sock"))
    async with aiohttp.ClientSession(connector=connector) as controllers:

        async def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
            async with controllers.post(f"http://localhost{path}", json=body) as response:
                answer: dict[str, Any] = orjson.loads(await response.read())
                assert response.status in (200, 201), answer
                return answer

        await post(f"{BASE}/templateversions", _VERSION)
        await post(ROLLOUTS, _ROLLOUT)
        missing = [{b"d%06d" % n for n in range(bound)} for _ in range(BIND_WATCHERS)]
        last = asyncio.Event()

        def seeing(mine: set[bytes]) -> watchers.See:
            def see(line: bytes) -> None:
                if b'"fleet-controller/templateVersion":"bench"' in line:
                    found = _NAME.search(line)
                    assert found is not None, line
                    mine.discard(found[1])
                    if not any(missing):
                        last.set()

            return see

        now = (await site.get("/devices", limit="1"))["metadata"]["resourceVersion"]
        where = site.server.url, site.access.context, f"{BASE}/devices", {"resourceVersion": now}
        async with watchers.watching(*where, [seeing(mine) for mine in missing]):
            await asyncio.sleep(1)
            cpu, began = site.cpu_s(), time.perf_counter()
            asked = {"templateVersion": "web.bench", "rollout": "web.bench-1"}
            answer = await post(f"{BASE}/fleets/web/bindings", asked)
            taken = time.perf_counter() - began
            assert answer["bound"] == bound, answer
            async with asyncio.timeout(10 * PATIENCE_S):
                await last.wait()
            seen = time.perf_counter() - began
    site.note(f"{bound} devices bound, {BIND_WATCHERS} watching", taken, "s", "< 1 s")
    site.note(f"until {BIND_WATCHERS} watchers have all", seen, "s")
    site.note("CPU for it", site.cpu_s() - cpu, "s")


_VERSION: dict[str, Any] = {
    "apiVersion": "flightctl.io/v1beta1",
    "kind": "TemplateVersion",
    "metadata": {"name": "web.bench"},
    "spec": {"fleet": "web"},
    "status": {"config": [], "conditions": []},
}
_ROLLOUT: dict[str, Any] = {
    "apiVersion": "homeport.dev/v1alpha1",
    "kind": "Rollout",
    "metadata": {"name": "web.bench-1"},
    "spec": {"target": {"fleet": "web", "templateVersion": "web.bench"}},
}


async def fan_out(site: Site) -> None:
    """Many watchers of one fleet, and how long after each write they know of it. Who is slow gets
    the last state at once; what was left out for it counts as late as what came in its place."""
    before = wire.resident_mb(site.pid)
    number = int(WATCHED_S * WRITES_A_SECOND)
    sent: list[float] = []
    taken: list[float] = []
    came, knowing = 0, 0
    done = asyncio.Event()

    def seeing() -> watchers.See:
        known = 0

        def see(line: bytes) -> None:
            nonlocal known, came, knowing
            if (found := _MARK.search(line)) is None:
                return
            now, mark = time.perf_counter(), int(found[1])
            taken.extend((now - at) * 1000 for at in sent[known : mark + 1])
            known, came = mark + 1, came + 1
            if known == number:
                knowing += 1
                if knowing == site.watchers:
                    done.set()

        return see

    now = (await site.get("/fleets"))["metadata"]["resourceVersion"]
    where = site.server.url, site.access.context, f"{BASE}/fleets", {"resourceVersion": now}
    async with watchers.watching(*where, [seeing() for _ in range(site.watchers)]):
        await asyncio.sleep(2)
        each = (wire.resident_mb(site.pid) - before) / site.watchers
        site.note("memory for a watcher", each, "MB", "≤ 0.08 MB")
        cpu, began = site.cpu_s(), time.perf_counter()
        for n in range(number):
            await asyncio.sleep(max(0.0, began + n / WRITES_A_SECOND - time.perf_counter()))
            sent.append(time.perf_counter())
            change = {"metadata": {"annotations": {"acme.io/n": f"fan-{n}"}}}
            await site.patch("fleets/web", change)
        wrote = time.perf_counter() - began
        async with asyncio.timeout(PATIENCE_S):
            await done.wait()
        cpu = site.cpu_s() - cpu
    taken.sort()
    what = f"event to one of {site.watchers} watchers"
    site.note(f"writes with {site.watchers} watching", number / wrote, "/s", f"{WRITES_A_SECOND}/s")
    site.note(f"{what}, p50", taken[len(taken) // 2], "ms")
    site.note(f"{what}, p99", taken[int(len(taken) * 0.99)], "ms", "< 250 ms")
    site.note("events that came, of those written", came / number / site.watchers * 100, "%")
    site.note("CPU for an event", cpu / came * 1e6, "µs")


PARTS: dict[str, Callable[[Site], Awaitable[None]]] = {
    "lists": lists,
    "writes": writes,
    "bulk": bulk,
    "fan-out": fan_out,
}


async def measure(
    name: str,
    database: postgres.Cluster | None,
    data: Path,
    devices: int,
    *,
    parts: list[str],
    watching: int,
) -> list[Figure]:
    began = time.perf_counter()
    url = "" if database is None else database.create_database()
    await fill(url, data, devices)
    async with AsyncExitStack() as stack:
        running = apiserver_process.running(data, *wire.UNBOUNDED, database=url)
        server = stack.enter_context(running)
        access = kubeconfig.load(server.kubeconfig)
        connector = aiohttp.TCPConnector(ssl=access.context, limit=0)
        timeout = aiohttp.ClientTimeout(total=None, sock_read=120)
        session = await stack.enter_async_context(
            aiohttp.ClientSession(connector=connector, timeout=timeout)
        )
        site = Site(server, session, access, database, f"{name}, {devices}", devices, watching)
        site.note("memory of the server, at the start", wire.resident_mb(site.pid), "MB")
        for part in parts:
            await PARTS[part](site)
            site.note(f"memory of the server, after {part}", wire.resident_mb(site.pid), "MB")
        if database is not None:
            site.note("memory of PostgreSQL, at the end", memory_mb(database), "MB")
    print(f"# {name}, {devices} devices: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    return site.figures


async def both(
    sizes: list[int], watching: int = WATCHERS, parts: list[str] | None = None
) -> list[Figure]:
    """The figures of both stores, at each size."""
    figures: list[Figure] = []
    how: dict[str, Any] = {"parts": parts or list(PARTS), "watching": watching}
    with tempfile.TemporaryDirectory() as directory:
        for devices in sizes:
            data = Path(directory) / f"sqlite-{devices}"
            figures += await measure("SQLite", None, data, devices, **how)
        if why := postgres.missing():
            print(f"# no PostgreSQL: {why}", file=sys.stderr)
            return figures
        with postgres.running(fsync=True) as cluster:
            for devices in sizes:
                data = Path(directory) / f"postgres-{devices}"
                figures += await measure("PostgreSQL", cluster, data, devices, **how)
    return figures


async def main(sizes: list[int], parts: list[str], watching: int, out: Path | None) -> int:
    figures = [yardstick(), *await both(sizes, watching, parts)]
    show(figures)
    if out is not None:
        out.write_text(json.dumps([asdict(figure) for figure in figures], indent=1))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, nargs="*", default=FULL)
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    parser.add_argument("--watchers", type=int, default=WATCHERS)
    parser.add_argument("--json", type=Path, default=None, help="write the figures there too")
    arguments = parser.parse_args()
    sys.exit(
        uvloop.run(main(arguments.devices, arguments.parts, arguments.watchers, arguments.json))
    )
