"""Binding devices to what they should be: ownership, their own specification, the backlog.

One device is decided in Python within the write that touches it; sets are decided in SQL
(`store.sets`), and what a rollout binds by `rollouts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from apiserver import errors, inputs, resolving
from apiserver.store import (
    Snapshot,
    Transaction,
    devices,
    following,
    objects,
    overriding,
    reports,
    sets,
)
from resources import (
    conditions,
    device,
    digest,
    manifest,
    overrides,
    pause,
    registry,
    render,
)
from resources.errors import Invalid
from resources.kind import Json, Kind
from resources.manifest import Frozen

BACKLOG = "devices"
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
        "several_at": None,
        "inputs_version": 1,
        "template_version": None,
        "rollout": None,
        "rollout_batch": None,
        "rollout_retry": 0,
        "bound_at": None,
        "behind": 0,
        "inputs_digest": None,
        "rendered_digest": None,
        "rendered_version": 0,
        "rendered_template_version": None,
        "retry_generation": 0,
        "render_needed": 0,
        "render_error": None,
        "waits_for": None,
        "spec_valid": None,
        "decommissioning": 0,
        "pause": pause.FREE,
        "overrides": None,
        "fleet_overrides": None,
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
    row |= reports.changes(row | {"agent_status": "{}"}, status)
    row |= {"connected": 0, "seen": 0, "reported_since_delivery": 0}
    # What is above the last version that was rendered here was rendered by a service that is lost.
    row["pause"] = pause.AWAITING if row["reported_version"] else pause.FREE
    row |= _born_owned(tx, row)
    if row["fleet"]:
        return devices.save(tx, None, row)
    return devices.save(tx, None, row | render_one(tx, row, spec))


def _born_owned(tx: Transaction, row: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of a new device that say whose it is: what `sets.reown` would come to, decided before
    the device is written, so that it is written once."""
    if row["decommissioning"]:
        return {}
    fleets = sets.fleets_of(tx, row["namespace"], row["labels"])
    if len(fleets) > 1:
        return {"candidates": ",".join(fleet for fleet, _ in fleets), "several_at": tx.now_s}
    if not fleets:
        return {}
    fleet, wishes = fleets[0]
    columns: dict[str, Any] = {"owner": f"Fleet/{fleet}", "fleet": fleet, "render_needed": 1}
    # Who is left alone is given them when that ends.
    return columns | ({"fleet_overrides": wishes} if row["pause"] == pause.FREE else {})


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
    sources are to be fetched first, by the controllers; or that it is left alone for now."""
    if row["pause"]:
        return {"render_needed": 1}
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


def freed(tx: Transaction, row: Mapping[str, Any]) -> dict[str, Any]:
    """Columns of a device that is left alone no longer: what came meanwhile is made up for."""
    columns: dict[str, Any] = {"pause": pause.FREE}
    free = dict(row) | columns
    if row["fleet"]:
        wishes = overriding.of_fleet(tx, row["namespace"], row["fleet"])
        columns |= overriding.columns(free, fleet_overrides=wishes)
        if not _has_newest(tx, row):
            columns["render_needed"] = 1
    elif row["render_needed"] and not row["owner"]:
        columns |= render_one(tx, free, spec_of(tx, row))
    return columns


def _has_newest(tx: Transaction, row: Mapping[str, Any]) -> bool:
    fleet = tx.get(registry.by_kind("Fleet"), row["namespace"], row["fleet"])
    annotations = ((fleet or {}).get("metadata") or {}).get("annotations") or {}
    newest = annotations.get(devices.TEMPLATE_VERSION)
    return bool(newest == devices.short_template(row["template_version"]))


def spec_of(snapshot: Snapshot, row: Mapping[str, Any]) -> Json:
    found = row["spec_digest"]
    spec: Json = snapshot.documents.fetch(snapshot.connection, [found])[found]
    return spec


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
    columns |= {"render_needed": 0, "render_error": None, "waits_for": None}
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
        _check_os_mode(row, old, new)
        changes |= _spec_columns(tx, new.get("spec") or {})
        changes |= overriding.pruned(row, overrides.names_of(new.get("spec") or {}))
        changes["generation"] = row["generation"] + 1
    relabelled = (metadata.get("labels") or {}) != (was.get("labels") or {})
    if respecified or relabelled:
        changes["inputs_version"] = row["inputs_version"] + 1
    if relabelled and resolving.looks_at(tx, row, was, metadata):
        changes |= {"render_needed": 1, "waits_for": None}
    if new.get("status") != old.get("status"):
        said = reports.with_integrity(
            orjson.loads(row["agent_status"]),
            _agent_part(new.get("status") or {}),
            is_own_word=False,
        )
        changes |= reports.changes(row, said)
        changes |= {key: row[key] for key in ("connected", "seen", "pause")}
    saved = devices.save(tx, row, changes)
    if not (respecified or relabelled):
        return saved
    return settle(tx, saved, new.get("spec") or {})


def _check_os_mode(row: Mapping[str, Any], old: Json, new: Json) -> None:
    specs = (document.get("spec") or {} for document in (old, new))
    if complaints := list(device.check_os_mode(row["os_mode"], *specs)):
        kind = registry.by_kind("Device")
        raise errors.unprocessable(kind, row["name"], Invalid(complaints))


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
