"""A rollout in batches, under a disruption budget, with a tenth of the devices failing, and the
service or its controllers killed again and again, inside transactions and between: judged from the
devices' side, no gate and no budget is passed, and the end is the same as if nothing had
happened."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bench.simulator import Behaviour, SimulatedDevice, Simulator, simulated
from cli import kubeconfig
from tests.fakes import apiserver_process, ports

Json = dict[str, Any]
SOAK = bool(os.environ.get("HOMEPORT_SOAK"))
DEVICES, RUNS, KILLS = 1_000, 20 if SOAK else 1, 5
# Around a commit the service kills itself when it comes there.
BEFORE, AFTER, ANY, CONTROLLERS = (
    *("service before a commit", "service after a commit", "service at any moment"),
    "controllers",
)
ARMED = {BEFORE: signal.SIGUSR1, AFTER: signal.SIGUSR2}
BUDGET = DEVICES // 20
CANARIES = DEVICES // 12
FLIGHTCTL = "/apis/flightctl.io/v1beta1/namespaces/default"
ROLLOUTS = "/apis/homeport.dev/v1alpha1/namespaces/default/rollouts"
MERGE = {"Content-Type": "application/merge-patch+json"}
POLICY = {
    "deviceSelection": {
        "strategy": "BatchSequence",
        "sequence": [
            {"selector": {"matchLabels": {"ring": "canary"}}, "limit": CANARIES},
            {"limit": "50%"},
        ],
    },
    "disruptionBudget": {"groupBy": ["site"], "maxUnavailable": BUDGET},
    "successThreshold": "70%",
}


def labels_of(number: int) -> dict[str, str]:
    ring = {"ring": "canary"} if number < CANARIES else {}
    return {"fleet": "web", "site": "ab"[number % 2], **ring}


def fails(device: SimulatedDevice, document: Json) -> bool:
    return bool(device.version) and device.number % 10 == 7


class Service:
    """The service at one address, and its controllers, through all their lives."""

    def __init__(self, directory: Path, database: str) -> None:
        self.data, self.database = directory / "data", database
        self._stack = ExitStack()
        # Where it comes back to. Not a port that the kernel lends: a thousand devices that try one
        # without a listener connect to themselves in the end, and keep it.
        user, agents = (f"127.0.0.1:{ports.free_port()}" for _ in range(2))
        self._where = ("--listen", user, "--agent-listen", agents)
        self.process = self.start()
        self.controllers = self.control()

    def control(self) -> subprocess.Popen[bytes]:
        with self.data.with_name("controllers.log").open("a") as log:
            socket = self.data / "controllers.sock"
            return subprocess.Popen(
                [sys.executable, "-m", "controllers", "--socket", str(socket)],
                cwd=Path(__file__).parents[2],
                stdout=log,
                stderr=log,
            )

    def start(self) -> apiserver_process.Process:
        running = apiserver_process.running(
            self.data, *self._where, database=self.database, module="tests.fakes.dying_apiserver"
        )
        return self._stack.enter_context(running)

    async def die(self, how: str) -> None:
        """And rise again."""
        if how == CONTROLLERS:
            self.end_control()
            self.controllers = await asyncio.to_thread(self.control)
            return
        process = self.process.process
        if how in ARMED:
            process.send_signal(ARMED[how])
            # At the latest when heartbeats are written.
            await asyncio.to_thread(process.wait, 60)
            assert process.returncode == -signal.SIGKILL, process.returncode
        await asyncio.to_thread(self.process.kill)
        self.process = await asyncio.to_thread(self.start)

    def end_control(self) -> None:
        self.controllers.kill()
        self.controllers.wait()

    def stop(self) -> None:
        self.end_control()
        self._stack.close()


class User:
    """An administrator who does not mind that the service is away for a moment."""

    def __init__(self, service: Service) -> None:
        self._url = service.process.url
        context = kubeconfig.load(service.process.kubeconfig).context
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context))

    async def ask(self, method: str, path: str, body: Json | None = None, **options: Any) -> Json:
        for _ in range(300):
            try:
                async with self._session.request(
                    method, self._url + path, json=body, **options
                ) as response:
                    answer: Json = await response.json()
                    assert response.status < 300, answer
                    return answer
            except (aiohttp.ClientConnectionError, TimeoutError):
                await asyncio.sleep(0.1)
        raise AssertionError(f"no answer to {method} {path}")

    async def approve(self, number: int, name: str) -> None:
        body = {"approved": True, "labels": labels_of(number)}
        await self.ask("PUT", f"{FLIGHTCTL}/enrollmentrequests/{name}/approval", body)

    async def ended(self, rollout: str) -> Json:
        began = time.monotonic()
        while time.monotonic() - began < 600:
            found = await self.ask("GET", f"{ROLLOUTS}?fieldSelector=metadata.name={rollout}")
            for item in found["items"]:
                status: Json = item.get("status") or {}
                if status.get("phase") in ("Completed", "Failed", "Aborted"):
                    return status
            await asyncio.sleep(0.2)
        raise AssertionError(f"{rollout} did not end: {found}")

    async def close(self) -> None:
        await self._session.close()


def fleet(content: str, policy: Json | None) -> Json:
    file = {"path": "/etc/motd", "content": content}
    spec: Json = {
        "selector": {"matchLabels": {"fleet": "web"}},
        "template": {"spec": {"config": [{"name": "motd", "inline": [file]}]}},
        "rolloutPolicy": policy,
    }
    return {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "Fleet",
        "metadata": {"name": "web"},
        "spec": spec,
    }


def judge(simulator: Simulator, since: float) -> int:
    """What the devices saw. Returns the most updates of one site at a time."""
    running: Counter[str] = Counter()
    most = 0
    for at, step, device in simulator.under_way():
        if at < since:
            continue
        site = labels_of(device.number)["site"]
        running[site] += step
        most = max(most, running[site])
        assert running[site] <= BUDGET, f"{running[site]} devices of site {site} at a time"
    ends = [
        entry.at
        for device in simulator.devices[:CANARIES]
        for entry in device.diary
        if entry.at >= since and entry.what != "began"
    ]
    begins = [
        entry.at
        for device in simulator.devices[CANARIES:]
        for entry in device.diary
        if entry.at >= since and entry.what == "began"
    ]
    assert len(ends) == CANARIES, "each canary tried it once"
    assert len(begins) == DEVICES - CANARIES, "and so did all others"
    assert min(begins) > max(ends), "a device of the second batch began before the first had ended"
    return most


@pytest.mark.timeout(7_200 if SOAK else 900)
async def test_no_gate_and_no_budget_is_passed_however_often_the_service_dies(
    tmp_path: Path, database_url: str
) -> None:
    seed = random.Random(7)
    service = await asyncio.to_thread(Service, tmp_path, database_url)
    user = User(service)
    died: Counter[str] = Counter()
    ends = set()
    try:
        await user.ask("POST", f"{FLIGHTCTL}/fleets", fleet("zero", None))
        config = service.process.data / "enrollment" / "config.yaml"
        async with simulated(
            config,
            tmp_path,
            DEVICES,
            approve=user.approve,
            behaviour=Behaviour(fails=fails),
            at=service.process.agent_url,
        ) as simulator:
            while not all(device.version for device in simulator.devices):
                await asyncio.sleep(0.2)
            for run in range(RUNS):
                since = time.monotonic()
                change = fleet(f"run {run}", POLICY)
                changed = await user.ask("PATCH", f"{FLIGHTCTL}/fleets/web", change, headers=MERGE)
                name = f"web.v{changed['metadata']['generation']}-1"
                hows = [BEFORE, AFTER, ANY, CONTROLLERS, seed.choice([BEFORE, AFTER])]
                for how in seed.sample(hows, KILLS):
                    await asyncio.sleep(seed.uniform(0.0, 2.0))
                    died[f"{how}, {_phase(simulator, since)}"] += 1
                    await service.die(how)
                status = await user.ended(name)
                most = judge(simulator, since)
                counts = status["counts"]
                ends.add((status["phase"], counts["done"], counts["failed"], counts["timedOut"]))
                print(f"run {run}: {status['phase']}, {counts}; at most {most} of a site at a time")
    finally:
        await user.close()
        await asyncio.to_thread(service.stop)
    lost = sum(number % 10 == 7 for number in range(DEVICES))
    print(f"{DEVICES} devices, {RUNS} runs, {KILLS} kills each:")
    for how, number in sorted(died.items()):
        print(f"  {number:3} {'#' * number} {how}")
    assert ends == {("Completed", DEVICES - lost, lost, 0)}


def _phase(simulator: Simulator, since: float) -> str:
    begun = [device for device in simulator.devices if _began(device, since)]
    if not begun:
        return "before the first device"
    later = any(device.number >= CANARIES for device in begun)
    return "in the second batch or later" if later else "in the first batch"


def _began(device: SimulatedDevice, since: float) -> bool:
    return any(entry.at >= since for entry in device.diary)
