"""Fleet → TemplateVersion → Rollout. Looks at what is stored, and makes the next thing exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controllers import freezing, pinning, recording, values, versions
from controllers.client import FLIGHTCTL, HOMEPORT, ApiError, Client
from controllers.freezing import Freezer, Unfrozen
from resources import attempts, conditions, configproviders, digest, references, render
from resources.errors import Invalid

Json = dict[str, Any]
Now = Callable[[], str]

ROOT = "spec.template.spec"
# Ours: whether what the devices are given is what the outside sources have now.
INPUTS_CURRENT = "InputsCurrent"
# kstatus': a program that waits need not wait longer.
STALLED = "Stalled"
CHANGED = "DependencyChangeDetected"
PROBE_FAILED = "DependencySyncProbeFailed"
# Condition, and what its becoming true (again) and false are called.
_EVENTS = (
    ("Valid", "FleetValid", "FleetInvalid"),
    (INPUTS_CURRENT, "", PROBE_FAILED),
)
# How soon it is seen, at the latest, that the devices of a rollout that failed have come round.
MENDED_S = 30.0
# Ready, though the rollout has failed.
MENDED = "Mended"
# Phases of a rollout that goes on, as flightctl names them on the fleet; all others are Active.
_IN_PROGRESS = {"Waiting": "Waiting", "Suspended": "Suspended"}


@dataclass(frozen=True, slots=True)
class Look:
    """What came of looking at a fleet. `superseded`: rollouts that are to be looked at, for they
    may be waiting for devices that are away; `follows`: its template points outside, so that it is
    to be looked at again though nothing here changes; `wants`: the template version of which
    something may be missing for single devices; `recheck_s`: its devices may come round meanwhile,
    which nobody tells."""

    superseded: Sequence[str] = ()
    follows: bool = False
    wants: str = ""
    recheck_s: float | None = None


async def reconcile(
    client: Client, namespace: str, name: str, *, freezer: Freezer, now: Now
) -> Look:
    """Bring one fleet's versions and rollouts up to its template, and to what its template points
    at."""
    fleet = await client.get(FLIGHTCTL, namespace, "fleets", name)
    if fleet is None or fleet["metadata"].get("deletionTimestamp"):
        return Look()
    heads = await client.heads(FLIGHTCTL, namespace, "templateversions", f"spec.fleet={name}")
    newest = versions.newest(heads)
    rollouts = await client.list_in(HOMEPORT, namespace, "rollouts", f"spec.target.fleet={name}")
    found = newest and await client.get(FLIGHTCTL, namespace, "templateversions", newest)
    version, template = found or None, fleet["spec"]["template"]["spec"]
    try:
        inputs, stale = await _frozen(freezer, fleet, version, now=now())
    except (Invalid, Unfrozen) as problem:
        # What was rolling out before the template broke goes on.
        under_way = attempts.current(rollouts, newest or "")
        passing = isinstance(problem, Unfrozen) and problem.is_passing
        said = str(problem)
        await _tell(client, fleet, valid=said, passing=passing, rollout=under_way, now=now())
        wants = attempts.brings(under_way) if under_way else ""
        return Look(follows=isinstance(problem, Unfrozen), wants=wants)
    moved = values.Moved()
    if version is not None and versions.is_same(template, inputs, version):
        moved = await values.moved(client, fleet, version, freezer=freezer)
    if version is None or moved.inputs or not versions.is_same(template, inputs, version):
        before = versions.inputs_of(version)
        target = versions.next_name(fleet, template, [*inputs, *moved.inputs], version)
        frozen = {**template, "inputs": inputs} if inputs else template
        try:
            version = await _create_version(client, fleet, target, frozen, now=now())
        except ApiError as error:
            if freezing.is_missing(error):
                # Swept while we were busy elsewhere; the next attempt sends all of it again.
                freezer.forget()
            raise
        if attempts.follows_a_source(target):
            for whose, details in changes(template, inputs, before):
                message = f"What {whose} has changed; {target} holds it."
                await recording.tell(client, fleet, CHANGED, message, details, now=now())
    target = version["metadata"]["name"]
    rollout = attempts.current(rollouts, target)
    there = {str(head["name"]) for head in heads} | {target}
    following = _following(fleet, rollouts, rollout, target, there)
    if following is not None:
        rollout = await _create_rollout(client, fleet, following)
    assert rollout is not None, "what is missing was made"
    follows = bool(render.outside(template))
    fresh = str(stale or moved.problem) if follows else None
    mended = await _mended(client, fleet, rollout)
    await _tell(
        client,
        fleet,
        valid="",
        rollout=rollout,
        inputs=fresh,
        failed=failure(template, stale),
        mended=mended,
        now=now(),
    )
    current = rollout["metadata"]["name"]
    behind = [r["metadata"]["name"] for r in rollouts if _is_left_behind(r, current)]
    may_lack = references.are_open(template) or attempts.brings(rollout) != target
    wants = attempts.brings(rollout) if may_lack else ""
    recheck_s = MENDED_S if _has_failed(rollout) and not mended else None
    return Look(behind, follows, wants, recheck_s)


def _has_failed(rollout: Json) -> bool:
    return (rollout.get("status") or {}).get("phase") == "Failed"


async def _mended(client: Client, fleet: Json, rollout: Json) -> str:
    """In words, that all devices have what a rollout brings that has failed: a label was mended,
    one came back. An attempt is over once it has ended, but a fleet is as its devices are. Once
    said it stays: a device that comes to a fleet later is no reason to call that failed again."""
    metadata, said = fleet["metadata"], (fleet.get("status") or {}).get("conditions")
    if not _has_failed(rollout):
        return ""
    ready = conditions.get(said, "Ready") or {}
    name = rollout["metadata"]["name"]
    if ready.get("reason") == MENDED and ready["message"].endswith(f" {name} had failed."):
        return str(ready["message"])
    counted = await client.progress(metadata["namespace"], metadata["name"], name)
    if not counted["total"] or counted["done"] != counted["total"]:
        return ""
    return f"All {counted['total']} devices run the new template; {name} had failed."


async def _frozen(
    freezer: Freezer, fleet: Json, version: Json | None, *, now: str
) -> tuple[list[Json], Unfrozen | None]:
    """What the outside sources gave; with the reason why it is what they gave last time, where they
    do not answer just now and the template is the same. Raises Invalid, Unfrozen."""
    template, known = fleet["spec"]["template"]["spec"], versions.inputs_of(version)
    freezing.checked(template, ROOT)
    namespace = fleet["metadata"]["namespace"]
    try:
        pins = pinning.pins_of(fleet)
        return await freezer.freeze(namespace, template, ROOT, known, now=now, pins=pins), None
    except Unfrozen as problem:
        if problem.is_passing and versions.has_template(template, version):
            return list(known.values()), problem
        raise


def _is_left_behind(rollout: Json, current: str) -> bool:
    return not attempts.has_ended(rollout) and rollout["metadata"]["name"] != current


def _following(
    fleet: Json, rollouts: Sequence[Json], rollout: Json | None, version: str, there: set[str]
) -> attempts.Next | None:
    """The attempt that is to follow the current one; None if nothing is."""
    policy = fleet["spec"].get("rolloutPolicy")
    if rollout is None:
        return attempts.first(rollouts, fleet["metadata"]["name"], version, policy)
    following = attempts.follower(rollouts, rollout, there, policy)
    if following is None and _is_outdated(rollout, policy):
        return attempts.again(rollouts, rollout, policy)
    return following


def _is_outdated(rollout: Json, policy: Json | None) -> bool:
    """Whether an attempt goes by another policy than the fleet's, and has not ended: another one
    takes its place. What ended is over; a policy alone gives devices nothing new."""
    target = rollout["spec"]["target"]
    known, wanted = target.get("policy"), attempts.policy_of(policy, target.get("reverts") or "")
    return not attempts.has_ended(rollout) and digest.of(known or {}) != digest.of(wanted or {})


async def _create_version(
    client: Client, fleet: Json, name: str, frozen: Json, *, now: str
) -> Json:
    metadata = fleet["metadata"]
    document = {
        "apiVersion": FLIGHTCTL,
        "kind": "TemplateVersion",
        "metadata": {"name": name, "ownerReferences": [_owner(fleet)]},
        "spec": {"fleet": metadata["name"]},
        "status": {**frozen, "conditions": [], "updatedAt": now},
    }
    namespace = metadata["namespace"]
    try:
        return await client.create(FLIGHTCTL, namespace, "templateversions", document)
    except ApiError as error:
        # Made by an earlier attempt whose answer was lost, or by another controller that saw what
        # we see.
        if error.reason != "AlreadyExists":
            raise
        existing = await client.get(FLIGHTCTL, namespace, "templateversions", name)
        inputs = frozen.get("inputs") or []
        if not versions.is_same(versions.template_of(document), inputs, existing):
            raise
        assert existing is not None, "only then it is the same"
        return existing


async def _create_rollout(client: Client, fleet: Json, following: attempts.Next) -> Json:
    namespace, name = fleet["metadata"]["namespace"], following.name
    document = {
        "apiVersion": HOMEPORT,
        "kind": "Rollout",
        "metadata": {"name": name, "ownerReferences": [_owner(fleet)]},
        "spec": {"target": following.target},
        "status": {"phase": "Pending"},
    }
    try:
        return await client.create(HOMEPORT, namespace, "rollouts", document)
    except ApiError as error:
        if error.reason != "AlreadyExists":
            raise
        existing = await client.get(HOMEPORT, namespace, "rollouts", name)
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


async def _tell(
    client: Client,
    fleet: Json,
    *,
    valid: str,
    passing: bool = False,
    rollout: Json | None,
    inputs: str | None = None,
    failed: Json | None = None,
    mended: str = "",
    now: str,
) -> None:
    """Write the fleet's conditions, if they say something new."""
    metadata, status = fleet["metadata"], fleet.get("status") or {}
    known, generation = status.get("conditions") or [], metadata["generation"]
    said = conclude(
        known,
        valid=valid,
        passing=passing,
        rollout=rollout,
        inputs=inputs,
        mended=mended,
        fleet=fleet,
        now=now,
    )
    new = {"conditions": said, "observedGeneration": generation, "rollout": _batch(rollout)}
    if all(status.get(key) == value for key, value in new.items()):
        return
    await client.patch_status(FLIGHTCTL, metadata["namespace"], "fleets", metadata["name"], new)
    for reason, message in worth_telling(known, said):
        details = failed if reason == PROBE_FAILED else None
        await recording.tell(client, fleet, reason, message, details, now=now)


def changes(
    template: Json, inputs: Sequence[Json], before: Mapping[str, Json]
) -> list[tuple[str, Json | None]]:
    """Which sources give something else than `before`, in words, and an event's details of each;
    where they give it to single devices only, one without."""
    keys = _keys(template)
    found: list[tuple[str, Json | None]] = [
        (
            f"{one['name']} gives",
            {
                "detailType": CHANGED,
                "resourceKey": keys[one["name"]],
                "fingerprint": one["revision"],
            },
        )
        for one in inputs
        if one["name"] in before and before[one["name"]]["manifest"] != one["manifest"]
    ]
    return found or [("its sources give", None)]


def failure(template: Json, stale: Unfrozen | None) -> Json | None:
    """The details of an event that a source could not be read."""
    key = _keys(template).get(stale.first.provider) if stale is not None else None
    if stale is None or key is None:
        return None
    return {"detailType": PROBE_FAILED, "resourceKey": key, "error": stale.first.cause}


def _keys(template: Json) -> dict[str, str]:
    return {one["name"]: configproviders.source_key(one) for _, one in render.outside(template)}


def _batch(rollout: Json | None) -> Json | None:
    """Which batch is under way, of a rollout that has some."""
    target = {} if rollout is None else rollout["spec"]["target"]
    if (
        rollout is None
        or attempts.has_ended(rollout)
        or not (target.get("policy") or {}).get("deviceSelection")
    ):
        return None
    return {"currentBatch": (rollout.get("status") or {}).get("currentBatch") or 0}


def worth_telling(known: list[Json], said: list[Json]) -> list[tuple[str, str]]:
    """(reason, message) of the events that a change of the conditions is."""
    found = []
    for type_, good, bad in _EVENTS:
        was, is_ = conditions.get(known, type_), conditions.get(said, type_)
        if is_ is None or (was and was["message"] == is_["message"]):
            continue
        if is_["status"] != conditions.TRUE:
            found.append((bad, is_["message"]))
        elif good and was:
            found.append((good, "The template can be used."))
    return found


def conclude(
    known: list[Json],
    *,
    valid: str,
    passing: bool = False,
    rollout: Json | None,
    fleet: Json,
    now: str,
    inputs: str | None = None,
    mended: str = "",
) -> list[Json]:
    """The fleet's conditions: Valid and RolloutInProgress as flightctl has them, Ready, Reconciling
    and Stalled as kstatus reads them, and InputsCurrent where `inputs` says what keeps its outside
    sources from being followed ("": nothing; None: it follows none). `passing`: what `valid` says
    may pass by itself. `mended`: why it is as it should be though its rollout has failed."""
    generation = fleet["metadata"]["generation"]

    def put(type_: str, is_true: bool, reason: str, message: str) -> None:
        nonlocal known
        status = "True" if is_true else "False"
        known = conditions.set_condition(known, type_, status, reason, message, now, generation)

    put("Valid", not valid, "Invalid" if valid else "Valid", valid)
    if inputs is None:
        known = [c for c in known if c.get("type") != INPUTS_CURRENT]
    else:
        put(INPUTS_CURRENT, not inputs, "NotAnswering" if inputs else "Followed", inputs)
    phase = ((rollout or {}).get("status") or {}).get("phase", "Pending")
    active = rollout is not None and phase not in attempts.ENDED
    # What its devices have is not what its template says, and nobody but people can change that.
    is_back = bool(((rollout or {}).get("spec") or {}).get("target", {}).get("reverts"))
    said = [_why(rollout, "Progressing")] if active else []
    reason = _IN_PROGRESS.get(phase, "Active") if active else "Inactive"
    put("RolloutInProgress", reason == "Active", reason, " ".join(filter(None, said)))
    put("Reconciling", active, "RollingOut" if active else "Idle", "")
    if valid:
        put("Ready", False, "Invalid", "The template cannot be rolled out.")
    elif active:
        put("Ready", False, "RollingOut", "Devices are being updated.")
    elif is_back:
        put("Ready", False, "Reverted", _back(rollout or {}))
    elif mended:
        put("Ready", True, MENDED, mended)
    else:
        put("Ready", phase == "Completed", phase, _why(rollout, "Succeeded"))
    # There only while nothing more will come of it: its absence is the good news.
    given_up = phase in attempts.ENDED and phase != "Completed" and not mended
    if not active and ((valid and not passing) or given_up):
        put(STALLED, True, "Invalid" if valid else phase, valid or _why(rollout, "Succeeded"))
    elif is_back and not active and not valid:
        put(STALLED, True, "Reverted", _back(rollout or {}))
    else:
        known = [c for c in known if c.get("type") != STALLED]
    return known


def _back(rollout: Json) -> str:
    """Why what went well is not what the fleet wants."""
    target = rollout["spec"]["target"]
    return (
        f"{target['reverts']} was taken back to {target['templateVersion']}; change the template "
        f"to go on. {_why(rollout, 'Succeeded')}"
    ).strip()


def _why(rollout: Json | None, type_: str) -> str:
    found = conditions.get(((rollout or {}).get("status") or {}).get("conditions"), type_)
    return str((found or {}).get("message") or "")
