"""Templates with parameters: what a template version is for each device, while devices are bound.

A scratch table holds it for one transaction; `rolling` joins with it. It counts as long as the
inputs of the device are those that it was made from. Of what cannot be made the device keeps why;
of what is not fetched yet, what it waits for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

import orjson

from apiserver.store import scratch, wants
from apiserver.store.rolling import Attempt, Target
from apiserver.store.statements import run
from resources import summary

if TYPE_CHECKING:
    from apiserver.store.snapshot import Snapshot, Transaction


# Of the scratch table's rows, those that are no document.
_LEFT = "(e.render_error IS NOT NULL OR e.waits_for IS NOT NULL)"


@dataclass(frozen=True, slots=True)
class Given:
    """What the template is for one device: two digests and an image, or why it cannot be. With
    `waits_for` (a mark of `wants`) something is missing that is fetched by itself."""

    uid: str
    inputs_version: int
    spec_digest: str = ""
    rendered_digest: str = ""
    os_image: str = ""
    render_error: str | None = None
    waits_for: str | None = None


def put(tx: Transaction, devices: Sequence[Given]) -> None:
    """Fill the scratch table, in one statement."""
    tx.dialect.scratch(tx.connection, "given")
    columns, rows = tx.dialect.json_rows(":given", 7)
    columns[1] = f"CAST({columns[1]} AS BIGINT)"
    run(
        tx.connection,
        "INSERT INTO given (uid, inputs_version, spec_digest, rendered_digest, os_image,"
        f" render_error, waits_for) SELECT {', '.join(columns)} FROM {rows}",
        {"given": orjson.dumps([astuple(device) for device in devices]).decode()},
    )


@dataclass(frozen=True, slots=True)
class Left:
    """How many devices got no document: for their own inputs' sake, or since something is not
    there yet."""

    refused: int
    waiting: int


def leave(tx: Transaction, target: Target, batch: int) -> Left:
    """Write down why the template cannot be rendered for those of the devices for which it cannot,
    or cannot yet. They are in the batch, and keep what they have. Those for whom only their own
    inputs help are tried again when these change; the others wait for what is fetched."""
    dialect = tx.dialect
    updated = (
        "CASE WHEN d.updated_status = 'Updating' THEN d.updated_status"
        " WHEN d.connected = 0 AND d.seen = 1 THEN 'Unknown' ELSE 'OutOfDate' END"
    )
    taken = scratch.fill(
        tx,
        "device d JOIN given e ON e.uid = d.uid AND e.inputs_version = d.inputs_version"
        " WHERE d.fleet = :fleet AND d.candidates IS NULL AND d.decommissioning = 0 AND d.pause = 0"
        f" AND {_LEFT} AND {dialect.among('d.uid', 'SELECT uid FROM given')}",
        {"fleet": target.fleet},
        updated_status=updated,
        render_needed="CASE WHEN e.waits_for IS NULL THEN 0 ELSE 1 END",
    )
    if not taken:
        return Left(0, 0)
    first = tx.next_version(taken)
    scratch.log(tx, first)
    counted = scratch.count(tx)
    is_member = "device.rollout = :rollout AND device.rollout_batch IS NOT NULL"
    # How long it waits counts for its batch; what is told meanwhile begins nothing anew.
    begins = f"e.waits_for IS NOT NULL AND NOT (device.waits_for IS NOT NULL AND {is_member})"
    run(
        tx.connection,
        "UPDATE device SET resource_version = :first + b.n - 1, rollout = :rollout,"
        f" rollout_batch = CASE WHEN {is_member} THEN device.rollout_batch ELSE :batch END,"
        " rollout_retry = :retry,"
        " render_needed = b.render_needed, render_error = e.render_error,"
        f" waits_for = e.waits_for, bound_at = CASE WHEN {begins} THEN :now"
        " ELSE device.bound_at END, updated_status = b.updated_status,"
        " updated_info = CASE WHEN b.updated_status <> 'OutOfDate' THEN device.updated_info"
        " WHEN e.render_error IS NULL THEN :waiting ELSE :because || e.render_error END"
        " FROM bound b JOIN given e ON e.uid = b.uid"
        f" WHERE device.uid = b.uid AND {scratch.holds(dialect)}",
        {
            "first": first,
            "rollout": target.rollout,
            "batch": batch,
            "retry": target.retry,
            "because": summary.NOT_RENDERED,
            "waiting": summary.FETCHING,
            "now": tx.now.timestamp(),
        },
    )
    if counted.waited != counted.waits:
        tx.backlog_moved(target.namespace)
    return Left(taken - counted.waits, counted.waits)


def refusals(snapshot: Snapshot, attempt: Attempt, limit: int = 10) -> list[dict[str, Any]]:
    """Why a rollout's template could not be rendered for devices, the most frequent first."""
    rows = run(
        snapshot.connection,
        "SELECT render_error AS cause, count(*) AS n, min(name) AS example FROM device"
        " WHERE namespace = :namespace AND fleet = :fleet AND rollout = :rollout"
        f" AND {wants.refused('device')} AND candidates IS NULL AND decommissioning = 0"
        " GROUP BY render_error ORDER BY n DESC, cause LIMIT :limit",
        {
            "namespace": attempt.namespace,
            "fleet": attempt.fleet,
            "rollout": attempt.rollout,
            "limit": limit,
        },
    )
    return [{"cause": r.cause, "count": r.n, "example": r.example} for r in rows]
