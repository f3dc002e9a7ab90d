"""What `get` and `describe` print. Pure: documents in, text out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import yaml

from cli import why

Json = dict[str, Any]

GAP = "   "
NONE = "<none>"
SUMMARIES = (
    ("summary", "Device"),
    ("updated", "Updated"),
    ("applicationsSummary", "Applications"),
    ("lifecycle", "Lifecycle"),
)


class Table:
    """Server-side Tables as aligned text. What comes later is aligned with what came first, so that
    a watch reads like one table."""

    def __init__(self, *, wide: bool, namespaces: bool = False) -> None:
        self._wide = wide
        self._namespaces = namespaces
        self._shown: list[int] = []
        self._widths: list[int] = []
        self.is_empty = True

    def lines(self, document: Json, *, gone: bool = False) -> list[str]:
        """The rows of one Table, below a head where there was none yet."""
        rows = []
        if columns := document.get("columnDefinitions"):
            self._shown = [n for n, c in enumerate(columns) if self._wide or not c.get("priority")]
            if not self._widths and document.get("rows"):
                head = [columns[n]["name"].upper() for n in self._shown]
                rows.append(["NAMESPACE", *head] if self._namespaces else head)
        for row in document.get("rows") or ():
            self.is_empty = False
            cells = [_cell(row["cells"][n]) for n in self._shown]
            if self._namespaces:
                cells.insert(0, row["object"]["metadata"].get("namespace") or "")
            if gone:
                cells.append("(deleted)")
            rows.append(cells)
        self._widths = _widths(rows, self._widths)
        return [_line(row, self._widths) for row in rows]


def aligned(rows: list[list[str]]) -> str:
    widths = _widths(rows, [])
    return "\n".join(_line(row, widths) for row in rows)


def _widths(rows: list[list[str]], known: list[int]) -> list[int]:
    count = max([len(known), *(len(row) for row in rows)])
    known = known + [0] * (count - len(known))
    return [max([known[n], *(len(row[n]) for row in rows if n < len(row))]) for n in range(count)]


def _line(row: list[str], widths: list[int]) -> str:
    return GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()


def plain(document: Json, form: str) -> str:
    """YAML or JSON as kubectl prints it."""
    if form == "json":
        return json.dumps(document, indent=2)
    text: str = yaml.safe_dump(document, sort_keys=True, default_flow_style=False)
    return text.rstrip()


def described(document: Json, events: Iterable[Json]) -> str:
    """An object for reading: who it is, how it is, why, and what happened."""
    metadata, status = document["metadata"], document.get("status") or {}
    facts = [
        ["Name:", metadata["name"]],
        ["Kind:", document["kind"]],
        ["Namespace:", metadata.get("namespace") or NONE],
        ["Labels:", _pairs(metadata.get("labels"))],
        ["Owner:", metadata.get("owner") or NONE],
        ["Created:", metadata.get("creationTimestamp") or NONE],
        *_summaries(status),
    ]
    parts = [aligned(facts)]
    if reasons := why.reasons(document):
        parts.append("\n".join(["Why:", *(f"  {reason}" for reason in reasons)]))
    parts += _section(
        ["APPLICATION", "STATUS", "READY", "RESTARTS"],
        [
            [a.get("name"), a.get("status"), a.get("ready"), a.get("restarts")]
            for a in status.get("applications") or ()
        ],
    )
    parts += _section(
        ["CONDITION", "STATUS", "REASON", "SINCE", "MESSAGE"],
        [
            [c.get(key) for key in ("type", "status", "reason", "lastTransitionTime", "message")]
            for c in status.get("conditions") or ()
        ],
    )
    parts += _section(
        ["EVENT", "REASON", "LAST SEEN", "MESSAGE"],
        [[e.get(key) for key in ("type", "reason", "lastTimestamp", "message")] for e in events],
    )
    return "\n".join(parts)


def _summaries(status: Json) -> list[list[str]]:
    """What the service makes of what the device reported."""
    found = []
    for key, title in SUMMARIES:
        part = status.get(key)
        if isinstance(part, dict) and part.get("status"):
            found.append([f"{title}:", str(part["status"])])
    if phase := status.get("phase"):
        found.append(["Phase:", str(phase)])
    return found


def _section(head: list[str], rows: list[list[Any]]) -> list[str]:
    if not rows:
        return []
    text = aligned([head, *([_cell(cell) for cell in row] for row in rows)])
    return ["", text]


def _cell(value: Any) -> str:
    if value is None or value == "":
        return NONE
    return str(value)


def _pairs(labels: Json | None) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE
