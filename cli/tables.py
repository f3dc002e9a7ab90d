"""Server-side Tables as kubectl prints them. Pure: documents in, lines out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cli import gojson, tabular

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Style:
    """What is added to the columns of the server, or left out."""

    wide: bool = False
    namespaces: bool = False
    headers: bool = True
    show_labels: bool = False
    label_columns: Sequence[str] = ()
    # Before each name, where a table holds several kinds: `fleet.flightctl.io`.
    kind: str = ""
    events: bool = False


class Table:
    """One table, which may grow: what comes later is aligned with what came first."""

    def __init__(self, style: Style) -> None:
        self._style = style
        self._columns: list[Json] = []
        self._text = tabular.Columns()
        self._headed = not style.headers

    def know(self, definitions: Iterable[Json] | None) -> None:
        """The columns; of a watch only the first event has them."""
        self._columns = list(definitions or ()) or self._columns

    def lines(self, rows: Iterable[Json], event: str = "") -> list[str]:
        """The rows, below the head where there was none yet."""
        cells = [self._cells(row, event) for row in rows]
        if cells and not self._headed:
            self._headed = True
            cells.insert(0, self._head())
        return self._text.lines(cells)

    def _shown(self) -> list[tuple[int, Json]]:
        return [
            (place, column)
            for place, column in enumerate(self._columns)
            if self._style.wide or not column.get("priority")
        ]

    def _head(self) -> list[str]:
        style = self._style
        return [
            *(["EVENT"] if style.events else ()),
            *(["NAMESPACE"] if style.namespaces else ()),
            *(column["name"].upper() for _, column in self._shown()),
            *(label.rpartition("/")[2].upper() for label in style.label_columns),
            *(["LABELS"] if style.show_labels else ()),
        ]

    def _cells(self, row: Json, event: str) -> list[str]:
        style = self._style
        metadata = (row.get("object") or {}).get("metadata") or {}
        labels = metadata.get("labels") or {}
        found = [event] if style.events else []
        if style.namespaces:
            found.append(metadata.get("namespace") or "")
        for place, column in self._shown():
            text = printed(row["cells"][place])
            is_name = column.get("format") == "name" or place == 0
            found.append(f"{style.kind}/{text}" if style.kind and is_name else text)
        found += [labels.get(label, "") for label in style.label_columns]
        if style.show_labels:
            found.append(pairs(labels) or "<none>")
        return found


def printed(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    return gojson.number(cell) if isinstance(cell, int | float) else str(cell)


def pairs(labels: Json) -> str:
    return ",".join(f"{key}={labels[key]}" for key in sorted(labels))


def sorted_by(items: Sequence[Json], path: str) -> list[Json]:
    """Objects, or rows that carry theirs, by what the path finds in them; those in which it finds
    nothing come first."""
    from cli import jsonpath

    nodes = jsonpath.parse(jsonpath.relaxed(path))

    def key(item: Json) -> tuple[int, float, str]:
        found = jsonpath.find(nodes, item["object"] if "cells" in item else item)
        if not found:
            return (0, 0.0, "")
        if isinstance(found[0], int | float) and not isinstance(found[0], bool):
            return (1, float(found[0]), "")
        return (2, 0.0, jsonpath.text_of(found[0]))

    return sorted(items, key=key)
