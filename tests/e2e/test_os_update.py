"""Two devices that boot from operating system images, again and again: there, and back.

Real: the service, the agents (parts of the images that boot), systemd and its reboots, podman, the
registry, ostree's deployments. [simulated]: bootc, greenboot and the boot loader.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml

from tests.e2e import devices, lighthouses, osimages, processes
from tests.e2e.checkout import CHECKOUT
from tests.e2e.devices import Device
from tests.e2e.lighthouses import LAMP, Commit
from tests.e2e.site import Site
from tests.e2e.yard import condition

Json = dict[str, Any]

ROUNDS = 10 if os.environ.get("HOMEPORT_SOAK") else 2
NAMES = ("left", "right")
# A third of what it is by default, for a system that is cut off waits it out in each round.
GRACE = {"service-reach-grace-after-boot": "60s"}
REBOOTS_OF_A_DEAD_SYSTEM = osimages.ATTEMPTS + 1  # and the old one again
UPDATE_S = 150
WEB = "web-365508-app"
HORN = "/etc/containers/systemd/horn"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300 * (ROUNDS + 1)),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
]


class Harbour:
    """A service and devices of one fleet, which is applied with kubectl."""

    def __init__(self, site: Site) -> None:
        self.site = site

    @property
    def devices(self) -> list[Device]:
        return [device for device in self.site.devices if isinstance(device, Device)]

    def open(self) -> None:
        self.site.start_registry()
        for version, layer in lighthouses.systems().items():
            osimages.push(self.site.registry, version, layer)
        self.site.start_service()
        self.site.add_devices(*NAMES)
        service = self.site.service
        requests = processes.until(
            lambda: _all(service.get("enrollmentrequests")["items"], len(NAMES)),
            "the devices ask to be let in",
            timeout_s=60,
        )
        for request in requests:
            service.homeport("approve", request["metadata"]["name"], "--label", "site=harbour")
        processes.until(
            lambda: _all(service.get("devices")["items"], len(NAMES)), "devices", timeout_s=30
        )

    def apply(self, commit: Commit) -> None:
        manifest = yaml.safe_load(commit.files(has_system=True)[lighthouses.FLEET])
        inline = [{"path": LAMP, "content": commit.lamp}]
        manifest["spec"]["template"]["spec"]["config"] = [{"name": "lamp", "inline": inline}]
        self.site.service.kubectl("apply", "-f", "-", stdin=json.dumps(manifest))

    def until(self, claim: Callable[[], bool], what: str, timeout_s: float) -> None:
        processes.until(claim, what, timeout_s=timeout_s, every_s=0.5, state=self.how_it_is)

    def until_all_are(self, commit: Commit, timeout_s: float = UPDATE_S) -> None:
        self.until(lambda: all(commit.is_on(d) for d in self.devices), f"{commit}", timeout_s)

    def until_up_to_date(self) -> None:
        def are() -> bool:
            found = [status["updated"]["status"] for status in self.statuses()]
            return found == ["UpToDate"] * len(NAMES)

        self.until(are, "the service knows them up to date", 60)

    def until_all_say(self, words: str) -> None:
        def say() -> bool:
            found = [condition(status) for status in self.statuses()]
            return all(c.get("reason") == "Error" and words in c["message"] for c in found)

        self.until(say, f"each says why: {words}", UPDATE_S + 60)
        for device in self.site.service.get("devices")["items"]:
            name = device["metadata"]["name"]
            assert words in self.site.service.kubectl("describe", "device", name)

    def statuses(self) -> list[Json]:
        return [device["status"] for device in self.site.service.get("devices")["items"]]

    def boots(self) -> list[int]:
        return [device.boots for device in self.devices]

    def how_it_is(self) -> str:
        parts = []
        with contextlib.suppress(RuntimeError):  # the service may be away on purpose
            parts.append(json.dumps([condition(status) for status in self.statuses()]))
        for device in self.devices:
            lines = [line for line in device.journal().splitlines() if "conmon" not in line]
            system = device.read("/usr/lib/os-version").strip()
            parts += [f"--- {device.name}, {system}, boot {device.boots}", *lines[-15:]]
        return "\n".join(parts)


def _all(found: list[Json], number: int) -> list[Json]:
    return found if len(found) == number else []


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harbour]:
    print("[simulated] bootc, greenboot and the boot loader are stand-ins")
    with Site(tmp_path_factory.mktemp("harbour"), system="v1", settings=GRACE) as site:
        harbour = Harbour(site)
        harbour.open()
        yield harbour


def test_there_and_back_round_after_round(harbour: Harbour) -> None:
    """System, file, container and quadlet in one update with one reboot; then an application that
    is never healthy, a system whose agent does not start, one that cannot reach the service."""
    print(f"[simulated] {ROUNDS} rounds, two devices")
    for number in range(ROUNDS):
        began = time.monotonic()
        system, other = ("v1", "v2") if number % 2 else ("v2", "v1")
        good = Commit(system, f"v{number % 3 + 1}", f"v{(number + 1) % 3 + 1}", 100 + number)
        boots = harbour.boots()
        harbour.apply(good)
        harbour.until_all_are(good)
        harbour.until_up_to_date()
        assert harbour.boots() == [before + 1 for before in boots], "one update is one reboot"
        updated_s = time.monotonic() - began

        harbour.apply(Commit(other, "broken", "v1", 200 + number))
        harbour.until_all_say("health check failed")
        harbour.until_all_are(good)

        boots = harbour.boots()
        harbour.apply(Commit("dead-agent", "v1", "v2", 300 + number))
        harbour.until_all_say("os:dead-agent")
        harbour.until_all_are(good)
        assert harbour.boots() == [before + REBOOTS_OF_A_DEAD_SYSTEM for before in boots]

        boots = harbour.boots()
        harbour.apply(Commit("cut-off", "v2", "v1", 400 + number))
        harbour.until_all_say("no longer reaches the service")
        harbour.until_all_are(good)
        assert harbour.boots() == [before + 2 for before in boots], "there, and back"
        print(
            f"round {number + 1}: updated {updated_s:.0f} s, all {time.monotonic() - began:.0f} s"
        )


def test_network_and_service_cut_after_the_download_do_not_stop_an_update(harbour: Harbour) -> None:
    """What is downloaded needs nobody; the service hears of it when it is there again."""
    settled = _settle(harbour)
    wanted = Commit("v2" if settled.system == "v1" else "v1", "v3", "v2", 500)
    stagings = {device.name: _stagings(device) for device in harbour.devices}
    connected = list(harbour.devices)

    def are_cut() -> bool:
        for device in list(connected):
            if _stagings(device) > stagings[device.name]:
                device.cut()
                connected.remove(device)
        return not connected

    harbour.apply(wanted)
    processes.until(are_cut, "they have downloaded", timeout_s=UPDATE_S, every_s=0.1)
    harbour.site.service.kill()
    # Each is connected again once it has been seen there: had it reached the service just before
    # the cut, and never again after, it would have to blame the update (law 9).
    waiting = list(harbour.devices)

    def are_there_offline() -> bool:
        for device in list(waiting):
            if wanted.is_on(device):
                if len(waiting) == len(NAMES):
                    harbour.site.service.start()
                device.mend()
                waiting.remove(device)
        return not waiting

    try:
        harbour.until(are_there_offline, "each is what it was told, offline", UPDATE_S)
    finally:
        for device in waiting:
            device.mend()
    harbour.until_up_to_date()
    assert all(wanted.is_on(device) for device in harbour.devices)


def test_what_is_done_by_hand_while_the_service_is_away_is_put_back(harbour: Harbour) -> None:
    """Each within a minute, and nobody is asked."""
    wanted = _settle(harbour)
    device, _ = harbour.devices
    other = "v2" if wanted.system == "v1" else "v1"
    device.podman("pull", "-q", osimages.reference(other), check=True)
    harbour.site.service.kill()
    device.cut()
    boots = device.boots
    try:
        _put_back(device, wanted, lambda: _remove_container(device))
        _put_back(device, wanted, lambda: _swap_image(device, wanted))
        _put_back(device, wanted, lambda: device.write(LAMP, "interval = never\n"))
        _put_back(device, wanted, lambda: _disable_quadlet(device))
        argv = ["switch", "--transport", "containers-storage", osimages.reference(other)]
        device.exec("bootc", *argv, check=True)
        assert _bootc(device)["staged"] is not None
        processes.until(
            lambda: _bootc(device)["staged"] is None,
            "the system that nobody asked for is not staged any more",
            timeout_s=60,
            state=device.journal,
        )
        # What would have been booted is not.
        assert not _bootc(device)["rollbackQueued"]
        assert device.boots == boots
        device.reboot()
        assert device.read("/usr/lib/os-version") == f"{wanted.system}\n", device.journal()
    finally:
        harbour.site.service.start()
        device.mend()
    harbour.until_all_are(wanted)
    harbour.until_up_to_date()


def test_the_example(harbour: Harbour) -> None:
    """`examples/os-image-update`, of which the failures are the rounds' above."""
    service, folder = harbour.site.service, CHECKOUT / "examples/os-image-update"
    service.kubectl("label", "--overwrite", "devices", "--all", "site-", "place=yard")
    for manifest, version in (("1-fleet.yaml", "v1"), ("2-new-system.yaml", "v2")):
        service.kubectl("apply", "-f", str(folder / manifest))

        def is_there(version: str = version) -> bool:
            return all(
                device.read("/usr/lib/os-version") == f"{version}\n"
                and device.read("/etc/kiosk/greeting") == f"Welcome to {version}.\n"
                and device.http(8080) == f"web {version}\n"
                for device in harbour.devices
            )

        harbour.until(is_there, f"they are kiosks of {version}", UPDATE_S)
        harbour.until_up_to_date()


def _settle(harbour: Harbour) -> Commit:
    """All devices on one good specification, whatever was before."""
    system = harbour.devices[0].read("/usr/lib/os-version").strip()
    commit = Commit(system if system in ("v1", "v2") else "v1", "v1", "v3", 600)
    harbour.apply(commit)
    harbour.until_all_are(commit)
    harbour.until_up_to_date()
    return commit


def _put_back(device: Device, wanted: Commit, tamper: Callable[[], object]) -> None:
    tamper()
    assert not wanted.is_on(device), "nobody would notice"
    processes.until(
        lambda: wanted.is_on(device),
        "it is put back",
        timeout_s=60,
        every_s=0.5,
        state=device.journal,
    )


def _remove_container(device: Device) -> None:
    container = device.podman("ps", "--quiet", "--filter", f"name={WEB}", check=True).out.split()
    device.podman("rm", "--force", "--time", "0", *container, check=True)


def _swap_image(device: Device, wanted: Commit) -> None:
    """Somebody puts another image under the tag, and restarts."""
    tag = f"localhost:5000/web:{wanted.web}"
    device.podman("tag", "localhost:5000/web:v3", tag, check=True)
    device.exec("systemctl", "restart", f"{WEB}.service", check=True)
    processes.until(
        lambda: device.http(lighthouses.PORT) == "web v3\n", "the wrong one", timeout_s=15
    )


def _disable_quadlet(device: Device) -> None:
    found = device.exec("sh", "-c", f"ls {HORN}/*.container", check=True).out.split()
    for path in found:
        device.exec("mv", path, f"{path}.off", check=True)
    device.exec("systemctl", "daemon-reload", check=True)
    argv = ["podman", "ps", "--quiet", "--filter", "name=horn"]
    device.podman("rm", "--force", "--time", "0", *device.exec(*argv).out.split(), check=True)


def _stagings(device: Device) -> int:
    """How often it has had everything on its disk, and went on."""
    return device.journal(20_000).count("agent.loop state Staging")


def _bootc(device: Device) -> Json:
    status: Json = json.loads(device.exec("bootc", "status", "--json", check=True).out)["status"]
    return status
