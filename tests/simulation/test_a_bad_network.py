"""[simulated] A day with a network that is hardly ever there, and what a day costs by profile.

The exchanges are simulated and counted; what each costs is measured on real TLS, with our client
and our server on loopback.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

from agent import transport
from apiserver.agentapi.settings import AgentApiSettings
from tests.fakes import agent_service, metering
from tests.fakes.agent_client import device_status
from tests.fakes.metering import Costs
from tests.fakes.seeds import IS_SOAK, LIMIT_S, SEED
from tests.fakes.sim_agent import SimAgent, configuration
from tests.fakes.sim_device import application, document, file
from tests.fakes.sim_podman import Image
from tests.fakes.sim_service import CONNECTED, SimService
from tests.fakes.sim_world import SimWorld

SEEDS = range(SEED, SEED + (20 if IS_SOAK else 2))
HOUR_S, DAY_S = 3600.0, 86400.0
DAYS_OF_A_MONTH = 31
UPDATES_OF_A_MONTH = 5
MONTH_BYTES_MAX = 1_000_000
UP_S, DOWN_S = 180.0, 180.0 * 19


def windows(seed: int) -> Callable[[float], bool]:
    """Up for three minutes and down for 57, on average: 5 % of the time."""
    rng = random.Random(seed)
    edges, at_s = [], 0.0
    while at_s < 3 * DAY_S:
        at_s += rng.expovariate(1 / DOWN_S)
        edges.append((at_s, at_s := at_s + rng.expovariate(1 / UP_S)))
    return lambda moment: any(start <= moment < end for start, end in edges)


def version(number: int) -> dict[str, object]:
    """With an image that only this one has."""
    files = [file("/etc/motd", f"version {number}")]
    return document(number, files, [application("web", f"r/web:{number}")])


def enrolled(seed: int, profile: str) -> SimAgent:
    where = SimWorld(seed)
    where.podman.registry = {f"r/web:{n}": Image(health=True) for n in range(2, 20)}
    service = SimService(where)
    device = SimAgent(where, service, made=configuration(**{"network-profile": profile}))
    device.live()
    device.publish(version(2))
    device.settings = configuration(**{"network-profile": "default"})
    device.live()
    device.settings = configuration(**{"network-profile": profile})
    where.has_network = service.is_reachable
    return device


def a_day(device: SimAgent, *, updates: int) -> None:
    """Updates and small news at moments of the seed's; the last update by noon, so that a metered
    device has two contacts left for it. The life that it is a day of has begun before."""
    rng = random.Random(device.world.rng.random())
    begun = device.world.elapsed_s + HOUR_S
    events = [(rng.uniform(0, DAY_S / 2), n) for n in range(3, 3 + updates)]
    events = [(at, n) for (at, _), (_, n) in zip(sorted(events), events, strict=True)]
    news = sorted(rng.uniform(0, DAY_S) for _ in range(12))

    is_begun: list[bool] = []

    def happen() -> bool:
        at_s = device.world.elapsed_s - begun
        if not is_begun and at_s >= 0:
            is_begun.append(True)
            device.service.seen.clear()
            device.service.sizes.clear()
        if events and at_s >= events[0][0]:
            device.publish(version(events.pop(0)[1]))
        if news and at_s >= news[0]:
            assert device.life is not None
            device.life.machine.own_address = f"10.0.0.{len(news)}/24"
            news.pop(0)
        return False

    device.live(begun + DAY_S, happen)


@pytest.mark.parametrize("profile", ["default", "metered"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_day_with_the_network_up_a_twentieth_of_the_time_ends_on_the_last_version(
    profile: str, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    device = enrolled(seed, profile)
    device.service.is_up = windows(seed)
    a_day(device, updates=5)
    assert device.version() == "7"
    assert device.picture(running=True) == device.expected("7", running=True)
    told = device.service.statuses[-1][1]
    assert told["config"]["renderedVersion"] == "7"
    assert told["conditions"][0]["reason"] == "Updated"
    with capsys.disabled():
        print(f"\n[simulated] 24 h, network up 5 %, {profile}, SIM_SEED={seed}: on the last one")


async def costs(folder: Path) -> Costs:
    async with agent_service.serving(folder, AgentApiSettings(hold_s=0.3)) as service:
        agent = service.agent()
        await service.admitted(agent)
        pem = (folder / f"{agent.name}.crt").read_bytes()
        key = (folder / f"{agent.name}.key").read_bytes()
        shown = transport.Credentials(service.authority.server_ca_pem, pem, key)
        client = transport.Client(service.url, lambda: shown, environ={})
        try:
            return await asyncio.to_thread(
                metering.measured, client, agent.name, lambda: "1", device_status("1")
            )
        finally:
            client.close()


@pytest.mark.timeout(LIMIT_S)
async def test_what_a_day_costs_on_either_profile(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    each = await costs(tmp_path)
    rows, months = [], []
    for profile, network in product(("default", "metered"), ("always up", "up 5 %")):
        days = []
        for updates in (0, 1):
            device = await asyncio.to_thread(enrolled, SEED, profile)
            if network != "always up":
                device.service.is_up = windows(SEED)
            await asyncio.to_thread(a_day, device, updates=updates)
            seen = device.service.seen
            days.append(
                seen[CONNECTED] * each.connection
                + seen["polls"] * each.poll
                + seen["PUT 200"] * each.report
                + device.service.sizes.total()
            )
            row = f"{profile:9} {network:10} {updates:7} {seen[CONNECTED]:7} {seen['polls']:7}"
            rows.append(f"{row} {seen['PUT 200']:7} {days[-1] / 1e3:9.1f}")
        quiet, busy = days
        month = (DAYS_OF_A_MONTH - UPDATES_OF_A_MONTH) * quiet + UPDATES_OF_A_MONTH * busy
        rows[-1] += f" {month / 1e6:9.2f}"
        if profile == "metered":
            months.append(month)
    with capsys.disabled():
        print(
            f"\n[simulated] exchanges × bytes measured on TLS 1.3: connection {each.connection}, "
            f"poll {each.poll}, report {each.report} + its length; "
            f"a month has {UPDATES_OF_A_MONTH} updates\n"
            f"{'profile':9} {'network':10} {'updates':>7} {'connect':>7} {'polls':>7} "
            f"{'reports':>7} {'KB a day':>9} {'MB/month':>9}"
        )
        print("\n".join(rows))
    assert max(months) < MONTH_BYTES_MAX
