"""What was refused, and who read secrets, told in the audit: many at a time; nothing was changed.

Bounded twice: who is not known may have a few told in a minute, and counts for all of its sort, so
that no stranger fills the audit and pushes out what others did; and what waits is a thousand at
most. What is left out is counted in the log. A kill loses what came in the last second.

What the service itself failed at is told as an event too, of the object that it was about.

Controllers read the credentials of a Repository each time that they go there; told is that they do,
once in an hour and for each version of it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import structlog

from apiserver.auditing import entry
from apiserver.auth.identity import Caller
from apiserver.store import Store, Transaction
from apiserver.store.auditlog import Entry
from apiserver.store.newsworthy import About
from resources import objectnews, registry
from resources.kind import Json, Kind
from resources.news import News

WAITING_MAX = 1_000
FAILED_MAX = 100
STRANGERS_A_MINUTE = 60
EVERY_S = 1.0
FAILURE = 500
FAILED = "The service failed at it; its log has more."
READ_AGAIN_S = 3_600.0
READERS_MAX = 10_000

log = structlog.get_logger()


@dataclass(slots=True)
class Refusals:
    """Of one process."""

    store: Store
    monotonic: Callable[[], float] = time.monotonic
    _waiting: list[Entry] = field(default_factory=list)
    _failed: list[_Failure] = field(default_factory=list)
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
        if code == FAILURE and len(self._failed) < FAILED_MAX:
            self._failed.extend(_told(verb, about))

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
        if entries := tuple(self._waiting):
            await self.store.write(lambda tx: tx.audit(entries))
            del self._waiting[: len(entries)]
        while self._failed:
            # By itself, and given up where it fails too: what the service could not do once, it may
            # not be able to look at, and the audit must not wait for that.
            failure = self._failed.pop(0)
            await self.store.write(failure.announce)


@dataclass(frozen=True, slots=True)
class _Failure:
    """What the service itself failed at. Of what was to be made the name may not be known."""

    kind: Kind
    namespace: str
    name: str
    reason: str

    def announce(self, tx: Transaction) -> None:
        if not tx.has_namespace(self.namespace):
            return
        stored = tx.get(self.kind, self.namespace, self.name) if self.name else None
        metadata = (stored or {}).get("metadata") or {}
        about = About(
            self.kind.api_version,
            self.kind.kind,
            self.namespace,
            self.name,
            metadata.get("uid", ""),
            metadata.get("resourceVersion", ""),
        )
        tx.announce(about, [News(self.reason, FAILED)])


def _told(verb: str, about: Json) -> Iterator[_Failure]:
    reason = objectnews.failed(about["kind"], verb, about["subresource"])
    if reason is not None:
        kind = registry.by_kind(about["kind"])
        yield _Failure(kind, about["namespace"], about["name"], reason)
