"""Templates with parameters: what a template version is for each device, while devices are bound.

A scratch table holds it for one transaction; `rolling` joins with it. It counts as long as the
inputs of the device are those that it was made from. Of what cannot be made the device keeps why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import orjson

from apiserver.store.rolling import Attempt, Target
from apiserver.store.sets import count_scratch, in_scratch, log_scratch, run
from resources import summary

if TYPE_CHECKING:
    from apiserver.store.snapshot import Snapshot, Transaction


@dataclass(frozen=True, slots=True)
class Given:
    """What the template is for one device: two digests and an image, or why it cannot be."""

    uid: str
    inputs_version: int
    spec_digest: str = ""
    rendered_digest: str = ""
    os_image: str = ""
    render_error: str | None = None


def put(tx: Transaction, devices: Sequence[Given]) -> None:
    """Fill the scratch table, in one statement."""
    tx.dialect.scratch(tx.connection, "given")
    columns, rows = tx.dialect.json_rows(":given", 6)
    columns[1] = f"CAST({columns[1]} AS BIGINT)"
    run(
        tx.connection,
        "INSERT INTO given (uid, inputs_version, spec_digest, rendered_digest, os_image,"
        f" render_error) SELECT {', '.join(columns)} FROM {rows}",
        {"given": orjson.dumps([astuple(device) for device in devices]).decode()},
    )


def refuse(tx: Transaction, target: Target, batch: int) -> int:
    """Write down why the template cannot be rendered for those of the devices for which it cannot.
    They keep what they have, and are tried again when their inputs change."""
    dialect = tx.dialect
    updated = (
        "CASE WHEN d.updated_status = 'Updating' THEN d.updated_status"
        " WHEN d.connected = 0 AND d.seen = 1 THEN 'Unknown' ELSE 'OutOfDate' END"
    )
    dialect.scratch(tx.connection, "bound")
    taken = run(
        tx.connection,
        "INSERT INTO bound (n, uid, namespace, name, labels, owner, old_owner, alias, fleet,"
        " old_fleet, summary_status, updated_status, old_updated_status, applications_status,"
        " lifecycle_status, os_mode, connected, render_needed, old_render_needed)"
        " SELECT row_number() OVER (ORDER BY d.name), d.uid, d.namespace, d.name, d.labels,"
        " d.owner, d.owner, d.alias, d.fleet, d.fleet, d.summary_status,"
        f" {updated}, d.updated_status, d.applications_status, d.lifecycle_status, d.os_mode,"
        " d.connected, 0, d.render_needed"
        " FROM device d JOIN given e ON e.uid = d.uid AND e.inputs_version = d.inputs_version"
        " WHERE d.fleet = :fleet AND d.candidates IS NULL AND d.decommissioning = 0"
        f" AND e.render_error IS NOT NULL AND {dialect.among('d.uid', 'SELECT uid FROM given')}",
        {"fleet": target.fleet},
    ).rowcount
    if not taken:
        return 0
    first = tx.next_version(taken)
    log_scratch(tx, first)
    _, waited, _, _ = count_scratch(tx)
    is_member = "device.rollout = :rollout AND device.rollout_batch IS NOT NULL"
    run(
        tx.connection,
        "UPDATE device SET resource_version = :first + b.n - 1, rollout = :rollout,"
        f" rollout_batch = CASE WHEN {is_member} THEN device.rollout_batch ELSE :batch END,"
        " render_needed = 0, render_error = e.render_error, updated_status = b.updated_status,"
        " updated_info = CASE b.updated_status WHEN 'OutOfDate' THEN :because || e.render_error"
        " ELSE device.updated_info END"
        " FROM bound b JOIN given e ON e.uid = b.uid"
        f" WHERE device.uid = b.uid AND {in_scratch(dialect)}",
        {
            "first": first,
            "rollout": target.rollout,
            "batch": batch,
            "because": summary.NOT_RENDERED,
        },
    )
    if waited:
        tx.backlog_moved(target.namespace)
    return int(taken)


def refusals(snapshot: Snapshot, attempt: Attempt, limit: int = 10) -> list[dict[str, Any]]:
    """Why a rollout's template could not be rendered for devices, the most frequent first."""
    rows = run(
        snapshot.connection,
        "SELECT render_error AS cause, count(*) AS n, min(name) AS example FROM device"
        " WHERE namespace = :namespace AND fleet = :fleet AND rollout = :rollout"
        " AND render_error IS NOT NULL AND render_needed = 0 AND candidates IS NULL"
        " AND decommissioning = 0 GROUP BY render_error ORDER BY n DESC, cause LIMIT :limit",
        {
            "namespace": attempt.namespace,
            "fleet": attempt.fleet,
            "rollout": attempt.rollout,
            "limit": limit,
        },
    )
    return [{"cause": r.cause, "count": r.n, "example": r.example} for r in rows]
