"""Documents walked by their schema: which fields they have, how two merge, where two differ. Pure.

What the schema says of a list or an object decides what one owner can own: an object is owned field
by field, a list with keys item by item, a set value by value; everything else (texts, numbers, and
lists and objects that are marked atomic, as lists are unless they say otherwise) is one leaf. Where
there is no schema, as inside `x-kubernetes-preserve-unknown-fields`, an object is a map and a list
a leaf.

The invariant: no function here fails on a document of the wrong shape. A value that is not what its
schema says is a leaf, and validation, which comes later and speaks to people, complains of it. The
rules are those of Kubernetes' structured-merge-diff, so that the sets come out equal to its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from apiserver.wire import fieldset, patch
from apiserver.wire.fieldset import NOTHING, FieldSet, Path
from resources.kind import Json

ABSENT: Any = object()
_UNKNOWN: Json = {}
_LIST_TYPE = "x-kubernetes-list-type"
_LIST_KEYS = "x-kubernetes-list-map-keys"
_MAP_TYPE = "x-kubernetes-map-type"

Shape = Literal["leaf", "map", "list"]
# Nested elements; the key None marks an element that is in the set itself.
_Trie = dict[str | None, Any]


class Duplicated(ValueError):
    """A list that is told apart by keys has two items with the same."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """No field is in more than one of the three."""

    added: FieldSet = NOTHING
    modified: FieldSet = NOTHING
    removed: FieldSet = NOTHING

    @property
    def changed(self) -> FieldSet:
        return self.added | self.modified

    def without(self, prefix: Path) -> Comparison:
        """Without what is at `prefix` and under it."""
        return Comparison(
            *(s - fieldset.below(s, prefix) for s in (self.added, self.modified, self.removed))
        )


def _child(node: Json, name: str) -> tuple[Json, bool]:
    """The schema of a field, and whether it is one that the schema names."""
    found = node.get("properties", {}).get(name)
    if found is not None:
        return found, True
    extra = node.get("additionalProperties")
    return (extra if isinstance(extra, dict) else _UNKNOWN), False


def _shape(node: Json, value: Any) -> Shape:
    if isinstance(value, dict) and node.get(_MAP_TYPE) != "atomic":
        return "map" if node.get("type", "object") == "object" else "leaf"
    if isinstance(value, list) and node.get(_LIST_TYPE) in ("map", "set"):
        return "list" if all(_element(node, item) is not None for item in value) else "leaf"
    return "leaf"


def _element(node: Json, item: Any) -> str | None:
    """The path element of a list's item; None for one that lacks its keys."""
    if node[_LIST_TYPE] == "set":
        return None if isinstance(item, dict | list) else fieldset.by_value(item)
    if not isinstance(item, dict):
        return None
    keys = {key: item[key] for key in node[_LIST_KEYS] if item.get(key) is not None}
    return fieldset.by_keys(keys) if keys else None


# --- which fields --------------------------------------------------------------------------------


def fields_of(node: Json, document: Json) -> FieldSet:
    """The fields that a document names: what its applier will own."""
    return frozenset(_fields(node, document, ()))


def _fields(node: Json, value: Any, here: Path) -> Iterator[Path]:
    match _shape(node, value):
        case "map":
            for name, inner in value.items():
                below = (*here, fieldset.field(name))
                schema, is_named = _child(node, name)
                yield from _fields(schema, inner, below)
                if inner is None or inner == {} or not is_named:
                    yield below
        case "list":
            for item in value:
                below = (*here, str(_element(node, item)))
                yield from _fields(node.get("items", _UNKNOWN), item, below)
                yield below
        case _:
            yield here


def with_named(node: Json, fields: FieldSet) -> FieldSet:
    """The set with the containers on the way that the schema names: who owns `spec.os.image` has
    a say whether there is a `spec.os`, but none over the keys of a map beside its own."""
    found = set(fields)
    for path in fields:
        schema: Json = node
        for depth, element in enumerate(path[:-1], 1):
            if element.startswith("f:"):
                schema, is_named = _child(schema, element[2:])
                if is_named:
                    found.add(path[:depth])
            else:
                schema = schema.get("items", _UNKNOWN)
    return frozenset(found)


# --- merging -------------------------------------------------------------------------------------


def merged(node: Json, live: Any, config: Any) -> Any:
    """The live document with what the configuration says. Raises Duplicated."""
    if config is ABSENT:
        return live
    shape = _shape(node, config)
    if shape == "list":
        return _merged_list(node, live if _shape(node, live) == "list" else [], config)
    if shape == "map":
        live = live if _shape(node, live) == "map" else {}
        return {
            name: merged(_child(node, name)[0], live.get(name, ABSENT), config.get(name, ABSENT))
            for name in (*live, *(name for name in config if name not in live))
        }
    return config


def _merged_list(node: Json, live: list[Any], config: list[Any]) -> list[Any]:
    """Items in the order of the configuration; what only the live list has keeps its place among
    them. An item that the live list has twice is replaced."""
    schema = node.get("items", _UNKNOWN)
    right = _keys(node, config)
    wanted = dict(zip(right, config, strict=True))
    if len(wanted) != len(config):
        twice = next(key for key in right if right.count(key) > 1)
        raise Duplicated(f"two items are {fieldset.shown((twice,))}")
    left = _keys(node, live)
    found = {key: item for key, item in zip(left, live, strict=True) if left.count(key) == 1}

    def both(key: str) -> Any:
        return merged(schema, found.get(key, ABSENT), wanted[key])

    out: list[Any] = []
    done: set[str] = set()
    # Items of both, in the order of the configuration; the next one that may be passed on the left.
    shared = iter([key for key in right if key in left])
    upcoming = next(shared, None)
    i = j = 0
    while i < len(left) or j < len(right):
        if i < len(left) and j < len(right):
            if left[i] == right[j]:
                out.append(both(left[i]))
                done.add(left[i])
                upcoming = next(shared, None)
                i, j = i + 1, j + 1
                continue
            if left[i] in wanted and upcoming not in (None, left[i]):
                i += 1
                continue
        if i < len(left):
            if left[i] not in wanted:
                out.append(live[i])
                i += 1
                continue
            if left[i] in done:
                i += 1
        if j < len(right):
            out.append(both(right[j]))
            done.add(right[j])
            if right[j] == upcoming:
                upcoming = next(shared, None)
            j += 1
    return out


def _keys(node: Json, items: list[Any]) -> list[str]:
    return [str(_element(node, item)) for item in items]


# --- comparing -----------------------------------------------------------------------------------


def compared(node: Json, old: Json, new: Json) -> Comparison:
    """What `new` adds, modifies and removes."""
    comparer = _Comparer()
    comparer.compare(node, old, new, ())
    return Comparison(
        frozenset(comparer.added), frozenset(comparer.modified), frozenset(comparer.removed)
    )


class _Comparer:
    def __init__(self) -> None:
        self.added: set[Path] = set()
        self.modified: set[Path] = set()
        self.removed: set[Path] = set()

    def compare(self, node: Json, old: Any, new: Any, here: Path) -> None:
        value = old if new is ABSENT else new
        shape = _shape(node, value)
        other = new if value is old else old
        if shape == "leaf" or not (old or new) or _differs_in_shape(node, other, shape):
            self._leaf(old, new, here)
            return
        if shape == "map":
            self._maps(node, _or(old, {}), _or(new, {}), here)
        else:
            self._lists(node, _or(old, []), _or(new, []), here)
        if old is ABSENT:
            self.added.add(here)
        elif new is ABSENT:
            self.removed.add(here)

    def _leaf(self, old: Any, new: Any, here: Path) -> None:
        if old is ABSENT:
            self.added.add(here)
        elif new is ABSENT:
            self.removed.add(here)
        elif not patch.same(old, new):
            self.modified.add(here)

    def _maps(self, node: Json, old: Json, new: Json, here: Path) -> None:
        for name in {**old, **new}:
            schema = _child(node, name)[0]
            below = (*here, fieldset.field(name))
            self.compare(schema, old.get(name, ABSENT), new.get(name, ABSENT), below)

    def _lists(self, node: Json, old: list[Any], new: list[Any], here: Path) -> None:
        schema = node.get("items", _UNKNOWN)
        before = dict(zip(_keys(node, old), old, strict=True))
        after = dict(zip(_keys(node, new), new, strict=True))
        for key in {**before, **after}:
            self.compare(schema, before.get(key, ABSENT), after.get(key, ABSENT), (*here, key))


def _differs_in_shape(node: Json, value: Any, shape: Shape) -> bool:
    return value is not ABSENT and _shape(node, value) != shape


def _or(value: Any, otherwise: Any) -> Any:
    return otherwise if value is ABSENT else value


# --- taking away ---------------------------------------------------------------------------------


def without(node: Json, document: Json, gone: FieldSet) -> Json:
    """The document without these fields. A container that is not among them stays, empty if need
    be: somebody has it."""
    root: _Trie = {}
    for path in gone:
        branch = root
        for element in path:
            branch = branch.setdefault(element, {})
        branch[None] = True
    left: Json = _without(node, document, root)
    return left


def _without(node: Json, value: Any, gone: _Trie) -> Any:
    match _shape(node, value):
        case "map":
            return {
                name: _without(_child(node, name)[0], inner, branch)
                for name, inner in value.items()
                if None not in (branch := gone.get(fieldset.field(name), {}))
            }
        case "list":
            schema = node.get("items", _UNKNOWN)
            return [
                _without(schema, item, branch)
                for item in value
                if None not in (branch := gone.get(_element(node, item), {}))
            ]
        case _:
            return value
