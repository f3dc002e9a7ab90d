"""Rollout: ask how far it is, let the planner decide, bind, and write down how it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import structlog

from controllers import versions
from controllers.client import FLIGHTCTL, HOMEPORT, ApiError, Client
from resources import attempts, conditions, rollout_plan, timestamps
from resources.rollout_plan import Bind, Finish, Note, Wait

Json = dict[str, Any]
Now = Callable[[], str]
Wants = Callable[[str], object]

# A million devices at the planner's limit, or some batches that are empty, and a bound on
# one look.
STEPS_A_LOOK = 40
STALLED = "Stalled"

log = structlog.get_logger()


async def reconcile(
    client: Client, namespace: str, name: str, *, now: Now, wants: Wants = lambda _: None
) -> float | None:
    """One look. Returns seconds until the next one, None when the attempt has ended. `wants` is
    told the template version of which something is to be fetched first."""
    rollout = await client.get(HOMEPORT, namespace, "rollouts", name)
    if rollout is None or (rollout.get("status") or {}).get("phase") in rollout_plan.ENDED:
        return None
    target = rollout["spec"]["target"]
    superseded = await _is_superseded(client, namespace, rollout)
    age_s, overdue = ages(rollout, now())
    current, spent = rollout, set[Bind]()
    for _ in range(STEPS_A_LOOK):
        progress = await client.progress(namespace, target["fleet"], name)
        decision = rollout_plan.plan(
            current,
            progress,
            now=timestamps.read(now()),
            superseded=superseded,
            overdue=overdue,
            spent=spent,
            age_s=age_s,
        )
        match decision:
            case Note():
                record = rollout_plan.noted(
                    current.get("status") or {}, decision, target.get("policy"), now()
                )
                current = current | {"status": record}
            case Bind():
                bound = await _bind(client, namespace, rollout, decision, wants)
                if bound is None:
                    return rollout_plan.BUSY_S
                if bound < decision.limit:
                    spent.add(decision)
            case Wait() | Finish():
                if progress.get("misjudged") and not superseded:
                    # Those whose turn has not come are told so once nothing is left to bind.
                    await _mark(client, namespace, rollout)
                await _tell(client, rollout, current, decision, progress, now())
                return None if isinstance(decision, Finish) else decision.recheck_s
    return rollout_plan.BUSY_S


async def _bind(
    client: Client, namespace: str, rollout: Json, decision: Bind, wants: Wants
) -> int | None:
    """How many were bound; None if the API server knows better than what we read of the rollout."""
    target = rollout["spec"]["target"]
    name = rollout["metadata"]["name"]
    request = {
        "templateVersion": target["templateVersion"],
        "rollout": name,
        "batch": decision.batch,
        "select": decision.select,
        "limit": decision.limit,
    }
    try:
        answer = await client.bind(namespace, target["fleet"], request)
    except ApiError as error:
        if error.code != 409:
            raise
        log.info("binding refused", rollout=name, reason=error.message)
        return None
    if answer.get("waiting"):
        wants(target["templateVersion"])
    log.info("devices bound", rollout=name, bound=answer["bound"], remaining=answer["remaining"])
    return int(answer["bound"])


async def _mark(client: Client, namespace: str, rollout: Json) -> None:
    target, name = rollout["spec"]["target"], rollout["metadata"]["name"]
    request = {"rollout": name, "mark": True}
    try:
        await client.bind(namespace, target["fleet"], request)
    except ApiError as error:
        if error.code != 409:
            raise
        log.info("marking refused", rollout=name, reason=error.message)


async def _is_superseded(client: Client, namespace: str, rollout: Json) -> bool:
    fleet = rollout["spec"]["target"]["fleet"]
    heads = await client.heads(FLIGHTCTL, namespace, "templateversions", f"spec.fleet={fleet}")
    others = await client.list_in(HOMEPORT, namespace, "rollouts", f"spec.target.fleet={fleet}")
    current = attempts.current(others, versions.newest(heads))
    # Of a version that is newer there may be no attempt yet.
    return current is None or attempts.name_of(current) != attempts.name_of(rollout)


def ages(rollout: Json, now: str) -> tuple[float, bool]:
    """How long the attempt has been under way, and whether that is more than its policy allows.

    Counted from when it last began to progress, so that a pause is not held against it.
    """
    progressing = conditions.get((rollout.get("status") or {}).get("conditions"), "Progressing")
    if progressing is None or progressing.get("status") != conditions.TRUE:
        return 0.0, False
    limit_s = rollout_plan.timeout_s(rollout["spec"]["target"].get("policy"))
    age = timestamps.read(now) - timestamps.read(progressing["lastTransitionTime"])
    return age.total_seconds(), age.total_seconds() > limit_s


def _batches(known: list[Json], progress: Json) -> list[Json]:
    """The record's batches with the counts of now."""
    counted = {batch["number"]: _counts(batch) for batch in progress.get("batches") or ()}
    return [
        batch | ({"counts": counted[batch["number"]]} if batch["number"] in counted else {})
        for batch in known
    ]


async def _tell(
    client: Client,
    rollout: Json,
    current: Json,
    decision: Wait | Finish,
    progress: Json,
    now: str,
) -> None:
    """Write the status, if it says something new: what is stored is in `rollout`, what this look
    has noted in `current`."""
    metadata = rollout["metadata"]
    known = current.get("status") or {}
    new = conclude(known, decision, progress, generation=metadata["generation"], now=now)
    if retries := attempts.retries_of(rollout):
        new["retry"] = retries
    if new == (rollout.get("status") or {}):
        return
    try:
        await client.patch_status(
            HOMEPORT, metadata["namespace"], "rollouts", metadata["name"], new
        )
    except ApiError as error:
        if error.code != 404:
            raise


_COUNTED = (
    *("selected", "bound", "rendered", "held", "done", "failed", "refused", "timedOut"),
    "disconnected",
)


def _counts(counted: Json) -> Json:
    """Each of them, also where it is 0: what a patch leaves out stays as it was."""
    return {key: counted.get(key, 0) for key in _COUNTED}


def conclude(
    old: Json,
    decision: Wait | Finish,
    progress: Json,
    *,
    generation: int,
    now: str,
) -> Json:
    """The Rollout's status after a look."""
    new = dict(old) | {
        "phase": decision.phase,
        "currentBatch": old.get("currentBatch") or 0,
        "counts": _counts(progress),
        "failures": progress["failures"],
        "startedAt": old.get("startedAt") or now,
        "observedGeneration": generation,
    }
    if old.get("batches"):
        new["batches"] = _batches(old["batches"], progress)
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
    new["conditions"] = _for_kstatus(known, decision, generation=generation, now=now)
    return new


def _for_kstatus(
    known: list[Json], decision: Wait | Finish, *, generation: int, now: str
) -> list[Json]:
    """With the conditions that programs read which know nothing of rollouts."""
    ended, is_done = isinstance(decision, Finish), decision.phase == "Completed"
    said = {"Reconciling": not ended, "Ready": is_done}
    if ended and not is_done:
        # There only while nothing more will come of it: its absence is the good news.
        said[STALLED] = True
    known = [c for c in known if c.get("type") in said or c.get("type") != STALLED]
    for type_, is_true in said.items():
        status = conditions.TRUE if is_true else conditions.FALSE
        reason, message = decision.reason, decision.message
        known = conditions.set_condition(known, type_, status, reason, message, now, generation)
    return known
