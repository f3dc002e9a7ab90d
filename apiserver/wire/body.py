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
from apiserver.wire import accept, messages, protobuf
from resources import kubeyaml
from resources.kind import Json

READABLE = (accept.JSON, accept.YAML)
_YAML_NAMES = frozenset({accept.YAML, "application/x-yaml", "text/yaml", "text/x-yaml"})

BODY_BYTES_MAX = 3 * 1024 * 1024
_TOO_DEEP = f"the body {kubeyaml.TOO_DEEP}"


def decode(content_type: str, raw: bytes) -> tuple[Json, list[str]]:
    """The object in `raw` and the paths of its duplicate fields. Raises BadRequest, and
    UnsupportedMediaType for what we don't read."""
    if accept.media_type(content_type) == messages.MEDIA:
        return _from_protobuf(content_type, raw), []
    value, duplicates = decode_value(content_type, raw)
    if not isinstance(value, dict):
        raise BadRequest(f"the body must be an object, not {kubeyaml.name_of(value)}")
    return value, duplicates


def decode_value(content_type: str, raw: bytes) -> tuple[Any, list[str]]:
    """As `decode`, for bodies that need not be objects (a JSON patch is a list)."""
    media = accept.media_type(content_type) or accept.JSON
    if media in _YAML_NAMES:
        return _from_yaml(raw)
    if media == accept.JSON:
        return _from_json(raw)
    raise accept.unsupported(content_type, READABLE)


def _from_protobuf(content_type: str, raw: bytes) -> Json:
    try:
        value = messages.decode(raw)
    except protobuf.Malformed as error:
        raise BadRequest(f"the body is not valid protobuf: {error}") from error
    if value is None:
        hint = "; protobuf is read for Kubernetes' own kinds: send JSON (kubectl create -f FILE)"
        raise accept.unsupported(content_type, READABLE, hint)
    _check(value)
    return value


def _from_json(raw: bytes) -> tuple[Any, list[str]]:
    repeated: dict[int, list[str]] = {}
    kept: list[Json] = []  # holds the objects alive, so that ids stay theirs

    def build(pairs: list[tuple[str, Any]]) -> Json:
        built = dict(pairs)
        if len(built) != len(pairs):
            repeated[id(built)] = kubeyaml.twice([key for key, _ in pairs])
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
    loader: kubeyaml.Loader | None = None
    try:
        kubeyaml.bound_events(raw)
        loader = kubeyaml.Loader(raw)
        value = loader.get_single_data()
    except kubeyaml.Refused as error:
        raise BadRequest(f"the body {error}") from error
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


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number of JSON")


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
    budget = kubeyaml.NODES_MAX
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack:
        node, depth = stack.pop()
        budget -= 1
        if budget < 0 or depth > kubeyaml.DEPTH_MAX:
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


def _one_line(error: yaml.YAMLError) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()
