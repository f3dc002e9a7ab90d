"""One device and the service that tells it what to be: for tests that change a device many times.

`declare` does what a person would: it changes the fleet, and waits for what the device reports.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.e2e import devices, processes, rootfs
from tests.e2e.site import Site

Json = dict[str, Any]

FLEET = "yard"
LABEL = "place=yard"


class Yard:
    """Use it as a context; the device is enrolled and has an empty specification then. What is
    waited for in vain is told with `how_it_is`, and with what `tells_too` knows beside."""

    def __init__(
        self,
        folder: Path,
        name: str = "crane",
        *,
        system: str = "",
        ports: Mapping[int, int] | None = None,
        packages: rootfs.Packages = (),
        tells_too: Callable[[Yard], str] | None = None,
    ) -> None:
        self.site = Site(folder, system=system, ports=ports, packages=packages)
        self._name = name
        self._tells_too = tells_too
        self.uid = ""

    def __enter__(self) -> Yard:
        self.site.__enter__()
        try:
            self._open()
        except BaseException:
            self.site.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *problem: object) -> None:
        self.site.__exit__(None, None, None)

    @property
    def device(self) -> devices.Device:
        (device,) = self.site.devices
        assert isinstance(device, devices.Device)
        return device

    def _open(self) -> None:
        self.site.start_registry()
        self.site.start_service()
        self.site.add_devices(self._name)
        service = self.site.service
        (request,) = processes.until(
            lambda: service.get("enrollmentrequests")["items"],
            "the device asks to be let in",
            timeout_s=30,
            state=self.device.journal,
        )
        self.uid = request["metadata"]["name"]
        service.homeport("approve", self.uid, "--label", LABEL)
        processes.until(lambda: service.get("devices")["items"], "there is a device", timeout_s=30)

    # What the service says, and knows. ------------------------------------------------------------

    def declare(self, timeout_s: float = 60, **spec: Any) -> Json:
        """The device as it reports itself once it is done, one way or the other."""
        before = self._version()
        self.order(**spec)
        processes.until(lambda: self._version() > before, "a new version is rendered", timeout_s=20)
        return self.settled(timeout_s)

    def order(self, **spec: Any) -> None:
        """Change what the device should be, and do not wait."""
        fleet = {
            "apiVersion": "flightctl.io/v1beta1",
            "kind": "Fleet",
            "metadata": {"name": FLEET},
            "spec": {
                "selector": {"matchLabels": dict([LABEL.split("=")])},
                "template": {"metadata": {"labels": {"fleet": FLEET}}, "spec": spec},
            },
        }
        self.site.service.kubectl("apply", "-f", "-", stdin=json.dumps(fleet))

    def settled(self, timeout_s: float = 60) -> Json:
        """Its status when it has made true what it was told, or has refused it."""

        def is_over() -> Json | None:
            status = self.status()
            updating = condition(status)
            version = str(self._version())
            is_new = status["config"]["renderedVersion"] == version
            if updating.get("reason") == "Updated" and is_new:
                return status
            is_refused = f"renderedVersion: {version})" in updating.get("message", "")
            return status if updating.get("reason") == "Error" and is_refused else None

        return processes.until(
            is_over, "the device is done", timeout_s=timeout_s, state=self.how_it_is
        )

    def until_healthy(self, timeout_s: float = 60) -> Json:
        def is_healthy() -> Json | None:
            status = self.status()
            return status if status["applicationsSummary"]["status"] == "Healthy" else None

        return processes.until(
            is_healthy, "its applications are healthy", timeout_s=timeout_s, state=self.how_it_is
        )

    def serves(self, port: int, text: str, path: str = "/", timeout_s: float = 60) -> None:
        """Waits until the device does."""
        processes.until(
            lambda: self.device.http(port, path) == text,
            f"port {port} serves {text!r} at {path}",
            timeout_s=timeout_s,
            state=lambda: f"{self.device.http(port, path)!r}\n{self.how_it_is()}",
        )

    def status(self) -> Json:
        (device,) = self.site.service.get("devices")["items"]
        found: Json = device["status"]
        return found

    def how_it_is(self) -> str:
        lines = [line for line in self.device.journal(400).splitlines() if "conmon" not in line]
        status = self.status()
        parts = [json.dumps(status["conditions"]), json.dumps(status["applications"])]
        parts += [self.device.podman("ps", "--all").out, *lines[-40:]]
        if self._tells_too is not None:
            parts.append(self._tells_too(self))
        return "\n".join(parts)

    def _version(self) -> int:
        (device,) = self.site.service.get("devices")["items"]
        found = device["metadata"]["annotations"].get("device-controller/renderedVersion")
        return int(found or 0)


def condition(status: Json, kind: str = "Updating") -> Json:
    return next((c for c in status["conditions"] if c["type"] == kind), {})


def updated(status: Json) -> Json:
    """The same, of a device that has made true what it was told."""
    assert condition(status)["reason"] == "Updated", condition(status)
    return status


def application(status: Json, name: str) -> Json:
    return next((a for a in status["applications"] if a["name"] == name), {})
