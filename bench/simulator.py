"""Simulated devices by the thousand in one process, over real mutual TLS: they enrol, poll, take
their time over an update, and report, as the contract says that agents do. Nothing of our agent is
in here, and nothing of our service: any service that speaks the API can be tried with it.

Each device keeps a diary of what befell it, so that whoever judges a rollout judges it from where
it counts.
"""

from __future__ import annotations

import asyncio
import base64
import random
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from bench.line import Line, Lost, Reply
from tests.fakes.agent_client import Agent, device_status, key_pem, version_of

Json = dict[str, Any]

ENROLLING = 20
BASE = "/api/v1"
# What refuses is asked again so soon, and what is out of reach. Agents wait longer, and the judge
# with them; yet a thousand must leave a service that starts on the same cores some of those.
AGAIN_S, LOST_S = (0.1, 0.4), (1.0, 2.5)


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
    """One device; `number` is its place among the others, from 0. `version` is what it runs, `told`
    the last one whose end the service knows of, and `told_at` since when."""

    number: int
    name: str
    line: Line
    behaviour: Behaviour
    diary: list[Entry] = field(default_factory=list)
    version: str = ""
    told: str = ""
    told_at: float = 0.0
    _seen: str = ""

    async def live(self) -> None:
        """Until it is cancelled."""
        path = f"{BASE}/devices/{self.name}/rendered?knownRenderedVersion="
        while True:
            answer = await persist(lambda: self.line.ask("GET", path + self._seen))
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
        else:
            self.version = new
            self._note("ran", new)
            await self._report("False", "Updated", f"Updated to desired renderedVersion: {new}")
        self.told, self.told_at = new, time.monotonic()

    async def _report(self, status: str, reason: str, message: str) -> None:
        condition = {
            "type": "Updating",
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        body = {
            "apiVersion": "v1beta1",
            "kind": "Device",
            "metadata": {"name": self.name},
            "status": device_status(self.version, conditions=[condition]),
        }
        path = f"{BASE}/devices/{self.name}/status"
        while (await persist(lambda: self.line.ask("PUT", path, body))).code != 200:
            await asyncio.sleep(random.uniform(*AGAIN_S))

    def _note(self, what: Literal["began", "ran", "failed"], version: str) -> None:
        self.diary.append(Entry(time.monotonic(), what, version))


async def persist(request: Callable[[], Awaitable[Reply]]) -> Reply:
    """The answer, however often the service has to be tried for one."""
    while True:
        try:
            return await request()
        except (Lost, TimeoutError):
            await asyncio.sleep(random.uniform(*LOST_S))


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


@dataclass(frozen=True, slots=True)
class Given:
    """The configuration that agents are given to enrol with: where, whom to trust, and the
    certificate and key to come with, in PEM."""

    url: str
    ca: bytes
    pair: bytes

    @classmethod
    def read(cls, config: Path) -> Given:
        found = yaml.safe_load(config.read_text())["enrollment-service"]
        said = found["authentication"]
        names = ("client-certificate-data", "client-key-data")
        pair = b"".join(base64.b64decode(said[name]) for name in names)
        ca = base64.b64decode(found["service"]["certificate-authority-data"])
        return cls(found["service"]["server"], ca, pair)

    def context(self, pair: bytes, directory: Path, name: str) -> ssl.SSLContext:
        """`directory` takes the file that the TLS library wants, for a moment."""
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        tls.load_verify_locations(cadata=self.ca.decode())
        file = directory / f"{name}.pem"
        file.write_bytes(pair)
        tls.load_cert_chain(file)
        file.unlink()
        return tls


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
    """`number` devices, each of which lives from when it is let in. `enrolment` is the
    configuration that agents are given to enrol with, `directory` takes files for a moment,
    `approve` is awaited with each device's number and name, and lets it in. `at` is where the
    service is, if not where the configuration says."""
    given = Given.read(enrolment)
    url = at or given.url
    simulator = Simulator()
    shared = given.context(given.pair, directory, "enrolment")
    lines = [Line(url, shared) for _ in range(ENROLLING)]
    numbers = iter(range(number))
    lives: list[asyncio.Task[None]] = []

    async def enrol(line: Line) -> None:
        for which in numbers:
            agent = Agent(url, given.ca, directory)
            path = f"{BASE}/enrollmentrequests"
            made = await line.ask("POST", path, agent.request_body())
            assert made.code == 201, made
            await approve(which, agent.name)
            certificate = await _certificate(line, f"{path}/{agent.name}")
            tls = given.context(certificate + key_pem(agent.key), directory, agent.name)
            device = SimulatedDevice(which, agent.name, Line(url, tls), behaviour)
            simulator.devices.append(device)
            lives.append(asyncio.create_task(device.live()))

    try:
        async with asyncio.TaskGroup() as group:
            for line in lines:
                group.create_task(enrol(line))
        simulator.devices.sort(key=lambda device: device.number)
        yield simulator
    finally:
        for life in lives:
            life.cancel()
        ends = await asyncio.gather(*lives, return_exceptions=True)
        for line in [*lines, *(device.line for device in simulator.devices)]:
            line.close()
    died = [end for end in ends if isinstance(end, Exception)]
    assert not died, f"{len(died)} devices ended early, one of them by {died[0]!r}"


async def _certificate(line: Line, path: str) -> bytes:
    """Of a request, as soon as it is approved; conditions must be there all the time."""
    while True:
        answer = await line.ask("GET", path)
        assert answer.code == 200, answer
        status = answer.json["status"]
        kinds = {condition["type"] for condition in status["conditions"]}
        assert not kinds & {"Denied", "Failed"}, status
        if "Approved" in kinds and status.get("certificate"):
            return str(status["certificate"]).encode()
        await asyncio.sleep(0.05)
