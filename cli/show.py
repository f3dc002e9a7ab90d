"""What `get` and `describe` print. Pure: documents in, text out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import yaml

Json = dict[str, Any]

GAP = "   "


def table(document: Json, *, wide: bool, namespaces: bool = False) -> str:
    """A server-side Table as aligned text."""
    columns = document["columnDefinitions"]
    shown = [n for n, column in enumerate(columns) if wide or not column.get("priority")]
    rows = [[columns[n]["name"].upper() for n in shown]]
    if namespaces:
        rows[0].insert(0, "NAMESPACE")
    for row in document.get("rows") or ():
        cells = [_cell(row["cells"][n]) for n in shown]
        if namespaces:
            cells.insert(0, row["object"]["metadata"].get("namespace", ""))
        rows.append(cells)
    return aligned(rows)


def aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = (
        GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "\n".join(lines)


def plain(document: Json, form: str) -> str:
    """YAML or JSON as kubectl prints it."""
    if form == "json":
        return json.dumps(document, indent=2)
    text: str = yaml.safe_dump(document, sort_keys=True, default_flow_style=False)
    return text.rstrip()


def described(document: Json, events: Iterable[Json]) -> str:
    """An object for reading: who it is, how it is, why, and what happened."""
    metadata = document["metadata"]
    status = document.get("status") or {}
    lines = [
        f"Name:        {metadata['name']}",
        f"Kind:        {document['kind']}",
        f"Namespace:   {metadata.get('namespace', '<none>')}",
        f"Labels:      {_pairs(metadata.get('labels'))}",
        f"Owner:       {metadata.get('owner') or '<none>'}",
        f"Created:     {metadata.get('creationTimestamp', '')}",
    ]
    for key, title in (
        ("summary", "Device"),
        ("updated", "Updated"),
        ("applicationsSummary", "Applications"),
        ("lifecycle", "Lifecycle"),
    ):
        part = status.get(key)
        if isinstance(part, dict):
            info = f" ({part['info']})" if part.get("info") else ""
            lines.append(f"{title + ':':12} {part.get('status', '')}{info}")
    if status.get("applications"):
        rows = [["  APPLICATION", "STATUS", "READY", "RESTARTS"]]
        rows += [
            [
                f"  {a.get('name', '')}",
                str(a.get("status")),
                str(a.get("ready")),
                str(a.get("restarts")),
            ]
            for a in status["applications"]
        ]
        lines.append(aligned(rows))
    if status.get("conditions"):
        rows = [["  CONDITION", "STATUS", "REASON", "MESSAGE"]]
        rows += [
            [
                f"  {c.get('type', '')}",
                str(c.get("status")),
                str(c.get("reason") or ""),
                str(c.get("message") or ""),
            ]
            for c in status["conditions"]
        ]
        lines.append(aligned(rows))
    happened = [
        f"  {e.get('type', '')}  {e.get('reason', '')}  {e.get('message', '')}" for e in events
    ]
    if happened:
        lines += ["Events:", *happened]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "<none>"
    return str(value)


def _pairs(labels: Json | None) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or "<none>"
