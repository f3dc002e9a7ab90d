"""`applications.json`: which content of an application was applied last, and in which boot.

It is what neither the disk nor podman nor a cluster knows. Where it is lost or rotten, the device
is as one that another agent has left: what is right is adopted.
"""

from __future__ import annotations

import json
from typing import Any

from agent import world
from agent.appplan import Mark, Stamp

Json = dict[str, Any]

STAMPS_MAX = 200


class Stamps:
    def __init__(self, where: world.World, own_dir: str) -> None:
        self._world = where
        self._path = f"{own_dir}/applications.json"

    def read(self) -> dict[tuple[str, str], Stamp]:
        try:
            found = json.loads(self._world.read(self._path) or b"{}")
            return {
                (kind, app_id): Stamp(
                    str(s["digest"]),
                    str(s["boot"]),
                    int(s["generation"]),
                    tuple(s["paths"]),
                    str(s.get("adoptedAs") or ""),
                    {path: _mark(mark) for path, mark in (s.get("adopted") or {}).items()},
                    str(s.get("user") or ""),
                )
                for kind, apps in found.items()
                for app_id, s in apps.items()
            }
        except (ValueError, TypeError, KeyError, AttributeError):
            # Rotten: as if another agent had been here; what is right is adopted.
            return {}

    def put(self, kind: str, app_id: str, stamp: Stamp | None) -> None:
        """None = the application is gone."""
        found = self.read()
        found.pop((kind, app_id), None)
        if stamp is not None:
            found[kind, app_id] = stamp
        document: dict[str, Json] = {}
        for (place, name), one in list(found.items())[-STAMPS_MAX:]:
            document.setdefault(place, {})[name] = {
                "digest": one.digest,
                "boot": one.boot,
                "generation": one.generation,
                "paths": list(one.paths),
            }
            if one.user:
                document[place][name]["user"] = one.user
            if one.adopted:
                adopted = {path: list(mark) for path, mark in one.adopted.items()}
                document[place][name] |= {"adoptedAs": one.adopted_as, "adopted": adopted}
        data = json.dumps(document, separators=(",", ":")).encode()
        self._world.write(self._path, data, mode=0o600, uid=0, gid=0)


def _mark(found: Any) -> Mark:
    digest, mode, uid, gid = found
    return str(digest), int(mode), int(uid), int(gid)
