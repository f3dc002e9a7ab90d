"""[simulated] A systemd of the mind, with podman's generator, and a Compose program.

Units are what lay on the disk when systemd was told to look, or when the machine was booted. A
service is one container of the simulated podman, made anew at each start as quadlets do it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from agent import systemd, world
from resources import unitfile
from tests.fakes.sim_podman import Box, Image, SimPodman

QUADLETS = "/etc/containers/systemd/"
TARGETS = "/etc/systemd/system/"
PROJECT = "io.flightctl.quadlet.project"


@dataclass
class Service:
    image: str
    labels: dict[str, str]
    is_wanted_at_boot: bool
    is_started: bool = False
    has_run: bool = False
    restarts: int = 0


@dataclass
class SimSystemd:
    """Root's, or with other folders that of a user."""

    podman: SimPodman
    services: dict[str, Service] = field(default_factory=dict)
    # Target -> services that it wants; those that are up.
    targets: dict[str, list[str]] = field(default_factory=dict)
    up: set[str] = field(default_factory=set)
    quadlets: str = QUADLETS
    targets_folder: str = TARGETS

    MUTATING = ("start", "stop", "restart", "daemon-reload")

    def run(self, argv: Sequence[str], files: Mapping[str, bytes]) -> world.Completed:
        names = [name for name in argv[2:] if not name.startswith("-")]
        match argv[1]:
            case "daemon-reload":
                self.reload(files)
            case "start" | "restart" | "stop":
                if argv[1] == "start" and (missing := [n for n in names if not self._knows(n)]):
                    words = f"Failed to start {missing[0]}: Unit {missing[0]} not found."
                    return world.Completed(tuple(argv), 5, "", words)
                if argv[1] != "start":
                    self._stop(names)
                if argv[1] != "stop":
                    self._start(names)
            case "show":
                blocks = [self._shown(name) for name in names]
                return world.Completed(tuple(argv), 0, "\n".join(blocks), "")
        return world.Completed(tuple(argv), 0, "", "")

    def reload(self, files: Mapping[str, bytes]) -> None:
        known = self.services
        self.services, self.targets = {}, {}
        for path, data in files.items():
            name = posixpath.basename(path)
            if path.startswith(self.quadlets) and name.endswith(".container"):
                service = name.replace(".container", ".service")
                self.services[service] = self._generated(path, data, files, known.get(service))
            elif posixpath.dirname(path) == self.targets_folder.rstrip("/") and name.endswith(
                ".target"
            ):
                wants = unitfile.parse(data.decode())["Unit"]
                self.targets[name] = [value for key, value in wants if key == "Wants"]
        # What is gone from the disk goes on running until it is stopped.
        self.services.update({n: s for n, s in known.items() if s.is_started} | self.services)

    def _generated(
        self, path: str, data: bytes, files: Mapping[str, bytes], before: Service | None
    ) -> Service:
        sections = unitfile.parse(data.decode())
        labels = {"PODMAN_SYSTEMD_UNIT": posixpath.basename(path).replace(".container", ".service")}
        for other, content in files.items():
            is_drop_in = "container.d/" in other and other.endswith(".conf")
            if is_drop_in and other.startswith(posixpath.dirname(path)):
                for key, value in unitfile.parse(content.decode()).get("Container", ()):
                    if key == "Label":
                        labels.update([value.split("=", 1)])
        made = Service(dict(sections["Container"])["Image"], labels, "Install" in sections)
        if before is None:
            return made
        return replace(before, image=made.image, labels=labels)

    def boot(self, files: Mapping[str, bytes]) -> None:
        for box in [b for b in self.podman.boxes.values() if "PODMAN_SYSTEMD_UNIT" in b.labels]:
            del self.podman.boxes[box.id]
        self.services, self.up = {}, set()
        self.reload(files)
        self._start([n for n, s in self.services.items() if s.is_wanted_at_boot])

    def copy(self, podman: SimPodman) -> SimSystemd:
        services = {name: replace(service) for name, service in self.services.items()}
        return replace(
            self, podman=podman, services=services, targets=dict(self.targets), up=set(self.up)
        )

    def _knows(self, name: str) -> bool:
        return name in self.services or name in self.targets

    def _start(self, names: Sequence[str]) -> None:
        for name in names:
            if name in self.targets:
                self.up.add(name)
                self._start([n for n in self.targets[name] if n in self.services])
            elif not self._box(name):
                service = self.services[name]
                service.is_started = service.has_run = True
                box_name = f"systemd-{name.removesuffix('.service')}"
                made = run_box(self.podman, box_name, service.image, service.labels)
                if made is None:
                    service.is_started = False

    def _stop(self, names: Sequence[str]) -> None:
        for name in names:
            self.up.discard(name)
            if name in self.targets:
                self._stop(self.targets[name])
            if box := self._box(name):
                del self.podman.boxes[box.id]
            if name in self.services:
                self.services[name].is_started = False

    def _box(self, name: str) -> Box | None:
        boxes = self.podman.boxes.values()
        return next((b for b in boxes if b.labels.get("PODMAN_SYSTEMD_UNIT") == name), None)

    def _shown(self, name: str) -> str:
        service, box = self.services.get(name), self._box(name)
        state = ["inactive", "dead", "success", "0"]
        if name in self.up:
            state = ["active", "active", "success", "0"]
        elif service is not None and service.is_started and box is None:
            state = ["failed", "failed", "exit-code", "137"]
        elif service is not None and service.is_started and box is not None:
            exits = self.podman.images.get(box.image, Image()).exits
            state = ["active", "running", "success", "0"]
            if exits is not None:
                service.restarts += 1
                state = ["activating", "auto-restart", "exit-code", str(exits)]
        load = "loaded" if self._knows(name) else "not-found"
        values = [name, load, *state]
        values.append("7" if service is not None and service.has_run else "0")
        values.append(str(service.restarts if service else 0))
        # Processes are not simulated, so nobody can watch them.
        values.append("0")
        pairs = zip(systemd.PROPERTIES, values, strict=True)
        return "".join(f"{key}={value}\n" for key, value in pairs)


def run_box(podman: SimPodman, name: str, image: str, labels: dict[str, str]) -> Box | None:
    """`podman run --replace`; None = there is no such image."""
    for old in [b for b in podman.boxes.values() if b.name == name]:
        del podman.boxes[old.id]
    if image not in podman.images:
        return None
    podman.made += 1
    box = Box(f"{podman.made:064x}", name, image, dict(labels), (), ())
    box.status, box.started_at = "running", podman.clock()
    box.health = "" if podman.images[image].health is None else "starting"
    podman.boxes[box.id] = box
    return box


def compose_up(
    podman: SimPodman, argv: Sequence[str], files: Mapping[str, bytes], *, at_most: int = 99
) -> world.Completed:
    """`up -d --no-recreate`; `at_most`: it dies after so many services."""
    project = argv[argv.index("-p") + 1]
    services: dict[str, dict[str, Any]] = {}
    for name in [argv[i + 1] for i, word in enumerate(argv) if word == "-f"]:
        if name not in files:
            return world.Completed(tuple(argv), 1, "", f"missing file {name}")
        services.update(yaml.safe_load(files[name]).get("services") or {})
    for service in sorted(services)[:at_most]:
        name = f"{project}_{service}_1"
        there = next((b for b in podman.boxes.values() if b.name == name), None)
        if there is None:
            labels = {
                "com.docker.compose.project": project,
                "com.docker.compose.service": service,
            }
            run_box(podman, name, services[service]["image"], labels)
        elif there.status != "running":
            there.status, there.started_at = "running", podman.clock()
    return world.Completed(tuple(argv), 0, "", "")
