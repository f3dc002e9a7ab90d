"""The deployments of the system that runs, through libostree, as bootc sees and moves them.

Real here: the repository, the deployments, the boot entries, the order of deployments, and the
staged one: libostree's own, finished by its unit at shutdown with the three-way merge of /etc.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import gi

from tests.fakes.bootc import storage
from tests.fakes.bootc.errors import Failed
from tests.fakes.bootc.host import Deployment, Host, Image

gi.require_version("OSTree", "1.0")
from gi.repository import GLib, OSTree  # noqa: E402  - its version must be chosen first

# A power cut is a kill in these tests: nobody waits for the disk.
os.environ.setdefault("OSTREE_SYSROOT_OPTS", "skip-sync")

# As ostree-ext writes it, so that `ostree admin status` and rpm-ostree would understand it.
ORIGIN = ("origin", "container-image-reference")
UNVERIFIED = "ostree-unverified-image:"


class Sysroot:
    def __init__(self) -> None:
        self._sysroot = OSTree.Sysroot.new_default()
        self._sysroot.load(None)

    @property
    def repo(self) -> Path:
        return Path("/sysroot/ostree/repo")

    def lock(self) -> None:
        """Others wait from here to `unlock`, or to the end of this process."""
        self._sysroot.lock()
        self._sysroot.load(None)

    def unlock(self) -> None:
        self._sysroot.unlock()

    def is_booted(self) -> bool:
        return self._sysroot.get_booted_deployment() is not None

    def host(self) -> Host:
        """The slots as they are. Off a deployment they are all empty."""
        booted = self._sysroot.get_booted_deployment()
        if booted is None:
            return Host()
        staged = self._sysroot.get_staged_deployment()
        spare = self._spare()
        return Host(
            staged=staged and self._describe(staged),
            booted=self._describe(booted),
            rollback=spare and self._describe(spare),
            is_rollback_queued=self._is_rollback_queued(),
        )

    def stage(self, checksum: str, image: Image) -> None:
        """It becomes the default at shutdown, with what /etc has become until then."""
        booted = self._sysroot.get_booted_deployment()
        written = self._sysroot.stage_tree(
            booted.get_osname(), checksum, origin(image), booted, None, None
        )
        assert written is not None

    def roll_back(self) -> bool:
        """Exchange the booted deployment and the one before it in the order of booting.

        A staged one is discarded, by libostree itself, since it is not in what is written. True if
        the other one boots next; False if that was queued already, and has been taken back.
        """
        spare = self._spare()
        if spare is None:
            raise Failed("No rollback available")
        was_queued = self._is_rollback_queued()
        booted = self._sysroot.get_booted_deployment()
        first, second = (booted, spare) if was_queued else (spare, booted)
        others = [
            each for each in self._settled() if not each.equal(booted) and not each.equal(spare)
        ]
        self._sysroot.write_deployments([first, second, *others], None)
        return not was_queued

    def _settled(self) -> list[Any]:
        return [each for each in self._sysroot.get_deployments() if not each.is_staged()]

    def _spare(self) -> Any | None:
        """The first deployment that neither runs nor is staged: what a rollback boots."""
        booted = self._sysroot.get_booted_deployment()
        return next((each for each in self._settled() if not each.equal(booted)), None)

    def _is_rollback_queued(self) -> bool:
        return not self._settled()[0].equal(self._sysroot.get_booted_deployment())

    def _describe(self, deployment: Any) -> Deployment:
        return Deployment(
            image=self._image(deployment),
            stateroot=deployment.get_osname(),
            checksum=deployment.get_csum(),
            serial=deployment.get_deployserial(),
            is_pinned=deployment.is_pinned(),
        )

    def _image(self, deployment: Any) -> Image | None:
        source = _source(deployment.get_origin())
        if source is None:
            return None
        _, commit, _ = self._sysroot.repo().load_commit(deployment.get_csum())
        metadata = commit.get_child_value(0).unpack()
        transport, reference = source
        return Image(
            reference,
            transport,
            digest=metadata.get(storage.DIGEST_KEY),
            version=metadata.get("version"),
            timestamp=metadata.get(storage.TIMESTAMP_KEY),
            architecture=metadata.get(storage.ARCHITECTURE_KEY),
        )


def origin(image: Image) -> Any:
    file = GLib.KeyFile.new()
    file.set_string(*ORIGIN, f"{UNVERIFIED}{image.transport}:{image.reference}")
    return file


def _source(file: Any | None) -> tuple[str, str] | None:
    """Transport and reference of a deployment's image; None if no image made it."""
    try:
        text = file.get_string(*ORIGIN) if file is not None else ""
    except GLib.Error:
        text = ""
    if not text.startswith(UNVERIFIED):
        return None
    transport, _, reference = text.removeprefix(UNVERIFIED).partition(":")
    return transport, reference
