"""`python -m bench --only scale`: thousands of devices that are connected, on both databases.

The API server, the controllers and PostgreSQL are processes of their own, whose CPU seconds the
kernel counts; the devices (`bench.simulator`) are this process, which shares the cores with them.
So CPU is what to compare with other runs, and times are upper bounds. Devices report at once, as
agents do, so the service hears of the first updates while it still tells the last devices.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apiserver import tasks
from bench import stores, wire
from bench.figures import Figure
from bench.line import Line
from bench.simulator import Behaviour, SimulatedDevice, Simulator, simulated
from cli import kubeconfig
from tests.fakes import apiserver_process, postgres

Json = dict[str, Any]

DEVICES, STORED = 10_000, 100_000
DATABASES = ["sqlite", "postgresql"]
BATCHES, GROUPS = 10, 100
AT_REST_S = 30.0
# Whoever waits longer does so in vain.
PATIENCE_S = 600.0
LOOK_S = 0.1
RENDERED_TEMPLATE = "fleet-controller/renderedTemplateVersion"
FLIGHTCTL = "/apis/flightctl.io/v1beta1/namespaces/default"
MERGE = "application/merge-patch+json"


@dataclass(slots=True)
class Service:
    """The whole service, an administrator of it, and what was found out so far."""

    server: apiserver_process.Process
    controllers: subprocess.Popen[bytes]
    cluster: postgres.Cluster | None
    user: Line
    scope: str
    figures: list[Figure] = field(default_factory=list)

    def note(
        self, what: str, value: float, unit: str, goal: str = "-", reference: str = "-"
    ) -> None:
        print(f"# {self.scope}: {what}: {value:,.2f} {unit}", file=sys.stderr)
        self.figures.append(Figure(what, value, unit, goal, reference, self.scope))

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds so far, by process."""
        found = {
            "API server": wire.cpu_s(self.server.process.pid),
            "controllers": wire.cpu_s(self.controllers.pid),
        }
        return found if self.cluster is None else found | {"PostgreSQL": stores.cpu_s(self.cluster)}

    def note_cpu(
        self, before: dict[str, float], devices: int, goal: str = "-", reference: str = "-"
    ) -> None:
        used = {name: now - before[name] for name, now in self.cpu_s().items()}
        each = sum(used.values()) / devices * 1000
        parts = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in used.items())
        self.note(f"CPU a device for it ({parts})", each, "ms", goal, reference)

    async def ask(self, method: str, path: str, body: Json | None = None) -> Json:
        kind = MERGE if method == "PATCH" else "application/json"
        reply = await self.user.ask(method, FLIGHTCTL + path, body, kind)
        assert reply.code < 300, reply
        return reply.json

    async def change(self, content: str, policy: Json | None = None) -> str:
        """Another template; the name of the rollout that follows."""
        changed = await self.ask("PATCH", "/fleets/web", fleet(content, policy))
        return f"web.v{changed['metadata']['generation']}-1"

    async def ready(self) -> None:
        """Until the controllers have started: they see to a fleet of no devices."""
        probe = fleet("probe")
        probe["metadata"]["name"] = "probe"
        probe["spec"]["selector"] = {"matchLabels": {"site": "nowhere"}}
        await self.ask("POST", "/fleets", probe)
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = await self.ask("GET", "/templateversions?fieldSelector=spec.fleet%3Dprobe")
                if found["items"]:
                    return
                await asyncio.sleep(LOOK_S)

    async def bound(self, rollout: str, number: int, last: str) -> float:
        """When so many are, who are all, by the monotonic clock. A rollout takes them by name, so
        `last`, the last by name, is looked at, which costs the service little; a count of the fleet
        takes its part of a core, so it only says whether the last was the last."""
        version = rollout.removeprefix("web.").rpartition("-")[0]
        progress = f"/fleets/web/progress?rollout={rollout}"
        async with asyncio.timeout(PATIENCE_S):
            while True:
                device = await self.ask("GET", f"/devices/{last}")
                found_at = time.monotonic()
                if device["metadata"]["annotations"].get(RENDERED_TEMPLATE) == version:
                    counted = await self.ask("GET", progress)
                    if counted["rendered"] >= number:
                        return found_at
                await asyncio.sleep(LOOK_S / 2)


def fleet(content: str, policy: Json | None = None) -> Json:
    file = {"path": "/etc/motd", "content": content}
    return {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "Fleet",
        "metadata": {"name": "web"},
        "spec": {
            "selector": {"matchLabels": {"site": "a"}},
            "template": {"spec": {"config": [{"name": "motd", "inline": [file]}]}},
            "rolloutPolicy": policy,
        },
    }


@contextmanager
def controlling(data: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Controllers of the server over `data` until the end of the block."""
    with data.with_name("controllers.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "controllers", "--socket", str(data / "controllers.sock")],
            cwd=Path(__file__).parents[1],
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


@asynccontextmanager
async def service(
    name: str, cluster: postgres.Cluster | None, url: str, data: Path
) -> AsyncIterator[Service]:
    async with AsyncExitStack() as stack:
        server = stack.enter_context(
            apiserver_process.running(data, *wire.UNBOUNDED, database=url),
        )
        controllers = stack.enter_context(controlling(data))
        access = kubeconfig.load(server.kubeconfig)
        user = Line(server.url, access.context)
        stack.callback(user.close)
        yield Service(server, controllers, cluster, user, name)


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not is_so():
            await asyncio.sleep(0.02)


# --- connected ------------------------------------------------------------------------------


def labels_of(number: int) -> dict[str, str]:
    return {"site": "a", "group": str(number % GROUPS), "batch": str(number % BATCHES)}


async def connected(
    name: str, cluster: postgres.Cluster | None, directory: Path, number: int
) -> list[Figure]:
    """All that is measured with `number` devices connected."""
    url = "" if cluster is None else cluster.create_database()
    async with service(f"{name}, {number} connected", cluster, url, directory / "data") as site:
        await site.ready()
        await site.ask("POST", "/fleets", fleet("zero"))
        config = site.server.data / "enrollment" / "config.yaml"
        access = kubeconfig.load(site.server.kubeconfig)
        approvers = [Line(site.server.url, access.context) for _ in range(4)]
        free: asyncio.Queue[Line] = asyncio.Queue()
        for line in approvers:
            free.put_nowait(line)

        async def approve(which: int, device: str) -> None:
            line = await free.get()
            path = f"{FLIGHTCTL}/enrollmentrequests/{device}/approval"
            reply = await line.ask("PUT", path, {"approved": True, "labels": labels_of(which)})
            assert reply.code == 200, reply
            free.put_nowait(line)

        resident = wire.resident_mb(site.server.process.pid)
        site.note("memory of the API server, at the start", resident, "MB")
        began, before = time.monotonic(), site.cpu_s()
        async with simulated(
            config, directory, number, approve=approve, behaviour=Behaviour(work_s=(0.5, 1.5))
        ) as simulator:
            site.note("enrolled", number / (time.monotonic() - began), "/s", "-", "126-212/s")
            await _until(lambda: all(device.told for device in simulator.devices))
            whole = time.monotonic() - began
            site.note("enrolled and up to date, from nothing", whole, "s", "-", "125.7 s for 2000")
            site.note_cpu(before, number, "≤ 8 ms", "~60 ms")
            await _at_rest(site, number)
            for what, content in (
                ("no parameters", "one"),
                (f"{GROUPS} values", "{{ .metadata.labels.group }}"),
                ("a value of each", "{{ .metadata.name }}"),
            ):
                await _changed(site, simulator, what, content)
            await _in_batches(site, simulator)
        for line in approvers:
            line.close()
    return site.figures


async def _at_rest(site: Service, number: int) -> None:
    # What was going on comes to its end.
    await asyncio.sleep(5)
    before = site.cpu_s()
    await asyncio.sleep(AT_REST_S)
    for name, now in site.cpu_s().items():
        percent = (now - before[name]) / AT_REST_S * 100
        reference = {"API server": "2.85 at 2000", "controllers": "0.03 at 2000"}
        site.note(f"at rest: CPU, {name}", percent, "% of a core", "-", reference.get(name, "0.27"))
    api, controllers = site.server.process.pid, site.controllers.pid
    goal = f"≤ {300 + (number - 2000) * 0.08:.0f} MB"
    site.note("at rest: memory, API server", wire.resident_mb(api), "MB")
    site.note("at rest: memory, controllers", wire.resident_mb(controllers), "MB")
    database = 0.0 if site.cluster is None else stores.memory_mb(site.cluster)
    if site.cluster is not None:
        site.note("at rest: memory, PostgreSQL", database, "MB")
    whole = stores.together_mb((api, controllers)) + database
    what = "at rest: memory of all, what they share once"
    site.note(what, whole, "MB", goal, "~690 at 2000, as added up")


async def _changed(site: Service, simulator: Simulator, what: str, content: str) -> None:
    """A fleet change until every device has said that it has it, and how a person fares who looks
    at the fleet meanwhile."""
    number = len(simulator.devices)
    unique = "each" in what
    before, began = site.cpu_s(), time.monotonic()
    async with _looking(site) as looks:
        rollout = await site.change(content)
        last = max(device.name for device in simulator.devices)
        bound_s = await site.bound(rollout, number, last) - began
        await _until(lambda: all(_began(device) > began for device in simulator.devices))
        has = site.cpu_s()
        await _until(lambda: all(device.told_at > began for device in simulator.devices))
        said_s = time.monotonic() - began
    taken = sorted(_began(device) - began for device in simulator.devices)
    change = f"fleet change, {what}"
    site.note(f"{change}: all bound", bound_s, "s", "< 3 s" if unique else "< 1 s", "150 devices/s")
    site.note(f"{change}: device has it, p50", statistics.median(taken), "s")
    site.note(f"{change}: device has it, p99", taken[int(number * 0.99)], "s")
    goal = "< 8 s" if unique else "< 5 s"
    site.note(f"{change}: last device has it", taken[-1], "s", goal, "45 devices/s")
    used = sum(has[name] - before[name] for name in has) / number * 1000
    site.note(f"{change}: CPU a device till then", used, "ms", "≤ 1 ms")
    site.note(f"{change}: all have reported it", said_s, "s")
    site.note(f"{change}: a person's GET meanwhile, p50", statistics.median(looks) * 1000, "ms")
    site.note(f"{change}: a person's GET meanwhile, longest", max(looks) * 1000, "ms")
    site.note_cpu(before, number, reference="21-23 ms")


@asynccontextmanager
async def _looking(site: Service) -> AsyncIterator[list[float]]:
    """How many seconds each look took so far, of a person who looks ten times a second."""
    took: list[float] = []
    line = Line(site.server.url, kubeconfig.load(site.server.kubeconfig).context)

    async def look() -> None:
        while True:
            began = time.monotonic()
            reply = await line.ask("GET", f"{FLIGHTCTL}/fleets/web")
            assert reply.code == 200, reply
            took.append(time.monotonic() - began)
            await asyncio.sleep(LOOK_S)

    async with tasks.running(look(), "looks"):
        yield took
    line.close()


def _began(device: SimulatedDevice) -> float:
    return device.diary[-1 if device.diary[-1].what == "began" else -2].at


async def _in_batches(site: Service, simulator: Simulator) -> None:
    """From the last report of a batch to the first delivery of the next one."""
    sequence = [{"selector": {"matchLabels": {"batch": str(n)}}} for n in range(BATCHES)]
    selection = {"strategy": "BatchSequence", "sequence": sequence}
    policy = {"deviceSelection": selection, "successThreshold": "90%"}
    before, began = site.cpu_s(), time.monotonic()
    await site.change("batches", policy)
    await _until(lambda: all(device.told_at > began for device in simulator.devices))
    gaps = []
    for batch in range(1, BATCHES):
        ended = [d.told_at for d in simulator.devices if d.number % BATCHES == batch - 1]
        first = [_began(d) for d in simulator.devices if d.number % BATCHES == batch]
        gaps.append((min(first) - max(ended)) * 1000)
    assert min(gaps) > 0, f"a device began before the batch before had ended: {gaps}"
    what = f"{BATCHES} batches: from the last report to the next delivery"
    site.note(f"{what}, p50", statistics.median(gaps), "ms", "< 1000 ms", "up to 30 s")
    site.note(f"{what}, longest", max(gaps), "ms", "< 1000 ms")
    site.note(f"{BATCHES} batches: all", time.monotonic() - began, "s")
    site.note_cpu(before, len(simulator.devices))


# --- stored ---------------------------------------------------------------------------------


async def stored(
    name: str, cluster: postgres.Cluster | None, directory: Path, number: int
) -> list[Figure]:
    """A fleet change of `number` devices that are in the database, and none of them connected."""
    url = "" if cluster is None else cluster.create_database()
    data = directory / "data"
    await stores.fill(url, data, number, near=number)
    async with service(f"{name}, {number} stored", cluster, url, data) as site:
        await site.ready()
        # They come to rest over what they find.
        await asyncio.sleep(5)
        before, began = site.cpu_s(), time.monotonic()
        rollout = await site.change("three")
        taken = await site.bound(rollout, number, f"d{number - 1:06}") - began
        site.note("fleet change, none connected: all bound", taken, "s")
        site.note("devices bound", number / taken, "/s", "10 000/s", "150/s")
        site.note_cpu(before, number, "≤ 1 ms", "21-23 ms")
    return site.figures


# --- both databases -------------------------------------------------------------------------

Part = Callable[[str, "postgres.Cluster | None", Path, int], Any]


async def on_both(part: Part, number: int, databases: list[str]) -> list[Figure]:
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as directory:
        if "sqlite" in databases:
            place = Path(directory) / "sqlite"
            place.mkdir()
            figures += await part("SQLite", None, place, number)
        if "postgresql" not in databases:
            return figures
        if why := postgres.missing():
            print(f"# no PostgreSQL: {why}", file=sys.stderr)
            return figures
        place = Path(directory) / "postgresql"
        place.mkdir()
        with postgres.running(fsync=True) as cluster:
            figures += await part("PostgreSQL", cluster, place, number)
    return figures
