"""What a webhook may do: prove that it comes from a Repository's forge, and wake who reads from it.

The invariants:

- A secret never leaves here but as what a delivery is measured by. Where there is none (no such
  Repository, or one without `spec.webhookSecret`) a delivery is measured by one that nobody has, so
  that the answer, and the way to it, tell a stranger nothing.
- A delivery is answered after a note on the Repository was committed that nobody wrote before it
  came. Many that come together share one note, and a Repository gets one in GAP_S at most: a
  push of a hundred branches costs what one costs.

The note moves the Repository's resourceVersion; controllers see that as any other change, and look.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import structlog

from apiserver.auth.identity import CONTROLLER, Caller
from apiserver.errors import NotFound, TooManyRequests
from apiserver.operations import Operations
from apiserver.store import Snapshot
from resources import registry

GAP_S = 1.0
# Of one Repository. A forge sends as many in a second only if something is wrong with it.
WAITING_MAX = 200
TURNS_MAX = 1_000

Place = tuple[str, str]  # namespace, name

log = structlog.get_logger()
_CALLER = Caller(name="system:homeport:webhooks", role=CONTROLLER)
_REPOSITORY = registry.by_kind("Repository")


@dataclass(slots=True)
class _Turn:
    """The deliveries of one Repository: how many came, how many of them a note covers, and how many
    wait for one."""

    came: int = 0
    covered: int = 0
    waiting: int = 0
    noted_at: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Hooks:
    """The webhooks of one process."""

    def __init__(
        self,
        operations: Operations,
        *,
        gap_s: float = GAP_S,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._operations = operations
        self._gap_s = gap_s
        self._monotonic = monotonic
        self._nobodys = secrets.token_hex(32)
        self._turns: dict[Place, _Turn] = {}

    async def secret(self, namespace: str, name: str) -> str:
        """What a delivery for the Repository is measured by."""

        def read(snapshot: Snapshot) -> str:
            found = snapshot.get(_REPOSITORY, namespace, name) or {}
            return str((found.get("spec") or {}).get("webhookSecret") or "")

        return await self._operations.store.read(read) or self._nobodys

    async def wake(self, namespace: str, name: str) -> None:
        """Note on the Repository that whoever reads from it is to look. Raises TooManyRequests."""
        turn = self._turn((namespace, name))
        if turn.waiting >= WAITING_MAX:
            raise TooManyRequests("too many deliveries at once; one is enough", retry_after_s=1)
        turn.waiting += 1
        turn.came += 1
        ours = turn.came
        try:
            async with turn.lock:
                if turn.covered < ours:
                    await self._note(namespace, name, turn)
        finally:
            turn.waiting -= 1

    def _turn(self, place: Place) -> _Turn:
        if place not in self._turns and len(self._turns) >= TURNS_MAX:
            past = self._monotonic() - self._gap_s
            self._turns = {
                key: turn
                for key, turn in self._turns.items()
                if turn.waiting or turn.noted_at > past
            }
        return self._turns.setdefault(place, _Turn())

    async def _note(self, namespace: str, name: str, turn: _Turn) -> None:
        await asyncio.sleep(max(0.0, turn.noted_at + self._gap_s - self._monotonic()))
        covered = turn.came
        # Gone since its secret was read, and with it whoever could be waiting: nothing to note.
        with suppress(NotFound):
            await self._operations.refresh(_CALLER, _REPOSITORY, namespace, name)
        turn.covered, turn.noted_at = covered, self._monotonic()
        log.info("repository pushed to", namespace=namespace, repository=name)
