"""What was refused, and who read secrets, told in the audit: many at a time; nothing was changed.

Bounded twice: who is not known may have a few told in a minute, and counts for all of its sort, so
that no stranger fills the audit and pushes out what others did; and what waits is a thousand at
most. What is left out is counted in the log. A kill loses what came in the last second.

Controllers read the credentials of a Repository each time that they go there; told is that they do,
once in an hour and for each version of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from apiserver.auditing import entry
from apiserver.auth.identity import Caller
from apiserver.store import Store
from apiserver.store.auditlog import Entry
from resources.kind import Json

WAITING_MAX = 1_000
STRANGERS_A_MINUTE = 60
EVERY_S = 1.0
READ_AGAIN_S = 3_600.0
READERS_MAX = 10_000

log = structlog.get_logger()


@dataclass(slots=True)
class Refusals:
    """Of one process."""

    store: Store
    monotonic: Callable[[], float] = time.monotonic
    _waiting: list[Entry] = field(default_factory=list)
    _left_out: int = 0
    _strangers: int = 0
    _minute: int = -1
    _read: dict[tuple[str, str], float] = field(default_factory=dict)

    def tell(self, caller: Caller, verb: str, about: Json, code: int, reason: str) -> None:
        """Never waits, never fails."""
        if len(self._waiting) >= WAITING_MAX or not (caller.source or self._has_room()):
            self._left_out += 1
            return
        self._waiting.append(entry(caller, verb, about, code, reason))

    def tell_read(self, caller: Caller, about: Json) -> None:
        """`about` is an object whose secrets were answered."""
        self.tell_once(caller, "get", about, 200, "")

    def tell_once(self, caller: Caller, verb: str, about: Json, code: int, reason: str) -> None:
        """What is done again and again: told once in an hour, for each reason and version."""
        seen = caller.identity, " ".join(str(each) for each in (*about.values(), reason))
        now = self.monotonic()
        if now - self._read.get(seen, -READ_AGAIN_S) < READ_AGAIN_S:
            return
        if len(self._read) >= READERS_MAX:
            self._read.clear()
        self._read[seen] = now
        self.tell(caller, verb, about, code, reason)

    def _has_room(self) -> bool:
        minute = int(self.monotonic() / 60)
        if minute != self._minute:
            self._minute, self._strangers = minute, 0
        self._strangers += 1
        return self._strangers <= STRANGERS_A_MINUTE

    async def keep_writing(self) -> None:
        """Runs until it is cancelled; then `flush` writes the rest."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.flush()
            except Exception:  # they wait for the next round
                log.warning("refusals could not be written", exc_info=True)

    async def flush(self) -> None:
        if self._left_out:
            log.warning("refusals left out of the audit", number=self._left_out)
            self._left_out = 0
        if not self._waiting:
            return
        entries = tuple(self._waiting)
        await self.store.write(lambda tx: tx.audit(entries))
        del self._waiting[: len(entries)]
