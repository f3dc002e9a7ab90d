"""A service, a registry with images, and devices that know both: for the demo and the tests."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from tests.e2e import devices, disks, images, osimages, rootfs, standins
from tests.e2e.registry import Registry
from tests.e2e.service import Service
from tests.fakes import git_server

# An agent that does not wait for minutes; the keys are those of any agent's configuration.
IMPATIENT = {
    "status-update-interval": "5s",
    "status-update-jitter": "0s",
    "spec-fetch-error-base-delay": "2s",
    "spec-fetch-error-max-delay": "3s",
    "enrollment-verify-interval": "2s",
    "enrollment-verify-cap": "2s",
    "repair-interval": "5s",
    "application-start-grace": "12s",
    "service-reach-grace-after-boot": "40s",
}
CONFIG = "/etc/flightctl/config.yaml"
WEB_VERSIONS = ("v1", "v2", "v3")
# `web:late` is well for so long after each start, and then never again.
ILL_AFTER_S = 30

Device = devices.Device | standins.StandIn


class Site:
    """Everything of one run, in one folder, gone at its end. Use it as a context.

    With `system` devices boot from deployments of an operating system image of that version, which
    the agent is part of, instead of a root with the checkout's agent in it, and `packages` of
    Debian's beside the usual ones. `settings` go into the agents' configuration; `ports` are more
    of the devices' that lead to ports of the host's.
    """

    def __init__(
        self,
        folder: Path | None = None,
        *,
        system: str = "",
        settings: Mapping[str, str] | None = None,
        ports: Mapping[int, int] | None = None,
        packages: rootfs.Packages = (),
    ) -> None:
        self.why_simulated = devices.cannot_boot()
        self.folder = folder or Path(tempfile.mkdtemp(prefix="homeport-"))
        self.registry = Registry(self.folder / "registry")
        self.service = Service(self.folder / "service")
        self.devices: list[Device] = []
        self._system = system
        self._ports = dict(ports or {})
        self._packages = packages
        self._settings = IMPATIENT | dict(settings or {})
        self._ends = ExitStack()

    def __enter__(self) -> Site:
        self._ends.callback(shutil.rmtree, self.folder, ignore_errors=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._ends.close()

    def start_registry(self) -> None:
        self._ends.enter_context(self.registry)
        for version in WEB_VERSIONS:
            self.registry.push("web", version, images.web(version))
        self.registry.push("web", "broken", images.web("broken", healthy=False))
        self.registry.push("web", "late", images.web("late", ill_after_s=ILL_AFTER_S))

    def start_git(self) -> git_server.GitServer:
        return self._ends.enter_context(git_server.running(self.folder / "git"))

    def start_service(self) -> str:
        self._ends.callback(self.service.stop)
        return self.service.start()

    def add_devices(self, *names: str) -> None:
        """Switch devices on, all at once, with the service's enrolment configuration in them."""
        devices.sweep()
        added: list[Device] = [self._make(name) for name in names]
        for device in added:
            self._ends.callback(device.destroy)
            self._configure(device)
            device.start()
        for device in added:
            device.wait_up()
        self.devices += added

    def set(self, settings: Mapping[str, str]) -> None:
        """Change the agents' configuration, which they read when they start."""
        self._settings |= settings
        for device in self.devices:
            self._configure(device)
            device.start_agent()

    def adapt(self, manifest: str) -> str:
        """A manifest for these devices: stand-ins share the host's network, so they find the
        registry at its own port and publish none."""
        if not self.why_simulated:
            return manifest
        text = manifest.replace(f"localhost:{rootfs.REGISTRY_PORT}", self.registry.host)
        return text.replace('          ports:\n            - "8080:80"\n', "")

    def _configure(self, device: Device) -> None:
        settings = "".join(f"{key}: {value}\n" for key, value in self._settings.items())
        device.write(CONFIG, f"{self.service.agent_config()}\n{settings}", 0o600)

    def _make(self, name: str) -> Device:
        folder = self.folder / name
        if self.why_simulated:
            return standins.StandIn(name, folder, self.registry.host)
        ports = {
            rootfs.REGISTRY_PORT: self.registry.port,
            self.service.agent_port: self.service.agent_port,
            **self._ports,
        }
        return devices.Device(name, self._disk(), folder, ports)

    def _disk(self) -> disks.Disk:
        if not self._system:
            return disks.Layered(rootfs.make(self._packages))
        original = self.folder / "original"
        if not original.exists():
            layer = osimages.system(self._system)
            digest = osimages.push(self.registry, self._system, layer)
            reference = osimages.reference(self._system)
            osimages.install(original, layer, reference, digest, self._system)
        return disks.Installed(original)
