"""Sets of fields, as server-side apply speaks of them: `fieldsV1` in and out. Pure.

A field is a path of elements in the spelling of fieldsV1: `f:name` of an object's field,
`k:{"name":"web"}` of a list's item by its keys, `v:"a"` of a set's item by its value. A set is a
frozenset of such paths, so the algebra of ownership is that of Python. The invariant: every element
is in canonical form (keys sorted, no spaces), or two spellings of one field would be two fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from resources.kind import Json

Path = tuple[str, ...]
FieldSet = frozenset[Path]

NOTHING: FieldSet = frozenset()
_SELF = "."
# fieldsV1 is written by clients too, in a migration; a set is not deeper than a document.
DEPTH_MAX = 128


def field(name: str) -> str:
    return f"f:{name}"


def by_keys(keys: Json) -> str:
    return f"k:{canonical(keys)}"


def by_value(value: Any) -> str:
    return f"v:{canonical(value)}"


def canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def below(fields: FieldSet, prefix: Path) -> FieldSet:
    """The fields at `prefix` and under it."""
    return frozenset(path for path in fields if path[: len(prefix)] == prefix)


def to_fields_v1(fields: FieldSet) -> Json:
    """The nested form; `.` stands for a field that is in the set beside what it holds."""
    root: Json = {}
    for path in sorted(fields):
        node = root
        for element in path:
            node = node.setdefault(element, {})
        node[_SELF] = {}
    return {name: _trimmed(node) for name, node in root.items() if name != _SELF}


def _trimmed(node: Json) -> Json:
    if len(node) == 1:
        node.pop(_SELF, None)
    return {name: _trimmed(inner) if name != _SELF else {} for name, inner in node.items()}


def from_fields_v1(fields: Any) -> FieldSet:
    """Raises ValueError for what is no fieldsV1."""
    return frozenset(_paths(fields, ()))


def _paths(node: Any, here: Path) -> Iterator[Path]:
    if not isinstance(node, dict):
        raise ValueError("fieldsV1 is made of objects")
    if len(here) > DEPTH_MAX:
        raise ValueError("fieldsV1 is nested too deeply")
    if here and (not node or _SELF in node):
        yield here
    for name, inner in node.items():
        if name != _SELF:
            yield from _paths(inner, (*here, _element(name)))


def _element(name: str) -> str:
    kind, _, rest = name.partition(":")
    match kind:
        case "f":
            return name
        case "k" | "v":
            value = json.loads(rest)
            if kind == "k" and not (isinstance(value, dict) and value):
                raise ValueError(f"{name}: an item is named by an object of its keys")
            return f"{kind}:{canonical(value)}"
        case "i" if rest.lstrip("-").isdigit():
            return name
        case _:
            raise ValueError(f"{name!r} begins with none of f:, k:, v:, i:")


def shown(path: Path) -> str:
    """`.spec.ports[name="http"].port`, as Kubernetes names a field in a conflict."""
    return "".join(_shown(element) for element in path)


def _shown(element: str) -> str:
    kind, _, rest = element.partition(":")
    match kind:
        case "f":
            return f".{rest}"
        case "k":
            keys = json.loads(rest).items()
            return f"[{','.join(f'{name}={canonical(value)}' for name, value in keys)}]"
        case "v":
            return f"[={rest}]"
        case _:
            return f"[{rest}]"


def union(sets: Iterable[FieldSet]) -> FieldSet:
    return NOTHING.union(*sets)
