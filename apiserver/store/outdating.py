"""Devices that do not have what their fleet is to have, and whose turn has not come, say so.

A mark in the row, for whoever draws the conclusions of one device looks at nothing but its row. It
is set when a rollout has bound what it may for now; what is bound is no longer behind (`rolling`).
Asking for it again is nothing: only rows are touched whose mark is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from apiserver.store import scratch
from apiserver.store.rolling import OURS, Attempt, names_of
from apiserver.store.sets import CHUNK, UP_TO_DATE
from apiserver.store.statements import run
from resources import summary

if TYPE_CHECKING:
    from apiserver.store.dialect import Dialect
    from apiserver.store.snapshot import Transaction

# Rows of which nobody sees a change are neither logged nor counted, so more of them are one step.
UNSEEN = 10 * CHUNK


@dataclass(frozen=True, slots=True)
class Marked:
    """The last name of a step, and whether there may be more to do after it."""

    last: str
    is_more: bool


def behind(dialect: Dialect) -> str:
    """SQL for what the mark of `d` is to be."""
    return f"CASE WHEN {dialect.distinct_from('d.template_version', ':template')} THEN 1 ELSE 0 END"


def mark(tx: Transaction, attempt: Attempt, after: str = "") -> Marked:
    """Set the marks of the fleet's devices right, a thousand at most that show it, from the first
    one after `after`."""
    is_behind = behind(tx.dialect)
    current = "d.render_needed = 0 AND d.reported_version = d.rendered_version"
    updated = (
        "CASE WHEN d.updated_status NOT IN ('UpToDate', 'OutOfDate') THEN d.updated_status"
        f" WHEN {is_behind} = 1 THEN 'OutOfDate'"
        f" WHEN {current} AND d.render_error IS NULL AND coalesce(d.spec_valid, '') <> 'False'"
        " THEN 'UpToDate' ELSE d.updated_status END"
    )
    wrong = f"{OURS} AND d.behind <> {is_behind}"
    parameters: dict[str, Any] = names_of(attempt) | {"after": after}
    unseen = run(
        tx.connection,
        "UPDATE device SET behind = 1 - behind WHERE "
        + tx.dialect.among(
            "uid",
            f"SELECT d.uid FROM device d WHERE {wrong} AND {updated} = d.updated_status"
            " LIMIT :unseen",
        ),
        parameters | {"unseen": UNSEEN},
    ).rowcount
    tx.writes += unseen
    taken = scratch.fill(
        tx,
        f"device d WHERE {wrong} AND {updated} <> d.updated_status AND d.name > :after",
        parameters | {"limit": CHUNK},
        updated_status=updated,
    )
    if not taken:
        return Marked(after, unseen == UNSEEN)
    first = tx.next_version(taken)
    scratch.log(tx, first)
    last = scratch.count(tx).last
    run(
        tx.connection,
        "UPDATE device SET resource_version = :first + b.n - 1, behind = 1 - device.behind,"
        " updated_status = b.updated_status, updated_info ="
        " CASE b.updated_status WHEN 'OutOfDate' THEN :waits ELSE :up_to_date END"
        f" FROM bound b WHERE device.uid = b.uid AND {scratch.holds(tx.dialect)}",
        {"first": first, "waits": summary.NOT_SCHEDULED, "up_to_date": UP_TO_DATE},
    )
    return Marked(last, taken == CHUNK or unseen == UNSEEN)
