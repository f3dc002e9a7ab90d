"""Rollout: ask how far it is, let the planner decide, bind, and write down how it goes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog

from controllers import versions
from controllers.client import FLIGHTCTL, HOMEPORT, ApiError, Client
from resources import conditions, formats, rollout_plan
from resources.rollout_plan import Bind, Finish, Wait

Json = dict[str, Any]
Now = Callable[[], str]

DEFAULT_TIMEOUT_S = 24 * 3600
# A hundred thousand devices at the planner's limit, and a bound on one look.
BINDS_A_LOOK = 20

log = structlog.get_logger()


async def reconcile(client: Client, namespace: str, name: str, *, now: Now) -> float | None:
    """One look. Returns seconds until the next one, None when the attempt has ended."""
    rollout = await client.get(HOMEPORT, namespace, "rollouts", name)
    if rollout is None or (rollout.get("status") or {}).get("phase") in rollout_plan.ENDED:
        return None
    fleet = rollout["spec"]["target"]["fleet"]
    superseded = await _is_superseded(client, namespace, rollout)
    age_s, overdue = ages(rollout, now())
    stuck = False
    for _ in range(BINDS_A_LOOK):
        progress = await client.progress(namespace, fleet, name)
        decision = rollout_plan.plan(
            rollout, progress, superseded=superseded, overdue=overdue, stuck=stuck, age_s=age_s
        )
        if not isinstance(decision, Bind):
            await _tell(client, rollout, decision, progress, now())
            return None if isinstance(decision, Finish) else decision.recheck_s
        bound = await _bind(client, namespace, rollout, decision)
        if bound is None:
            return rollout_plan.BUSY_S
        stuck = bound == 0
    return rollout_plan.BUSY_S


async def _bind(client: Client, namespace: str, rollout: Json, decision: Bind) -> int | None:
    """How many were bound; None if the API server knows better than what we read of the rollout."""
    target = rollout["spec"]["target"]
    name = rollout["metadata"]["name"]
    request = {
        "templateVersion": target["templateVersion"],
        "rollout": name,
        "stage": decision.stage,
        "limit": decision.limit,
    }
    if decision.selector is not None:
        request["selector"] = dict(decision.selector)
    try:
        answer = await client.bind(namespace, target["fleet"], request)
    except ApiError as error:
        if error.code != 409:
            raise
        log.info("binding refused", rollout=name, reason=error.message)
        return None
    log.info("devices bound", rollout=name, bound=answer["bound"], remaining=answer["remaining"])
    return int(answer["bound"])


async def _is_superseded(client: Client, namespace: str, rollout: Json) -> bool:
    target = rollout["spec"]["target"]
    heads = await client.heads(
        FLIGHTCTL, namespace, "templateversions", f"spec.fleet={target['fleet']}"
    )
    return versions.newest(heads) != str(target["templateVersion"])


def ages(rollout: Json, now: str) -> tuple[float, bool]:
    """How long the attempt has been under way, and whether that is more than its policy allows.

    Counted from when it last began to progress, so that a pause is not held against it.
    """
    progressing = conditions.get((rollout.get("status") or {}).get("conditions"), "Progressing")
    if progressing is None or progressing.get("status") != conditions.TRUE:
        return 0.0, False
    policy = rollout["spec"]["target"].get("policy") or {}
    limit_s = formats.seconds(policy.get("defaultUpdateTimeout")) or DEFAULT_TIMEOUT_S
    age = _moment(now) - _moment(progressing["lastTransitionTime"])
    return age.total_seconds(), age.total_seconds() > limit_s


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


async def _tell(
    client: Client, rollout: Json, decision: Wait | Finish, progress: Json, now: str
) -> None:
    """Write the status, if it says something new."""
    metadata, old = rollout["metadata"], rollout.get("status") or {}
    new = conclude(old, decision, progress, generation=metadata["generation"], now=now)
    if new == old:
        return
    try:
        await client.patch_status(
            HOMEPORT, metadata["namespace"], "rollouts", metadata["name"], new
        )
    except ApiError as error:
        if error.code != 404:
            raise


def conclude(
    old: Json, decision: Wait | Finish, progress: Json, *, generation: int, now: str
) -> Json:
    """The Rollout's status after a look."""
    counted = ("selected", "bound", "rendered", "done", "failed", "timedOut", "disconnected")
    new = dict(old) | {
        "phase": decision.phase,
        "currentBatch": 0,
        "counts": {key: progress[key] for key in counted},
        "failures": progress["failures"],
        "startedAt": old.get("startedAt") or now,
        "observedGeneration": generation,
    }
    ended = isinstance(decision, Finish)
    if ended:
        new["finishedAt"] = old.get("finishedAt") or now
    known = conditions.set_condition(
        old.get("conditions"),
        "Progressing",
        "True" if decision.phase == "Active" else "False",
        decision.reason,
        decision.message,
        now,
        generation,
    )
    if ended:
        status = "True" if decision.phase == "Completed" else "False"
        known = conditions.set_condition(
            known, "Succeeded", status, decision.reason, decision.message, now, generation
        )
    new["conditions"] = known
    return new
