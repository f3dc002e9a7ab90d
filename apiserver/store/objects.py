"""Rows of the `object` table and the documents they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    bindparam,
    delete,
    insert,
    select,
    update,
)

from apiserver.store import selecting
from apiserver.store.prepared import Prepared, among, texts
from apiserver.store.tables import FLEET_SELECTOR, OBJECT, OBJECT_LABEL, OBJECT_OWNER
from resources.kind import Json, Kind
from resources.objectpath import get_path
from resources.selectors import FieldSelector, LabelSelector

Row = Mapping[Any, Any]

# Metadata with columns of its own; the rest is kept as it is in `meta`.
_COLUMNS = frozenset(
    (
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "labels",
    )
)


_BY_NAME = Prepared(
    select(OBJECT).where(
        OBJECT.c.kind == bindparam("kind"),
        OBJECT.c.namespace == bindparam("namespace"),
        OBJECT.c.name == bindparam("name"),
    )
)
_BY_UIDS = Prepared(lambda dialect: select(OBJECT).where(among(dialect, OBJECT.c.uid, "uids")))
_SAYING = Prepared(
    select(OBJECT).where(
        OBJECT.c.kind == bindparam("kind"),
        OBJECT.c.namespace == bindparam("namespace"),
        OBJECT.c.spec.like(bindparam("pattern")),
    )
)
_INSERT = Prepared(insert(OBJECT))
# How events are kept; those of one object are asked for by its name.
EVENTS = "CoreEvent"
_ABOUT = "spec.involvedObject.name"
# Rows that are read at once where what is looked for is not known to the database.
_LOOKED_AT = 1_000
# What a write may change; an object stays what and where it is.
_CHANGING = ("resource_version", "generation", "deleted_at", "labels", "meta", "spec", "status")
_UPDATE = Prepared(update(OBJECT).where(OBJECT.c.uid == bindparam("of_uid")), _CHANGING)
_INSERT_LABEL = Prepared(insert(OBJECT_LABEL))
_INSERT_OWNER = Prepared(insert(OBJECT_OWNER))
_DELETE_LABELS, _DELETE_OWNERS, _DELETE = (
    Prepared(delete(table).where(table.c.uid == bindparam("of_uid")))
    for table in (OBJECT_LABEL, OBJECT_OWNER, OBJECT)
)


def _deleting(table: Table) -> Prepared:
    return Prepared(lambda dialect: delete(table).where(among(dialect, table.c.uid, "uids")))


_DELETE_ALL = [_deleting(table) for table in (OBJECT_LABEL, OBJECT_OWNER, OBJECT)]


def dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


def field_of(document: Json, path: str) -> str | None:
    """The value of a selectable field as selectors compare it: text, `true`/`false`, or None."""
    value = get_path(document, path)
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None else str(value)


def fields_of(kind: Kind, document: Json) -> dict[str, str | None]:
    metadata = document["metadata"]
    fields = {path: field_of(document, path) for path in kind.selectable}
    fields["metadata.name"] = metadata["name"]
    fields["metadata.namespace"] = metadata.get("namespace", "")
    return fields


def document_of(kind: Kind, row: Row) -> Json:
    metadata: Json = {"name": row["name"]}
    if row["namespace"]:
        metadata["namespace"] = row["namespace"]
    metadata |= {
        "uid": row["uid"],
        "resourceVersion": str(row["resource_version"]),
        "generation": row["generation"],
        "creationTimestamp": row["created_at"],
    }
    if row["deleted_at"]:
        metadata["deletionTimestamp"] = row["deleted_at"]
    labels = orjson.loads(row["labels"])
    if labels:
        metadata["labels"] = labels
    metadata |= orjson.loads(row["meta"])
    document: Json = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}
    for part in ("spec", "status"):
        if row[part] is not None:
            document[part] = orjson.loads(row[part])
    return document


def values_of(kind: Kind, document: Json, version: int) -> dict[str, Any]:
    """Column values of a document that gets `version`."""
    metadata = document["metadata"]
    rest = {key: value for key, value in metadata.items() if key not in _COLUMNS}
    return {
        "uid": metadata["uid"],
        "kind": kind.kind,
        "namespace": metadata.get("namespace", ""),
        "name": metadata["name"],
        "resource_version": version,
        "generation": metadata.get("generation", 1),
        "created_at": metadata["creationTimestamp"],
        "deleted_at": metadata.get("deletionTimestamp"),
        "labels": dumps(metadata.get("labels") or {}),
        "meta": dumps(rest),
        "spec": dumps(document["spec"]) if "spec" in document else None,
        "status": dumps(document["status"]) if "status" in document else None,
        "about": (field_of(document, _ABOUT) or "") if kind.kind == EVENTS else None,
    }


def get(connection: Connection, kind: Kind, namespace: str, name: str) -> Json | None:
    key = {"kind": kind.kind, "namespace": namespace, "name": name}
    row = _BY_NAME.first(connection, key)
    return None if row is None else document_of(kind, row)


def saying(
    connection: Connection, kind: Kind, namespace: str, field: str, value: str
) -> list[Json]:
    """Objects in whose specification, at any depth, `field` is `value`, and perhaps others: who
    asks looks again. It spares reading what is of no interest, of which there may be thousands."""
    assert "\\" not in value, "a backslash means something else to each database"
    key = {"kind": kind.kind, "namespace": namespace}
    rows = _SAYING.rows(connection, key | {"pattern": f"%{dumps({field: value})[1:-1]}%"})
    return [document_of(kind, row) for row in rows]


def by_uids(connection: Connection, kind: Kind, uids: Iterable[str]) -> dict[str, Json]:
    found = _BY_UIDS.rows(connection, {"uids": texts(connection, uids)})
    return {row["uid"]: document_of(kind, row) for row in found}


def page(
    connection: Connection,
    kind: Kind,
    namespace: str | None,
    *,
    labels: LabelSelector,
    fields: FieldSelector | None,
    after: tuple[str, str] | None,
    limit: int,
) -> list[Json]:
    """Documents in order of (namespace, name). Field selectors are matched on the documents, of
    which so many are read as it takes: of these kinds there are thousands at most, but of events,
    and whom those are about is known to the database."""
    query = select(OBJECT).where(OBJECT.c.kind == kind.kind)
    if namespace is not None:
        query = query.where(OBJECT.c.namespace == namespace)
    query, _ = selecting.by_labels(query, OBJECT, OBJECT_LABEL, labels)
    if fields is not None and kind.kind == EVENTS:
        query = query.where(*_about(fields))
    query = query.order_by(OBJECT.c.namespace, OBJECT.c.name)
    step = _LOOKED_AT if limit and fields is not None else limit
    found: list[Json] = []
    while True:
        rows = list(connection.execute(_later(query, after, step)).mappings())
        documents = (document_of(kind, row) for row in rows)
        found += (d for d in documents if fields is None or fields.matches(fields_of(kind, d)))
        if not step or len(rows) < step or len(found) >= limit:
            return found[:limit] if limit else found
        after = rows[-1]["namespace"], rows[-1]["name"]


def _later(query: Select[Any], after: tuple[str, str] | None, limit: int) -> Select[Any]:
    if after is not None:
        same = (OBJECT.c.namespace == after[0]) & (OBJECT.c.name > after[1])
        query = query.where((OBJECT.c.namespace > after[0]) | same)
    return query.limit(limit) if limit else query


def _about(fields: FieldSelector) -> Iterator[ColumnElement[bool]]:
    for requirement in fields.requirements:
        if requirement.key == _ABOUT and requirement.operator in ("=", "in"):
            yield OBJECT.c.about.in_(requirement.values)


def write(connection: Connection, kind: Kind, values: dict[str, Any], *, new: bool) -> None:
    """The row of `values_of`."""
    if new:
        _INSERT.run(connection, values)
    else:
        _UPDATE.run(connection, values | {"of_uid": values["uid"]})


def write_all(connection: Connection, rows: Sequence[dict[str, Any]], *, new: bool) -> None:
    """Many of them, in one go."""
    if new:
        _INSERT.run_many(connection, rows)
    else:
        _UPDATE.run_many(connection, [values | {"of_uid": values["uid"]} for values in rows])


def write_labels(connection: Connection, values: dict[str, Any], *, new: bool) -> None:
    """Label rows, rewritten: few objects, few labels."""
    if not new:
        _DELETE_LABELS.run(connection, {"of_uid": values["uid"]})
    same = {key: values[key] for key in ("uid", "kind", "namespace", "name")}
    labels = orjson.loads(values["labels"]).items()
    _INSERT_LABEL.run_many(connection, (same | {"key": k, "value": v} for k, v in labels))


def write_owners(connection: Connection, document: Json, *, new: bool) -> None:
    uid = document["metadata"]["uid"]
    if not new:
        _DELETE_OWNERS.run(connection, {"of_uid": uid})
    owners = {r["uid"] for r in document["metadata"].get("ownerReferences", ())}
    _INSERT_OWNER.run_many(connection, ({"uid": uid, "owner_uid": o} for o in sorted(owners)))


def write_fleet_selector(connection: Connection, document: Json, *, gone: bool = False) -> None:
    """A fleet's matchLabels as rows; matchExpressions do not take part (contract 6.4)."""
    metadata = document["metadata"]
    where = (
        FLEET_SELECTOR.c.namespace == metadata["namespace"],
        FLEET_SELECTOR.c.fleet == metadata["name"],
    )
    connection.execute(delete(FLEET_SELECTOR).where(*where))
    wanted = match_labels(document)
    if gone or not wanted:
        return
    same = {
        "namespace": metadata["namespace"],
        "fleet": metadata["name"],
        "total": len(wanted),
    }
    rows = [same | {"key": key, "value": value} for key, value in wanted.items()]
    connection.execute(insert(FLEET_SELECTOR), rows)


def match_labels(fleet: Json | None) -> dict[str, str]:
    selector = ((fleet or {}).get("spec") or {}).get("selector") or {}
    return dict(selector.get("matchLabels") or {})


def remove(connection: Connection, uid: str) -> None:
    for statement in (_DELETE_LABELS, _DELETE_OWNERS, _DELETE):
        statement.run(connection, {"of_uid": uid})


def remove_all(connection: Connection, uids: Sequence[str]) -> None:
    for statement in _DELETE_ALL:
        statement.run(connection, {"uids": texts(connection, uids)})


def owned_by(connection: Connection, owner_uid: str) -> list[Row]:
    """Rows (uid, kind, namespace, name) of what names `owner_uid` as an owner."""
    query = (
        select(OBJECT.c.uid, OBJECT.c.kind, OBJECT.c.namespace, OBJECT.c.name)
        .join(OBJECT_OWNER, OBJECT_OWNER.c.uid == OBJECT.c.uid)
        .where(OBJECT_OWNER.c.owner_uid == owner_uid)
    )
    return list(connection.execute(query).mappings())
