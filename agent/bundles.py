"""The files of applications that come from an image or an artifact, and the filling of volumes.

A bundle is taken out of its image once, while the old specification still runs, and kept as one
document under the agent's own folder, by reference and identity: an update, a repair and a way back
need neither the registry nor the image again. Links are left out: what a stranger's image points at
is not for us to read.

Volumes are filled by commands from where podman has the content, for they may be large. The stamp
is written after the last byte; an interrupted filling is begun anew. Those of a user are filled
inside the user namespace of their podman, where their files have the owners that they have in
containers.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import posixpath
from typing import Any

from agent import appplan, errors, podman, settings, specs, world
from agent.accounts import Accounts
from agent.homefiles import remove_tree
from agent.images import ARTIFACT, Pin, Stores
from agent.specs import AppFile, Application

log = logging.getLogger("agent.bundles")

Json = dict[str, Any]

BUNDLE_BYTES_MAX = 16 << 20
BUNDLE_FILES_MAX = 1000
DEPTH_MAX = 8
QUICK_S = 60.0
TARS = (".tar", ".tar.gz", ".tgz")


class Bundles:
    def __init__(
        self,
        where: world.World,
        bounds: settings.LoopSettings,
        stores: Stores,
        accounts: Accounts,
    ) -> None:
        self._world = where
        self._bounds = bounds
        self._stores = stores
        self.meant = stores.meant
        self._images = stores.of("")
        self._accounts = accounts
        self._folder = f"{bounds.own_dir}/bundles"
        self._read: dict[str, tuple[AppFile, ...]] = {}

    def files(self, app: Application) -> tuple[AppFile, ...] | None:
        """What `app` is made of; None = it must be fetched first."""
        if app.inline is not None:
            return app.inline
        pin = self._images.identity(app.image)
        if pin is None:
            return None
        place = self._place(app.image, pin)
        if place not in self._read:
            found = self._load(place)
            if found is None:
                return None
            self._read[place] = found
        return self._read[place]

    def fetch(self, image: str, app: str) -> None:
        """Raises Retry, Reject."""
        pin = self._images.identity(image)
        if pin is None or not self._images.is_here(image, self._images.pins()):
            self._images.pull(image, app)
            pin = self._images.identity(image)
        if pin is None:
            raise _retry(app, f"{image} was pulled and is not here")
        hands = _Hands(self._bounds, self._accounts, "", app)
        scratch = f"{self._folder}/scratch"
        remove_tree(self._world, scratch)
        self._world.mkdir(scratch, mode=0o700)
        try:
            self._copy(image, pin, hands, cwd=scratch, into=".")
            files = self._gathered(scratch, app)
        finally:
            remove_tree(self._world, scratch)
        document = {f.path: base64.b64encode(f.data).decode() for f in files}
        data = json.dumps(document, separators=(",", ":")).encode()
        self._world.write(self._place(image, pin), data, mode=0o600, uid=0, gid=0)

    def forget(self, keep: tuple[Application, ...]) -> None:
        """Bundles of applications that are gone, and tags of versions. After a commit."""
        self.meant.forget(keep)
        kept = set()
        for app in keep:
            is_bundle = app.inline is None and app.app_type != podman.HELM
            pin = self._images.identity(app.image) if is_bundle else None
            if pin is not None:
                kept.add(self._place(app.image, pin))
        for name in self._world.listdir(self._folder):
            path = f"{self._folder}/{name}"
            if path not in kept:
                remove_tree(self._world, path)
        self._read = {k: v for k, v in self._read.items() if k in kept}

    # Volumes.

    def stamps(self) -> dict[str, str]:
        """Volume -> what it was filled with."""
        try:
            found = json.loads(self._world.read(self._stamps_path) or b"{}")
            return {str(k): str(v) for k, v in found.items()}
        except (ValueError, AttributeError):
            return {}

    def stamp_of(self, reference: str, user: str = "") -> str:
        """What a volume of `reference` is filled with; empty = it is not on the device."""
        pin = self._stores.of(user).identity(reference)
        return f"{pin.kind} {pin.identity}" if pin else ""

    def adopt(self, volumes: dict[str, str], user: str) -> None:
        """Those that are there were filled by another agent: what is in them is not touched."""
        known = self.stamps()
        hands = _Hands(self._bounds, self._accounts, user, "")
        found = {
            appplan.volume_key(user, volume): self.stamp_of(reference, user)
            for volume, reference in volumes.items()
            if appplan.volume_key(user, volume) not in known
            and hands.run(podman.volume_path_argv(volume)).ok
        }
        if found:
            self._stamp({**known, **found})

    def fill(
        self,
        user: str,
        volume: str,
        reference: str,
        app_id: str,
        app: str,
        *,
        policy: str = specs.IF_NOT_PRESENT,
    ) -> None:
        """Its content is replaced. Raises Retry, Reject."""
        images = self._stores.of(user)
        pin = images.identity(reference)
        if pin is None or not images.is_here(reference, images.pins()):
            images.pull(reference, app, policy=policy)
            pin = images.identity(reference)
        if pin is None:
            raise _retry(app, f"{reference} was pulled and is not here")
        stamps, key = self.stamps(), appplan.volume_key(user, volume)
        if stamps.pop(key, None) is not None:
            self._stamp(stamps)
        hands = _Hands(self._bounds, self._accounts, user, app)
        if not hands.run(podman.volume_path_argv(volume)).ok:
            hands.do(podman.volume_create_argv(volume, app_id))
        place = hands.do(podman.volume_path_argv(volume)).stdout.strip()
        if not place.startswith("/"):
            raise _retry(app, f"podman does not say where volume {volume} is")
        hands.do(["find", place, "-mindepth", "1", "-delete"])
        self._copy(reference, pin, hands, cwd=None, into=place)
        self._stamp({**stamps, key: f"{pin.kind} {pin.identity}"})

    @property
    def _stamps_path(self) -> str:
        return f"{self._bounds.own_dir}/volumes.json"

    def _stamp(self, stamps: dict[str, str]) -> None:
        data = json.dumps(stamps, separators=(",", ":")).encode()
        self._world.write(self._stamps_path, data, mode=0o600, uid=0, gid=0)

    # Content.

    def _copy(self, reference: str, pin: Pin, hands: _Hands, *, cwd: str | None, into: str) -> None:
        if pin.kind == ARTIFACT:
            _copy_artifact(reference, hands, cwd=cwd, into=into)
            return
        mounted = hands.do(podman.mount_argv(reference)).stdout.strip()
        try:
            if cwd is not None:
                _check_size(mounted, reference, hands)
            hands.do(["cp", "-a", "--", f"{mounted}/.", into], cwd=cwd)
        finally:
            hands.run(podman.unmount_argv(reference))

    def _gathered(self, folder: str, app: str) -> list[AppFile]:
        found: list[AppFile] = []
        total = 0
        waiting = [("", 0)]
        while waiting:
            prefix, depth = waiting.pop()
            for name in self._world.listdir(f"{folder}/{prefix}"):
                path = f"{prefix}{name}"
                stat = self._world.stat(f"{folder}/{path}")
                if stat is not None and stat.kind == world.DIRECTORY and depth < DEPTH_MAX:
                    waiting.append((f"{path}/", depth + 1))
                elif stat is not None and stat.kind == world.FILE:
                    total += stat.size
                    if total > BUNDLE_BYTES_MAX or len(found) >= BUNDLE_FILES_MAX:
                        raise _reject(app, "too many or too large files for an application")
                    found.append(AppFile(path, self._world.read(f"{folder}/{path}") or b""))
        return sorted(found, key=lambda file: file.path)

    def _load(self, place: str) -> tuple[AppFile, ...] | None:
        raw = self._world.read(place)
        if raw is None:
            return None
        try:
            document = json.loads(raw)
            return tuple(AppFile(path, base64.b64decode(data)) for path, data in document.items())
        except (ValueError, AttributeError):
            log.error("bundle damaged, fetched again file=%s", place)
            return None

    def _place(self, reference: str, pin: Pin) -> str:
        name = hashlib.sha256(f"{reference} {pin.kind} {pin.identity}".encode()).hexdigest()
        return f"{self._folder}/{name[:40]}.json"


class _Hands:
    """Commands as root, or as they look from inside the user namespace of a user's podman."""

    def __init__(
        self, bounds: settings.LoopSettings, accounts: Accounts, user: str, app: str
    ) -> None:
        self._limit_s = bounds.command_timeout_s
        self._accounts = accounts
        self._user = user
        self.app = app

    def run(self, argv: list[str], *, cwd: str | None = None) -> world.Completed:
        whole = [*podman.UNSHARE, *argv] if self._user else argv
        return self._accounts.run(self._user, whole, timeout_s=self._limit_s, cwd=cwd)

    def do(self, argv: list[str], *, cwd: str | None = None) -> world.Completed:
        answer = self.run(argv, cwd=cwd)
        if not answer.ok:
            raise podman.run_error(answer.words, app=self.app)
        return answer


def _copy_artifact(reference: str, hands: _Hands, *, cwd: str | None, into: str) -> None:
    """Out of podman's store, an OCI layout: `artifact extract` came with podman 5.5 only.

    What is packed is unpacked where there is a folder to do it in: for an application, not for a
    volume.
    """
    store = hands.do(podman.storage_argv()).stdout.strip()
    listed = hands.do(podman.artifact_inspect_argv(reference)).stdout
    try:
        layers = podman.artifact_layers(listed)
    except ValueError as error:
        raise _retry(hands.app, f"podman artifact inspect {reference}: {error}") from error
    for layer in layers:
        algorithm, _, hexadecimal = layer.digest.partition(":")
        blob = f"{store}/artifacts/blobs/{algorithm}/{hexadecimal}"
        name = layer.title.removeprefix("./")
        is_tar = name.endswith(TARS) or ".tar" in layer.media_type or "+gzip" in layer.media_type
        if cwd is not None and is_tar:
            hands.do(["tar", "--extract", "--no-same-owner", f"--file={blob}"], cwd=cwd)
            continue
        name = name or hexadecimal[:12]
        if name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/")):
            raise _reject(hands.app, f"{reference}: {name!r} is not a name for a file")
        folder = posixpath.dirname(name)
        if folder:
            hands.do(["mkdir", "-p", "--", f"{into}/{folder}"], cwd=cwd)
        hands.do(["cp", "--", blob, f"{into}/{name}"], cwd=cwd)


def _check_size(mounted: str, reference: str, hands: _Hands) -> None:
    words = hands.do(["du", "--summarize", "--bytes", "--", mounted]).stdout.split()
    size = int(words[0]) if words and words[0].isdigit() else 0
    if size > BUNDLE_BYTES_MAX:
        detail = f"{reference} holds {size >> 20} MiB; the files of an application are at most"
        raise _reject(hands.app, f"{detail} {BUNDLE_BYTES_MAX >> 20} MiB")


def _retry(app: str, detail: str) -> errors.Retry:
    return errors.Retry(errors.INTERNAL, detail, component=errors.APPLICATIONS, element=app)


def _reject(app: str, detail: str) -> errors.Reject:
    return errors.Reject(
        errors.INVALID_ARGUMENT, detail, component=errors.APPLICATIONS, element=app
    )
