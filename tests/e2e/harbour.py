"""Devices that boot from operating system images, and the service that they belong to.

Real: the service, the agents (parts of the images that boot), systemd and its reboots, podman, the
registry, ostree's deployments. [simulated]: bootc, greenboot and the boot loader.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.e2e import lighthouses, osimages, processes
from tests.e2e.devices import Device
from tests.e2e.lighthouses import LAMP, Commit
from tests.e2e.site import Site
from tests.e2e.yard import condition

Json = dict[str, Any]

NAMES = ("left", "right")
# A third of what it is by default, for a system that is cut off waits it out in each round.
GRACE = {"service-reach-grace-after-boot": "60s"}
UPDATE_S = 150


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


@contextmanager
def opened(directory: Path) -> Iterator[Harbour]:
    print("[simulated] bootc, greenboot and the boot loader are stand-ins")
    with Site(directory, system="v1", settings=GRACE) as site:
        harbour = Harbour(site)
        harbour.open()
        yield harbour
