"""The audit log of the device: which specification it was given, took, and gave back, and when.

`/var/log/flightctl/audit.log` is flightctl's, line by line: one JSON object for each transition of
one of the three specification files. It is written after the file, and says what was done.

Nothing depends on it: a log that cannot be written is said once and never stops an update. So it
may lack the transition at which the device died, and a line may be torn by a power cut; the next
one begins a line of its own. It is bounded: at `BYTES_MAX` it is packed away, and of the packed
ones the newest `PACKED_MAX` are kept.
"""

from __future__ import annotations

import json
import logging
import posixpath
import zlib
from typing import Any

from agent import version, world
from resources import timestamps

log = logging.getLogger("agent.audit")

Json = dict[str, Any]

PATH = "/var/log/flightctl/audit.log"
BYTES_MAX = 1_000_000
PACKED_MAX = 3

# Which file.
CURRENT, DESIRED, ROLLBACK = "current", "desired", "rollback"
# Why.
BOOTSTRAP, SYNC, UPGRADE = "bootstrap", "sync", "upgrade"
ROLLED_BACK, RECOVERY, INITIALIZATION = "rollback", "recovery", "initialization"

TEMPLATE_VERSION = "fleet-controller/renderedTemplateVersion"
_GZIP = 31


class Audit:
    """One writer, the loop. Without a device's name nothing is written."""

    def __init__(self, where: world.World, device: str, path: str = PATH) -> None:
        self._world = where
        self._device = device
        self._path = path
        self._is_begun = False
        self._is_well = True

    def moved(self, kind: str, reason: str, *, before: str, after: str, template: str = "") -> None:
        """The file of `kind` held version `before` and holds `after` now."""
        if not self._device:
            return
        record = {
            "ts": timestamps.of(self._world.now()),
            "device": self._device,
            "old_version": before,
            "new_version": after,
            "result": "success",
            "reason": reason,
            "type": kind,
            "fleet_template_version": template,
            "agent_version": version.VERSION,
        }
        try:
            self._write(json.dumps(record, separators=(",", ":")).encode() + b"\n")
            self._is_well = True
        except OSError as error:
            if self._is_well:
                log.warning("audit log not written path=%s: %s", self._path, error)
            self._is_well = False

    def _write(self, line: bytes) -> None:
        if not self._is_begun:
            self._world.mkdir(posixpath.dirname(self._path))
            raw = self._world.read(self._path) or b""
            if raw and not raw.endswith(b"\n"):
                line = b"\n" + line
        found = self._world.stat(self._path)
        if found is not None and found.size + len(line) > BYTES_MAX:
            self._pack()
        self._world.append(self._path, line)
        self._is_begun = True

    def _pack(self) -> None:
        """A crash in between leaves the log in both; nothing is lost."""
        folder, name = posixpath.split(self._path)
        stem, end = posixpath.splitext(name)
        moment = self._world.now().strftime("%Y-%m-%dT%H-%M-%S.%f")[:-3]
        packer = zlib.compressobj(wbits=_GZIP)
        packed = packer.compress(self._world.read(self._path) or b"") + packer.flush()
        path = f"{folder}/{stem}-{moment}{end}.gz"
        self._world.write(path, packed, mode=0o600, uid=0, gid=0)
        self._world.remove(self._path)
        mine = [n for n in self._world.listdir(folder) if is_packed(n, stem, end)]
        for older in sorted(mine)[:-PACKED_MAX]:
            self._world.remove(f"{folder}/{older}")


def is_packed(name: str, stem: str = "audit", end: str = ".log") -> bool:
    return name.startswith(f"{stem}-") and name.endswith(f"{end}.gz")
