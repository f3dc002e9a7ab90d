"""Images and artifacts that nothing needs any more go, where the configuration says so.

`image-artifact-references.json` is the other agent's: what was ever referred to by a specification
that ran or was tried here. Only what is in it is ever removed, and only while the device is at rest
on a specification that does not name it; so what somebody has pulled by hand stays. It is kept even
where nothing is pruned, so that switching it on later finds the past.

What cannot be removed (a container of somebody else's uses it) is tried again for a while and then
forgotten. Nothing of this can hold up an update.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from typing import Any

from agent import embedded, errors, podman, specs, world
from agent.accounts import Accounts
from agent.images import ARTIFACT, Stores
from resources import timestamps

log = logging.getLogger("agent.pruning")

Json = dict[str, Any]

REFERENCES = "image-artifact-references.json"
REFERENCES_MAX = 500
REMOVE_S = 120.0
# As long as the reference tries.
PATIENCE_S = 300.0
PODMAN, CRI = "podman", "cri"
# (in whose store, reference); the store of root has no name.
Reference = tuple[str, str]


class Pruning:
    """`referred`: all that a specification needs, and for whom; `charted`: what its charts need in
    the cluster, None = not known in this life."""

    def __init__(
        self,
        where: world.World,
        data_dir: str,
        stores: Stores,
        accounts: Accounts,
        referred: Callable[[specs.Spec], dict[Reference, str]],
        charted: Callable[[specs.Spec], Iterable[str] | None],
        *,
        is_on: bool,
    ) -> None:
        self._world = where
        self._path = f"{data_dir}/{REFERENCES}"
        self._stores = stores
        self._accounts = accounts
        self._referred = referred
        self._charted = charted
        self._is_on = is_on
        self._since: dict[Reference, float] = {}
        # Until the next commit nothing changes about what is needed.
        self._is_done = False

    def remember(self, *specifications: specs.Spec) -> None:
        """What they refer to. Before one of them takes the place of another."""
        self._is_done = False
        try:
            known = self._read()
            found = {**known}
            for spec in specifications:
                # What a system has brought is never removed.
                found |= self._of(embedded.without(spec))
            if found != known:
                self._write(found)
        except OSError as error:
            log.error("references not kept: %s", error)

    def prune(self, current: specs.Spec) -> None:
        """At rest. Never raises for what podman says."""
        if self._is_done or not self._is_on:
            return
        try:
            known, needed = self._read(), self._of(current)
            if self._charted(current) is None:
                needed |= {r: kind for r, kind in known.items() if kind == CRI}
            left = {
                r: kind for r, kind in known.items() if r in needed or not self._remove(r, kind)
            }
            if left != known:
                self._write(left)
            self._is_done = not left.keys() - needed.keys()
        except OSError as error:
            log.error("not pruned: %s", error)

    def forsake(self, *specifications: specs.Spec) -> None:
        """All that they and those before them referred to, but systems. Never raises for what
        podman says."""
        self.remember(*specifications)
        systems = {spec.os_image for spec in specifications}
        try:
            for (user, reference), kind in self._read().items():
                if reference not in systems:
                    self._remove((user, reference), kind)
        except OSError as error:
            log.error("not pruned: %s", error)

    def _of(self, spec: specs.Spec) -> dict[Reference, str]:
        images = [*self._referred(spec), *([("", spec.os_image)] if spec.os_image else [])]
        pins = {user: self._stores.of(user).pins() for user, _ in images}
        found = {("", reference): CRI for reference in self._charted(spec) or ()}
        for user, reference in images:
            pin = pins[user].get(reference)
            is_artifact = pin is not None and pin.kind == ARTIFACT
            found[user, reference] = ARTIFACT if is_artifact else PODMAN
        return found

    def _remove(self, one: Reference, kind: str) -> bool:
        """Whether it is no longer ours to think of."""
        user, reference = one
        if user and self._accounts.of(user) is None:
            return True
        images = self._stores.of(user)
        argv = podman.image_remove_argv(reference)
        if kind == ARTIFACT:
            argv = podman.artifact_remove_argv(reference)
        elif kind == CRI:
            argv = ["crictl", "rmi", reference]
        elif not images.is_here(reference, images.pins()):
            return True
        answer = self._accounts.run(user, argv, timeout_s=REMOVE_S)
        if answer.ok or answer.status == world.NOT_STARTED or _is_gone(answer.stderr):
            log.info("pruned reference=%s user=%s", reference, user or "root")
            self._since.pop(one, None)
            images.forget(reference)
            return True
        now = self._world.monotonic()
        since = self._since.setdefault(one, now)
        log.warning("not pruned reference=%s: %s", reference, errors.one_line(answer.words))
        return now - since >= PATIENCE_S

    def _read(self) -> dict[Reference, str]:
        try:
            listed = json.loads(self._world.read(self._path) or b"{}").get("references") or []
            return {_reference(one): str(one.get("type") or PODMAN) for one in listed}
        except (ValueError, TypeError, KeyError, AttributeError):
            return {}

    def _write(self, found: dict[Reference, str]) -> None:
        newest = list(found.items())[-REFERENCES_MAX:]
        references = [{"image": r, "owner": u, "type": kind} for (u, r), kind in newest]
        document: Json = {
            "timestamp": timestamps.of(self._world.now()),
            "references": references,
        }
        data = json.dumps(document, indent=2).encode()
        self._world.write(self._path, data, mode=0o600, uid=0, gid=0)


def _reference(one: Json) -> Reference:
    owner = str(one.get("owner") or "")
    return "" if owner in podman.ROOT_USERS else owner, str(one["image"])


def _is_gone(stderr: str) -> bool:
    text = stderr.lower()
    return podman.is_image_missing(stderr) or "artifact not found" in text or "not exist" in text
