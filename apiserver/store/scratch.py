"""The devices of a set change: written down once with what is old and what is new of them, and then
logged, counted and updated from there, each in one statement for a thousand.

One change at a time is in the scratch table; all of it belongs to the transaction of the writer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from apiserver.store import devices
from apiserver.store.statements import run

if TYPE_CHECKING:
    from apiserver.store.dialect import Dialect
    from apiserver.store.snapshot import Transaction

# What is written down of each device `d`; of some of it also what it was before.
_COLUMNS = [
    "uid",
    "namespace",
    "name",
    "labels",
    "owner",
    "alias",
    "fleet",
    "summary_status",
    "updated_status",
    "applications_status",
    "lifecycle_status",
    "os_mode",
    "connected",
    "render_needed",
    "overrides",
]
_OLD = ("owner", "fleet", "updated_status", "render_needed")
_AS_IT_IS = {name: f"d.{name}" for name in _COLUMNS} | {f"old_{name}": f"d.{name}" for name in _OLD}


def fill(tx: Transaction, source: str, parameters: Mapping[str, Any], **becomes: str) -> int:
    """Take the devices `d` of `source`, which is what follows FROM, in order of name; how many
    there are. `becomes` has SQL for what is to have another value than the device has. Where there
    is a `limit` among the parameters, no more than that."""
    values = _AS_IT_IS | becomes
    limit = " LIMIT :limit" if "limit" in parameters else ""
    tx.dialect.scratch(tx.connection, "bound")
    return run(
        tx.connection,
        f"INSERT INTO bound (n, {', '.join(values)})"
        f" SELECT row_number() OVER (ORDER BY d.name), {', '.join(values.values())}"
        f" FROM {source} ORDER BY d.name{limit}",
        parameters,
    ).rowcount


def holds(dialect: Dialect) -> str:
    """SQL for a device that is in it."""
    return dialect.among("device.uid", "SELECT uid FROM bound")


def log(tx: Transaction, first: int) -> None:
    """One change row for each scratch row. Labels are there too, unchanged: a watcher's selector
    is matched on labels and fields together."""
    parameters = {"first": first, "at": tx.now_s}
    run(tx.connection, _log_statement(tx.dialect), parameters)


@cache
def _log_statement(dialect: Dialect) -> str:
    def fields(prefix: str) -> str:
        named = {path: f"b.{column}" for path, column in devices.FIELDS.items()}
        for column in ("owner", "updated_status", "render_needed"):
            path = next(path for path, name in devices.FIELDS.items() if name == column)
            named[path] = f"b.{prefix}{column}"
        for path, sql in named.items():
            if devices.FIELDS[path] in ("render_needed", "connected"):
                named[path] = f"CASE WHEN {sql} = 1 THEN 'true' ELSE 'false' END"
        return dialect.json_object(named)

    return (
        "INSERT INTO change (resource_version, kind, namespace, name, uid, type, old_labels,"
        " new_labels, old_fields, new_fields, at)"
        " SELECT :first + b.n - 1, 'Device', b.namespace, b.name, b.uid, 'MODIFIED', b.labels,"
        f" b.labels, {fields('old_')}, {fields('')}, :at FROM bound b"
    )


@dataclass(frozen=True, slots=True)
class Counted:
    """How many rows got a new version, had waited to be rendered, and do now; of how many with
    another specification people ask something of single applications; and the last name."""

    rendered: int
    waited: int
    waits: int
    wishing: int
    last: str


def count(tx: Transaction) -> Counted:
    """Counter deltas of the rows, grouped by old and new."""
    groups = run(
        tx.connection,
        "SELECT namespace, fleet, old_fleet, summary_status, applications_status, os_mode,"
        " updated_status, old_updated_status, count(*) AS n, sum(rerendered) AS rerendered,"
        " sum(old_render_needed) AS waited, sum(render_needed) AS waits, max(name) AS last,"
        " sum(CASE WHEN respecified = 1 AND overrides IS NOT NULL THEN 1 ELSE 0 END) AS wishing"
        " FROM bound"
        " GROUP BY 1, 2, 3, 4, 5, 6, 7, 8",
        {},
    )
    rendered = waited = waits = wishing = 0
    last = ""
    for row in groups.mappings():
        last = max(last, row["last"])
        rendered += row["rerendered"] or 0
        waited, waits = waited + row["waited"], waits + row["waits"]
        wishing += row["wishing"]
        for dimension, column in devices.COUNTED.items():
            old = row["old_updated_status"] if column == "updated_status" else row[column]
            tx.tally((row["namespace"], row["old_fleet"], dimension, old), -row["n"])
            tx.tally((row["namespace"], row["fleet"], dimension, row[column]), row["n"])
    return Counted(int(rendered), int(waited), int(waits), int(wishing), last)
