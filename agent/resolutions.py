"""What the tags of volumes with `pullPolicy: Always` meant, by version of the specification.

Always is: the registry is asked, whatever is here. It is asked once for each version (ADR 13), so
that nothing moves at a moment that nobody chose: the tag is looked up while the version is fetched,
and from then on, for this version, the volume is that of the digest. The version before has kept
its own, and goes back to it; content that has not moved is neither fetched nor filled in again.

`resolved.json` maps version, user and reference to the reference by digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from agent import errors, podman, world
from agent.images import RESOLVED
from agent.pulling import Pulling
from agent.specs import Application, Volume
from resources.records import replace

Json = dict[str, Any]

LOOK_UP_S = 60.0
# Between two commits; each version has few of them.
VERSIONS_MAX = 100
# Of env, which a user's command is run by: there is no such program.
NOT_FOUND = 127


class Resolutions:
    def __init__(self, where: world.World, pulling: Pulling) -> None:
        self._world = where
        self._pulling = pulling
        self._path = f"{pulling.own_dir}/{RESOLVED}"

    def resolved(self, app: Application, user: str) -> Application:
        """With the references that its volumes really mean, as far as they were looked up."""
        known = self._read()
        volumes = tuple(
            replace(v, image=known.get(v.version, {}).get(_key(user, v.image), v.image))
            if v.is_asked_for
            else v
            for v in app.volumes
        )
        return replace(app, volumes=volumes)

    def lacking(self, app: Application, user: str) -> Iterable[Volume]:
        """Those whose tags are to be looked up."""
        known = self._read()
        asked = (volume for volume in app.volumes if volume.is_asked_for)
        return (v for v in asked if _key(user, v.image) not in known.get(v.version, {}))

    def look_up(self, reference: str, version: str, app: str, user: str) -> None:
        """Raises Retry, Reject."""
        wanted = self._pulling.wanted(reference, app, user)
        answer = self._pulling.look_up(
            podman.raw_manifest_argv(reference), wanted, limit_s=LOOK_UP_S
        )
        if answer.status in (world.NOT_STARTED, NOT_FOUND):
            detail = "pullPolicy Always needs skopeo on the device"
            raise errors.Reject(
                errors.FAILED_PRECONDITION, detail, component=errors.PREFETCH, element=app
            )
        if not answer.ok:
            raise self._pulling.failed(answer, wanted)
        digest = f"sha256:{hashlib.sha256(answer.stdout.encode()).hexdigest()}"
        known = self._read()
        known.setdefault(version, {})[_key(user, reference)] = (
            f"{podman.without_tag(reference)}@{digest}"
        )
        self._write(dict(list(known.items())[-VERSIONS_MAX:]))

    def forget(self, keep: Iterable[Application]) -> None:
        """What other versions meant. After a commit."""
        known = self._read()
        versions = {volume.version for app in keep for volume in app.volumes}
        left = {version: found for version, found in known.items() if version in versions}
        if left != known:
            self._write(left)

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            found = json.loads(self._world.read(self._path) or b"{}")
            return {str(v): {str(k): str(r) for k, r in one.items()} for v, one in found.items()}
        except (ValueError, AttributeError):
            return {}

    def _write(self, known: dict[str, dict[str, str]]) -> None:
        data = json.dumps(known, separators=(",", ":")).encode()
        self._world.write(self._path, data, mode=0o600, uid=0, gid=0)


def _key(user: str, reference: str) -> str:
    return f"{user} {reference}"
