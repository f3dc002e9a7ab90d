"""How often the agent has ended against its will: what nobody sees where systemd restarts it.

Each life notes its beginning, and its end if it was asked to end. Beginnings without such an end,
several within a quarter of an hour of one boot, are a crash loop: the device's summary says so,
with the last words of the life before, until a life has lasted.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from agent import errors, world

log = logging.getLogger("agent.lives")

Json = dict[str, Any]

NAME = "lives.json"
WITHIN_S = 900.0
# Three ends in a row are no accident.
LOOP_ENDS = 3
KEPT_MAX = 20


class Lives:
    def __init__(self, where: world.World, own_dir: str) -> None:
        self._world = where
        self._own_dir = own_dir
        self._path = f"{own_dir}/{NAME}"
        self._ends: list[float] = []
        self._last_words = ""

    def begin(self) -> None:
        """Notes this life; what is there of others was not asked to end."""
        found = self._read()
        self._ends = [at for at in found["begun"] if self._is_recent(at)][-KEPT_MAX:]
        self._last_words = found["words"] if self._ends else ""
        self._write([*self._ends, self._world.monotonic()], self._last_words)

    def end(self, failure: str) -> None:
        """By being asked to (empty), or with the last words of a failure."""
        if self._world.stat(self._path) is None:
            # A device that was dismissed has nothing of its own any more, and gets nothing.
            return
        if failure:
            self._write(self._read()["begun"], errors.one_line(failure))
        else:
            self._write([], "")

    def trouble(self) -> str:
        """For people; empty = nothing to say, or not any more."""
        ends = [at for at in self._ends if self._is_recent(at)]
        if len(ends) < LOOP_ENDS:
            return ""
        minutes = round(WITHIN_S / 60)
        words = f": {self._last_words}" if self._last_words else ""
        return f"the agent ended unasked {len(ends)} times within {minutes} minutes{words}"

    def _is_recent(self, at: float) -> bool:
        return 0 <= self._world.monotonic() - at < WITHIN_S

    def _read(self) -> Json:
        nothing: Json = {"boot": self._world.boot_id(), "begun": [], "words": ""}
        try:
            found = json.loads(self._world.read(self._path) or b"{}")
            begun = [float(at) for at in found["begun"]]
            known = {"boot": found["boot"], "begun": begun, "words": str(found["words"])}
        except (OSError, ValueError, KeyError, TypeError):
            return nothing
        return known if known["boot"] == nothing["boot"] else nothing

    def _write(self, begun: list[float], words: str) -> None:
        document = {"boot": self._world.boot_id(), "begun": begun, "words": words}
        try:
            self._world.mkdir(self._own_dir, mode=0o700)
            raw = json.dumps(document).encode()
            self._world.write(self._path, raw, mode=0o600, uid=0, gid=0)
        except OSError as error:
            log.warning("lives not counted: %s", error)
