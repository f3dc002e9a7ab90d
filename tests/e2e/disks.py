"""What a device boots from: a layer over a read-only root, or a disk with deployments.

A disk answers what to boot now, each time anew; the device around it (`tests.e2e.devices`) does not
know the difference.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.e2e import bootloader, osimages
from tests.e2e.checkout import CHECKOUT

UNIT = "flightctl-agent.service"
STATEROOT = "ostree/deploy/default"


@dataclass(frozen=True, slots=True)
class Boot:
    """One boot: what the shell does before it, in the device's folder, and nspawn's arguments."""

    arguments: tuple[str, ...]
    prepare: str = ""


class Disk(Protocol):
    def lay_out(self, folder: Path) -> None:
        """Take possession of the device's folder."""

    def next_boot(self) -> Boot: ...

    def path(self, inside: str) -> Path:
        """Where a file of the device is while it is switched off."""

    def remove(self) -> None: ...


class Layered:
    """A root that many devices share, a layer of its own over it, and the agent of the checkout;
    or without any agent, for who brings one."""

    def __init__(self, root: Path, *, has_agent: bool = True) -> None:
        self._root = root
        self._has_agent = has_agent
        self._folder = Path()

    def lay_out(self, folder: Path) -> None:
        self._folder = folder
        for part in ("upper", "work", "root", "containers", "home"):
            (folder / part).mkdir(parents=True)
        if not self._has_agent:
            # The launcher in the root is hidden, as overlayfs hides what was removed.
            self.path("/usr/bin").mkdir(parents=True)
            os.mknod(self.path("/usr/bin/flightctl-agent"), stat.S_IFCHR, os.makedev(0, 0))
            return
        units = self.path("/etc/systemd/system")
        wants = units / "multi-user.target.wants" / UNIT
        wants.parent.mkdir(parents=True)
        (units / UNIT).write_text((CHECKOUT / "agent" / UNIT).read_text())
        wants.symlink_to(f"/etc/systemd/system/{UNIT}")
        shutil.copytree(CHECKOUT / "agent/hooks.d", self.path("/usr/lib/flightctl/hooks.d"))

    def next_boot(self) -> Boot:
        return Boot(
            prepare=f"mount -t overlay overlay -o "
            f'"lowerdir={self._root},upperdir=upper,workdir=work" root',
            arguments=(
                "--directory=root",
                "--boot",
                # podman lays layers of its own, which cannot lie on ours.
                f"--bind={self._folder}/containers:/var/lib/containers",
                f"--bind={self._folder}/home:/home",
                *([f"--bind-ro={CHECKOUT}:/opt/homeport"] if self._has_agent else ()),
            ),
        )

    def path(self, inside: str) -> Path:
        return self._folder / "upper" / inside.lstrip("/")

    def remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


class Installed:
    """A disk of its own with real ostree deployments, begun as a copy of another. [simulated]

    The system is the image's: /usr is read-only, /etc belongs to each deployment, /var is shared.
    Which deployment boots is the boot loader's decision, each time.
    """

    def __init__(self, original: Path) -> None:
        self._original = original
        self._folder = Path()

    @property
    def disk(self) -> Path:
        return self._folder / "disk"

    def lay_out(self, folder: Path) -> None:
        """What is never written in place is linked, not copied: half a second instead of ten."""
        self._folder = folder
        folder.mkdir(parents=True)
        _run("cp", "--archive", "--link", self._original, self.disk)
        written = [self.disk / STATEROOT / "var", self.disk / "ostree/repo/config"]
        written += (self.disk / STATEROOT / "deploy").glob("*.?/etc")
        for path in written:
            original = self._original / path.relative_to(self.disk)
            _run("rm", "--recursive", path)
            _run("cp", "--archive", original, path)

    def next_boot(self) -> Boot:
        entry = bootloader.boot(self.disk)
        (self.disk / ".cmdline").write_text(f"{entry.options}\n")
        deployment = (self.disk / entry.link.lstrip("/")).resolve()
        return Boot(
            arguments=(
                f"--directory={deployment}",
                f"--bind={self.disk}:/sysroot",
                f"--bind={self.disk / STATEROOT / 'var'}:/var",
                f"--bind={self.disk / 'boot'}:/boot",
                f"--bind-ro={deployment / 'usr'}:/usr",
                f"--bind-ro={osimages.base().store}:{osimages.SHARED_STORE}",
                "/usr/lib/prepare-root",
            )
        )

    def path(self, inside: str) -> Path:
        if inside.startswith("/var/"):
            return self.disk / STATEROOT / inside.lstrip("/")
        entry = bootloader.entries(self.disk)[0]
        return self.disk / entry.link.lstrip("/") / inside.lstrip("/")

    def remove(self) -> None:
        # ostree made the roots of its deployments immutable.
        deployments = (self.disk / STATEROOT / "deploy").glob("*.?")
        subprocess.run(["chattr", "-i", *deployments], capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)


def _run(*argv: str | Path) -> None:
    subprocess.run(argv, check=True)
