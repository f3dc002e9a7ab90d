"""Simulated devices by the hundred in one process, over real mutual TLS: they enrol, poll, take
their time over an update, and report, as the contract says that agents do. Nothing of our agent is
in here, and nothing of our service: any service that speaks the API can be tried with it.

Each device keeps a diary of what befell it, so that whoever judges a rollout judges it from where
it counts.
"""

from __future__ import annotations

import asyncio
import base64
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import aiohttp
import yaml

from tests.fakes.agent_client import Agent, Answer, Connection, device_status, version_of

Json = dict[str, Any]

ENROLLING = 10
# What is out of reach is asked again so soon; an agent waits longer, and the judge with it.
AGAIN_S = (0.1, 0.4)


@dataclass(frozen=True, slots=True)
class Entry:
    """`began` to try a rendered version, `ran` it from then on, or `failed` and went back."""

    at: float
    what: Literal["began", "ran", "failed"]
    version: str


@dataclass(slots=True)
class Behaviour:
    """How devices take to updates: seconds that one takes, and whether it fails, by the device and
    the document that it was given."""

    work_s: tuple[float, float] = (0.05, 0.2)
    fails: Callable[[SimulatedDevice, Json], bool] = lambda device, document: False


@dataclass(slots=True)
class SimulatedDevice:
    """One device; `number` is its place among the others, from 0."""

    number: int
    agent: Agent
    connection: Connection
    behaviour: Behaviour
    diary: list[Entry] = field(default_factory=list)
    version: str = ""
    _seen: str = ""

    async def live(self) -> None:
        """Until it is cancelled."""
        while True:
            answer = await self._ask(lambda: self.agent.poll(self.connection, self._seen))
            if answer.code == 200:
                await self._update(answer.json)
            elif answer.code != 204:
                await asyncio.sleep(random.uniform(*AGAIN_S))

    async def _update(self, document: Json) -> None:
        new = self._seen = version_of(document)
        if new == self.version:
            return
        self._note("began", new)
        await self._report("True", "Updating", f"updating to renderedVersion: {new}")
        await asyncio.sleep(random.uniform(*self.behaviour.work_s))
        # It is over before anybody can know of it.
        if self.behaviour.fails(self, document):
            self._note("failed", new)
            message = f"While ApplyingUpdate: renderedVersion: {new}: the simulated disk is full"
            await self._report("False", "Error", message)
            return
        self.version = new
        self._note("ran", new)
        await self._report("False", "Updated", f"Updated to desired renderedVersion: {new}")

    async def _report(self, status: str, reason: str, message: str) -> None:
        condition = {
            "type": "Updating",
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        said = device_status(self.version, conditions=[condition])
        while True:
            answer = await self._ask(lambda: self.agent.report(self.connection, said))
            if answer.code == 200:
                return
            await asyncio.sleep(random.uniform(*AGAIN_S))

    async def _ask(self, request: Callable[[], Any]) -> Answer:
        """The answer, however often the service has to be tried for one."""
        while True:
            with suppress(aiohttp.ClientError, TimeoutError, OSError):
                answer: Answer = await request()
                return answer
            await asyncio.sleep(random.uniform(*AGAIN_S))

    def _note(self, what: Literal["began", "ran", "failed"], version: str) -> None:
        self.diary.append(Entry(time.monotonic(), what, version))


@dataclass(slots=True)
class Simulator:
    """Devices of one service, enrolled and alive until the end of the block."""

    devices: list[SimulatedDevice] = field(default_factory=list)

    def under_way(self) -> list[tuple[float, int, SimulatedDevice]]:
        """(time, +1 or -1, device) of each update that began or ended, in order of time; what ends
        at the moment when something begins has ended before."""
        found = [
            (entry.at, 1 if entry.what == "began" else -1, device)
            for device in self.devices
            for entry in device.diary
        ]
        return sorted(found, key=lambda each: each[:2])


@asynccontextmanager
async def simulated(
    enrolment: Path,
    directory: Path,
    number: int,
    *,
    approve: Callable[[int, str], Any],
    behaviour: Behaviour,
    at: str = "",
) -> AsyncIterator[Simulator]:
    """`number` devices. `enrolment` is the configuration that agents are given to enrol with,
    `directory` takes their files, `approve` is awaited with each device's number and name, and lets
    it in. `at` is where the service is, if not where the configuration says."""
    given = yaml.safe_load(enrolment.read_text())["enrollment-service"]
    url = at or given["service"]["server"]
    ca = base64.b64decode(given["service"]["certificate-authority-data"])
    files = []
    for name in ("client-certificate-data", "client-key-data"):
        file = directory / name
        file.write_bytes(base64.b64decode(given["authentication"][name]))
        files.append(file)
    simulator = Simulator()
    turns = asyncio.Semaphore(ENROLLING)
    async with AsyncExitStack() as stack, Connection(url, ca, *files) as factory:

        async def enrol(which: int) -> None:
            async with turns:
                agent = Agent(url, ca, directory)
                made = await agent.enrol(factory)
                assert made.code == 201, made
                await approve(which, agent.name)
                connection = agent.connection(await agent.wait_for_certificate(factory))
            await stack.enter_async_context(connection)
            simulator.devices.append(SimulatedDevice(which, agent, connection, behaviour))

        await asyncio.gather(*(enrol(which) for which in range(number)))
        simulator.devices.sort(key=lambda device: device.number)
        lives = [asyncio.create_task(device.live()) for device in simulator.devices]
        try:
            yield simulator
        finally:
            for life in lives:
                life.cancel()
            await asyncio.gather(*lives, return_exceptions=True)
