"""YAML as Kubernetes' clients mean it: octal `0644` and `yes`, but no dates, no base 60, text keys.

The invariant: whatever a stranger wrote, reading it ends, and costs no more than was allowed. Depth
and number are bounded before the composer descends, which it does in C, where no exception helps;
aliases are counted as written out before anything is built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from resources.kind import Json

DEPTH_MAX = 128
NODES_MAX = 1_000_000
# A second's work; programs send JSON, and people don't write more.
EVENTS_MAX = 50_000
TOO_DEEP = "is nested too deeply or has too many elements"


class Refused(ValueError):
    """Well-formed, and not for us; the message goes on after "the body" or the name of a file."""


def bound_events(raw: bytes | str) -> None:
    """The composer descends recursively, in C: a deep text would end the process. Events don't."""
    depth = 0
    for number, event in enumerate(yaml.parse(raw, Loader=yaml.CSafeLoader)):
        if number > EVENTS_MAX:
            raise Refused("has too many elements for YAML; send it as JSON")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEPTH_MAX:
                raise Refused(TOO_DEEP)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it, noting duplicate keys instead of swallowing them."""

    def __init__(self, raw: bytes | str) -> None:
        super().__init__(raw)
        self.repeated: dict[int, list[str]] = {}

    def construct_document(self, node: yaml.Node) -> Any:
        _bound(node)
        return super().construct_document(node)


def _bound(root: yaml.Node) -> None:
    """Aliases share nodes, so a few lines may stand for billions of elements: count them as
    written out, before anything is built."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int) -> int:
        known = sizes.get(id(node))
        if known is not None:
            if known < 0:
                raise Refused("has an alias that contains itself")
            return known
        if depth > DEPTH_MAX:
            raise Refused(TOO_DEEP)
        sizes[id(node)] = -1
        total = 1
        if isinstance(node, yaml.MappingNode):
            total += sum(size(k, depth + 1) + size(v, depth + 1) for k, v in node.value)
        elif isinstance(node, yaml.SequenceNode):
            total += sum(size(inner, depth + 1) for inner in node.value)
        if total > NODES_MAX:
            raise Refused(TOO_DEEP)
        sizes[id(node)] = total
        return total

    size(root, 0)


def _construct_mapping(loader: Loader, node: yaml.MappingNode) -> Iterator[Json]:
    built: Json = {}
    yield built
    own = [_key(loader, key) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    again = twice(own)
    loader.flatten_mapping(node)
    for key_node, value_node in node.value:
        built[_key(loader, key_node)] = loader.construct_object(value_node, deep=True)
    if again:
        loader.repeated[id(built)] = again


def _key(loader: Loader, node: yaml.Node) -> str:
    key = loader.construct_object(node, deep=True)
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int | float):
        return str(key)
    raise Refused(f"has a key that is not a text: {name_of(key)}")


_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """PyYAML's, without dates and without base 60 in numbers."""
    kept: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items():
        kept[first] = [(tag, rx) for tag, rx in pairs if tag not in (_TIMESTAMP, _INT, _FLOAT)]
    return kept


Loader.yaml_implicit_resolvers = _resolvers()
Loader.add_implicit_resolver(
    _INT,
    re.compile(
        r"^(?:[-+]?0b[0-1_]+|[-+]?0o?[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+)$"
    ),
    list("-+0123456789"),
)
Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def _construct_int(loader: Loader, node: yaml.ScalarNode) -> int:
    text = str(loader.construct_scalar(node)).replace("_", "").lower()
    sign = -1 if text.startswith("-") else 1
    digits = text.lstrip("+-")
    if digits.startswith("0b"):
        return sign * int(digits[2:], 2)
    if digits.startswith("0x"):
        return sign * int(digits[2:], 16)
    if digits.startswith("0o"):
        return sign * int(digits[2:], 8)
    return sign * int(digits, 8 if len(digits) > 1 and digits.startswith("0") else 10)


Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)
Loader.add_constructor(_INT, _construct_int)


def twice(keys: list[str]) -> list[str]:
    seen: set[str] = set()
    twice = []
    for key in keys:
        if key in seen and key not in twice:
            twice.append(key)
        seen.add(key)
    return twice


def name_of(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")
