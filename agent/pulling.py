"""What surrounds a pull: credentials, room on the disk, and what a cut-off one leaves behind.

Credentials that the specification itself brings are used before they are on the disk, from a file
of the agent's own that lasts as long as the pull. Room is estimated from what the registry says of
the layers that are not here yet; where nobody can say, the pull is tried. What a pull that had to
be killed has left in the temporary folder goes, since podman never comes back for it.
"""

from __future__ import annotations

import json
import logging
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass

from agent import errors, podman, world
from agent.specs import FileSpec
from agent.throttle import Throttle

log = logging.getLogger("agent.pulling")

AUTH_FILE = "/root/.config/containers/auth.json"
TEMPORARY, LEFTOVER = "/var/tmp", "container_images_"  # noqa: S108 - podman's, not ours
QUICK_S = 60.0
LOOK_UP_S = 60.0
# Layers come packed: three times the size is usual for programs, and both are there for a moment.
UNPACKED = 4
# The rest of the device wants to write too.
RESERVE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Auth:
    """`option` for podman and skopeo, to be run in `cwd`; both may be empty."""

    option: tuple[str, ...] = ()
    cwd: str | None = None


class Pulling:
    def __init__(self, where: world.World, own_dir: str, throttle: Throttle) -> None:
        self._world = where
        self._own = f"{own_dir}/pull-auth.json"
        self._brought: bytes | None = None
        self._root = ""
        self._throttle = throttle

    def use(self, files: Iterable[FileSpec]) -> None:
        """The files of the specification that is being made true."""
        self._brought = next((f.content for f in files if f.path == AUTH_FILE), None)

    def pull(self, argv: list[str], reference: str, app: str, *, limit_s: float) -> world.Completed:
        """Raises Retry where there is no room for it."""
        auth = self._auth()
        try:
            self._need_room(reference, app, auth)
            before = set(self._world.listdir(TEMPORARY))
            whole = [*argv[:-1], *auth.option, argv[-1]]
            env = self._throttle.environment()
            answer = self._world.run(whole, timeout_s=limit_s, env=env, cwd=auth.cwd)
            if not answer.ok:
                self._clean(before)
            return answer
        finally:
            if self._brought is not None:
                self._world.remove(self._own)

    def _auth(self) -> Auth:
        # NB a name relative to the folder: below a root of its own podman sees other paths than we.
        path = AUTH_FILE
        if self._brought is not None:
            path = self._own
            self._world.write(path, self._brought, mode=0o600, uid=0, gid=0)
        elif self._world.stat(path) is None:
            return Auth()
        return Auth(("--authfile", posixpath.basename(path)), posixpath.dirname(path))

    def _need_room(self, reference: str, app: str, auth: Auth) -> None:
        argv = podman.layers_argv(reference, auth.option)
        answer = self._world.run(argv, timeout_s=LOOK_UP_S, cwd=auth.cwd)
        try:
            layers = podman.layer_sizes(answer.stdout) if answer.ok else {}
            known = self._layers_here() if layers else None
            free = self._free() if known is not None else None
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            return
        if known is None or free is None:
            return
        need = sum(size for digest, size in layers.items() if digest not in known) * UNPACKED
        if need and need + RESERVE_BYTES > free:
            detail = f"{reference} needs about {need >> 20} MiB, {free >> 20} MiB are free"
            raise errors.Retry(
                errors.RESOURCE_EXHAUSTED, detail, component=errors.PREFETCH, element=app
            )

    def _layers_here(self) -> frozenset[str] | None:
        """As they were packed; None = nobody knows."""
        if not self._root:
            answer = self._world.run(podman.storage_argv(), timeout_s=QUICK_S)
            self._root = answer.stdout.strip() if answer.ok else ""
        if not self._root:
            return None
        raw = self._world.read(f"{self._root}/overlay-layers/layers.json")
        listed = json.loads(raw) if raw else []
        return frozenset(str(one.get("compressed-diff-digest")) for one in listed)

    def _free(self) -> int | None:
        argv = ["df", "--output=avail", "--block-size=1", "--", self._root]
        answer = self._world.run(argv, timeout_s=QUICK_S)
        words = answer.stdout.split()
        return int(words[-1]) if answer.ok and words and words[-1].isdigit() else None

    def _clean(self, before: set[str]) -> None:
        """Only what came while we were pulling: others pull too."""
        for name in self._world.listdir(TEMPORARY):
            if name.startswith(LEFTOVER) and name not in before:
                log.info("leftover of a pull removed name=%s", name)
                self._world.run(["rm", "-rf", "--", name], timeout_s=QUICK_S, cwd=TEMPORARY)
