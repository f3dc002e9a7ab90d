"""Rows of the `device` table, the documents that people see, and what an agent is given.

Every write of one device goes through `save`: it draws the conclusions (summaries), compares, gives
a version, logs, and moves the counters, so these cannot disagree. Sets are written by `sets`, which
keeps to the same rules in SQL.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from sqlalchemy import (
    Connection,
    Select,
    bindparam,
    delete,
    insert,
    select,
    update,
)

from apiserver.store import newsworthy, rewriting, selecting, stirring
from apiserver.store.contents import Documents
from apiserver.store.objects import dumps
from apiserver.store.prepared import Prepared, among, texts
from apiserver.store.tables import DEVICE, DEVICE_LABEL, PRESENCE
from resources import conditions, overrides, pause, summary, timestamps
from resources.kind import Json, Kind
from resources.selectors import FieldSelector, LabelSelector

if TYPE_CHECKING:
    from apiserver.store.snapshot import Transaction

Row = Mapping[Any, Any]

RENDERED_VERSION = "device-controller/renderedVersion"
RENDERED_HASH = "device-controller/renderedSpecHash"
TEMPLATE_VERSION = "fleet-controller/templateVersion"
RENDERED_TEMPLATE_VERSION = "fleet-controller/renderedTemplateVersion"
ROLLOUT_ERROR = "fleet-controller/lastRolloutError"
AWAITING_RECONNECT = "device-controller/awaitingReconnect"
CONFLICT_PAUSED = "device-controller/conflictPaused"
OVERRIDES = "device-controller/applicationLifecycle"
FLEET_OVERRIDES = "device-controller/fleetApplicationLifecycle"
# Of fleets, whose own documents keep these.
FLEETS_OVERRIDES = "fleet-controller/applicationLifecycle"
COMPUTED_ANNOTATIONS = (
    RENDERED_VERSION,
    RENDERED_HASH,
    TEMPLATE_VERSION,
    RENDERED_TEMPLATE_VERSION,
    ROLLOUT_ERROR,
    AWAITING_RECONNECT,
    CONFLICT_PAUSED,
    OVERRIDES,
    FLEET_OVERRIDES,
    FLEETS_OVERRIDES,
)

# Field path → column; the values of the columns are text, or 0 and 1 where the field is a boolean.
FIELDS = {
    "metadata.name": "name",
    "metadata.namespace": "namespace",
    "metadata.owner": "owner",
    "metadata.alias": "alias",
    "status.summary.status": "summary_status",
    "status.updated.status": "updated_status",
    "status.applicationsSummary.status": "applications_status",
    "status.lifecycle.status": "lifecycle_status",
    "status.capabilities.osMode": "os_mode",
    "status.renderNeeded": "render_needed",
    "status.connected": "connected",
}
_FLEET = "Fleet/"
_BOOLEANS = frozenset(("render_needed", "connected"))

# What is counted, by fleet: dimension → column.
COUNTED = {
    "summary": "summary_status",
    "updated": "updated_status",
    "applications": "applications_status",
    "osMode": "os_mode",
}

# A change of none of these is logged without old and new values.
_SELECTED = frozenset((*FIELDS.values(), "labels"))

_BY_NAME = Prepared(
    select(DEVICE).where(
        DEVICE.c.namespace == bindparam("namespace"), DEVICE.c.name == bindparam("name")
    )
)
_BY_NAMES = Prepared(
    lambda dialect: select(DEVICE).where(
        DEVICE.c.namespace == bindparam("namespace"), among(dialect, DEVICE.c.name, "names")
    )
)
_BY_UIDS = Prepared(lambda dialect: select(DEVICE).where(among(dialect, DEVICE.c.uid, "uids")))
_BY_UID = Prepared(select(DEVICE).where(DEVICE.c.uid == bindparam("uid")))
_INSERT = Prepared(insert(DEVICE))
_INSERT_LABEL = Prepared(insert(DEVICE_LABEL))
_DELETE_LABELS, _DELETE_PRESENCE, _DELETE = (
    Prepared(delete(table).where(table.c.uid == bindparam("of_uid")))
    for table in (DEVICE_LABEL, PRESENCE, DEVICE)
)


def fields_of(row: Row) -> dict[str, str | None]:
    """Selectable fields as selectors compare them."""
    return {path: _field_text(column, row[column]) for path, column in FIELDS.items()}


def _field_text(column: str, value: Any) -> str | None:
    if column in _BOOLEANS:
        return "true" if value else "false"
    return None if value is None else str(value)


def conditions_for(fields: FieldSelector) -> list[Any]:
    """SQL for a field selector. Booleans compare as 0 and 1, so that their index serves."""
    clauses: list[Any] = []
    texts: list[Any] = []
    for requirement in fields.requirements:
        column = FIELDS[requirement.key]
        if column == "owner" and requirement.operator in ("=", "in") and all(requirement.values):
            # Only fleets own devices; so the index of fleets serves.
            fleets = [v.removeprefix(_FLEET) for v in requirement.values if v.startswith(_FLEET)]
            clauses.append(DEVICE.c.fleet.in_(fleets))
        if column not in _BOOLEANS:
            texts.append(requirement)
            continue
        wanted = [value for value, text in ((1, "true"), (0, "false")) if requirement.holds(text)]
        clauses.append(DEVICE.c[column].in_(wanted))
    by_path = {path: DEVICE.c[column] for path, column in FIELDS.items()}
    return clauses + selecting.by_fields(by_path, FieldSelector(tuple(texts)))


def short_template(name: str | None) -> str | None:
    """`v3` of the stored name `web.v3`: what the contract shows."""
    return None if name is None else name.rpartition(".")[2]


def spec_hash(row: Row) -> str:
    """What agents take for the identity of a specification: its digest, the retry generation, and
    what is asked of its applications, since they refuse a hash that failed."""
    digest = str(row["rendered_digest"]).rpartition(":")[2]
    parts = [digest, str(row["retry_generation"] or ""), overrides.mark(wished(row))]
    return "-".join(part for part in parts if part)


def layers(row: Row) -> tuple[overrides.Overrides, overrides.Overrides]:
    """What is asked of its applications: of the device itself, and as one of its fleet."""
    own, fleets = row["overrides"], row["fleet_overrides"]
    return orjson.loads(own or "{}"), orjson.loads(fleets or "{}")


def wished(row: Row) -> dict[str, Json]:
    """What of that holds."""
    return overrides.effective(*layers(row)) if row["overrides"] or row["fleet_overrides"] else {}


def metadata_of(row: Row) -> Json:
    metadata: Json = {
        "name": row["name"],
        "namespace": row["namespace"],
        "uid": row["uid"],
        "resourceVersion": str(row["resource_version"]),
        "generation": row["generation"],
        "creationTimestamp": row["created_at"],
        "labels": orjson.loads(row["labels"]),
    }
    if row["deleted_at"]:
        metadata["deletionTimestamp"] = row["deleted_at"]
    metadata |= orjson.loads(row["meta"])
    annotations = dict(metadata.get("annotations") or {})
    if row["rendered_version"]:
        annotations[RENDERED_VERSION] = str(row["rendered_version"])
        annotations[RENDERED_HASH] = spec_hash(row)
    if row["template_version"]:
        annotations[TEMPLATE_VERSION] = short_template(row["template_version"])
    if row["rendered_template_version"]:
        annotations[RENDERED_TEMPLATE_VERSION] = short_template(row["rendered_template_version"])
    if row["render_error"]:
        annotations[ROLLOUT_ERROR] = row["render_error"]
    if row["pause"]:
        key = CONFLICT_PAUSED if pause.is_conflict(row["pause"]) else AWAITING_RECONNECT
        annotations[key] = "true"
    for key, column in ((OVERRIDES, "overrides"), (FLEET_OVERRIDES, "fleet_overrides")):
        if row[column]:
            annotations[key] = row[column]
    metadata["annotations"] = annotations
    if row["owner"]:
        metadata["owner"] = row["owner"]
    return metadata


def status_of(row: Row, said: Json | None = None) -> Json:
    """The agent's status as it came (`said`, where it is parsed already), with what the service
    concludes laid over it."""
    status: Json = dict(orjson.loads(row["agent_status"]) if said is None else said)
    theirs = [c for c in status.get("conditions") or () if isinstance(c, dict)]
    own = _own_conditions(row)
    overridden = {condition["type"] for condition in own}
    status["conditions"] = [c for c in theirs if c.get("type") not in overridden] + own
    status["summary"] = {"status": row["summary_status"], "info": row["summary_info"]}
    status["updated"] = {"status": row["updated_status"], "info": row["updated_info"]}
    status["applicationsSummary"] = {
        "status": row["applications_status"],
        "info": row["applications_info"],
    }
    status["lifecycle"] = {"status": row["lifecycle_status"]}
    if row["lifecycle_info"]:
        status["lifecycle"]["info"] = row["lifecycle_info"]
    return status


def _own_conditions(row: Row) -> list[Json]:
    """The service's own. That several fleets select it, and that something from outside cannot be
    had, is told by its device, but not written into each: it may be of ten thousand."""
    own: list[Json] = orjson.loads(row["conditions"])
    if row["candidates"]:
        said = conditions.TRUE, "MultipleOwners", str(row["candidates"])
        own = conditions.set_condition(own, "MultipleOwners", *said, _several_since(row))
    elif row["several_at"] is not None:
        # In the reference's words, which are none.
        said = conditions.FALSE, "", ""
        own = conditions.set_condition(own, "MultipleOwners", *said, _several_since(row))
    if not (row["render_error"] and row["waits_for"]):
        return own
    since = timestamps.of_seconds(row["bound_at"] or 0)
    return conditions.set_condition(
        own, "SpecValid", conditions.FALSE, "Invalid", row["render_error"], since
    )


def _several_since(row: Row) -> str:
    """Not known where an earlier version of the service wrote it down."""
    at = row["several_at"]
    return str(row["created_at"]) if at is None else timestamps.of_seconds(at)


def running(row: Row, version: int) -> str:
    """The agent's status with another version that it runs."""
    status = orjson.loads(row["agent_status"])
    config = status.get("config")
    known = config if isinstance(config, dict) else {}
    return dumps(status | {"config": known | {"renderedVersion": str(version)}})


def document_of(
    kind: Kind, row: Row, spec: Json, *, said: Json | None = None, inputs: Json | None = None
) -> Json:
    status = status_of(row, said)
    if inputs:
        status["dependencySync"] = {"configRefs": [_reference(i) for i in inputs["inputs"]]}
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": metadata_of(row),
        "spec": spec,
        "status": status,
    }


def _reference(found: Json) -> Json:
    """Where an outside source of the device stood, as the contract shows it."""
    reference = {"configProviderName": found["name"], "fingerprint": found["revision"]}
    return reference | ({"lastUpdatedAt": found["updatedAt"]} if found.get("updatedAt") else {})


def row_by_name(connection: Connection, namespace: str, name: str) -> Row | None:
    return _BY_NAME.first(connection, {"namespace": namespace, "name": name})


def row_by_uid(connection: Connection, uid: str) -> Row:
    """The row of a device that is there."""
    found = _BY_UID.first(connection, {"uid": uid})
    assert found is not None, f"no device of uid {uid}"
    return found


def rows_by_name(connection: Connection, namespace: str, names: Sequence[str]) -> Sequence[Row]:
    """Of those devices that there are."""
    if len(names) == 1:
        return _BY_NAME.rows(connection, {"namespace": namespace, "name": names[0]})
    wanted = {"namespace": namespace, "names": texts(connection, names)}
    return _BY_NAMES.rows(connection, wanted)


def rows_by_uid(connection: Connection, uids: Iterable[str]) -> dict[str, Row]:
    found = _BY_UIDS.rows(connection, {"uids": texts(connection, uids)})
    return {row["uid"]: row for row in found}


def _rows(connection: Connection, query: Select[Any]) -> list[Row]:
    """As plain dictionaries: a document asks a row thirty times, and SQLAlchemy's own are slow."""
    result = connection.execute(query)
    names = tuple(result.keys())
    return [dict(zip(names, row, strict=True)) for row in result]


def documents_of(
    connection: Connection, documents: Documents, kind: Kind, rows: Iterable[Row]
) -> list[Json]:
    """The documents of many rows, with one look-up for all their specs."""
    rows = list(rows)
    wanted = {row["spec_digest"] for row in rows} | {row["inputs_digest"] for row in rows}
    found = documents.fetch(connection, wanted - {None})
    return [
        document_of(kind, row, found[row["spec_digest"]], inputs=found.get(row["inputs_digest"]))
        for row in rows
    ]


def page(
    connection: Connection,
    namespace: str | None,
    *,
    labels: LabelSelector,
    fields: FieldSelector | None,
    after: tuple[str, str] | None,
    limit: int,
) -> list[Row]:
    """Rows in order of (namespace, name)."""
    query = select(DEVICE)
    if namespace is not None:
        query = query.where(DEVICE.c.namespace == namespace)
    query, name = selecting.by_labels(query, DEVICE, DEVICE_LABEL, labels)
    if fields is not None:
        query = query.where(*conditions_for(fields))
    if after is not None:
        later = name > after[1]
        if namespace is None:
            same = (DEVICE.c.namespace == after[0]) & later
            later = (DEVICE.c.namespace > after[0]) | same
        query = query.where(later)
    order = (name,) if namespace is not None else (DEVICE.c.namespace, name)
    query = query.order_by(*order)
    if limit:
        query = query.limit(limit)
    return _rows(connection, query)


# --- writing one device ---------------------------------------------------------------------


def facts_of(row: Row, status: Json) -> summary.DeviceFacts:
    failed = row["failed_version"] and row["failed_version"] == row["rendered_version"]
    return summary.DeviceFacts(
        status=status,
        connected=bool(row["connected"]),
        seen=bool(row["seen"]),
        managed=bool(row["fleet"]),
        rendered_version=row["rendered_version"],
        reported_version=row["reported_version"],
        behind=bool(row["behind"]),
        spec_valid=row["spec_valid"] != "False",
        render_needed=bool(row["render_needed"]),
        spec_os_image=row["os_image"],
        render_error=row["render_error"] or "",
        failed_reason=(row["failed_reason"] or "") if failed else "",
        awaiting_reconnect=row["pause"] == pause.AWAITING,
        conflict_paused=pause.is_conflict(row["pause"]),
        decommissioning=bool(row["decommissioning"]),
    )


def _conclude(row: dict[str, Any], status: Json) -> None:
    drawn = summary.derive(facts_of(row, status))
    row["summary_status"], row["summary_info"] = drawn.summary, drawn.summary_info
    row["updated_status"], row["updated_info"] = drawn.updated, drawn.updated_info
    row["applications_status"] = drawn.applications
    row["applications_info"] = drawn.applications_info
    row["lifecycle_status"], row["lifecycle_info"] = drawn.lifecycle, drawn.lifecycle_info
    mode = status.get("capabilities")
    row["os_mode"] = (mode.get("osMode") if isinstance(mode, dict) else None) or "unknown"


def save(
    tx: Transaction, old: Row | None, changes: Mapping[str, Any], *, said: Json | None = None
) -> dict[str, Any]:
    """Write one device: `old` with `changes` and what follows from them.

    `said` is the agent's status where the caller has it parsed. Returns the row as it is then. What
    changes nothing is not written and gets no version.
    """
    row, moved = _drawn(old or {}, changes, said)
    if old is not None and not moved:
        return row
    row["resource_version"] = tx.next_version()
    if old is None:
        tx.appears("Device", row["namespace"], row["name"])
        _INSERT.run(tx.connection, row)
    else:
        _update_of(moved).run(tx.connection, row | {"of_uid": row["uid"]})
    if old is None or "labels" in moved:
        _write_labels(tx.connection, row, new=old is None)
    _tell(tx, old, row, moved, said)
    return row


class Change(NamedTuple):
    """One device, and what it is to be changed to; `said` as `save` has it."""

    old: Row
    changes: Mapping[str, Any]
    said: Json | None = None


def save_all(tx: Transaction, changed: Iterable[Change]) -> list[Row]:
    """`save` of many, each once, in a statement for each set of columns that moved; labels are none
    of them. Returns the rows as they are then."""
    by_columns: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    rows: list[Row] = []
    for old, changes, said in changed:
        row, moved = _drawn(old, changes, said)
        rows.append(row)
        if not moved:
            continue
        assert "labels" not in moved, "they have rows of their own"
        row["resource_version"] = tx.next_version()
        by_columns.setdefault(moved, []).append(row)
        _tell(tx, old, row, moved, said)
    for moved, alike in by_columns.items():
        if len(alike) == 1 or tx.dialect.is_sqlite:
            # No round trips there; and out of a JSON array it looks for each row in all the others.
            each = (row | {"of_uid": row["uid"]} for row in alike)
            _update_of(moved).run_many(tx.connection, each)
        else:
            rewriting.rewrite(tx.connection, (*moved, "resource_version"), alike)
    return rows


def _drawn(
    old: Row, changes: Mapping[str, Any], said: Json | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The row as it is to be, and the columns that are others than before."""
    row = dict(old) | dict(changes)
    _conclude(row, orjson.loads(row["agent_status"]) if said is None else said)
    return row, tuple([c for c, value in row.items() if c not in old or old[c] != value])


def _tell(
    tx: Transaction, old: Row | None, row: Row, moved: tuple[str, ...], said: Json | None
) -> None:
    """The log, the counters, people, and who renders."""
    _log(tx, old, row, is_selected=not _SELECTED.isdisjoint(moved))
    _count(tx, old, row)
    if news := newsworthy.of(old, row, moved, said):
        tx.announce(newsworthy.about_device(row, row["resource_version"]), news)
    if old is not None and (stir := stirring.of_row(old, row)):
        tx.rollout_moved(old["namespace"], old["rollout"], stir)
    if (None if old is None else _waits(old)) != _waits(row):
        tx.backlog_moved(row["namespace"])


def _waits(row: Row) -> str | None:
    """In which fleet it waits to be rendered, if it does."""
    return row["fleet"] if row["render_needed"] and not row["pause"] else None


@cache
def _update_of(columns: tuple[str, ...]) -> Prepared:
    """The UPDATE of these columns and the version. Reports move the same few, so the same
    statement serves."""
    statement = update(DEVICE).where(DEVICE.c.uid == bindparam("of_uid"))
    return Prepared(statement, (*columns, "resource_version"))


def remove(tx: Transaction, row: Row, body: Json) -> int:
    """Delete the row; the log keeps the last body. Returns the version."""
    version = tx.next_version()
    last = body | {"metadata": body["metadata"] | {"resourceVersion": str(version)}}
    for statement in (_DELETE_LABELS, _DELETE_PRESENCE, _DELETE):
        statement.run(tx.connection, {"of_uid": row["uid"]})
    tx.log_change(
        version,
        ("Device", row["namespace"], row["name"], row["uid"]),
        "DELETED",
        old=(row["labels"], dumps(fields_of(row))),
        new=None,
        body=dumps(last),
    )
    _count(tx, row, None)
    if row["rollout_batch"] is not None and row["fleet"]:
        tx.rollout_moved(row["namespace"], row["rollout"], stirring.Stir(row["fleet"]))
    if row["render_needed"]:
        tx.backlog_moved(row["namespace"])
    return version


def _write_labels(connection: Connection, row: Row, *, new: bool) -> None:
    if not new:
        _DELETE_LABELS.run(connection, {"of_uid": row["uid"]})
    same = {key: row[key] for key in ("uid", "namespace", "name")}
    labels = orjson.loads(row["labels"]).items()
    _INSERT_LABEL.run_many(connection, (same | {"key": k, "value": v} for k, v in labels))


def _log(tx: Transaction, old: Row | None, row: Row, *, is_selected: bool) -> None:
    def selected(of: Row) -> tuple[str, str]:
        return of["labels"], dumps(fields_of(of))

    key = ("Device", row["namespace"], row["name"], row["uid"])
    version = row["resource_version"]
    if old is None:
        tx.log_change(version, key, "ADDED", old=None, new=selected(row))
    elif is_selected:
        tx.log_change(version, key, "MODIFIED", old=selected(old), new=selected(row))
    else:
        tx.log_change(version, key, "MODIFIED", old=None, new=None)


def _count(tx: Transaction, old: Row | None, new: Row | None) -> None:
    for dimension, column in COUNTED.items():
        was = None if old is None else (old["namespace"], old["fleet"], dimension, old[column])
        is_ = None if new is None else (new["namespace"], new["fleet"], dimension, new[column])
        if was == is_:
            continue
        if was is not None:
            tx.tally(was, -1)
        if is_ is not None:
            tx.tally(is_, 1)
