"""Holds: who on the device asks that no update begins now, why, and until when.

A hold is a file below `/run/flightctl/hold.d`, JSON with `owner`, `reason` and `until`; whoever may
write there (root, a container that was given the folder) may hold. The socket beside it
(`holddoor`) writes the same files for those who would rather say "for 30m". So a hold outlives the
agent, and ends with the boot.

Every hold has an end, a day away at most: a workload that died cannot hold its device for ever. A
file that cannot be understood holds nothing, and is told as trouble. What has begun is not held:
between two specifications a device is worse off than on either.
"""

from __future__ import annotations

import json
import logging
import re
from datetime import UTC, datetime, timedelta

from agent import errors, world
from resources.records import dataclass

log = logging.getLogger("agent.holding")

FOLDER = "/run/flightctl/hold.d"
LONGEST_S = 86400.0
HOLDS_MAX = 64
BYTES_MAX = 4096
WORDS_MAX = 120

_OWNER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


@dataclass(frozen=True, slots=True)
class Hold:
    owner: str
    reason: str
    until: datetime


def parse(name: str, data: bytes, now: datetime) -> Hold:
    """Raises ValueError with a sentence for a person."""
    try:
        document = json.loads(data[:BYTES_MAX])
        until = datetime.fromisoformat(str(document["until"]))
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError("write {owner, reason, until: a time such as 2026-01-31T12:00:00Z}") from (
            error
        )
    if until.tzinfo is None:
        raise ValueError(f"until: {document['until']} has no time zone; write it in UTC with a Z")
    if until > now + timedelta(seconds=LONGEST_S):
        raise ValueError("until is more than a day away; ask again from time to time")
    owner = str(document.get("owner") or name.removesuffix(".json"))
    if not _OWNER.fullmatch(owner):
        raise ValueError("owner: letters, digits, dots and dashes, at most 63")
    reason = errors.shortened(errors.one_line(str(document.get("reason") or "")), WORDS_MAX)
    return Hold(owner, reason, until.astimezone(UTC))


class Holds:
    def __init__(self, where: world.World) -> None:
        self._world = where

    def current(self) -> tuple[tuple[Hold, ...], str]:
        """Those that hold now, the longest first; and what is wrong with others, for people."""
        now = self._world.now()
        found, troubles = [], []
        names = [n for n in self._world.listdir(FOLDER) if not n.startswith(".")]
        for name in names[:HOLDS_MAX]:
            try:
                hold = parse(name, self._world.read(f"{FOLDER}/{name}") or b"", now)
            except (ValueError, OSError) as error:
                troubles.append(f"{FOLDER}/{name} holds nothing: {error}")
                continue
            if hold.until > now:
                found.append(hold)
        found.sort(key=lambda hold: (hold.until, hold.owner), reverse=True)
        return tuple(found), errors.shortened("; ".join(troubles), errors.MESSAGE_CHARS_MAX)

    def make_room(self) -> None:
        """The folder, for those who want to be given it."""
        self._world.mkdir(FOLDER)

    def put(self, owner: str, reason: str, seconds: float) -> Hold:
        """Raises ValueError, OSError."""
        now = self._world.now()
        until = (now + timedelta(seconds=seconds)).replace(microsecond=0)
        document = {"owner": owner, "reason": reason, "until": until.isoformat()}
        data = json.dumps(document).encode()
        hold = parse(owner, data, now)
        self._world.mkdir(FOLDER)
        there = self._world.listdir(FOLDER)
        if _name(owner) not in there and len(there) >= HOLDS_MAX:
            raise ValueError(f"there are {HOLDS_MAX} holds already")
        self._world.write(f"{FOLDER}/{_name(owner)}", data, mode=0o644, uid=0, gid=0)
        return hold

    def release(self, owner: str) -> None:
        """Fine where there is none. Raises ValueError, OSError."""
        if not _OWNER.fullmatch(owner):
            raise ValueError("owner: letters, digits, dots and dashes, at most 63")
        self._world.remove(f"{FOLDER}/{_name(owner)}")


def _name(owner: str) -> str:
    return f"{owner}.json"
