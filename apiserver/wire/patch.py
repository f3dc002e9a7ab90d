"""JSON patch (RFC 6902) and JSON merge patch (RFC 7396) as pure changes of a document.

The invariant: a change never touches the document that it is given, and may be run again on a
newer one; that is what lets the operations retry a patch after a conflict. Equality is JSON's:
`1`, `true` and `"1"` differ, as Python's would not. A `test` that fails, and a path that leads
nowhere, are 422: clients read from that code that the object is not what they thought.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson

from apiserver.errors import BadRequest, TooLarge, Unprocessable
from resources.copying import copied
from resources.kind import Json

Change = Callable[[Json], Json]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"
SERVED = (JSON_PATCH, MERGE_PATCH)

OPERATIONS_MAX = 10_000
# What all `copy` operations of a patch may add; doubling a document 40 times must not be possible.
COPIED_BYTES_MAX = 3 * 1024 * 1024

_NEEDS_VALUE = frozenset({"add", "replace", "test"})
_NEEDS_FROM = frozenset({"move", "copy"})
_VERBS = _NEEDS_VALUE | _NEEDS_FROM | {"remove"}


def merge_patch(patch: Any) -> Change:
    """The change that a merge patch is; null removes."""
    if not isinstance(patch, dict):
        raise BadRequest("a merge patch must be an object")
    return lambda document: _merged(document, patch)


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copied(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def json_patch(operations: Any) -> Change:
    """The change that a list of JSON-patch operations is. Raises BadRequest for a malformed list;
    the change raises Unprocessable where the document is not as the patch expects."""
    if not isinstance(operations, list):
        raise BadRequest("a JSON patch must be a list of operations")
    if len(operations) > OPERATIONS_MAX:
        raise TooLarge(f"a JSON patch may have {OPERATIONS_MAX} operations at most")
    steps = [_step(index, operation) for index, operation in enumerate(operations)]

    def change(document: Json) -> Json:
        root: Any = copied(document)
        grown_bytes = 0
        try:
            for step in steps:
                root, grown = step(root)
                grown_bytes += grown
                if grown_bytes > COPIED_BYTES_MAX:
                    raise TooLarge("the patch copies more than it may")
        except (RecursionError, orjson.JSONEncodeError) as error:
            # Copying a value into itself doubles its depth with each operation.
            raise TooLarge("the patch nests values too deeply") from error
        if not isinstance(root, dict):
            raise Unprocessable("the patch does not leave an object")
        return root

    return change


Step = Callable[[Any], tuple[Any, int]]


def _step(index: int, operation: Any) -> Step:
    where = f"operation {index} of the patch"
    if not isinstance(operation, dict):
        raise BadRequest(f"{where} is not an object")
    verb = operation.get("op")
    if verb not in _VERBS:
        raise BadRequest(f"{where}: unknown op {verb!r}")
    path = _pointer(operation.get("path"), where)
    if verb in _NEEDS_VALUE and "value" not in operation:
        raise BadRequest(f"{where}: {verb} needs a value")
    value = operation.get("value")
    if verb == "add":
        return lambda root: (_add(root, path, copied(value)), 0)
    if verb == "remove":
        return lambda root: (_remove(root, path)[0], 0)
    if verb == "replace":
        return lambda root: (_replace(root, path, copied(value)), 0)
    if verb == "test":
        return lambda root: (_test(root, path, value), 0)
    origin = _pointer(operation.get("from"), where)
    if verb == "move" and path[: len(origin)] == origin and path != origin:
        raise BadRequest(f"{where}: can't move a value into itself")
    return (
        (lambda root: _move(root, origin, path))
        if verb == "move"
        else (lambda root: _copy(root, origin, path))
    )


def _pointer(text: Any, where: str) -> tuple[str, ...]:
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise BadRequest(f"{where}: {text!r} is not a JSON pointer")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:])


def _show(path: tuple[str, ...]) -> str:
    return "/" + "/".join(part.replace("~", "~0").replace("/", "~1") for part in path)


def _missing(path: tuple[str, ...]) -> Unprocessable:
    return Unprocessable(f"the patch names a path that does not exist: {_show(path)}")


def _find(root: Any, path: tuple[str, ...]) -> Any:
    node = root
    for depth, part in enumerate(path):
        if isinstance(node, dict) and part in node:
            node = node[part]
        elif isinstance(node, list):
            node = node[_index(part, len(node) - 1, path)]
        else:
            raise _missing(path[: depth + 1])
    return node


def _index(part: str, last: int, path: tuple[str, ...]) -> int:
    well_formed = part.isascii() and part.isdigit() and (part == "0" or part[0] != "0")
    # No list of ours has a million elements; longer digits would only feed int().
    if not well_formed or len(part) > 7 or int(part) > last:
        raise _missing(path)
    return int(part)


def _add(root: Any, path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    parent, key = _find(root, path[:-1]), path[-1]
    if isinstance(parent, dict):
        parent[key] = value
    elif isinstance(parent, list):
        parent.insert(len(parent) if key == "-" else _index(key, len(parent), path), value)
    else:
        raise _missing(path)
    return root


def _remove(root: Any, path: tuple[str, ...]) -> tuple[Any, Any]:
    if not path:
        raise Unprocessable("the patch removes the whole document")
    parent, key = _find(root, path[:-1]), path[-1]
    if isinstance(parent, dict) and key in parent:
        return root, parent.pop(key)
    if isinstance(parent, list):
        return root, parent.pop(_index(key, len(parent) - 1, path))
    raise _missing(path)


def _replace(root: Any, path: tuple[str, ...], value: Any) -> Any:
    if not path:
        return value
    parent, key = _find(root, path[:-1]), path[-1]
    if isinstance(parent, dict) and key in parent:
        parent[key] = value
    elif isinstance(parent, list):
        parent[_index(key, len(parent) - 1, path)] = value
    else:
        raise _missing(path)
    return root


def _test(root: Any, path: tuple[str, ...], value: Any) -> Any:
    if not same(_find(root, path), value):
        raise Unprocessable(f"the patch's test of {_show(path)} failed: it has another value")
    return root


def _move(root: Any, origin: tuple[str, ...], path: tuple[str, ...]) -> tuple[Any, int]:
    if path == origin:
        _find(root, origin)
        return root, 0
    root, value = _remove(root, origin)
    return _add(root, path, value), 0


def _copy(root: Any, origin: tuple[str, ...], path: tuple[str, ...]) -> tuple[Any, int]:
    value = copied(_find(root, origin))
    return _add(root, path, value), len(orjson.dumps(value))


def same(left: Any, right: Any) -> bool:
    """Equality of JSON values: a boolean is no number, and 1 is 1.0."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)
