"""[simulated] The whole agent on a device of the mind, put together as the process does it, on one
stage; with the service and the network of `sim_service`.

`live` is one life: it ends when enough has happened, when the time is over, when the device goes
down, or with a crash. What is checked at every moment of it: what the service is told is true.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from agent import assembly, config, routes, settings, sources, specs, states
from agent.mailbox import Mailbox
from tests.fakes.sim_device import DATA, TIMES, Device
from tests.fakes.sim_service import ENROLMENT_CN, SimService
from tests.fakes.sim_world import SimWorld
from tests.fakes.staging import Stage

Json = dict[str, Any]

FOREVER = 1e12
# Nobody stops this process, so nobody needs to look up whether it was stopped.
NAP_S = 60.0


class StagedMailbox(Mailbox):
    """Whoever waits for the mailbox gives the floor."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage

    def wait_for_status_change(self, timeout_s: float) -> bool:
        self._stage.wait(timeout_s, lambda: self._has_news or self._has_wish)
        had_news, self._has_news, self._has_wish = self._has_news, False, False
        return had_news

    def wait_for_push(self, timeout_s: float) -> bool:
        self._awaited += 1
        self._has_wish = True
        try:
            return self._stage.wait(timeout_s, self._is_pushed)
        finally:
            self._awaited -= 1


class SimMachine(sources.Machine):
    """What the kernel would say: nothing that moves by itself. `address` is for the test to move;
    the rest is as long as what a real device tells."""

    def __init__(self, where: SimWorld) -> None:
        super().__init__(where, real=lambda path: None, architecture="sim")
        self.own_address = "10.0.0.1/24"

    def default_interface(self) -> str:
        return "eth0"

    def address(self, interface: str) -> str:
        return self.own_address

    def os_release(self) -> dict[str, str]:
        return {"NAME": "sim", "VERSION": "x" * 400, "ID": "sim"}


def configuration(**more: Any) -> config.Settings:
    certificate = json.dumps({"commonName": ENROLMENT_CN}).encode()
    document = {
        "enrollment-service": {
            "service": {
                "server": "https://service.example:7443",
                "certificate-authority-data": base64.b64encode(b"an authority").decode(),
            },
            "authentication": {
                "client-certificate-data": base64.b64encode(certificate).decode(),
                "client-key-data": base64.b64encode(b"its key").decode(),
            },
        },
        "status-update-jitter": 0,
        **more,
    }
    return config.built(document)


class Life:
    """One process, from its start to its end. The door for holds is left out: it is a socket."""

    def __init__(
        self,
        where: SimWorld,
        service: SimService,
        made: config.Settings,
        times: settings.LoopSettings,
    ) -> None:
        self.world, self.service = where, service
        self.stage = Stage(where, where.rng if where.is_shared else None)
        where.stage_wait = self.stage.wait
        service.wait = self.stage.wait
        self.machine = SimMachine(where)
        connect: routes.Connect = service.connect  # type: ignore[assignment]
        outside = assembly.Outside(
            tell=lambda words: None,
            show=lambda text: None,
            real_path=str,
            connect=connect,
            ask=service.answer,
            machine=self.machine,
            disk_usage=lambda path: 10.0,
            times=times,
            nap_s=NAP_S,
            mailbox=StagedMailbox(self.stage),
        )
        self.agent = assembly.Agent(where, made, outside)

    def play(self, until_s: float, is_enough: Callable[[], bool]) -> None:
        self.agent.begin()
        for name, body in self.agent.bodies(self, self.wait):
            self.stage.add(name, body)
        self.stage.play(until_s, is_enough)

    def is_set(self) -> bool:
        """The device never asks its agent to stop: it is cut off."""
        return self.world.is_going_down

    def wait(self, seconds: float) -> bool:
        self.stage.wait(seconds)
        return False


class SimAgent(Device):
    """A device with the whole agent on it; what it should be is what the service says."""

    def __init__(
        self,
        where: SimWorld,
        service: SimService,
        *,
        made: config.Settings | None = None,
        times: settings.LoopSettings = TIMES,
    ) -> None:
        super().__init__(where, times=times)
        self.service = service
        self.settings = made or configuration()
        self.life: Life | None = None
        self.judged = 0
        # What a service gives to a device that it has just let in.
        self.known["1"] = specs.empty("1")

    def twin(self, seed: int, *, times: settings.LoopSettings | None = None) -> SimAgent:
        """The same device and service again, for another fate."""
        where = self.world.twin(seed)
        service = self.service.twin(where)
        other = SimAgent(where, service, made=self.settings, times=times or self.times)
        other.known, other.originals = dict(self.known), self.originals
        other.systems = self.systems
        return other

    @property
    def name(self) -> str:
        return next(iter(self.service.requests), "") or next(iter(self.service.devices))

    def publish(self, device: Json) -> None:
        """The service has something new for this device."""
        self.offer(device)
        self.service.offer(self.name, device)

    def lose_network(self, *, at: int, seconds: float) -> None:
        """The service and the registries are out of reach from the `at`-th effect on."""
        since: list[float] = []

        def is_up(moment: float) -> bool:
            if not since and len(self.world.effects) > at:
                since.append(moment)
            return not since or moment >= since[0] + seconds

        self.service.is_up = is_up
        self.world.has_network = self.service.is_reachable

    def live(self, until_s: float = FOREVER, is_enough: Callable[[], bool] | None = None) -> None:
        """One life, or several where the device reboots itself; raises Crash."""
        enough = is_enough or self.is_settled
        while self.world.elapsed_s < until_s:
            self.lives += 1
            self.life = Life(self.world, self.service, self.settings, self.times)
            self.mailbox = self.life.agent.mailbox
            self.service.on_sent = self._judge
            self.life.play(until_s, lambda: self._is_over() or enough())
            if not self.world.is_going_down:
                return
            self.world.restart()

    def _is_over(self) -> bool:
        """Of this life: looked at between any two turns, as somebody at the device could."""
        self.world.look()
        self._check_claims()
        return self.world.is_going_down

    def check_lasts(self, seconds: float = 600.0) -> None:
        """The next lives know how it ended: what was refused is not tried again, and no reboot
        comes late."""

        def end() -> tuple[object, ...]:
            told = self.service.statuses[-1][1]
            updating = [one for one in told["conditions"] if one["type"] == "Updating"]
            made = (self.world.podman.made, self.world.reboots_ordered)
            return (*made, updating[0]["message"], self.picture(running=True))

        before = end()
        for _ in range(2):
            self.world.power_cut()
            self.live(self.world.elapsed_s + seconds, lambda: False)
        assert end() == before

    def live_through_crashes(self, until_s: float = FOREVER, *, power: bool) -> int:
        """How many there were."""
        return self.world.through_crashes(lambda: self.live(until_s), power=power)

    def is_settled(self) -> bool:
        """On what the service says, or having refused it; and the service knows that."""
        assert self.life is not None
        latest = self.service.version_of(self.name) if self.service.devices else ""
        match self.life.agent.loop.state:
            case states.Idle():
                is_quiet = self.version() == latest
            case states.Refused() as state:
                is_quiet = state.target.version == latest
            case _:
                is_quiet = False
        is_told = bool(self.service.statuses) and (
            self.service.statuses[-1][1]["conditions"] == self.mailbox.status().get("conditions")
        )
        return is_quiet and bool(latest) and is_told

    def _judge(self, status: Json) -> None:
        """What is told at this moment is compared with the disk, the containers and the system."""
        self.judged += 1
        version = status["config"]["renderedVersion"]
        found = {one["type"]: one for one in status["conditions"]}
        updating = found.get("Updating", {})
        system = self.world.system
        if system is not None and status["os"]["imageDigest"]:
            assert status["os"]["imageDigest"] == system.booted.digest, status["os"]
        self.check_committed(version)
        if self.is_tampered or updating.get("reason") not in ("Updated", "Error"):
            return
        self.check_whole(version, updating, status["summary"])
        if updating["reason"] == "Updated":
            assert updating["message"].endswith(f": {version}"), status

    def keys(self) -> list[str]:
        return self.world.listdir(f"{DATA}/certs")
