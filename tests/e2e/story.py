"""The story of the first path, told step by step to whoever listens, each step checked.

A step does what a person would do, with the tools a person has (`kubectl`, `homeport`), and then
waits until it can be *seen* on the devices that it came true: a page served, a file read. Late or
wrong ends the story with an exception that says what was awaited and how it was instead.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from tests.e2e import processes, service
from tests.e2e.checkout import CHECKOUT
from tests.e2e.site import Device, Site

Json = dict[str, Any]

EXAMPLES = CHECKOUT / "examples" / "first-fleet"
NAMES = ("north", "east", "west")
PORT = 8080
LAMP = "/etc/lighthouse/lamp.conf"
LOG_QUIET = "conmon"


class Listener(Protocol):
    """Who the story is told to."""

    def chapter(self, title: str) -> None: ...

    def say(self, text: str) -> None: ...

    def ran(self, command: str, output: str) -> None: ...

    def live(self, line: str) -> None: ...


class Story:
    def __init__(self, site: Site, listener: Listener) -> None:
        self.site = site
        self.tell = listener
        self._names: dict[str, str] = {}

    def run(self) -> None:
        self.service_up()
        self.devices_enrol()
        self.approve()
        self.apply_a_fleet()
        self.change_the_template()
        self.break_it()
        self.tamper_while_the_service_is_dead()
        self.kill_an_agent_in_the_middle()

    # Chapters. ------------------------------------------------------------------------------------

    def service_up(self) -> None:
        self.tell.chapter("The service starts")
        self.site.start_registry()
        self.tell.say(f"A container registry at {self.site.registry.host} holds four images.")
        ready = self.site.start_service()
        self.tell.ran(f"homeport up --data {self.site.service.data}", ready)

    def devices_enrol(self) -> None:
        self.tell.chapter("Three devices are switched on and ask to be let in")
        self.site.add_devices(*NAMES)
        self.tell.say(
            "Each made a key of its own, and asked with the enrolment certificate in its image."
        )
        processes.until(
            lambda: len(self._items("enrollmentrequests")) == len(NAMES),
            "three enrolment requests",
            timeout_s=30,
            state=lambda: self.site.devices[0].journal(),
        )
        for request in self._items("enrollmentrequests"):
            host = request["spec"]["deviceStatus"]["systemInfo"].get("hostname", "")
            self._names[request["metadata"]["name"]] = host
        self._kubectl("get", "enrollmentrequests")
        assert not self._items("devices"), "nobody approved, and yet there are devices"

    def approve(self) -> None:
        self.tell.chapter("A person approves them, and says where they stand")
        for name, host in sorted(self._names.items(), key=lambda pair: pair[1]):
            argv = ["approve", name[:12], "--label", "site=harbour"]
            if host in NAMES:
                argv += ["--label", f"lamp={host}"]
            self.tell.ran(f"homeport {' '.join(argv)}", self.site.service.homeport(*argv))
        self._until_devices(
            lambda device: device["status"]["summary"]["status"] == "Online",
            "each device reports with a certificate of its own",
            timeout_s=30,
        )

    def apply_a_fleet(self) -> None:
        self.tell.chapter("A fleet is declared: two files and a container for site=harbour")
        started = time.monotonic()
        seen: list[str] = []
        with self._watching("devices", seen):
            self._apply("1-fleet.yaml")
            self._until_served("v1", "interval = 10s", timeout_s=60)
            self._until_status("UpToDate", timeout_s=60)
            processes.until(
                lambda: sum("UpToDate" in line for line in seen) >= len(NAMES),
                "kubectl get --watch has shown it",
                timeout_s=10,
                state=lambda: seen,
            )
        self._kubectl("get", "fleets,devices")
        self.tell.say(f"All three run it after {time.monotonic() - started:.1f} s.")

    def change_the_template(self) -> None:
        self.tell.chapter("The fleet's template changes: the devices follow")
        started = time.monotonic()
        self._apply("2-new-version.yaml")
        self._until_served("v2", "interval = 5s", timeout_s=30)
        self.tell.say(f"All three serve v2 after {time.monotonic() - started:.1f} s.")
        self._until_status("UpToDate", timeout_s=30)
        self._kubectl("get", "devices,rollouts")

    def break_it(self) -> None:
        self.tell.chapter("A bad change: the container starts, and its health check fails")
        self._apply("3-broken.yaml")
        self.tell.say("The devices give it some seconds to become healthy, then go back.")
        self._until_devices(
            lambda device: (
                device["status"]["updated"]["status"] == "OutOfDate"
                and _condition(device, "Updating").get("reason") == "Error"
            ),
            "each device says that the update failed",
            timeout_s=90,
        )
        self._until_served("v2", "interval = 5s", timeout_s=15)
        self.tell.say("Container and files are those of v2 again. Why, says the device itself:")
        device = self._items("devices")[0]
        said = _condition(device, "Updating").get("message", "")
        assert "health check failed" in said, said
        name = device["metadata"]["name"]
        self.tell.ran(
            f"homeport describe device {name[:12]}",
            self.site.service.homeport("describe", "device", name[:12]),
        )
        phase = processes.until(
            lambda: self._rollout_phase("Failed"), "the rollout is failed", timeout_s=45
        )
        self._kubectl("get", "rollouts")
        assert phase == "Failed"

    def tamper_while_the_service_is_dead(self) -> None:
        self.tell.chapter("kill -9 of the service, and somebody tampers with a device meanwhile")
        device, other = self.site.devices[0], self.site.devices[1]
        self.site.service.kill()
        self.tell.say("The service is dead. Now on two devices:")
        container = device.podman("ps", "--quiet", check=True).out.split()[0]
        device.podman("rm", "--force", "--time", "0", container, check=True)
        other.write(LAMP, "interval = never\n")
        self.tell.ran(f"{device.name}# podman rm --force {container}", "")
        self.tell.ran(f"{other.name}# echo 'interval = never' > {LAMP}", "")
        assert not device.http(PORT), "the container is deleted, and yet it answers"
        started = time.monotonic()
        self._until_served("v2", "interval = 5s", timeout_s=60)
        self.tell.say(
            f"Both repaired it by themselves within {time.monotonic() - started:.1f} s, "
            "without a service."
        )
        before = {d["metadata"]["uid"] for d in self._after_restart()}
        assert len(before) == len(NAMES), "a device was forgotten"

    def kill_an_agent_in_the_middle(self) -> None:
        self.tell.chapter("The right version at last, and kill -9 of an agent in the middle of it")
        device = self.site.devices[-1]
        self._apply("4-better.yaml")
        processes.until(
            lambda: "interval = 4s" in device.read(LAMP),
            f"{device.name} has begun to apply",
            timeout_s=30,
            every_s=0.01,
        )
        device.kill_agent()
        caught = device.http(PORT).strip() or "nothing"
        self.tell.say(f"{device.name}: new files, agent dead, and port {PORT} serves: {caught}.")
        device.start_agent()
        self._until_served("v3", "interval = 4s", timeout_s=60)
        self._until_status("UpToDate", timeout_s=60)
        resumed = [line for line in device.journal().splitlines() if "loop begins" in line][-1]
        self.tell.ran(f"{device.name}# journalctl -u flightctl-agent | grep 'loop begins'", resumed)
        assert "state=Idle" not in resumed, f"it was not in the middle of anything: {resumed}"
        self._kubectl(
            "wait", f"rollout/{self._newest_rollout()}", "--for=jsonpath={.status.phase}=Completed"
        )
        self._kubectl("get", "fleets,devices,rollouts")

    # What a person would type. --------------------------------------------------------------------

    def _apply(self, example: str) -> None:
        manifest = self.site.adapt((EXAMPLES / example).read_text())
        output = self.site.service.kubectl("apply", "-f", "-", stdin=manifest)
        self.tell.ran(f"kubectl apply -f examples/first-fleet/{example}", output)

    def _kubectl(self, *argv: str) -> None:
        self.tell.ran(f"kubectl {' '.join(argv)}", self.site.service.kubectl(*argv))

    def _watching(self, kind: str, seen: list[str]) -> _Watch:
        def line(text: str) -> None:
            seen.append(text)
            self.tell.live(text)

        self.tell.say(f"$ kubectl get {kind} --watch")
        argv = [service.kubectl(), "get", kind, "--watch"]
        return _Watch(argv, self.site.service.environment(), line)

    # What must come true. -------------------------------------------------------------------------

    def _until_served(self, version: str, lamp: str, *, timeout_s: float) -> None:
        def is_there(device: Device) -> bool:
            page, file = device.http(PORT), device.read(LAMP)
            motd = device.read("/etc/motd")
            return page == f"web {version}\n" and file == f"{lamp}\n" and f"({version})" in motd

        processes.until(
            lambda: all(is_there(device) for device in self.site.devices),
            f"every device serves {version} and has its files",
            timeout_s=timeout_s,
            state=self._how_it_is,
        )

    def _until_status(self, updated: str, *, timeout_s: float) -> None:
        self._until_devices(
            lambda device: (
                device["status"]["updated"]["status"] == updated
                and device["status"]["applicationsSummary"]["status"] == "Healthy"
            ),
            f"the service knows every device as {updated} and healthy",
            timeout_s=timeout_s,
        )

    def _until_devices(self, claim: Callable[[Json], bool], what: str, *, timeout_s: float) -> None:
        def all_of_them() -> bool:
            found = self._items("devices")
            return len(found) == len(NAMES) and all(claim(device) for device in found)

        processes.until(all_of_them, what, timeout_s=timeout_s, every_s=0.5, state=self._how_it_is)

    def _after_restart(self) -> list[Json]:
        self.tell.ran("homeport up   # again", self.site.service.start())
        return self._items("devices")

    def _rollout_phase(self, phase: str) -> str:
        """The newest rollout's phase, if it is this one."""
        found = self._rollouts()
        now = (found[-1].get("status") or {}).get("phase", "") if found else ""
        return now if now == phase else ""

    def _newest_rollout(self) -> str:
        name: str = self._rollouts()[-1]["metadata"]["name"]
        return name

    def _rollouts(self) -> list[Json]:
        return sorted(
            self._items("rollouts"), key=lambda each: int(each["metadata"]["resourceVersion"])
        )

    def _items(self, kind: str) -> list[Json]:
        found: list[Json] = self.site.service.get(kind)["items"]
        return found

    def _how_it_is(self) -> str:
        parts = [f"{d.name}: {d.http(PORT)!r} {d.read(LAMP)!r}" for d in self.site.devices]
        for device in self.site.devices:
            own = [line for line in device.journal().splitlines() if LOG_QUIET not in line]
            parts += [f"--- {device.name}", *own[-12:]]
        parts += ["--- service", processes.tail(self.site.service.log, 12)]
        return "\n".join(parts)


class _Watch:
    """A command whose lines are passed on while the block lasts."""

    def __init__(
        self, argv: list[str], env: dict[str, str], on_line: Callable[[str], None]
    ) -> None:
        self._process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
        )
        self._on_line = on_line
        self._thread = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> _Watch:
        self._thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._process.terminate()
        self._process.wait(10)
        self._thread.join(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._on_line(line.rstrip("\n"))


def _condition(document: Json, kind: str) -> Json:
    found: list[Json] = document["status"].get("conditions") or []
    return next((each for each in found if each["type"] == kind), {})
