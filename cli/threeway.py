"""JSON merge patches, of two documents and of three. Pure.

Client-side apply knows three: what was applied last, what is to be applied, and what is there. What
a person took out of the manifest goes; what the manifest says comes; what others added stays. The
rules are kubectl's, so that both tools, taking turns on one object, agree.
"""

from __future__ import annotations

from typing import Any

from cli import gojson

Json = dict[str, Any]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def difference(old: Json, new: Json) -> Json:
    """The merge patch that makes `new` of `old`."""
    patch: Json = {}
    for key in {**old, **new}:
        if key not in new:
            patch[key] = None
        elif key not in old:
            patch[key] = new[key]
        elif isinstance(old[key], dict) and isinstance(new[key], dict):
            if inner := difference(old[key], new[key]):
                patch[key] = inner
        elif not _same(old[key], new[key]):
            patch[key] = new[key]
    return patch


def patched(document: Json, patch: Json) -> Json:
    """The document after a merge patch."""
    whole = dict(document)
    for key, value in patch.items():
        there = whole.get(key)
        if value is None:
            whole.pop(key, None)
        elif isinstance(value, dict):
            whole[key] = patched(there if isinstance(there, dict) else {}, value)
        else:
            whole[key] = value
    return whole


def three_way(original: Json, modified: Json, current: Json) -> Json:
    """The merge patch that applies `modified` to `current`, where `original` was applied before."""
    return _merged(_removals(original, modified), _additions(current, modified))


def _additions(current: Json, modified: Json) -> Json:
    """What `modified` says and `current` does not; nothing is taken away."""
    patch: Json = {}
    for key, value in modified.items():
        there = current.get(key)
        if value is None:
            # In a merge patch null takes away, and here nothing is.
            continue
        if isinstance(value, dict) and isinstance(there, dict):
            if inner := _additions(there, value):
                patch[key] = inner
        elif key not in current or not _same(there, value):
            patch[key] = value
    return patch


def _removals(original: Json, modified: Json) -> Json:
    """What was applied and is no longer said."""
    patch: Json = {}
    for key, value in original.items():
        if key not in modified or (modified[key] is None and value is not None):
            patch[key] = None
        elif (
            isinstance(value, dict)
            and isinstance(modified[key], dict)
            and (inner := _removals(value, modified[key]))
        ):
            patch[key] = inner
    return patch


def _merged(one: Json, other: Json) -> Json:
    """Both patches as one; where both speak of a field, the second."""
    both = dict(one)
    for key, value in other.items():
        there = both.get(key)
        is_deeper = isinstance(there, dict) and isinstance(value, dict)
        both[key] = _merged(there, value) if is_deeper and there is not None else value
    return both


def _same(one: Any, other: Any) -> bool:
    """As JSON sees it: true is not 1."""
    if isinstance(one, bool) is not isinstance(other, bool):
        return False
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other)


def bare(document: Json) -> Json:
    """The manifest without a note, and with annotations, be they none: so it is noted down."""
    metadata = document.get("metadata") or {}
    annotations = dict(metadata.get("annotations") or {})
    annotations.pop(LAST_APPLIED, None)
    return document | {"metadata": metadata | {"annotations": annotations}}


def noted(document: Json) -> Json:
    """The manifest with itself as the note of what was applied, which is what is sent."""
    whole = bare(document)
    metadata = whole["metadata"]
    note = gojson.compact(whole) + "\n"
    return whole | {
        "metadata": metadata | {"annotations": metadata["annotations"] | {LAST_APPLIED: note}}
    }


def note_of(document: Json) -> str:
    """What the object says was applied last; nothing where nobody applied it."""
    return str(((document.get("metadata") or {}).get("annotations") or {}).get(LAST_APPLIED) or "")
