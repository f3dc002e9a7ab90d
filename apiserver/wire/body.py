"""Bytes of a request to a document: JSON or YAML, with the duplicate keys found on the way.

The invariant: what this returns can be written down again as JSON on any database of ours: text is
UTF-8 without NUL and lone surrogates, numbers are finite and integers fit 64 bits, nesting and size
are bounded. Everything else is 400 here, so that nothing behind has to think of it.

YAML means what Kubernetes' clients mean: YAML 1.1 with octal `0644` and `yes`, but no dates and no
base 60, and keys are text. Aliases may not multiply a document beyond its limit.
"""

from __future__ import annotations

import contextlib
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import orjson
import yaml

from apiserver.errors import BadRequest
from apiserver.wire import accept
from resources.kind import Json

READABLE = (accept.JSON, accept.YAML)
PROTOBUF = "application/vnd.kubernetes.protobuf"
_YAML_NAMES = frozenset({accept.YAML, "application/x-yaml", "text/yaml", "text/x-yaml"})

BODY_BYTES_MAX = 3 * 1024 * 1024
_DEPTH_MAX = 128
_NODES_MAX = 1_000_000
# A second's work; programs send JSON, and people don't write more.
_YAML_EVENTS_MAX = 50_000
_TOO_DEEP = "the body is nested too deeply or has too many elements"


def decode(content_type: str, raw: bytes) -> tuple[Json, list[str]]:
    """The object in `raw` and the paths of its duplicate fields. Raises BadRequest, and
    UnsupportedMediaType for what we don't read."""
    value, duplicates = decode_value(content_type, raw)
    if not isinstance(value, dict):
        raise BadRequest(f"the body must be an object, not {_name_of(value)}")
    return value, duplicates


def decode_value(content_type: str, raw: bytes) -> tuple[Any, list[str]]:
    """As `decode`, for bodies that need not be objects (a JSON patch is a list)."""
    media = accept.media_type(content_type) or accept.JSON
    if media in _YAML_NAMES:
        return _from_yaml(raw)
    if media == accept.JSON:
        return _from_json(raw)
    hint = ""
    if media == PROTOBUF:
        hint = "; send JSON (kubectl does so for objects of files: kubectl create -f FILE)"
    raise accept.unsupported(content_type, READABLE, hint)


def _from_json(raw: bytes) -> tuple[Any, list[str]]:
    repeated: dict[int, list[str]] = {}
    kept: list[Json] = []  # holds the objects alive, so that ids stay theirs

    def build(pairs: list[tuple[str, Any]]) -> Json:
        built = dict(pairs)
        if len(built) != len(pairs):
            repeated[id(built)] = _twice([key for key, _ in pairs])
            kept.append(built)
        return built

    try:
        value = json.loads(raw.decode(), object_pairs_hook=build, parse_constant=_refuse_constant)
    except UnicodeDecodeError as error:
        raise BadRequest(f"the body is not UTF-8: {error.reason}") from error
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error
    except ValueError as error:
        raise BadRequest(f"the body is not valid JSON: {error}") from error
    _check(value)
    return value, list(_duplicate_paths(value, "", repeated)) if repeated else []


def _from_yaml(raw: bytes) -> tuple[Any, list[str]]:
    if raw.lstrip()[:1] == b"{":
        # JSON under another name; YAML would differ in what escapes mean.
        with contextlib.suppress(BadRequest):
            return _from_json(raw)
    loader: _Loader | None = None
    try:
        _bound_events(raw)
        loader = _Loader(raw)
        value = loader.get_single_data()
    except yaml.YAMLError as error:
        raise BadRequest(f"the body is not valid YAML: {_one_line(error)}") from error
    except ValueError as error:  # bad UTF-8, absurd numbers
        raise BadRequest(f"the body is not valid YAML: {error}") from error
    finally:
        if loader is not None:
            loader.dispose()
    _check(value)
    repeated = loader.repeated
    return value, list(_duplicate_paths(value, "", repeated)) if repeated else []


def _bound_events(raw: bytes) -> None:
    """The composer descends recursively, in C: a deep body would end the process. Events don't."""
    depth = 0
    for number, event in enumerate(yaml.parse(raw, Loader=yaml.CSafeLoader)):
        if number > _YAML_EVENTS_MAX:
            raise BadRequest("the body has too many elements for YAML; send it as JSON")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEPTH_MAX:
                raise BadRequest(_TOO_DEEP)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number of JSON")


def _twice(keys: list[str]) -> list[str]:
    seen: set[str] = set()
    twice = []
    for key in keys:
        if key in seen and key not in twice:
            twice.append(key)
        seen.add(key)
    return twice


def _duplicate_paths(value: Any, path: str, repeated: dict[int, list[str]]) -> Iterator[str]:
    if isinstance(value, dict):
        for key in repeated.get(id(value), ()):
            yield _join(path, key)
        for key, inner in value.items():
            yield from _duplicate_paths(inner, _join(path, key), repeated)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _duplicate_paths(inner, f"{path}[{index}]", repeated)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _check(value: Any) -> None:
    """Refuse what JSON on our databases can't hold. orjson is the judge of surrogates, of 64 bits
    and of foreign types; floats and NUL are looked at by hand, for it lets them pass."""
    budget = _NODES_MAX
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack:
        node, depth = stack.pop()
        budget -= 1
        if budget < 0 or depth > _DEPTH_MAX:
            raise BadRequest(_TOO_DEEP)
        if isinstance(node, dict):
            stack.extend((inner, depth + 1) for inner in node.values())
        elif isinstance(node, list):
            stack.extend((inner, depth + 1) for inner in node)
        elif isinstance(node, float) and not math.isfinite(node):
            raise BadRequest("the body has a number that is too large")
    try:
        written = orjson.dumps(value)
    except orjson.JSONEncodeError as error:
        raise BadRequest(f"the body can't be stored: {error}") from error
    if len(written) > 4 * BODY_BYTES_MAX:
        raise BadRequest("the body grows too large when its aliases are expanded")
    if b"\\u0000" in written and _has_nul(value):
        raise BadRequest("the body has a text with a NUL character")


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _has_nul(inner) for key, inner in value.items())
    return isinstance(value, list) and any(_has_nul(inner) for inner in value)


def _name_of(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _one_line(error: yaml.YAMLError) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()


class _Loader(yaml.CSafeLoader):
    """YAML as Kubernetes reads it, noting duplicate keys instead of swallowing them."""

    def __init__(self, raw: bytes) -> None:
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
                raise BadRequest("the body has an alias that contains itself")
            return known
        if depth > _DEPTH_MAX:
            raise BadRequest(_TOO_DEEP)
        sizes[id(node)] = -1
        total = 1
        if isinstance(node, yaml.MappingNode):
            total += sum(size(k, depth + 1) + size(v, depth + 1) for k, v in node.value)
        elif isinstance(node, yaml.SequenceNode):
            total += sum(size(inner, depth + 1) for inner in node.value)
        if total > _NODES_MAX:
            raise BadRequest(_TOO_DEEP)
        sizes[id(node)] = total
        return total

    size(root, 0)


def _construct_mapping(loader: _Loader, node: yaml.MappingNode) -> Iterator[Json]:
    built: Json = {}
    yield built
    own = [_key(loader, key) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
    twice = _twice(own)
    loader.flatten_mapping(node)
    for key_node, value_node in node.value:
        built[_key(loader, key_node)] = loader.construct_object(value_node, deep=True)
    if twice:
        loader.repeated[id(built)] = twice


def _key(loader: _Loader, node: yaml.Node) -> str:
    key = loader.construct_object(node, deep=True)
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int | float):
        return str(key)
    raise BadRequest(f"the body has a key that is not a text: {_name_of(key)}")


_TIMESTAMP = "tag:yaml.org,2002:timestamp"
_INT = "tag:yaml.org,2002:int"
_FLOAT = "tag:yaml.org,2002:float"


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """PyYAML's, without dates and without base 60 in numbers."""
    kept: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items():
        kept[first] = [(tag, rx) for tag, rx in pairs if tag not in (_TIMESTAMP, _INT, _FLOAT)]
    return kept


_Loader.yaml_implicit_resolvers = _resolvers()
_Loader.add_implicit_resolver(
    _INT,
    re.compile(
        r"^(?:[-+]?0b[0-1_]+|[-+]?0o?[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+)$"
    ),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    _FLOAT,
    re.compile(
        r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
    ),
    list("-+0123456789."),
)


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
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


_Loader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)
_Loader.add_constructor(_INT, _construct_int)
