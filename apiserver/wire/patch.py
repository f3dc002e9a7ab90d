"""JSON patch (RFC 6902, by the library jsonpatch) and JSON merge patch (RFC 7396) as pure changes
of a document.

The invariant: a change never touches the document that it is given, and may be run again on a
newer one; that is what lets the operations retry a patch after a conflict. Equality is JSON's:
`1`, `true` and `"1"` differ, as Python's would not. A `test` that fails, and a path that leads
nowhere, are 422: clients read from that code that the object is not what they thought.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import jsonpatch
import orjson
from jsonpointer import JsonPointer, JsonPointerException

from apiserver.errors import BadRequest, TooLarge, Unprocessable
from resources.copying import copied
from resources.kind import Json

Change = Callable[[Json], Json]

JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
SERVED = (JSON_PATCH, MERGE_PATCH, APPLY_PATCH)
# Of those, what is a change of a document; an apply is more than that (`wire.ownership`).
CHANGES = (JSON_PATCH, MERGE_PATCH)

OPERATIONS_MAX = 10_000
# What all `copy` operations of a patch may add; doubling a document 40 times must not be possible.
COPIED_BYTES_MAX = 3 * 1024 * 1024

_OPERATIONS = {
    "add": jsonpatch.AddOperation,
    "copy": jsonpatch.CopyOperation,
    "move": jsonpatch.MoveOperation,
    "remove": jsonpatch.RemoveOperation,
    "replace": jsonpatch.ReplaceOperation,
    "test": jsonpatch.TestOperation,
}
_NEEDS = {"add": "value", "replace": "value", "test": "value", "move": "from", "copy": "from"}


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
        copied_bytes = 0
        try:
            for step in steps:
                if isinstance(step, jsonpatch.CopyOperation):
                    copied_bytes += _size(root, step)
                    if copied_bytes > COPIED_BYTES_MAX:
                        raise TooLarge("the patch copies more than it may")
                root = _applied(root, step)
        except (RecursionError, orjson.JSONEncodeError) as error:
            # Copying a value into itself doubles its depth with each operation.
            raise TooLarge("the patch nests values too deeply") from error
        if not isinstance(root, dict):
            raise Unprocessable("the patch does not leave an object")
        return root

    return change


def _step(index: int, operation: Any) -> Any:
    """The operation as jsonpatch has it; it is applied to one document after the other."""
    where = f"operation {index} of the patch"
    if not isinstance(operation, dict):
        raise BadRequest(f"{where} is not an object")
    verb = operation.get("op")
    if not isinstance(verb, str) or verb not in _OPERATIONS:
        raise BadRequest(f"{where}: unknown op {verb!r}")
    needed = _NEEDS.get(verb)
    if needed is not None and needed not in operation:
        raise BadRequest(f"{where}: {verb} needs a {needed}")
    path = _pointer(operation.get("path"), where)
    if verb == "move":
        origin = _pointer(operation["from"], where)
        if path != origin and path.contains(origin):
            raise BadRequest(f"{where}: can't move a value into itself")
    elif needed == "from":
        _pointer(operation["from"], where)
    return _OPERATIONS[verb](operation)


def _pointer(text: Any, where: str) -> JsonPointer:
    if isinstance(text, str):
        with suppress(JsonPointerException):
            return JsonPointer(text)
    raise BadRequest(f"{where}: {text!r} is not a JSON pointer")


def _applied(root: Any, step: Any) -> Any:
    try:
        return step.apply(root)
    except jsonpatch.JsonPatchTestFailed as error:
        raise Unprocessable(
            f"the patch's test of {step.location} failed: it has another value"
        ) from error
    except (jsonpatch.JsonPatchException, JsonPointerException) as error:
        raise Unprocessable(
            f"the patch names a path that does not exist: {step.location} ({error})"
        ) from error


def _size(root: Any, step: Any) -> int:
    """Bytes of what a copy copies; nothing where there is nothing, which it then says itself."""
    try:
        return len(orjson.dumps(JsonPointer(step.operation["from"]).resolve(root)))
    except JsonPointerException:
        return 0


def same(left: Any, right: Any) -> bool:
    """Equality of JSON values: a boolean is no number, and 1 is 1.0."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right)
