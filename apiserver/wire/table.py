"""Tables: what `kubectl get` prints, made where the columns are known.

A cell is a path into the document, rendered here: dates become ages, so `now` is an argument. The
invariant: a row has exactly as many cells as there are column definitions, whatever a document
lacks; a wrong type in a document makes an odd cell, never an error.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any

from apiserver.errors import BadRequest
from apiserver.wire import shapes
from resources.ages import duration, moment
from resources.kind import Column, Json, Kind

API_VERSION = "meta.k8s.io/v1"
INCLUDES = ("None", "Metadata", "Object")

_AGE = Column("Age", ".metadata.creationTimestamp", "date", "How long ago it was created.")
_STEP = re.compile(r"\.([^.\[\]]+)|\['([^']+)'\]|\[([^=\]]+)=([^\]]+)\]|\[(\d+)\]")

Read = Callable[[Any], Any]


def columns_of(kind: Kind) -> tuple[Column, ...]:
    """The kind's columns after its name; a kind that declares none shows its age."""
    return kind.columns or (_AGE,)


@functools.cache
def _definitions(columns: tuple[Column, ...]) -> tuple[Json, ...]:
    name = {
        "name": "Name",
        "type": "string",
        "format": "name",
        "description": "Name of the object, unique in its namespace.",
        "priority": 0,
    }
    others = (
        {
            "name": column.name,
            "type": column.type,
            "format": "",
            "description": column.description or column.name,
            "priority": column.priority,
        }
        for column in columns
    )
    return (name, *others)


def table(
    kind: Kind,
    documents: Iterable[Json],
    *,
    now: datetime,
    include: str = "Metadata",
    metadata: Json | None = None,
    with_columns: bool = True,
) -> Json:
    """The Table of `documents`. In a watch only the first event has column definitions."""
    return {
        "kind": "Table",
        "apiVersion": API_VERSION,
        "metadata": metadata or {},
        "columnDefinitions": list(_definitions(columns_of(kind))) if with_columns else None,
        "rows": [_row(kind, document, now, include) for document in documents],
    }


def parse_include(text: str) -> str:
    """The `includeObject` parameter."""
    if text and text not in INCLUDES:
        raise BadRequest(f'includeObject: "{text}" is not one of {", ".join(INCLUDES)}')
    return text or "Metadata"


def _row(kind: Kind, document: Json, now: datetime, include: str) -> Json:
    row: Json = {"cells": cells(kind, document, now)}
    if include == "Metadata":
        row["object"] = shapes.partial(document)
    elif include == "Object":
        row["object"] = document
    return row


def cells(kind: Kind, document: Json, now: datetime) -> list[Any]:
    """The name, then one cell for each column of the kind."""
    found: list[Any] = [(document.get("metadata") or {}).get("name", "")]
    for column in columns_of(kind):
        found.append(_cell(column, reader(column.path)(document), now))
    return found


def _cell(column: Column, value: Any, now: datetime) -> Any:
    if column.type == "date":
        return age(value, now)
    if value is None:
        return ""
    match column.type:
        case "integer":
            return value if isinstance(value, int) and not isinstance(value, bool) else ""
        case "number":
            return value if isinstance(value, int | float) else ""
        case "boolean":
            return value if isinstance(value, bool) else ""
        case _:
            return _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ",".join(_text(inner) for inner in value)
    if isinstance(value, dict):
        return ",".join(f"{key}={_text(inner)}" for key, inner in value.items())
    return str(value)


@functools.cache
def reader(path: str) -> Read:
    """What reads `.status.conditions[type=Ready].status` or `.metadata.labels['a.b/c']`; None
    where the document has nothing there."""
    steps: list[tuple[str, str, str]] = []
    position = 0
    text = path if path.startswith((".", "[")) else f".{path}"
    while position < len(text):
        match = _STEP.match(text, position)
        assert match is not None, f"not a column path: {path}"
        field, quoted, key, value, index = match.groups()
        if key is not None:
            steps.append(("where", key, value))
        elif index is not None:
            steps.append(("index", index, ""))
        else:
            steps.append(("field", field or quoted, ""))
        position = match.end()

    def read(document: Any) -> Any:
        node = document
        for step in steps:
            node = _follow(node, step)
            if node is None:
                return None
        return node

    return read


def _follow(node: Any, step: tuple[str, str, str]) -> Any:
    how, key, value = step
    if how == "field":
        return node.get(key) if isinstance(node, dict) else None
    if not isinstance(node, list):
        return None
    if how == "index":
        return node[int(key)] if int(key) < len(node) else None
    matching = (item for item in node if isinstance(item, dict) and str(item.get(key)) == value)
    return next(matching, None)


def age(value: Any, now: datetime) -> str:
    """`5d3h` since an RFC 3339 time; `<unknown>` where there is none, as kubectl prints it."""
    if not isinstance(value, str):
        return "<unknown>"
    then = moment(value)
    if then is None:
        return "<invalid>"
    return duration(int((now - then).total_seconds()))
