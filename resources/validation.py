"""Whether a document is right, with everything that is wrong with it said at once.

A document passes through two sieves that do not wait for each other: the model (types, required
and unknown fields, enumerations) and the rules (everything that a schema cannot say). Where both
complain about one field, one complaint is kept, the one that helps more. The rules of a union are
reported against the branch that the document chose, never against all.

Nothing is filled in or changed here; `prune` returns a copy.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from resources import formats, schema
from resources.errors import (
    FORBIDDEN,
    INVALID,
    NOT_SUPPORTED,
    REQUIRED,
    TOO_LONG,
    TOO_MANY,
    TYPE_INVALID,
    UNKNOWN,
    FieldError,
    Invalid,
)
from resources.kind import Json, Kind
from resources.meta import check_metadata, mapping

# A document can be wrong in a million places; nobody reads on.
MAX_COMPLAINTS = 100

_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_STEP = re.compile(r"\.?([^.\[\]]+)|\[([^\]]*)\]")
_ABSENT = object()
_JSON_TYPES = {str: "a string", bool: "true or false", int: "a number", float: "a number",
               list: "a list", dict: "an object", type(None): "null"}  # fmt: skip
_WANTED = {
    "string_type": "a string", "bool_type": "true or false", "int_type": "a whole number",
    "float_type": "a number", "list_type": "a list", "dict_type": "an object",
    "model_type": "an object", "model_attributes_type": "an object",
    "int_from_float": "a whole number",
}  # fmt: skip


def validate(
    kind: Kind, document: Json, *, old: Json | None = None, short_versions: bool = False
) -> list[FieldError]:
    """Everything that is wrong with `document`, the first hundred complaints.

    `old` is the stored document that it replaces: what was wrong there already and is the same
    now is let through, so that a rule that came later, or a field that only the service may set,
    does not keep people from changing something else. `short_versions` allows the apiVersion
    without its group, or empty, as machines send it.
    """
    model = list(_model_complaints(kind, document))
    rules = list(_rule_complaints(kind, document, short_versions))
    # A rule says it better than a pattern; against a wrong type or a lack it has nothing to say.
    vague = {e.path for e in model if e.reason == INVALID} & {e.path for e in rules}
    told = {e.path for e in model} - vague
    found = [e for e in model if e.path not in vague] + [e for e in rules if e.path not in told]
    if old is not None:
        found = [error for error in found if not _was_so(error.path, old, document)]
    return list(dict.fromkeys(found))[:MAX_COMPLAINTS]


def _model_complaints(kind: Kind, document: Json) -> Iterator[FieldError]:
    try:
        kind.model.__pydantic_validator__.validate_python(document)
    except ValidationError as problem:
        root = schema.structural(kind.model)
        for error in problem.errors(include_url=False):
            yield _complaint(error, document, root)


def _rule_complaints(kind: Kind, document: Json, short_versions: bool) -> Iterator[FieldError]:
    version = document.get("apiVersion")
    allowed = {kind.api_version} | ({kind.version, ""} if short_versions else set())
    if isinstance(version, str) and version not in allowed:
        yield FieldError("apiVersion", NOT_SUPPORTED, f"write {kind.api_version}")
    if isinstance(document.get("kind"), str) and document["kind"] != kind.kind:
        yield FieldError("kind", NOT_SUPPORTED, f"write {kind.kind}")
    yield from check_metadata(mapping(document, "metadata"))
    if kind.validate is not None:
        try:
            kind.validate(document)
        except Invalid as problem:
            yield from problem.errors


# --- from the model's complaints to ours ---------------------------------------------------------


def _complaint(error: ErrorDetails, document: Json, root: Json) -> FieldError:
    path, node = _place(error["loc"], document, root)
    given, context = error["input"], error.get("ctx", {})
    match error["type"]:
        case "missing":
            return FieldError(path, REQUIRED, _required(node))
        case "extra_forbidden":
            return _unknown(path, root)
        case "literal_error":
            detail = f"{formats.shown(given)}: write {_choice(node, context)}"
            return FieldError(path, NOT_SUPPORTED, detail)
        case "union_tag_invalid":
            detail = f"{formats.shown(context.get('tag'))}: write {context.get('expected_tags')}"
            return FieldError(path, NOT_SUPPORTED, detail)
        case "string_too_long":
            detail = f"must be no more than {context['max_length']} characters, has {len(given)}"
            return FieldError(path, TOO_LONG, detail)
        case "too_long":
            return FieldError(path, TOO_MANY, f"must have no more than {context['max_length']}")
        case "string_too_short" | "too_short":
            return FieldError(path, INVALID, "must not be empty")
        case "string_pattern_mismatch":
            pattern = context["pattern"]
            words = formats.PATTERN_WORDS.get(pattern, f"must match {pattern}")
            detail = f"{formats.shown(given)}: {words}"
            return FieldError(path, INVALID, detail)
        case "greater_than_equal" | "less_than_equal":
            return FieldError(path, INVALID, f"{given}: {_bound(context)}")
        case "no_source":
            return FieldError(path, REQUIRED, error["msg"])
        case "appType" | "monitorType" | "type" as key:
            return _untagged(path, key, given, error["msg"])
        case kind:
            return FieldError(path, TYPE_INVALID, _mistyped(kind, given, error["msg"]))


def _untagged(path: str, key: str, given: Any, message: str) -> FieldError:
    """A union whose branch the document does not name."""
    if not isinstance(given, dict):
        return FieldError(path, TYPE_INVALID, f"must be an object, not {_json_type(given)}")
    if given.get(key) is None:
        return FieldError(f"{path}.{key}", REQUIRED, message)
    return FieldError(f"{path}.{key}", NOT_SUPPORTED, f"{formats.shown(given[key])}: {message}")


def _mistyped(kind: str, given: Any, message: str) -> str:
    if kind not in _WANTED:
        return message
    hint = ""
    if kind == "string_type" and isinstance(given, bool | int | float):
        hint = "; put it in quotes"
    return f"must be {_WANTED[kind]}, not {_json_type(given)}{hint}"


def _json_type(given: Any) -> str:
    return _JSON_TYPES.get(type(given), type(given).__name__)


def _required(node: Json) -> str:
    words = str(node.get("description", ""))
    return f"give it: {words}" if words else "give it"


def _choice(node: Json, context: Json) -> str:
    values = node.get("enum")
    if not values:
        return str(context.get("expected", ""))
    shown = [str(value) or '""' for value in values]
    return shown[0] if len(shown) == 1 else "one of " + ", ".join(shown)


def _bound(context: Json) -> str:
    if "ge" in context:
        return f"must be at least {context['ge']:g}"
    return f"must be at most {context['le']:g}"


def _unknown(path: str, root: Json) -> FieldError:
    """An unknown field, with the name that was probably meant; or one of another branch."""
    parent, _, name = path.rpartition(".")
    known = _node_at(root, parent).get("properties", {})
    if name in known:
        words = known[name].get("description", "")
        detail = f"does not go with the rest of this object, which is of another type. ({words})"
        return FieldError(path, FORBIDDEN, detail)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    hint = f"; did you mean {near[0]}?" if near else ""
    if not near and known and len(known) <= 12:
        hint = f"; known here: {', '.join(known)}"
    return FieldError(path, UNKNOWN, f'"{path}"{hint}')


def _place(loc: Iterable[int | str], document: Json, root: Json) -> tuple[str, Json]:
    """Where a complaint is, as people write paths, and the schema of that place.

    Pydantic's locations also name the branch of a union, as `<branch>`; no field has such a name,
    and a key of a map that looks so is told apart by the schema.
    """
    path, node = "", root
    for part in loc:
        if isinstance(part, int):
            path, node = f"{path}[{part}]", node.get("items", {})
        elif part in node.get("properties", {}):
            path, node = f"{path}.{part}" if path else part, node["properties"][part]
        elif "additionalProperties" in node:
            path, node = f"{path}[{part}]", node["additionalProperties"]
        elif not _is_branch(part):
            path, node = f"{path}.{part}" if path else part, {}
    return path, node


def _is_branch(part: str) -> bool:
    return (part.startswith("<") and part.endswith(">")) or part == "[key]"


def _node_at(root: Json, path: str) -> Json:
    node = root
    for name, index in _STEP.findall(path):
        if name and name in node.get("properties", {}):
            node = node["properties"][name]
        elif index.isdigit() and "items" in node:
            node = node["items"]
        else:
            node = node.get("additionalProperties", {})
    return node


# --- what was so before --------------------------------------------------------------------------


def _was_so(path: str, old: Json, new: Json) -> bool:
    before, after = _value_at(old, path), _value_at(new, path)
    return before is not _ABSENT and type(before) is type(after) and before == after


def _value_at(document: Any, path: str) -> Any:
    for name, key in _STEP.findall(path):
        if isinstance(document, dict):
            document = document.get(name or key, _ABSENT)
        elif isinstance(document, list) and key.isdigit() and int(key) < len(document):
            document = document[int(key)]
        else:
            return _ABSENT
    return document


# --- unknown fields ------------------------------------------------------------------------------


def unknown_fields(kind: Kind, document: Json) -> list[str]:
    """Paths of the fields that the kind's schema does not know, in the document's order."""
    return [path for path, _, _ in _unknown_in(document, schema.structural(kind.model), "")]


def prune(kind: Kind, document: Json) -> Json:
    """A copy without unknown fields, and without known ones that are null: null is absence."""
    pruned = _pruned(document, schema.structural(kind.model))
    assert isinstance(pruned, dict), "a document is an object"
    return pruned


def _unknown_in(value: Any, node: Json, path: str) -> Iterator[tuple[str, Json, str]]:
    if isinstance(value, dict):
        properties = node.get("properties", {})
        values = node.get("additionalProperties")
        for key, inner in value.items():
            if key in properties:
                here = f"{path}.{key}" if path else key
                yield from _unknown_in(inner, properties[key], here)
            elif values is not None:
                yield from _unknown_in(inner, values, f"{path}[{key}]")
            elif not node.get(_PRESERVE) and node.get("type") == "object":
                yield (f"{path}.{key}" if path else key), value, key
    elif isinstance(value, list) and "items" in node:
        for index, item in enumerate(value):
            yield from _unknown_in(item, node["items"], f"{path}[{index}]")


def _pruned(value: Any, node: Json) -> Any:
    if isinstance(value, dict):
        properties = node.get("properties", {})
        values = node.get("additionalProperties")
        kept: Json = {}
        for key, inner in value.items():
            if key in properties:
                if inner is not None:
                    kept[key] = _pruned(inner, properties[key])
            elif values is not None:
                kept[key] = _pruned(inner, values)
            elif node.get(_PRESERVE) or node.get("type") != "object":
                kept[key] = inner
        return kept
    if isinstance(value, list) and "items" in node:
        return [_pruned(item, node["items"]) for item in value]
    return value
