"""[simulated] An image-based system of the mind: slots, `/etc` for each, a boot loader, bootc.

Written from what is known of bootc (its commands, their words and exit statuses, `status --json` of
two versions), not from what the agent would like to hear. What rests on it has never seen a bootc.

A staged system becomes bootable while the machine shuts down in order; a power cut loses it. The
boot loader tries what is first in its order three times, each a boot of its own, then the next.
With greenboot a new system has as many boots until one is called good; one that is called bad
reboots of its own accord, and when they are used up the boot loader goes back.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent import world

Json = dict[str, Any]

TRIES = 3
STORAGE, REGISTRY = "containers-storage", "registry"


@dataclass(frozen=True)
class OsImage:
    """`comes_up` False: it does not boot, or the agent does not start in it; from outside one.
    `red_s`: so long after each boot greenboot finds it bad and reboots; None = it leaves it so."""

    digest: str
    comes_up: bool = True
    is_called_good: bool = True
    red_s: float | None = None
    etc: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Deployment:
    image: str
    transport: str
    digest: str
    serial: int
    etc: tuple[tuple[str, Any], ...] = ()


@dataclass
class SimBootc:
    contents: dict[str, OsImage]
    booted: Deployment
    order: list[Deployment] = field(default_factory=list)
    staged: Deployment | None = None
    registry: dict[str, str] = field(default_factory=dict)
    storage: dict[str, str] = field(default_factory=dict)
    is_old_version: bool = False
    is_registry_down: bool = False
    # The device has no network at all.
    is_cut_off: bool = False
    has_greenboot: bool = False
    has_ostree: bool = True
    reorders_on_fallback: bool = False
    made: int = 0
    switches: int = 0
    rollbacks: int = 0
    pulls: int = 0
    complaints: list[str] = field(default_factory=list)
    # Names for which the registry hands out something else than it says.
    corrupt: frozenset[str] = frozenset()
    # greenboot's counter: the deployment that is on probation, and the boots that it has left.
    probation: tuple[int, int] | None = None

    MUTATING = ("switch", "rollback", "pull", "admin")

    @classmethod
    def installed(cls, image: str, contents: Sequence[OsImage]) -> SimBootc:
        """A device fresh from its installation: one system, nothing to go back to."""
        first = contents[0]
        deployment = Deployment(image, REGISTRY, first.digest, 0)
        return cls({one.digest: one for one in contents}, deployment, [deployment])

    def copy(self) -> SimBootc:
        return replace(
            self,
            order=list(self.order),
            storage=dict(self.storage),
            registry=dict(self.registry),
            complaints=list(self.complaints),
        )

    # The machine. ---------------------------------------------------------------------------------

    def next_boot(self) -> str:
        return (self.staged or self.order[0]).digest

    def boot(self, etc: dict[str, Any], *, is_clean: bool) -> tuple[dict[str, Any], int]:
        """(`/etc` of what is booted now, how many boots it took); `etc` is the one of before."""
        left = replace(self.booted, etc=tuple(etc.items()))
        self.order = [left if one.serial == left.serial else one for one in self.order]
        if self.staged is not None and is_clean:
            fresh = replace(self.staged, etc=self._merged(left, self.staged))
            self.order = [fresh, left]
            self.probation = (fresh.serial, TRIES) if self.has_greenboot else None
        self.staged = None
        boots = 0
        for one in self.order:
            if self._is_given_up(one):
                continue
            if self.contents[one.digest].comes_up:
                boots += 1
                self.booted = one
                break
            boots += TRIES
        else:
            raise AssertionError("no system comes up")
        is_over = self.probation is not None and self.probation[0] != self.booted.serial
        if is_over or (boots > 1 and self.reorders_on_fallback):
            # greenboot makes the way back lasting, whatever the boot loader does.
            self.probation = None
            self.order = [self.booted, *(one for one in self.order if one != self.booted)]
        return dict(self.booted.etc), boots

    def _is_given_up(self, one: Deployment) -> bool:
        """Counts down, where it is on probation."""
        if self.probation is None or self.probation[0] != one.serial:
            return False
        left = self.probation[1]
        self.probation = (one.serial, left - 1)
        return left == 0

    def red_after_s(self) -> float | None:
        """How long after the boot greenboot reboots, if it does."""
        is_on_probation = self.probation is not None and self.probation[0] == self.booted.serial
        return self.contents[self.booted.digest].red_s if is_on_probation else None

    def _merged(self, left: Deployment, fresh: Deployment) -> tuple[tuple[str, Any], ...]:
        """Three ways: what was changed by hand or by us is carried, the rest is the new image's."""
        was, now = dict(self.contents[left.digest].etc), dict(left.etc)
        merged = dict(self.contents[fresh.digest].etc)
        for path in was.keys() | now.keys():
            if was.get(path) == now.get(path):
                continue
            if path in now:
                merged[path] = now[path]
            else:
                merged.pop(path, None)
        return tuple(merged.items())

    def rollback(self) -> Deployment | None:
        return next((one for one in self.order if one.serial != self.booted.serial), None)

    def is_queued(self) -> bool:
        return self.order[0].serial != self.booted.serial

    # Commands. ------------------------------------------------------------------------------------

    def knows(self, argv: Sequence[str]) -> bool:
        if argv[0] == "podman" and argv[1] in ("pull", "image"):
            return argv[-1] in {*self.registry, *self.storage} or "@" in argv[-1]
        return argv[0] in ("bootc", "ostree", "rpm-ostree", "skopeo", "systemctl")

    def is_effect(self, argv: Sequence[str]) -> bool:
        return argv[1] in self.MUTATING

    def half(self, argv: Sequence[str], chance: float) -> None:
        """The agent dies while the command runs: undone, or done behind its back."""
        if chance >= 0.4:
            self.run(argv)

    def run(self, argv: Sequence[str]) -> world.Completed:
        match argv[0], argv[1]:
            case "rpm-ostree", _:
                return answer(argv, world.NOT_STARTED, "", "No such file or directory")
            case "ostree", _:
                return self._undeploy(argv)
            case "skopeo", _:
                return self._look_up(argv)
            case "systemctl", "is-enabled":
                return answer(argv, 0, "enabled\n" if self.has_greenboot else "")
            case "systemctl", _:
                good = self.contents[self.booted.digest].is_called_good
                self.probation = None if good else self.probation
                return answer(argv, 0 if good else 3, "active\n" if good else "inactive\n")
            case "podman", "pull":
                return self._pull(argv)
            case "podman", _:
                return self._image(argv)
            case "bootc", "--version":
                return answer(argv, 0, "bootc 1.16.0\n")
            case "bootc", "status":
                return answer(argv, 0, json.dumps(self.status()))
        if self.complaints:
            return answer(argv, 1, "", self.complaints.pop(0))
        return self._switch(argv) if argv[1] == "switch" else self._roll_back(argv)

    def _digest_of(self, name: str, where: dict[str, str]) -> str:
        digest = name.partition("@")[2]
        if digest:
            return digest if digest in where.values() else ""
        return where.get(name, "")

    def _look_up(self, argv: Sequence[str]) -> world.Completed:
        digest = self._digest_of(argv[-1].removeprefix("docker://"), self.registry)
        if self.is_registry_down or self.is_cut_off or not digest:
            return answer(argv, 1, "", "FATA[0000] Error: dial tcp: connection refused")
        return answer(argv, 0, f"{digest}\n")

    def _pull(self, argv: Sequence[str]) -> world.Completed:
        self.pulls += 1
        if self.is_registry_down or self.is_cut_off:
            return answer(argv, 125, "", "Error: dial tcp: connection refused")
        digest = self._digest_of(argv[-1], self.registry)
        if not digest:
            return answer(argv, 125, "", "Error: reading manifest: manifest unknown")
        if argv[-1] in self.corrupt:
            wanted = argv[-1].partition("@")[2]
            words = f"Error: manifest does not match provided manifest digest {wanted}"
            return answer(argv, 125, "", words)
        self.storage[argv[-1]] = digest
        return answer(argv, 0, "sha256:0\n")

    def _image(self, argv: Sequence[str]) -> world.Completed:
        digest = self._digest_of(argv[-1], self.storage)
        if not digest:
            return answer(argv, 1 if argv[2] == "exists" else 125, "", "image not known")
        name = argv[-1].partition("@")[0].rpartition(":")[0]
        return answer(
            argv, 0, json.dumps([{"Digest": digest, "RepoDigests": [f"{name}@{digest}"]}])
        )

    def _switch(self, argv: Sequence[str]) -> world.Completed:
        assert list(argv[2:5]) == ["--transport", STORAGE, "--retain"], argv
        self.switches += 1
        now = self.staged or self.booted
        if (now.image, now.transport) == (argv[-1], STORAGE):
            return answer(argv, 0, "Image specification is unchanged.\n")
        digest = self._digest_of(argv[-1], self.storage)
        if not digest:
            return answer(argv, 1, "", f"error: Switching: {argv[-1]}: image not known")
        self.made += 1
        self.staged = Deployment(argv[-1], STORAGE, digest, self.made)
        return answer(argv, 0, f"Queued for next boot: {argv[-1]}\n")

    def _undeploy(self, argv: Sequence[str]) -> world.Completed:
        assert list(argv[1:]) == ["admin", "undeploy", "0"], argv
        if not self.has_ostree:
            return answer(argv, world.NOT_STARTED, "", "No such file or directory")
        assert self.staged is not None, "number 0 is something else then"
        self.staged = None
        return answer(argv, 0, "Deleted deployment\n")

    def _roll_back(self, argv: Sequence[str]) -> world.Completed:
        self.rollbacks += 1
        other = self.rollback()
        if other is None:
            return answer(argv, 1, "", "error: Rolling back: No rollback available")
        self.staged = None
        if self.is_queued():
            self.order = [self.booted, other]
            return answer(argv, 0, "Next boot: current deployment\n")
        self.order = [other, self.booted]
        return answer(argv, 0, "Next boot: rollback deployment\n")

    def status(self) -> Json:
        target = self.staged or self.booted
        status: Json = {
            "staged": self._slot(self.staged),
            "booted": self._slot(self.booted),
            "rollback": self._slot(self.rollback()),
            "rollbackQueued": self.is_queued() and self.staged is None,
            "type": "bootcHost",
        }
        if not self.is_old_version:
            status |= {"usrOverlay": None, "readOnly": False}
        image = {"image": target.image, "transport": target.transport}
        order = "rollback" if status["rollbackQueued"] else "default"
        return {
            "apiVersion": f"org.containers.bootc/{'v1alpha1' if self.is_old_version else 'v1'}",
            "kind": "BootcHost",
            "metadata": {"name": "host"},
            "spec": {"image": image, "bootOrder": order},
            "status": status,
        }

    def _slot(self, one: Deployment | None) -> Json | None:
        if one is None:
            return None
        slot: Json = {
            "image": {
                "image": {"image": one.image, "transport": one.transport},
                "version": "nightly",
                "timestamp": "2023-10-14T19:22:15Z",
                "imageDigest": one.digest,
                "architecture": "amd64",
            },
            "cachedUpdate": None,
            "incompatible": False,
            "pinned": False,
            "store": "ostreeContainer",
            "ostree": {
                "checksum": one.digest.removeprefix("sha256:"),
                "deploySerial": one.serial,
            },
        }
        if not self.is_old_version:
            slot |= {"softRebootCapable": False, "downloadOnly": False, "composefs": None}
        return slot


def answer(argv: Sequence[str], status: int, stdout: str = "", stderr: str = "") -> world.Completed:
    return world.Completed(tuple(argv), status, stdout, stderr)
