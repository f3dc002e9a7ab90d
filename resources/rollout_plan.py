"""What a rollout does next, from its policy and its progress. Pure; levels, not commands.

Theory of operation. The planner is asked again and again with the counts as they are, and answers
the next binding, or why there is none. It keeps nothing between two questions, so a lost answer, a
repeated one or another controller's changes nothing: `Bind` says "at most this many", the API
server counts in the transaction that binds, and what is bound is not taken again.

Not planned yet (issue 7): batches, disruption budgets and success thresholds; of `spec.control`,
`approved`, `retry` and `revert`. Everything is one batch, with both stages at once. What a policy
asks beyond that is named by `unplanned`, so that the fleet can say so to its owner; a revert stops
the binding and says that it goes no further. The selector, the stage and the batch number are in
`Bind` already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from resources.kind import Json

LIMIT = 10_000
BUSY_S, QUIET_S = 1.0, 30.0
# A look costs one count over the fleet: the longer it has been going on, the less often.
LOOKS = 30

Ended = Literal["Completed", "Failed", "Aborted"]
ENDED: tuple[Ended, ...] = ("Completed", "Failed", "Aborted")


@dataclass(frozen=True, slots=True)
class Bind:
    """Bind up to `limit` devices of the batch that `selector` matches."""

    batch: int
    limit: int
    stage: Literal["spec", "rendered", "both"] = "both"
    selector: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to bind now. `recheck_s` is how long a lost wake-up may delay the next look."""

    phase: Literal["Active", "Waiting"]
    reason: str
    message: str
    recheck_s: float


@dataclass(frozen=True, slots=True)
class Finish:
    """The attempt has ended; what it did stays recorded."""

    phase: Ended
    reason: str
    message: str


Decision = Bind | Wait | Finish


def unplanned(policy: Json | None) -> list[str]:
    """What a policy asks for that this planner does not do yet, as field names."""
    return [key for key in ("deviceSelection", "disruptionBudget") if (policy or {}).get(key)]


def plan(
    rollout: Json,
    progress: Mapping[str, int],
    *,
    superseded: bool = False,
    overdue: bool = False,
    stuck: bool = False,
    age_s: float = 0.0,
) -> Decision:
    """The next thing to do.

    `progress` has total, unbound, done, failed, and may have disconnected and blocked;
    `superseded` says that the fleet has a newer template version, `overdue` that the update
    timeout has passed, `stuck` that the last binding took none of what is unbound, `age_s` how
    long the attempt has been under way.
    """
    control = (rollout.get("spec") or {}).get("control") or {}
    if control.get("aborted"):
        return Finish("Aborted", "Aborted", "The rollout was aborted.")
    if superseded:
        return Finish("Aborted", "Superseded", "The fleet's template has changed since.")
    if control.get("revert"):
        message = "No more devices are bound; taking them back is not carried out yet."
        return Wait("Waiting", "RevertNotSupported", message, QUIET_S)
    if control.get("paused"):
        return Wait("Waiting", "Paused", "The rollout is paused.", QUIET_S)
    unbound = progress["unbound"]
    if unbound > 0 and not stuck:
        return Bind(batch=0, limit=min(LIMIT, unbound))
    wanted = progress["total"] - progress.get("blocked", 0)
    open_ = wanted - progress["done"] - progress["failed"]
    if open_ <= 0 and not unbound:
        return _finished(wanted, progress["failed"])
    if overdue:
        message = f"{open_} of {wanted} devices did not report success in time."
        return Finish("Failed", "TimedOut", message)
    return _waiting(progress, wanted, open_, age_s)


def _waiting(progress: Mapping[str, int], wanted: int, open_: int, age_s: float) -> Wait:
    message = f"{progress['done']} of {wanted} devices run the new template"
    if progress["failed"]:
        message += f", {progress['failed']} failed"
    away = progress.get("disconnected", 0)
    if away:
        message += f", {away} are disconnected"
    if progress["unbound"]:
        message += f", {progress['unbound']} could not be bound"
    quiet = progress["unbound"] > 0 or open_ <= away
    recheck_s = QUIET_S if quiet else min(QUIET_S, max(BUSY_S, age_s / LOOKS))
    return Wait("Active", "Updating", message + ".", recheck_s)


def _finished(wanted: int, failed: int) -> Finish:
    if failed:
        message = f"{failed} of {wanted} devices failed and went back."
        return Finish("Failed", "DevicesFailed", message)
    message = f"All {wanted} devices run the new template." if wanted else "There are no devices."
    return Finish("Completed", "Completed", message)
