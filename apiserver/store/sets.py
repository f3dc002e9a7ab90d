"""Changes of many devices at once: a few statements for each thousand, whatever they are.

The shape is always the same: a scratch table of the affected rows with old values, new values and
row numbers; INSERT…SELECT into the change log; UPDATE from it; counter deltas grouped by old and
new. Python never loops over devices here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, CursorResult, text

from apiserver.store import devices
from resources.selectors import EVERYTHING, LabelSelector, Requirement

if TYPE_CHECKING:
    from apiserver.store.dialect import Dialect
    from apiserver.store.snapshot import Snapshot, Transaction

CHUNK = 1_000


@cache
def _compiled(sql: str, dialect: Any) -> tuple[str, tuple[str, ...]]:
    """The driver's own text and the order of its parameters. Of these texts there are a dozen, and
    compiling one costs more than handing it to the database."""
    compiled = text(sql).compile(dialect=dialect)
    return compiled.string, tuple(compiled.positiontup or ())


def _run(connection: Connection, sql: str, parameters: Mapping[str, Any]) -> CursorResult[Any]:
    statement, order = _compiled(sql, connection.dialect)
    return connection.exec_driver_sql(statement, tuple([parameters[name] for name in order]))


_OUT_OF_DATE = "The device has not yet applied its newest specification."
_UP_TO_DATE = "The device has applied its newest specification."


@dataclass(frozen=True, slots=True)
class Target:
    """What devices are bound to: the stored template version, and what it renders to."""

    namespace: str
    fleet: str
    template_version: str
    rollout: str
    spec_digest: str
    rendered_digest: str
    os_image: str
    selector: LabelSelector = EVERYTHING


@dataclass(frozen=True, slots=True)
class Bound:
    """How many rows a call took, how many of those got a new version, and the last one's name."""

    rows: int
    rendered: int
    last: str


def bind(tx: Transaction, target: Target, limit: int, after: str = "") -> Bound:
    """Bind up to `limit` (a thousand at most) devices of the fleet that are not yet, by name, from
    the first one after `after`: who binds all need not look at those again that are bound."""
    where, parameters = _selected(target.selector)
    dialect = tx.dialect
    differs = dialect.distinct_from
    # An agent refuses for good what failed; another rollout of it asks for another try.
    retry = f"(d.failed_digest = :rendered AND {differs('d.rollout', ':rollout')})"
    unbound = (
        f"({differs('d.template_version', ':template')} OR d.render_needed = 1"
        f" OR {differs('d.rendered_template_version', ':template')} OR {retry})"
    )
    rerender = f"({differs('d.rendered_digest', ':rendered')} OR {retry})"
    next_version = dialect.greatest("d.rendered_version", "d.reported_version") + " + 1"
    version = f"CASE WHEN {rerender} THEN {next_version} ELSE d.rendered_version END"
    updated = (
        "CASE WHEN d.updated_status IN ('Updating') THEN d.updated_status"
        " WHEN d.connected = 0 AND d.seen = 1 THEN 'Unknown'"
        f" WHEN {rerender} OR d.reported_version <> d.rendered_version THEN 'OutOfDate'"
        " ELSE 'UpToDate' END"
    )
    parameters |= {
        "namespace": target.namespace,
        "fleet": target.fleet,
        "template": target.template_version,
        "rendered": target.rendered_digest,
        "rollout": target.rollout,
        "spec": target.spec_digest,
        "limit": min(limit, CHUNK),
        "after": after,
    }
    dialect.scratch(tx.connection, "bound")
    taken = _run(
        tx.connection,
        "INSERT INTO bound (n, uid, namespace, name, labels, owner, old_owner, alias, fleet,"
        " old_fleet, summary_status, updated_status, old_updated_status, applications_status,"
        " lifecycle_status, os_mode, connected, render_needed, old_render_needed,"
        " rendered_version, rerendered, retried, respecified)"
        " SELECT row_number() OVER (ORDER BY d.name), d.uid, d.namespace, d.name, d.labels,"
        " d.owner, d.owner, d.alias, d.fleet, d.fleet, d.summary_status,"
        f" {updated}, d.updated_status, d.applications_status, d.lifecycle_status, d.os_mode,"
        f" d.connected, 0, d.render_needed, {version},"
        f" CASE WHEN {rerender} THEN 1 ELSE 0 END, CASE WHEN {retry} THEN 1 ELSE 0 END,"
        f" CASE WHEN {differs('d.spec_digest', ':spec')} THEN 1 ELSE 0 END"
        " FROM device d WHERE d.namespace = :namespace AND d.fleet = :fleet"
        " AND d.name > :after AND d.candidates IS NULL AND d.decommissioning = 0"
        f" AND {unbound}{where} ORDER BY d.name LIMIT :limit",
        parameters,
    ).rowcount
    if not taken:
        return Bound(0, 0, after)
    first = tx.next_version(taken)
    _log_scratch(tx, first)
    rendered, waited, last = _count_scratch(tx)
    _run(
        tx.connection,
        "UPDATE device SET resource_version = :first + b.n - 1,"
        " generation = device.generation + b.respecified, template_version = :template,"
        " rendered_template_version = :template, rollout = :rollout, bound_at = :now,"
        " spec_digest = :spec, rendered_digest = :rendered, os_image = :os_image,"
        " rendered_version = b.rendered_version,"
        " retry_generation = device.retry_generation + b.retried,"
        " render_needed = 0, render_error = NULL, inputs_digest = NULL,"
        " spec_valid = 'True', updated_status = b.updated_status,"
        " updated_info = CASE b.updated_status WHEN 'OutOfDate' THEN :out_of_date"
        " WHEN 'UpToDate' THEN :up_to_date ELSE device.updated_info END"
        f" FROM bound b WHERE device.uid = b.uid AND {_in_scratch(dialect)}",
        parameters
        | {
            "first": first,
            "now": tx.now.timestamp(),
            "os_image": target.os_image,
            "out_of_date": _OUT_OF_DATE,
            "up_to_date": _UP_TO_DATE,
        },
    )
    if rendered:
        _history(tx, target)
    if waited:
        tx.backlog_moved(target.namespace)
    return Bound(taken, rendered, last)


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
        " ELSE d.updated_status END"
    )
    owner = "CASE WHEN x.n > 1 THEN d.owner WHEN x.n = 1 THEN 'Fleet/' || x.fleet END"
    taken = _run(
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
    first = tx.next_version(taken)
    _log_scratch(tx, first)
    _run(
        tx.connection,
        "UPDATE device SET resource_version = :first + b.n - 1, owner = b.owner,"
        " fleet = b.fleet, candidates = b.candidates, render_needed = b.render_needed,"
        " updated_status = b.updated_status, updated_info = CASE WHEN"
        " b.updated_status <> device.updated_status THEN :info ELSE device.updated_info END,"
        " inputs_version = device.inputs_version + 1"
        f" FROM bound b WHERE device.uid = b.uid AND {_in_scratch(tx.dialect)}",
        {"first": first, "info": _OUT_OF_DATE},
    )
    _count_scratch(tx)
    tx.backlog_moved(namespace)
    return int(taken)


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
    rows = _run(
        snapshot.connection,
        "SELECT fleet, count(*) AS n FROM device"
        " WHERE namespace = :namespace AND render_needed = 1 GROUP BY fleet",
        {"namespace": namespace},
    )
    return {row.fleet: row.n for row in rows}


def progress(snapshot: Snapshot, namespace: str, fleet: str, template: str) -> dict[str, int]:
    """Counts of the fleet's devices by how far they are towards `template`, in one statement.

    bound: the template version is the target's and nothing waits to be rendered; done: it runs it;
    failed: it said that this version failed (architecture §5).
    """
    bound = "(template_version = :template AND render_needed = 0)"
    rendered = f"({bound} AND rendered_template_version = :template)"
    done = f"({rendered} AND reported_version = rendered_version)"
    failed = f"({rendered} AND failed_version = rendered_version AND NOT {done})"
    away = f"({rendered} AND connected = 0 AND NOT {done} AND NOT {failed})"
    row = (
        _run(
            snapshot.connection,
            "SELECT count(*) AS total,"
            f" coalesce(sum(CASE WHEN {bound} THEN 1 ELSE 0 END), 0) AS bound,"
            f" coalesce(sum(CASE WHEN {rendered} THEN 1 ELSE 0 END), 0) AS rendered,"
            f" coalesce(sum(CASE WHEN {done} THEN 1 ELSE 0 END), 0) AS done,"
            f" coalesce(sum(CASE WHEN {failed} THEN 1 ELSE 0 END), 0) AS failed,"
            f" coalesce(sum(CASE WHEN {away} THEN 1 ELSE 0 END), 0) AS disconnected,"
            " coalesce(sum(CASE WHEN candidates IS NOT NULL THEN 1 ELSE 0 END), 0) AS blocked"
            " FROM device WHERE namespace = :namespace AND fleet = :fleet"
            " AND decommissioning = 0",
            {"namespace": namespace, "fleet": fleet, "template": template},
        )
        .mappings()
        .one()
    )
    return {key: int(value) for key, value in row.items()}


def failures(
    snapshot: Snapshot, namespace: str, fleet: str, template: str, limit: int = 10
) -> list[dict[str, Any]]:
    """The causes that devices gave for failing `template`, the most frequent first."""
    rows = _run(
        snapshot.connection,
        "SELECT failed_reason AS cause, count(*) AS n, min(name) AS example FROM device"
        " WHERE namespace = :namespace AND fleet = :fleet AND template_version = :template"
        " AND failed_version = rendered_version AND reported_version <> rendered_version"
        " AND failed_version > 0 GROUP BY failed_reason ORDER BY n DESC, cause LIMIT :limit",
        {"namespace": namespace, "fleet": fleet, "template": template, "limit": limit},
    )
    return [{"cause": r.cause or "", "count": r.n, "example": r.example} for r in rows]


def _selected(selector: LabelSelector) -> tuple[str, dict[str, Any]]:
    """SQL that narrows `d`, with its parameters."""
    clauses: list[str] = []
    parameters: dict[str, Any] = {}
    for number, requirement in enumerate(selector.requirements):
        assert isinstance(requirement, Requirement), "a batch selector has plain requirements"
        key = f"key_{number}"
        parameters[key] = requirement.key
        values = []
        for position, value in enumerate(requirement.values):
            parameters[f"value_{number}_{position}"] = value
            values.append(f":value_{number}_{position}")
        among = f" AND l.value IN ({', '.join(values)})" if values else ""
        has = f"EXISTS (SELECT 1 FROM device_label l WHERE l.uid = d.uid AND l.key = :{key}{among})"
        negative = requirement.operator in ("!", "!=", "notin")
        clauses.append(f" AND {'NOT ' if negative else ''}{has}")
    return "".join(clauses), parameters


def _in_scratch(dialect: Dialect) -> str:
    return dialect.among("device.uid", "SELECT uid FROM bound")


def _log_scratch(tx: Transaction, first: int) -> None:
    """One change row for each scratch row. Labels are there too, unchanged: a watcher's selector
    is matched on labels and fields together."""
    parameters = {"first": first, "at": tx.now_s}
    _run(tx.connection, _log_statement(tx.dialect), parameters)


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


def _count_scratch(tx: Transaction) -> tuple[int, int, str]:
    """Counter deltas of the scratch rows, grouped by old and new. Returns how many rows got a new
    version, how many had waited to be rendered, and the last name."""
    groups = _run(
        tx.connection,
        "SELECT namespace, fleet, old_fleet, summary_status, applications_status, os_mode,"
        " updated_status, old_updated_status, count(*) AS n, sum(rerendered) AS rerendered,"
        " sum(old_render_needed) AS waited, max(name) AS last FROM bound"
        " GROUP BY 1, 2, 3, 4, 5, 6, 7, 8",
        {},
    )
    rendered, waited, last = 0, 0, ""
    for row in groups.mappings():
        last = max(last, row["last"])
        rendered, waited = rendered + (row["rerendered"] or 0), waited + row["waited"]
        for dimension, column in devices.COUNTED.items():
            old = row["old_updated_status"] if column == "updated_status" else row[column]
            tx.tally((row["namespace"], row["old_fleet"], dimension, old), -row["n"])
            tx.tally((row["namespace"], row["fleet"], dimension, row[column]), row["n"])
    return int(rendered), int(waited), last


def _history(tx: Transaction, target: Target) -> None:
    # A version ends when the next one of the device begins; so ends are not written.
    _run(
        tx.connection,
        "INSERT INTO device_history (uid, rendered_version, spec_digest, rendered_digest,"
        " template_version, from_at) SELECT uid, rendered_version, :spec, :rendered, :template,"
        " :now FROM bound WHERE rerendered = 1",
        {
            "spec": target.spec_digest,
            "rendered": target.rendered_digest,
            "template": target.template_version,
            "now": tx.now_s,
        },
    )
