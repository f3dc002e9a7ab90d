"""Late joiners: devices that came to a fleet, or back to it, after its rollout had begun.

The Backlog says how many of which fleet wait. Each such fleet's newest template version is bound
again, under its newest rollout; binding takes only what is not bound, so doing it twice is nothing.
"""

from __future__ import annotations

from typing import Any

import structlog

from controllers import versions
from controllers.client import FLIGHTCTL, HOMEPORT, ApiError, Client, Unreachable
from controllers.rollouts import Wants
from resources import attempts, rollout_plan

Json = dict[str, Any]

RECHECK_S = 10.0
LIMIT = 10_000

log = structlog.get_logger()


async def reconcile(
    client: Client, namespace: str, name: str, *, wants: Wants = lambda _: None
) -> float | None:
    """Work off a namespace's backlog. Returns seconds until the next look, or None. `wants` is told
    the template versions of which something is to be fetched first."""
    backlog = await client.get(HOMEPORT, namespace, "backlogs", name)
    waiting: Json = ((backlog or {}).get("status") or {}).get("fleets") or {}
    problems: list[Exception] = []
    for fleet in sorted(waiting):
        try:
            await _bind_fleet(client, namespace, fleet, wants)
        except (ApiError, Unreachable) as problem:
            # One fleet that cannot be bound must not keep the others waiting.
            problem.add_note(f"fleet {fleet}")
            problems.append(problem)
    if problems:
        raise ExceptionGroup("fleets were left", problems)
    return RECHECK_S if waiting else None


async def _bind_fleet(client: Client, namespace: str, fleet: str, wants: Wants) -> None:
    target = versions.newest(
        await client.heads(FLIGHTCTL, namespace, "templateversions", f"spec.fleet={fleet}")
    )
    rollouts = await client.list_in(HOMEPORT, namespace, "rollouts", f"spec.target.fleet={fleet}")
    rollout = attempts.current(rollouts, target or "")
    if rollout is None:
        # The fleet's own reconciliation makes both; its rollout then takes these devices along.
        return
    request = {
        # The newest version's, or what that was taken back to.
        "templateVersion": attempts.brings(rollout),
        "rollout": rollout["metadata"]["name"],
        "limit": LIMIT,
        **rollout_plan.for_late_joiners(rollout),
    }
    try:
        answer = await client.bind(namespace, fleet, request)
    except ApiError as error:
        if error.code not in (404, 409):
            raise
        log.info("backlog left", fleet=fleet, reason=error.message)
        return
    if answer.get("waiting"):
        wants(attempts.brings(rollout))
    log.info("backlog bound", fleet=fleet, bound=answer["bound"], remaining=answer["remaining"])
