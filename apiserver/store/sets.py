"""Changes of many devices at once: a few statements for each thousand, whatever they are.

The shape is always the same: a scratch table of the affected rows with old values, new values and
row numbers; INSERT…SELECT into the change log; UPDATE from it; counter deltas grouped by old and
new. Python never loops over devices here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from apiserver.store import devices
from apiserver.store.statements import run
from apiserver.store.stirring import Stir
from resources import summary

if TYPE_CHECKING:
    from apiserver.store.dialect import Dialect
    from apiserver.store.snapshot import Snapshot, Transaction

CHUNK = 1_000


OUT_OF_DATE = summary.NOT_APPLIED
UP_TO_DATE = summary.APPLIED


def reown(tx: Transaction, namespace: str, uids_of: str, parameters: Mapping[str, Any]) -> int:
    """Decide again who owns the devices whose uid is as the SQL `uids_of` says; one match owns,
    several own nothing new and are listed, none leaves the device without owner (contract 7.4).
    They are of this namespace, which is no condition: it would make its indexes look useful."""
    tx.dialect.scratch(tx.connection, "bound")
    differs = tx.dialect.distinct_from
    concat = "group_concat(m.fleet, ',')" if tx.dialect.is_sqlite else "string_agg(m.fleet, ',')"
    matches = (
        "SELECT l.uid, s.fleet FROM device_label l JOIN fleet_selector s"
        " ON s.namespace = l.namespace AND s.key = l.key AND s.value = l.value"
        f" WHERE l.uid {uids_of}"
        " GROUP BY l.uid, s.fleet, s.total HAVING count(*) = s.total"
    )
    decided = (
        f"SELECT m.uid, count(*) AS n, min(m.fleet) AS fleet, {concat} AS all_fleets"
        f" FROM ({matches} ORDER BY l.uid, s.fleet) m GROUP BY m.uid"
    )
    fleet = "CASE WHEN x.n > 1 THEN d.fleet ELSE coalesce(x.fleet, '') END"
    several = "CASE WHEN x.n > 1 THEN x.all_fleets END"
    moved = f"({differs('d.fleet', fleet)} OR {differs('d.candidates', several)})"
    needs = f"CASE WHEN ({fleet}) <> '' AND ({fleet}) <> d.fleet THEN 1 ELSE d.render_needed END"
    # A new fleet has something else in mind for the device, whatever that will be.
    updated = (
        f"CASE WHEN d.updated_status = 'UpToDate' AND ({needs}) = 1 THEN 'OutOfDate'"
        # Of no fleet any more, it waits for no turn.
        f" WHEN ({fleet}) = '' AND d.behind = 1 AND d.updated_status = 'OutOfDate'"
        " AND d.render_needed = 0 AND d.reported_version = d.rendered_version"
        " AND d.render_error IS NULL THEN 'UpToDate' ELSE d.updated_status END"
    )
    owner = "CASE WHEN x.n > 1 THEN d.owner WHEN x.n = 1 THEN 'Fleet/' || x.fleet END"
    taken = run(
        tx.connection,
        "INSERT INTO bound (n, uid, namespace, name, labels, owner, old_owner, alias, fleet,"
        " old_fleet, candidates, summary_status, updated_status, old_updated_status,"
        " applications_status, lifecycle_status, os_mode, connected, render_needed,"
        " old_render_needed)"
        f" SELECT row_number() OVER (ORDER BY d.name), d.uid, d.namespace, d.name, d.labels,"
        f" {owner}, d.owner, d.alias, {fleet}, d.fleet, {several}, d.summary_status,"
        f" {updated}, d.updated_status, d.applications_status, d.lifecycle_status,"
        f" d.os_mode, d.connected, {needs}, d.render_needed"
        f" FROM device d LEFT JOIN ({decided}) x ON x.uid = d.uid"
        f" WHERE d.uid {uids_of} AND d.decommissioning = 0"
        f" AND (d.owner IS NULL OR d.fleet <> '') AND {moved}",
        dict(parameters) | {"namespace": namespace},
    ).rowcount
    if not taken:
        return 0
    # What its fleet asks of its applications. Who has no fleet any more stays as it is, and who is
    # left alone is given it when that ends.
    wishes = (
        "CASE WHEN device.pause <> 0 OR b.fleet IN ('', device.fleet)"
        " THEN device.fleet_overrides ELSE"
        " (SELECT o.overrides FROM fleet_override o"
        " WHERE o.namespace = b.namespace AND o.fleet = b.fleet) END"
    )
    following = tx.dialect.greatest("device.rendered_version", "device.reported_version") + " + 1"
    version = (
        "CASE WHEN device.rendered_digest IS NOT NULL"
        f" AND {differs('device.fleet_overrides', f'({wishes})')}"
        f" THEN {following} ELSE device.rendered_version END"
    )
    first = tx.next_version(taken)
    log_scratch(tx, first)
    run(
        tx.connection,
        "UPDATE device SET resource_version = :first + b.n - 1, owner = b.owner,"
        " fleet = b.fleet, candidates = b.candidates, render_needed = b.render_needed,"
        " updated_status = b.updated_status, updated_info = CASE WHEN"
        " b.updated_status <> device.updated_status THEN CASE b.updated_status"
        " WHEN 'UpToDate' THEN :up_to_date ELSE :info END ELSE device.updated_info END,"
        " behind = CASE WHEN b.fleet <> b.old_fleet THEN 0 ELSE device.behind END,"
        f" fleet_overrides = {wishes}, rendered_version = {version},"
        " inputs_version = device.inputs_version + 1"
        f" FROM bound b WHERE device.uid = b.uid AND {in_scratch(tx.dialect)}",
        {"first": first, "info": OUT_OF_DATE, "up_to_date": UP_TO_DATE},
    )
    count_scratch(tx)
    tx.backlog_moved(namespace)
    _stir_those_left(tx, namespace)
    return int(taken)


def is_wanted(snapshot: Snapshot, namespace: str, labels: str) -> bool:
    """Whether any fleet selects devices with these labels (a JSON object)."""
    each = "json_each(:labels)"
    if not snapshot.dialect.is_sqlite:
        each = "json_each_text(CAST(:labels AS json))"
    found = run(
        snapshot.connection,
        f"SELECT s.fleet FROM {each} l JOIN fleet_selector s"
        " ON s.namespace = :namespace AND s.key = l.key AND s.value = l.value"
        " GROUP BY s.fleet, s.total HAVING count(*) = s.total LIMIT 1",
        {"namespace": namespace, "labels": labels},
    )
    return found.first() is not None


def _stir_those_left(tx: Transaction, namespace: str) -> None:
    """Rollouts that devices have left may have waited for those."""
    left = run(
        tx.connection,
        # By index, and none at all where a device is new: of a plain join PostgreSQL may read all.
        "SELECT DISTINCT b.old_fleet AS fleet, d.rollout AS rollout FROM device d"
        " JOIN bound b ON b.uid = d.uid WHERE d.rollout IS NOT NULL AND "
        + tx.dialect.among("d.uid", "SELECT uid FROM bound WHERE old_fleet <> ''"),
        {},
    )
    for row in left:
        tx.rollout_moved(namespace, row.rollout, Stir(row.fleet))


# Devices whose owner a change of one fleet can move: its own, those it may be among several for,
# and those that carry all the labels that it selects now.
UIDS_OF_FLEET = (
    "IN (SELECT uid FROM device WHERE namespace = :namespace AND (fleet = :fleet"
    " OR (candidates IS NOT NULL AND ',' || candidates || ',' LIKE '%,' || :fleet || ',%'))"
    " UNION SELECT l2.uid FROM device_label l2 JOIN fleet_selector s2"
    " ON s2.namespace = l2.namespace AND s2.key = l2.key AND s2.value = l2.value"
    " WHERE s2.namespace = :namespace AND s2.fleet = :fleet"
    " GROUP BY l2.uid, s2.total HAVING count(*) = s2.total)"
)
UID = "= :uid"


def unbound_by_fleet(snapshot: Snapshot, namespace: str) -> dict[str, int]:
    """fleet → devices that wait to be rendered; '' for those of no fleet."""
    rows = run(
        snapshot.connection,
        "SELECT fleet, count(*) AS n FROM device"
        " WHERE namespace = :namespace AND render_needed = 1 AND pause = 0 GROUP BY fleet",
        {"namespace": namespace},
    )
    return {row.fleet: row.n for row in rows}


def in_scratch(dialect: Dialect) -> str:
    return dialect.among("device.uid", "SELECT uid FROM bound")


def log_scratch(tx: Transaction, first: int) -> None:
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


def count_scratch(tx: Transaction) -> tuple[int, int, int, str]:
    """Counter deltas of the scratch rows, grouped by old and new. Returns how many rows got a new
    version, how many had waited to be rendered and how many do now, and the last name."""
    groups = run(
        tx.connection,
        "SELECT namespace, fleet, old_fleet, summary_status, applications_status, os_mode,"
        " updated_status, old_updated_status, count(*) AS n, sum(rerendered) AS rerendered,"
        " sum(old_render_needed) AS waited, sum(render_needed) AS waits, max(name) AS last"
        " FROM bound"
        " GROUP BY 1, 2, 3, 4, 5, 6, 7, 8",
        {},
    )
    rendered, waited, waits, last = 0, 0, 0, ""
    for row in groups.mappings():
        last = max(last, row["last"])
        rendered += row["rerendered"] or 0
        waited, waits = waited + row["waited"], waits + row["waits"]
        for dimension, column in devices.COUNTED.items():
            old = row["old_updated_status"] if column == "updated_status" else row[column]
            tx.tally((row["namespace"], row["old_fleet"], dimension, old), -row["n"])
            tx.tally((row["namespace"], row["fleet"], dimension, row[column]), row["n"])
    return int(rendered), int(waited), int(waits), last
