"""Binding devices to what they should be: ownership, rendering, progress, the backlog.

One device is decided in Python within the write that touches it; sets are decided in SQL
(`store.sets`), a thousand a transaction. Rendering a template happens on a snapshot, outside the
store lock: what comes out is under its digest, so a repeated call stores nothing twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

import orjson

from apiserver import errors, inputs, resolving
from apiserver.resolving import Chunk, Resolver
from apiserver.store import (
    Snapshot,
    Store,
    Transaction,
    devices,
    following,
    givens,
    objects,
    rolling,
    sets,
)
from resources import (
    conditions,
    digest,
    manifest,
    parameters,
    registry,
    render,
    rollout_plan,
    selectors,
)
from resources.errors import Invalid
from resources.kind import Json, Kind
from resources.manifest import Frozen

BACKLOG = "devices"
MAX_LIMIT = 100_000
CAUSES = 10
FETCHING = "Its outside sources are being fetched."


# --- one device -----------------------------------------------------------------------------


def insert_device(tx: Transaction, document: Json) -> dict[str, Any]:
    """Store a new device and what follows: its owner, its first render. Returns the row."""
    metadata = document["metadata"]
    spec = document.get("spec") or {}
    row: dict[str, Any] = {
        "uid": metadata["uid"],
        "namespace": metadata["namespace"],
        "name": metadata["name"],
        "generation": 1,
        "created_at": metadata["creationTimestamp"],
        "deleted_at": None,
        "owner": None,
        "fleet": "",
        "candidates": None,
        "inputs_version": 1,
        "template_version": None,
        "rollout": None,
        "rollout_batch": None,
        "bound_at": None,
        "inputs_digest": None,
        "rendered_digest": None,
        "rendered_version": 0,
        "rendered_template_version": None,
        "retry_generation": 0,
        "render_needed": 0,
        "render_error": None,
        "spec_valid": None,
        "decommissioning": 0,
        "reported_version": 0,
        "delivered_version": 0,
        "reported_since_delivery": 0,
        "failed_version": 0,
        "failed_reason": None,
        "failed_digest": None,
        "conditions": "[]",
        "connected": 0,
        "seen": 0,
    }
    row |= _label_columns(metadata) | _spec_columns(tx, spec)
    status = document.get("status") or empty_status()
    row |= devices.reported_changes(row | {"agent_status": "{}"}, status)
    row |= {"connected": 0, "seen": 0, "reported_since_delivery": 0}
    saved = devices.save(tx, None, row)
    return settle(tx, saved, spec)


def settle(tx: Transaction, row: Mapping[str, Any], spec: Json) -> dict[str, Any]:
    """Decide the owner of one device after its labels or its spec changed, and render it at once
    if it has none: then nothing from outside and no fleet decides."""
    where = {"uid": row["uid"]}
    sets.reown(tx, row["namespace"], sets.UID, where)
    current = devices.row_by_uid(tx.connection, row["uid"])
    if current["fleet"] or current["owner"]:
        return dict(current)
    return devices.save(tx, current, render_one(tx, current, spec))


def render_one(tx: Transaction, row: Mapping[str, Any], spec: Json) -> dict[str, Any]:
    """Columns of a device without fleet, rendered from its own spec; or the mark that its outside
    sources are to be fetched first, by the controllers."""
    if render.outside(spec):
        if following.is_frozen(tx, row):
            return {}
        return spec_valid(tx, row, "Unknown", "Fetching", FETCHING) | {"render_needed": 1}
    try:
        rendered = rendered_alone(row, spec, manifest.NOTHING)
    except Invalid as problem:
        return spec_valid(tx, row, "False", "Invalid", str(problem)) | {
            "render_needed": 0,
            "inputs_digest": None,
        }
    body = digest.canonical(rendered.rendered)
    return rendered_to(tx, row, tx.digest_of(body), body) | {"inputs_digest": None}


def rendered_alone(row: Mapping[str, Any], spec: Json, frozen: Frozen) -> render.Rendered:
    labels = orjson.loads(row["labels"])
    return render.render(spec, name=row["name"], labels=labels, templated=False, frozen=frozen)


def spec_valid(
    tx: Transaction, row: Mapping[str, Any], status: str, reason: str, message: str
) -> dict[str, Any]:
    """Columns with SpecValid, which only the service writes."""
    known = orjson.loads(row["conditions"])
    said = conditions.set_condition(known, "SpecValid", status, reason, message, tx.timestamp)
    return {"spec_valid": status, "conditions": objects.dumps(said)}


def rendered_to(tx: Transaction, row: Mapping[str, Any], found: str, body: bytes) -> dict[str, Any]:
    """Columns of a device that has been rendered to `body`, whose digest is `found`."""
    columns = spec_valid(tx, row, "True", "Valid", "")
    columns |= {"render_needed": 0, "render_error": None}
    if found != row["rendered_digest"]:
        tx.put_contents({found: body})
        columns |= {
            "rendered_digest": found,
            "rendered_version": max(row["rendered_version"], row["reported_version"]) + 1,
            # Asked for again, it is to be tried again, though it failed here before.
            "retry_generation": row["retry_generation"] + (found == row["failed_digest"]),
        }
    return columns


def update_device(tx: Transaction, row: Mapping[str, Any], old: Json, new: Json) -> dict[str, Any]:
    """Write what a person or a controller changed of one device."""
    metadata, was = new["metadata"], old["metadata"]
    changes: dict[str, Any] = {"deleted_at": metadata.get("deletionTimestamp")}
    changes |= _label_columns(metadata)
    respecified = (new.get("spec") or {}) != (old.get("spec") or {})
    if respecified:
        if row["fleet"]:
            raise errors.conflict(
                registry.by_kind("Device"),
                row["name"],
                f"the device is owned by fleet {row['fleet']}, which writes its spec; change the "
                "fleet's template, or the device's labels",
            )
        changes |= _spec_columns(tx, new.get("spec") or {})
        changes["generation"] = row["generation"] + 1
    relabelled = (metadata.get("labels") or {}) != (was.get("labels") or {})
    if respecified or relabelled:
        changes["inputs_version"] = row["inputs_version"] + 1
    if relabelled and resolving.looks_at(tx, row, was, metadata):
        changes["render_needed"] = 1
    if new.get("status") != old.get("status"):
        said = devices.with_integrity(row, _agent_part(new.get("status") or {}), is_own_word=False)
        changes |= devices.reported_changes(row, said)
        changes |= {"connected": row["connected"], "seen": row["seen"]}
    saved = devices.save(tx, row, changes)
    if not (respecified or relabelled):
        return saved
    return settle(tx, saved, new.get("spec") or {})


def empty_status() -> Json:
    """The status of a device that never reported (contract 7.5)."""
    return {
        "conditions": [
            {
                "type": "Updating",
                "status": "Unknown",
                "reason": "",
                "message": "",
                "lastTransitionTime": "0001-01-01T00:00:00Z",
            }
        ],
        "systemInfo": {"agentVersion": "", "architecture": "", "bootID": "", "operatingSystem": ""},
        "applications": [],
        "resources": {"cpu": "Unknown", "memory": "Unknown", "disk": "Unknown"},
        "integrity": {"status": "Unknown"},
        "config": {"renderedVersion": ""},
        "os": {"image": "", "imageDigest": ""},
    }


def _agent_part(status: Json) -> Json:
    """A status as an administrator writes it, without what the service concludes itself."""
    own = ("SpecValid", "MultipleOwners")
    kept = [c for c in status.get("conditions") or () if c.get("type") not in own]
    return status | {"conditions": kept}


def _label_columns(metadata: Json) -> dict[str, Any]:
    labels = metadata.get("labels") or {}
    rest = {key: metadata[key] for key in ("finalizers", "managedFields") if metadata.get(key)}
    annotations = {
        key: value
        for key, value in (metadata.get("annotations") or {}).items()
        if key not in devices.COMPUTED_ANNOTATIONS
    }
    if annotations:
        rest["annotations"] = annotations
    return {
        "labels": objects.dumps(dict(sorted(labels.items()))),
        "alias": labels.get("alias"),
        "meta": objects.dumps(rest),
    }


def _spec_columns(tx: Transaction, spec: Json) -> dict[str, Any]:
    return {
        "spec_digest": tx.put_content(digest.canonical(spec)),
        "os_image": (spec.get("os") or {}).get("image") or "",
        "decommissioning": 1 if spec.get("decommissioning") else 0,
    }


# --- sets -----------------------------------------------------------------------------------


def fleet_changed(tx: Transaction, namespace: str, fleet: str) -> None:
    """A fleet came, went, or selects other labels: decide again who owns what it may touch."""
    sets.reown(tx, namespace, sets.UIDS_OF_FLEET, {"fleet": fleet})


def keep_backlog(tx: Transaction, namespace: str) -> None:
    """The Backlog of a namespace as it is at the end of this transaction."""
    kind = registry.by_kind("Backlog")
    waiting = sets.unbound_by_fleet(tx, namespace)
    status = {
        "renderNeeded": sum(waiting.values()),
        "fleets": {fleet: number for fleet, number in sorted(waiting.items()) if fleet},
    }
    old = tx.get(kind, namespace, BACKLOG)
    if old is not None:
        tx.update(kind, old, old | {"status": status})
        return
    metadata = {
        "name": BACKLOG,
        "namespace": namespace,
        "uid": _backlog_uid(tx, namespace),
        "generation": 1,
        "creationTimestamp": tx.timestamp,
    }
    api = {"apiVersion": kind.api_version, "kind": kind.kind}
    tx.insert(kind, api | {"metadata": metadata, "status": status})


def _backlog_uid(tx: Transaction, namespace: str) -> str:
    # Made from what it is, so that a replayed transaction makes the same one.
    found = digest.of([tx.store_uid, namespace]).removeprefix("sha256:")
    return f"{found[:8]}-{found[8:12]}-4{found[13:16]}-8{found[17:20]}-{found[20:32]}"


def summarised(snapshot: Snapshot, kind: Kind, documents: list[Json]) -> list[Json]:
    """Fleets with `status.devicesSummary` as the counters have it: kept nowhere else, so it cannot
    be stale, and moves no version of the fleet."""
    if kind.kind != "Fleet":
        return documents
    namespaces = {document["metadata"]["namespace"] for document in documents}
    counted = {namespace: snapshot.fleet_counters(namespace) for namespace in namespaces}
    summarised = []
    for document in documents:
        metadata = document["metadata"]
        found = counted[metadata["namespace"]].get(metadata["name"], {})
        # Programs that wait (kstatus) take a fleet that says nothing for one that is done.
        unseen = {"conditions": [], "observedGeneration": 0}
        status = unseen | (document.get("status") or {})
        status["devicesSummary"] = {
            "total": sum(found.get("summary", {}).values()),
            "summaryStatus": found.get("summary", {}),
            "updateStatus": found.get("updated", {}),
            "applicationStatus": found.get("applications", {}),
            "capabilities": {"osMode": found.get("osMode", {})},
        }
        summarised.append(document | {"status": status})
    return summarised


async def bind(store: Store, namespace: str, fleet: str, request: Json) -> Json:
    """Bind devices of a fleet to a template version, up to `limit`, a thousand a transaction.

    `request` has templateVersion and rollout, and may have batch (the last one), select (true) and
    limit (MAX_LIMIT), as `rollout_plan.Bind` explains them. Which devices a batch takes, and what
    the disruption budget allows of it, the policy of the Rollout says.

    Answers {bound, rendered, remaining, failed}; for the failed the template could not be rendered,
    and they say why. Repeating it is harmless: what is bound is not taken
    again. 409 when the Rollout is paused, aborted or another one's, 422 when the template version
    cannot be rendered.
    """
    limit = request.get("limit", MAX_LIMIT)
    if not isinstance(limit, int) or isinstance(limit, bool) or limit < 1:
        raise errors.BadRequest("limit must be a positive integer")
    work = await store.read(lambda s: _work(s, namespace, fleet, request))
    if work.resolver is not None:
        return await _bind_each(store, work, work.resolver, limit)
    bound = rendered = remaining = 0
    after = ""
    while bound < limit:
        size = min(limit - bound, sets.CHUNK)
        how: Json = {"limit": size, "after": after, "is_last": bound + size == limit}
        taken, remaining = await store.write(partial(_bind_some, work=work, **how))
        # Stored once is enough: no sweep takes what was touched within the hour.
        work = replace(work, blobs={})
        bound, rendered = bound + taken.rows, rendered + taken.rendered
        if taken.rows == size:
            after = taken.last
        elif after:
            # The end of the names. What came or changed before it meanwhile is still to be done.
            after = ""
        else:
            break
    given = limit if work.budget is None else 0
    while given < limit:
        size = min(limit - given, sets.CHUNK)
        taken = await store.write(partial(_give_some, work=work, limit=size))
        given, rendered = given + taken.rows, rendered + taken.rendered
        if taken.rows < size:
            break
    return {"bound": bound, "rendered": rendered, "remaining": remaining, "failed": 0}


async def _bind_each(store: Store, work: _Work, resolver: Resolver, limit: int) -> Json:
    """`bind`, where the template has parameters: each device has its own, or a reason why not. What
    that is, is made on a snapshot, and taken if the device's inputs are the same still."""
    bound = rendered = failed = 0
    after = ""
    while bound < limit:
        size = min(limit - bound, sets.CHUNK)
        how: Json = {"limit": size, "after": after, "held": work.budget is not None}
        find = partial(rolling.to_bind, target=work.target, choice=work.choice, **how)
        chunk = await store.read(partial(resolver.resolve, find=find))
        if chunk.devices:
            taken, refused = await store.write(partial(_bind_chunk, work=work, chunk=chunk))
            bound, rendered = bound + taken.rows, rendered + taken.rendered
            failed += refused
        if chunk.asked == size or len(chunk.devices) < chunk.asked:
            after = chunk.last
        elif after:
            after = ""
        else:
            break
    given = limit if work.budget is None else 0
    while given < limit:
        how = {"budget": work.budget_at(store.now()), "limit": min(limit - given, sets.CHUNK)}
        find = partial(rolling.to_give, target=work.target, **how)
        chunk = await store.read(partial(resolver.resolve, find=find))
        if not chunk.devices:
            break
        taken, refused = await store.write(partial(_give_chunk, work=work, chunk=chunk))
        given, rendered = given + len(chunk.devices), rendered + taken.rendered
        failed += refused
    remaining = await store.read(lambda s: _remaining(s, work, store.now()))
    return {"bound": bound, "rendered": rendered, "remaining": remaining, "failed": failed}


def _bind_chunk(tx: Transaction, *, work: _Work, chunk: Chunk) -> tuple[rolling.Bound, int]:
    _put_chunk(tx, work, chunk)
    held, number = work.budget is not None, len(chunk.devices)
    taken = rolling.bind(tx, work.target, work.choice, number, held=held)
    return taken, givens.refuse(tx, work.target, work.choice.batch)


def _give_chunk(tx: Transaction, *, work: _Work, chunk: Chunk) -> tuple[rolling.Bound, int]:
    _put_chunk(tx, work, chunk)
    taken = rolling.give(tx, work.target, work.budget_at(tx.now), len(chunk.devices))
    return taken, givens.refuse(tx, work.target, work.choice.batch)


def _put_chunk(tx: Transaction, work: _Work, chunk: Chunk) -> None:
    _check_live(tx, work.target.namespace, work.target.fleet, work.target.rollout)
    if chunk.blobs:
        tx.put_contents(chunk.blobs)
    givens.put(tx, chunk.devices)


def _remaining(snapshot: Snapshot, work: _Work, now: datetime) -> int:
    counts, _ = rolling.progress(snapshot, work.target, now.timestamp() - work.timeout_s)
    return int(_counted(counts, is_held=work.budget is not None)["unbound"])


@dataclass(frozen=True, slots=True)
class _Work:
    """What a call binds, with the documents that it takes for that."""

    target: rolling.Target
    choice: rolling.Choice
    budget: Json | None
    timeout_s: int
    blobs: Mapping[str, bytes]
    resolver: Resolver | None = None

    def budget_at(self, now: datetime) -> rolling.Budget:
        assert self.budget is not None, "or all were given it when they were bound"
        return rolling.Budget(self.budget, now.timestamp() - self.timeout_s)


def _bind_some(
    tx: Transaction, *, work: _Work, limit: int, after: str, is_last: bool
) -> tuple[rolling.Bound, int]:
    """What was bound, and how many are left after the last call."""
    _check_live(tx, work.target.namespace, work.target.fleet, work.target.rollout)
    if work.blobs:
        tx.put_contents(work.blobs)
    held = work.budget is not None
    taken = rolling.bind(tx, work.target, work.choice, limit, after, held=held)
    if not is_last or taken.rows < limit:
        return taken, 0
    return taken, _remaining(tx, work, tx.now)


def _give_some(tx: Transaction, *, work: _Work, limit: int) -> rolling.Bound:
    _check_live(tx, work.target.namespace, work.target.fleet, work.target.rollout)
    return rolling.give(tx, work.target, work.budget_at(tx.now), limit)


def version_created(tx: Transaction, namespace: str, version: Json) -> None:
    """Its frozen inputs are here and stay, and its fleet shows which version is its newest
    (contract 3.6)."""
    template = version.get("status") or {}
    try:
        found = template.get("inputs") or []
        inputs.accept(tx, version["metadata"]["uid"], template, found, "status")
    except Invalid as problem:
        name = version["metadata"]["name"]
        raise errors.unprocessable(registry.by_kind("TemplateVersion"), name, problem) from problem
    kind = registry.by_kind("Fleet")
    fleet = tx.get(kind, namespace, version["spec"]["fleet"])
    if fleet is None:
        return
    metadata = fleet["metadata"]
    annotations = dict(metadata.get("annotations") or {})
    version_name = devices.short_template(version["metadata"]["name"])
    annotations[devices.TEMPLATE_VERSION] = version_name
    new = fleet | {"metadata": metadata | {"annotations": annotations}}
    tx.update(kind, fleet, new)


def _work(snapshot: Snapshot, namespace: str, fleet: str, request: Json) -> _Work:
    name = str(request.get("templateVersion") or "")
    rollout = _rollout(snapshot, namespace, fleet, str(request.get("rollout") or ""))
    policy = rollout["spec"]["target"].get("policy") or {}
    kind = registry.by_kind("TemplateVersion")
    version = snapshot.get(kind, namespace, name)
    if version is None or version["spec"]["fleet"] != fleet:
        raise errors.not_found(kind, name)
    try:
        choice = _choice(policy, request)
        frozen = inputs.load(snapshot, version["status"].get("inputs") or ())
        template = version["status"]
        render.check(template, frozen=frozen.files)
        is_given = bool(parameters.uses(template))
        target = rolling.Target(namespace, fleet, name, rollout["metadata"]["name"])
        blobs: Mapping[str, bytes] = {}
        if is_given:
            target = replace(target, is_given=True)
        else:
            target, blobs = _rendered_for_all(snapshot, target, template, frozen)
    except Invalid as problem:
        raise errors.unprocessable(kind, name, problem) from problem
    return _Work(
        target,
        choice,
        budget=policy.get("disruptionBudget"),
        timeout_s=rollout_plan.timeout_s(policy),
        blobs=blobs,
        resolver=Resolver(template, frozen) if is_given else None,
    )


def _rendered_for_all(
    snapshot: Snapshot, target: rolling.Target, template: Json, frozen: Frozen
) -> tuple[rolling.Target, dict[str, bytes]]:
    """Without parameters one render serves every device."""
    rendered = render.evaluate(template, name="", labels={}, frozen=frozen)
    spec, body = digest.canonical(rendered.spec), digest.canonical(rendered.rendered)
    spec_digest = snapshot.digest_of(spec)
    # What holds a secret has a digest that nobody can test a guess against.
    rendered_digest = snapshot.digest_of(body, is_secret=frozen.is_secret)
    image = (rendered.spec.get("os") or {}).get("image") or ""
    target = replace(
        target, spec_digest=spec_digest, rendered_digest=rendered_digest, os_image=image
    )
    return target, {spec_digest: spec, rendered_digest: body}


def _choice(policy: Json, request: Json) -> rolling.Choice:
    batches = rollout_plan.batches_of(policy)
    number = request.get("batch", len(batches) - 1)
    select = request.get("select", True)
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(batches):
        raise errors.BadRequest(f"batch must be a number from 0 to {len(batches) - 1}")
    if not isinstance(select, bool):
        raise errors.BadRequest("select must be true or false")
    batch = batches[number]
    selector = batch.get("selector")
    return rolling.Choice(
        batch=number,
        is_last=number == len(batches) - 1,
        select=select,
        selector=selectors.from_match(selector) if selector else selectors.EVERYTHING,
        limit=batch.get("limit"),
    )


def _rollout(snapshot: Snapshot, namespace: str, fleet: str, name: str) -> Json:
    kind = registry.by_kind("Rollout")
    rollout = snapshot.get(kind, namespace, name)
    if rollout is None:
        raise errors.not_found(kind, name)
    if rollout["spec"]["target"]["fleet"] != fleet:
        raise errors.conflict(kind, name, f"it is not a rollout of fleet {fleet}")
    return rollout


def _check_live(snapshot: Snapshot, namespace: str, fleet: str, name: str) -> None:
    """Read under the lock: a pause that was committed holds from then on."""
    rollout, kind = _rollout(snapshot, namespace, fleet, name), registry.by_kind("Rollout")
    control = rollout["spec"].get("control") or {}
    for state in ("paused", "aborted"):
        if control.get(state):
            raise errors.conflict(kind, name, f"the rollout is {state}")
    attempt, _, number = name.rpartition("-")
    later = f"{attempt}-{int(number) + 1}" if number.isdigit() else ""
    if later and snapshot.get(kind, namespace, later) is not None:
        raise errors.conflict(kind, name, f"{later} has taken its place")
    if (rollout.get("status") or {}).get("phase") == "Aborted":
        raise errors.conflict(kind, name, "the rollout has been aborted or superseded")


async def progress(store: Store, namespace: str, fleet: str, rollout: str) -> Json:
    """How far the devices of a fleet are with a rollout, counted by the database."""

    def count(snapshot: Snapshot) -> Json:
        kind = registry.by_kind("Rollout")
        found = snapshot.get(kind, namespace, rollout)
        if found is None or found["spec"]["target"]["fleet"] != fleet:
            raise errors.not_found(kind, rollout)
        template = found["spec"]["target"]["templateVersion"]
        policy = found["spec"]["target"].get("policy") or {}
        attempt = rolling.Attempt(namespace, fleet, template, rollout)
        cutoff = store.now().timestamp() - rollout_plan.timeout_s(policy)
        all_, batches = rolling.progress(snapshot, attempt, cutoff)
        is_held = bool(policy.get("disruptionBudget"))
        answer = _counted(all_, is_held=is_held)
        answer["batches"] = [
            {"number": number} | _counted(counts, is_held=is_held)
            for number, counts in batches.items()
        ]
        # Those that an attempt before this one has brought there were not selected again.
        answer["selected"] = max(answer["bound"], sum(b["total"] for b in answer["batches"]))
        causes = rolling.failures(snapshot, attempt)
        if all_["refused"]:
            causes += givens.refusals(snapshot, attempt)
        answer["failures"] = sorted(causes, key=lambda cause: -int(cause["count"]))[:CAUSES]
        return answer

    return await store.read(count)


def _counted(counts: Mapping[str, int], *, is_held: bool) -> Json:
    """The counts of a batch, or of all, with what is still to be done. Under a disruption budget a
    device is bound first, and held until it may have it."""
    reached = counts["bound"] if is_held else counts["rendered"]
    refused = counts["refused"]
    return {state: number for state, number in counts.items() if state != "refused"} | {
        "selected": counts["total"],
        "unbound": max(0, counts["total"] - counts["blocked"] - reached - refused),
        "held": counts["bound"] - counts["rendered"] if is_held else 0,
    }
