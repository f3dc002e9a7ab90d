"""`-o custom-columns=NAME:.metadata.name,IMAGE:.spec.template.spec.os.image`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cli import gojson, jsonpath

NONE = "<none>"


class BadColumns(ValueError):
    """The specification cannot be read."""


@dataclass(frozen=True, slots=True)
class Column:
    header: str
    path: tuple[jsonpath.Node, ...]

    def cell(self, document: Any) -> str:
        """What it finds, several with commas between; a word where it finds nothing."""
        return ",".join(printed(value) for value in jsonpath.find(self.path, document)) or NONE


def parse(spec: str) -> tuple[Column, ...]:
    """Raises BadColumns, BadTemplate."""
    if not spec:
        raise BadColumns("custom-columns format specified but no custom columns given")
    columns = []
    for part in _split(spec):
        header, colon, path = part.partition(":")
        if not colon or not header or not path:
            raise BadColumns(
                f"unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"
            )
        columns.append(Column(header, jsonpath.parse(jsonpath.relaxed(path))))
    return tuple(columns)


def rows(columns: Sequence[Column], documents: Sequence[Any], *, head: bool) -> list[list[str]]:
    first = [[column.header for column in columns]] if head else []
    return first + [[column.cell(document) for column in columns] for document in documents]


def printed(value: Any) -> str:
    """A value as Go's `%v` prints it: `map[a:1 b:2]`, `[x y]`."""
    match value:
        case dict():
            return "map[" + " ".join(f"{k}:{printed(value[k])}" for k in sorted(value)) + "]"
        case list():
            return "[" + " ".join(printed(inner) for inner in value) + "]"
        case None:
            return NONE
        case bool():
            return "true" if value else "false"
        case int() | float():
            return gojson.number(value)
        case _:
            return str(value)


def _split(spec: str) -> list[str]:
    """At the commas that are not inside brackets or quotes of a path."""
    parts, depth, quote, begin = [], 0, "", 0
    for at, character in enumerate(spec):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in "[(":
            depth += 1
        elif character in ")]":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(spec[begin:at])
            begin = at + 1
    return [*parts, spec[begin:]]
