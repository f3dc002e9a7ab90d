"""[simulated] A podman of the mind: images, containers, health; the commands that the agent uses.

Time passes by the world's clock. A container of a crashing image is found restarted a little more
at each look, as podman's `--restart on-failure` does it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent import world

Json = dict[str, Any]


@dataclass(frozen=True)
class Image:
    """`health`: None = no health check, and a healthy one is so for `well_s` after each start.
    `exits`: None = runs on; else status, again and again."""

    health: bool | None = None
    well_s: float = math.inf
    exits: int | None = None
    refuses_to_start: str = ""


@dataclass
class Box:
    """One container."""

    id: str
    name: str
    image: str
    labels: dict[str, str]
    env: tuple[str, ...]
    argv: tuple[str, ...]
    status: str = "created"
    exit_code: int = 0
    started_at: float = 0.0
    health: str = ""
    health_output: str = ""
    restarts: int = 0


@dataclass
class SimPodman:
    clock: Callable[[], float]
    registry: dict[str, Image] = field(default_factory=dict)
    images: dict[str, Image] = field(default_factory=dict)
    boxes: dict[str, Box] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    create_fault: str = ""
    is_broken: bool = False
    is_absent: bool = False
    is_registry_down: bool = False
    pulls: int = 0
    made: int = 0

    MUTATING = ("pull", "create", "start", "stop", "rm", "restart")

    def is_effect(self, argv: Sequence[str]) -> bool:
        return argv[1] in self.MUTATING

    def run(self, argv: Sequence[str], stdin: bytes = b"") -> world.Completed:
        if self.is_absent:
            return self._answer(argv, world.NOT_STARTED, "", "No such file or directory")
        if self.is_broken:
            return self._answer(argv, 125, "", "Error: database is locked")
        self._age()
        match argv[1]:
            case "--version":
                return self._answer(argv, 0, "podman version 5.4.2")
            case "ps" if "--quiet" in argv:
                key, _, value = argv[-1].removeprefix("label=").partition("=")
                found = [b.id for b in self.boxes.values() if b.labels.get(key) == value]
                return self._answer(argv, 0, "".join(f"{i}\n" for i in found))
            case "pod" | "network" | "volume":
                return self._answer(argv, 0)
            case "info":
                return self._answer(argv, 0, "/var/lib/containers/storage\n")
            case "ps":
                return self._answer(argv, 0, json.dumps([_listed(b) for b in self.boxes.values()]))
            case "container":
                return self._inspect(argv, argv[3:])
            case "image":
                is_here = argv[-1] in self.images
                known = f"id of {argv[-1]}\n" if is_here and argv[2] == "inspect" else ""
                return self._answer(argv, 0 if is_here else 1, known)
            case "tag":
                return self._answer(argv, 125, "", f"Error: {argv[2]}: image not known")
            case "artifact":
                return self._answer(argv, 1, "", "Error: no such artifact")
            case "compose":
                return self._answer(argv, 125, "", "Error: unrecognized command `podman compose`")
            case "pull":
                return self._pull(argv)
            case "create":
                return self._create(argv, stdin)
            case "start" | "stop" | "rm" | "restart":
                return self._change(argv)
            case "healthcheck":
                return self._check(argv)
            case "logs":
                return self._answer(argv, 0, "last words of the workload\n")
        raise AssertionError(f"podman does not know {argv!r}")

    def half(self, argv: Sequence[str], stdin: bytes, chance: float) -> None:
        """The agent dies while the command runs: undone, half done, or done behind its back."""
        if chance < 0.4:
            return
        box = self.boxes.get(argv[-1])
        if chance < 0.7 and box is not None and argv[1] in ("rm", "restart"):
            self._stop(box)
        elif argv[1] != "pull" or chance >= 0.7:
            self.run(argv, stdin)

    def power_cut(self) -> None:
        for box in self.boxes.values():
            if box.status == "running":
                # Nothing is left to tell an exit code: podman shows a zero.
                box.status, box.exit_code, box.health = "exited", 0, ""

    def _age(self) -> None:
        for box in self.boxes.values():
            image = self.images.get(box.image, Image())
            if box.status == "running" and image.exits is not None:
                if image.exits == 0:
                    box.status, box.exit_code = "exited", 0
                else:
                    box.restarts += 1
                    box.started_at = self.clock()

    def _pull(self, argv: Sequence[str]) -> world.Completed:
        self.pulls += 1
        if self.is_registry_down:
            return self._answer(argv, 125, "", "Error: dial tcp: connection refused")
        if self.faults:
            return self._answer(argv, 125, "", self.faults.pop(0))
        image = self.registry.get(argv[-1])
        if image is None:
            words = "Error: initializing source: reading manifest: manifest unknown"
            return self._answer(argv, 125, "", words)
        self.images[argv[-1]] = image
        return self._answer(argv, 0, "sha256:0\n")

    def _create(self, argv: Sequence[str], stdin: bytes) -> world.Completed:
        name = argv[argv.index("--name") + 1]
        if self.create_fault:
            return self._answer(argv, 125, "", self.create_fault)
        if argv[-1] not in self.images:
            return self._answer(argv, 125, "", f"Error: {argv[-1]}: image not known")
        if any(box.name == name for box in self.boxes.values()):
            return self._answer(argv, 125, "", f'Error: the name "{name}" is already in use')
        pairs = [argv[i + 1] for i, word in enumerate(argv) if word == "--label"]
        labels = dict(pair.split("=", 1) for pair in pairs)
        self.made += 1
        box = Box(
            id=f"{self.made:064x}",
            name=name,
            image=argv[-1],
            labels=labels,
            env=tuple(stdin.decode().splitlines()),
            argv=tuple(argv),
        )
        self.boxes[box.id] = box
        return self._answer(argv, 0, f"{box.id}\n")

    def _change(self, argv: Sequence[str]) -> world.Completed:
        box = self.boxes.get(argv[-1])
        if box is None:
            status = 0 if "--ignore" in argv else 125
            return self._answer(argv, status, "", "" if status == 0 else "Error: no such container")
        if argv[1] in ("stop", "rm", "restart"):
            self._stop(box)
        if argv[1] == "rm":
            del self.boxes[box.id]
        if argv[1] in ("start", "restart"):
            image = self.images.get(box.image, Image())
            if image.refuses_to_start:
                return self._answer(argv, 125, "", image.refuses_to_start)
            box.status, box.started_at = "running", self.clock()
            box.health = "" if image.health is None else "starting"
        return self._answer(argv, 0, box.name)

    def _stop(self, box: Box) -> None:
        if box.status == "running":
            box.status, box.exit_code, box.health = "exited", 137, ""

    def _check(self, argv: Sequence[str]) -> world.Completed:
        box = self.boxes.get(argv[-1])
        image = self.images.get(box.image) if box else None
        if box is None or image is None or box.status != "running":
            return self._answer(argv, 125, "", "Error: not running")
        is_well = image.health and self.clock() - box.started_at < image.well_s
        box.health = "healthy" if is_well else "unhealthy"
        box.health_output = "" if is_well else "the database does not answer"
        return self._answer(argv, 0 if is_well else 1, "" if is_well else "unhealthy\n")

    def _inspect(self, argv: Sequence[str], ids: Sequence[str]) -> world.Completed:
        found = [self._document(self.boxes[i]) for i in ids if i in self.boxes]
        gone = [i for i in ids if i not in self.boxes]
        words = f"Error: no such container {gone[0]}" if gone else ""
        return self._answer(argv, 125 if gone else 0, json.dumps(found), words)

    def _document(self, box: Box) -> Json:
        image = self.images.get(box.image, Image())
        config: Json = {"Labels": box.labels}
        state: Json = {
            "Status": box.status,
            "ExitCode": box.exit_code,
            "StartedAt": str(box.started_at),
        }
        if image.health is not None:
            config["Healthcheck"] = {"Test": ["CMD-SHELL", "check"]}
            state["Health"] = {"Status": box.health, "Log": [{"Output": box.health_output}]}
        return {
            "Id": box.id,
            "Name": box.name,
            "RestartCount": box.restarts,
            "Config": config,
            "State": state,
        }

    def _answer(
        self, argv: Sequence[str], status: int, stdout: str = "", stderr: str = ""
    ) -> world.Completed:
        return world.Completed(tuple(argv), status, stdout, stderr)

    def copy(self, clock: Callable[[], float]) -> SimPodman:
        twin = replace(self, clock=clock)
        twin.images, twin.registry = dict(self.images), dict(self.registry)
        twin.boxes = {k: replace(b) for k, b in self.boxes.items()}
        twin.faults = list(self.faults)
        return twin


def _listed(box: Box) -> Json:
    return {
        "Id": box.id,
        "Names": [box.name],
        "Labels": box.labels,
        "State": box.status,
        "StartedAt": box.started_at,
        "ExitCode": box.exit_code,
        "Restarts": box.restarts,
        "Status": f"Up ({box.health})" if box.health else box.status,
    }
