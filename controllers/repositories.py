"""Repository: can it be read? Tried at once when it is new or changed, then again and again.

Each is tried by itself and within a time of its own, many at once, so one that hangs delays nobody.
One that fails is tried less often, but not forgotten: condition `Accessible` says why, and what to
do about it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import structlog

from controllers import recording
from controllers.client import FLIGHTCTL, ApiError, Client
from controllers.remotes import Known, Remotes
from resources import conditions, readiness

Json = dict[str, Any]
Now = Callable[[], str]
# Why a Repository, given with its credentials, cannot be read; "" if it can.
Try = Callable[[Known], Awaitable[str]]

ACCESSIBLE = "Accessible"
# After so many failures in a row the time between tries grows no more.
SLOWED_MAX = 2

log = structlog.get_logger()


@dataclass(slots=True)
class Repositories:
    """The tries of one process. What is remembered is only how often a try failed, and when the
    next one is due: all of it may be lost."""

    client: Client
    remotes: Remotes
    attempt: Try
    # Called with namespace and name when those who read it have a reason to try anew.
    changed: Callable[[str, str], None]
    every_s: float
    now: Now
    monotonic: Callable[[], float]
    _failures: dict[tuple[str, str], int] = field(default_factory=dict)
    _due: dict[tuple[str, str], tuple[Json, float]] = field(default_factory=dict)

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """One look. Seconds until the next one; None if it is gone."""
        key = (namespace, name)
        shown = await self.client.get(FLIGHTCTL, namespace, "repositories", name)
        if shown is None or shown["metadata"].get("deletionTimestamp"):
            self._failures.pop(key, None)
            self._due.pop(key, None)
            self.changed(namespace, name)
            return None
        identity = {k: shown["metadata"][k] for k in ("uid", "generation")}
        known, due = self._due.get(key, (None, 0.0))
        wait_s = due - self.monotonic()
        if known == identity and wait_s > 0 and _is_told(shown):
            # Woken by what we wrote ourselves, or by somebody's label.
            return wait_s
        if known != identity:
            self._failures.pop(key, None)
            self.changed(namespace, name)
        whole = await self.remotes.of(namespace, name)
        if whole is None:
            return None
        problem = await self.attempt(whole)
        failures = self._failures[key] = self._failures.get(key, 0) + 1 if problem else 0
        wait_s = self.every_s * 2.0 ** min(max(0, failures - 1), SLOWED_MAX)
        self._due[key] = identity, self.monotonic() + wait_s
        await self._tell(shown, problem)
        return wait_s

    async def _tell(self, repository: Json, problem: str) -> None:
        metadata, now = repository["metadata"], self.now()
        known = readiness.own((repository.get("status") or {}).get("conditions"))
        said = conclude(known, problem, metadata["generation"], now)
        if said == known:
            return
        namespace, name = metadata["namespace"], metadata["name"]
        try:
            await self.client.patch_status(
                FLIGHTCTL, namespace, "repositories", name, {"conditions": said}
            )
        except ApiError as error:
            if error.code != 404:
                raise
            return
        was, is_ = (conditions.is_true(c, ACCESSIBLE) for c in (known, said))
        if was != is_ or not known:
            log.info("repository tried", namespace=namespace, repository=name, problem=problem)
            reason = "RepositoryInaccessible" if problem else "RepositoryAccessible"
            message = problem or "The repository can be read."
            await recording.tell(self.client, repository, reason, message, now=now)
            self.changed(namespace, name)


def conclude(known: list[Json], problem: str, generation: int, now: str) -> list[Json]:
    """The conditions after a try, with the reference's reasons."""
    status, reason = ("False", "Inaccessible") if problem else ("True", "Accessible")
    return conditions.set_condition(
        known, ACCESSIBLE, status, reason, problem or "Accessible", now, generation
    )


def _is_told(repository: Json) -> bool:
    found = conditions.get((repository.get("status") or {}).get("conditions"), ACCESSIBLE)
    return found is not None and (
        found.get("observedGeneration") == repository["metadata"]["generation"]
    )
