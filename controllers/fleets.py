"""Fleet → TemplateVersion → Rollout. Looks at what is stored, and makes the next thing exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from controllers import freezing
from controllers.client import FLIGHTCTL, HOMEPORT, ApiError, Client
from resources import conditions, rollout_plan
from resources.errors import Invalid

Json = dict[str, Any]
Now = Callable[[], str]

# Phases of a rollout that goes on, as flightctl names them on the fleet; all others are Active.
_IN_PROGRESS = {"Waiting": "Waiting", "Suspended": "Suspended"}


async def reconcile(client: Client, namespace: str, name: str, *, now: Now) -> list[str]:
    """Bring one fleet's versions and rollouts up to its template. Returns the rollouts that this
    supersedes: they are to be looked at, for they may be waiting for devices that are away."""
    fleet = await client.get(FLIGHTCTL, namespace, "fleets", name)
    if fleet is None or fleet["metadata"].get("deletionTimestamp"):
        return []
    names = await client.names(FLIGHTCTL, namespace, "templateversions", f"spec.fleet={name}")
    newest = freezing.newest(names)
    rollouts = await client.list_in(HOMEPORT, namespace, "rollouts", f"spec.target.fleet={name}")
    try:
        template = freezing.frozen(fleet)
    except Invalid as problem:
        # What was rolling out before the template broke goes on.
        under_way = freezing.latest_attempt(rollouts, newest)
        await _tell(client, fleet, valid=str(problem), rollout=under_way, now=now())
        return []
    version = newest and await client.get(FLIGHTCTL, namespace, "templateversions", newest)
    if not version or not freezing.is_same(template, version):
        version = await _create_version(client, fleet, template, now=now())
    target = version["metadata"]["name"]
    rollout = freezing.latest_attempt(rollouts, target)
    if rollout is None:
        rollout = await _create_rollout(client, fleet, target)
    await _tell(client, fleet, valid="", rollout=rollout, now=now())
    return [r["metadata"]["name"] for r in rollouts if _is_left_behind(r, target)]


def _is_left_behind(rollout: Json, target: str) -> bool:
    ended = (rollout.get("status") or {}).get("phase") in rollout_plan.ENDED
    return not ended and rollout["spec"]["target"]["templateVersion"] != target


async def _create_version(client: Client, fleet: Json, template: Json, *, now: str) -> Json:
    metadata = fleet["metadata"]
    name = f"{metadata['name']}.v{metadata['generation']}"
    document = {
        "apiVersion": FLIGHTCTL,
        "kind": "TemplateVersion",
        "metadata": {"name": name, "ownerReferences": [_owner(fleet)]},
        "spec": {"fleet": metadata["name"]},
        "status": {**template, "conditions": [], "updatedAt": now},
    }
    namespace = metadata["namespace"]
    try:
        return await client.create(FLIGHTCTL, namespace, "templateversions", document)
    except ApiError as error:
        # Made by an earlier attempt whose answer was lost; a generation has one template.
        if error.reason != "AlreadyExists":
            raise
        existing = await client.get(FLIGHTCTL, namespace, "templateversions", name)
        if existing is None:
            raise
        return existing


async def _create_rollout(client: Client, fleet: Json, target: str) -> Json:
    metadata = fleet["metadata"]
    namespace, fleet_name = metadata["namespace"], metadata["name"]
    policy = fleet["spec"].get("rolloutPolicy")
    wanted: Json = {"fleet": fleet_name, "templateVersion": target}
    if policy:
        wanted["policy"] = policy
    document = {
        "apiVersion": HOMEPORT,
        "kind": "Rollout",
        "metadata": {"name": f"{target}-1", "ownerReferences": [_owner(fleet)]},
        "spec": {"target": wanted},
        "status": {"phase": "Pending"},
    }
    try:
        return await client.create(HOMEPORT, namespace, "rollouts", document)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
        existing = await client.get(HOMEPORT, namespace, "rollouts", f"{target}-1")
        if existing is None:
            raise
        return existing


def _owner(fleet: Json) -> Json:
    return {
        "apiVersion": FLIGHTCTL,
        "kind": "Fleet",
        "name": fleet["metadata"]["name"],
        "uid": fleet["metadata"]["uid"],
        "controller": True,
    }


async def _tell(client: Client, fleet: Json, *, valid: str, rollout: Json | None, now: str) -> None:
    """Write the fleet's conditions, if they say something new."""
    metadata = fleet["metadata"]
    known = (fleet.get("status") or {}).get("conditions") or []
    said = conclude(known, valid=valid, rollout=rollout, fleet=fleet, now=now)
    if said == known:
        return
    await client.patch_status(
        FLIGHTCTL, metadata["namespace"], "fleets", metadata["name"], {"conditions": said}
    )


def conclude(
    known: list[Json], *, valid: str, rollout: Json | None, fleet: Json, now: str
) -> list[Json]:
    """The fleet's conditions: Valid and RolloutInProgress as flightctl has them, Ready and
    Reconciling as kstatus reads them."""
    generation = fleet["metadata"]["generation"]

    def put(type_: str, is_true: bool, reason: str, message: str) -> None:
        nonlocal known
        status = "True" if is_true else "False"
        known = conditions.set_condition(known, type_, status, reason, message, now, generation)

    put("Valid", not valid, "Invalid" if valid else "Valid", valid)
    phase = ((rollout or {}).get("status") or {}).get("phase", "Pending")
    active = rollout is not None and phase not in rollout_plan.ENDED
    said = [_why(rollout, "Progressing")] if active else []
    later = rollout_plan.unplanned(fleet["spec"].get("rolloutPolicy"))
    if later:
        said.append(
            f"{' and '.join(later)} of the rollout policy cannot be carried out yet: all devices "
            "are one batch."
        )
    reason = _IN_PROGRESS.get(phase, "Active") if active else "Inactive"
    put("RolloutInProgress", reason == "Active", reason, " ".join(filter(None, said)))
    put("Reconciling", active, "RollingOut" if active else "Idle", "")
    if valid:
        put("Ready", False, "Invalid", "The template cannot be rolled out.")
    elif active:
        put("Ready", False, "RollingOut", "Devices are being updated.")
    else:
        put("Ready", phase == "Completed", phase, _why(rollout, "Succeeded"))
    return known


def _why(rollout: Json | None, type_: str) -> str:
    found = conditions.get(((rollout or {}).get("status") or {}).get("conditions"), type_)
    return str((found or {}).get("message") or "")
