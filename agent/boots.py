"""`system.json`: the boot that was seen last, as flightctl's agent keeps it, for who comes next.

Our own memory of it is in the record of hooks; this file is read where there is no such record, so
that a reboot in which the agents were changed is one, and written so that the other agent does not
take a restart for a reboot.
"""

from __future__ import annotations

import json

from agent import sources, world
from resources import timestamps


class Boots:
    def __init__(self, where: world.World, data_dir: str) -> None:
        self._world = where
        self._path = f"{data_dir}/system.json"

    def last(self) -> str:
        """Its id; empty = nobody has seen one."""
        try:
            found = json.loads(self._world.read(self._path) or b"{}")
            return str(found.get("bootID") or "")
        except (ValueError, AttributeError):
            return ""

    def keep(self, boot_id: str) -> None:
        if self.last() == boot_id:
            return
        machine = sources.Machine(self._world, real=lambda path: None)
        began = machine.boot_time() or self._world.now().timestamp()
        document = {"bootTime": timestamps.of_seconds(began), "bootID": boot_id}
        data = json.dumps(document).encode()
        self._world.write(self._path, data, mode=0o600, uid=0, gid=0)
