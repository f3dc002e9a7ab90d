"""The whole service over real mutual TLS: a server process, and devices that enrolled with it.

The devices are the contract tests' client, in this process; the server is `python -m apiserver` in
its own, and its CPU seconds and resident memory are read from the kernel. Both share the machine's
cores, so CPU a request is the figure to trust, and rates are what is left over.
"""

from __future__ import annotations

import asyncio
import base64
import os
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from cli import kubeconfig
from tests.fakes import agent_client, apiserver_process

ENROLLING = 20
ACTIVE = 50
REQUESTS = 4_000
# Few stand for many here, and would be told to come more slowly.
UNBOUNDED = (
    *("--writes-per-second", "0", "--lists-per-second", "0"),
    *("--device-requests-per-second", "0"),
)
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")
BASE = "/apis/flightctl.io/v1beta1/namespaces/default"


@dataclass(slots=True)
class Site:
    """A server and the devices that are enrolled with it."""

    server: apiserver_process.Process
    directory: Path
    stack: AsyncExitStack
    user: aiohttp.ClientSession
    agents: list[tuple[agent_client.Agent, agent_client.Connection]] = field(default_factory=list)

    @property
    def pid(self) -> int:
        return self.server.process.pid


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, as the kernel counts them."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS_A_SECOND


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True, slots=True)
class Load:
    """What a run of requests cost the server."""

    rate: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float


async def open_site(directory: Path, stack: AsyncExitStack) -> Site:
    server = stack.enter_context(apiserver_process.running(directory / "data", *UNBOUNDED))
    return Site(server, directory, stack, await administrator(server, stack))


async def administrator(
    server: apiserver_process.Process, stack: AsyncExitStack
) -> aiohttp.ClientSession:
    """With the certificate that is in the kubeconfig now."""
    access = kubeconfig.load(server.kubeconfig)
    connector = aiohttp.TCPConnector(ssl=access.context, limit=0)
    return await stack.enter_async_context(aiohttp.ClientSession(connector=connector))


async def enrol(site: Site, number: int) -> Load:
    """Create, approve, fetch the certificate, for each device."""
    given = yaml.safe_load((site.server.data / "enrollment" / "config.yaml").read_text())
    service = given["enrollment-service"]
    ca = base64.b64decode(service["service"]["certificate-authority-data"])
    files = []
    for name in ("client-certificate-data", "client-key-data"):
        file = site.directory / name
        file.write_bytes(base64.b64decode(service["authentication"][name]))
        files.append(file)
    factory = agent_client.Connection(site.server.agent_url, ca, *files)
    await site.stack.enter_async_context(factory)

    async def one(_: int) -> None:
        agent = agent_client.Agent(site.server.agent_url, ca, site.directory)
        made = await agent.enrol(factory)
        assert made.code == 201, made
        path = f"{site.server.url}{BASE}/enrollmentrequests/{agent.name}/approval"
        body = {"approved": True, "labels": {"site": "a"}}
        async with site.user.put(path, json=body) as answer:
            assert answer.status == 200, await answer.text()
        connection = agent.connection(await agent.wait_for_certificate(factory))
        site.agents.append((agent, connection))

    return await load(site, one, number, clients=ENROLLING)


async def load(site: Site, one: Callable[[int], Awaitable[Any]], number: int, clients: int) -> Load:
    """`number` requests by so many clients, each of which waits for its answer; client k makes
    requests k, k + clients, …"""
    taken: list[float] = []

    async def client(first: int) -> None:
        for n in range(first, number, clients):
            start = time.perf_counter()
            await one(n)
            taken.append((time.perf_counter() - start) * 1000)

    cpu, wall = cpu_s(site.pid), time.perf_counter()
    await asyncio.gather(*(client(first) for first in range(clients)))
    cpu, wall = cpu_s(site.pid) - cpu, time.perf_counter() - wall
    p99 = statistics.quantiles(taken, n=100)[98]
    return Load(number / wall, cpu / number * 1000, statistics.median(taken), p99)


async def rendered(site: Site) -> Load:
    active = site.agents[:ACTIVE]

    async def one(n: int) -> None:
        agent, connection = active[n % len(active)]
        answer = await agent.poll(connection)
        assert answer.code == 200, answer

    return await load(site, one, REQUESTS, clients=ACTIVE)


async def reports(site: Site) -> Load:
    """Statuses that differ each time."""
    active = site.agents[:ACTIVE]

    async def one(n: int) -> None:
        agent, connection = active[n % len(active)]
        status = agent_client.device_status("1")
        status["systemInfo"]["bootID"] = str(n)
        answer = await agent.report(connection, status)
        assert answer.code == 200, answer

    return await load(site, one, REQUESTS, clients=ACTIVE)


async def memory_of_polls(site: Site) -> tuple[float, float]:
    """Resident memory with every device holding a poll, and what one of them adds, both in MB."""
    before = resident_mb(site.pid)
    polls = [asyncio.create_task(agent.poll(connection, "1")) for agent, connection in site.agents]
    await asyncio.sleep(8)
    held = sum(not poll.done() for poll in polls)
    after = resident_mb(site.pid)
    for poll in polls:
        poll.cancel()
    await asyncio.gather(*polls, return_exceptions=True)
    assert held >= len(polls) * 0.95, f"only {held} of {len(polls)} polls were held"
    return after, (after - before) / held


async def connect(site: Site) -> None:
    """Open every device's session, and the connections of those that are measured: the reference
    was measured on connections that were open."""
    for _, connection in site.agents:
        await site.stack.enter_async_context(connection)
    for agent, connection in site.agents[:ACTIVE]:
        await agent.poll(connection)
