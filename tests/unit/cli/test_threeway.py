"""Merge patches of two and of three documents."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import threeway

Json = dict[str, Any]


def applied(patch: Any, document: Any) -> Any:
    """RFC 7386, as it is written there."""
    if not isinstance(patch, dict):
        return patch
    found = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            found.pop(key, None)
        else:
            found[key] = applied(value, found.get(key))
    return found


@pytest.mark.parametrize(
    ("original", "modified", "current", "expected"),
    [
        pytest.param({"a": 1}, {"a": 1}, {"a": 1}, {}, id="nothing to do"),
        pytest.param({}, {"a": 1}, {"b": 2}, {"a": 1}, id="said for the first time"),
        pytest.param({"a": 1}, {}, {"a": 1, "b": 2}, {"a": None}, id="no longer said"),
        pytest.param({"a": 1}, {"a": 1}, {"a": 2}, {"a": 1}, id="changed by others"),
        pytest.param({}, {}, {"b": 2}, {}, id="added by others"),
        pytest.param(
            {"m": {"a": 1, "b": 2}}, {"m": {"a": 1}}, {"m": {"a": 1, "b": 2, "c": 3}},
            {"m": {"b": None}}, id="no longer said, deeper",
        ),
        pytest.param({}, {"l": [1, 2]}, {"l": [1, 3]}, {"l": [1, 2]}, id="lists are whole"),
        pytest.param({}, {"a": True}, {"a": 1}, {"a": True}, id="true is not 1"),
        pytest.param({"m": {"a": 1}}, {"m": 5}, {"m": {"a": 1}}, {"m": 5}, id="another shape"),
        pytest.param({}, {"a": None}, {"a": 1}, {}, id="null said for the first time"),
        pytest.param({"a": 1}, {"a": None}, {"a": 1}, {"a": None}, id="null in place of a value"),
    ],
)  # fmt: skip
def test_what_is_said_comes_what_left_goes_what_others_added_stays(
    original: Json, modified: Json, current: Json, expected: Json
) -> None:
    assert threeway.three_way(original, modified, current) == expected


# Null is no value in a merge patch, so documents have none.
VALUES = st.recursive(
    st.booleans() | st.integers(0, 3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3)
    ),
    max_leaves=8,
)
DOCUMENTS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)


@given(DOCUMENTS, DOCUMENTS)
def test_a_difference_makes_the_new_of_the_old(old: Json, new: Json) -> None:
    # An empty object in place of nothing inside a patch is the same as none to RFC 7386.
    assert applied(threeway.difference(old, new), old) == new or _has_empty(new)
    assert threeway.difference(new, new) == {}


@given(DOCUMENTS, DOCUMENTS, DOCUMENTS)
def test_applying_twice_is_applying_once(original: Json, modified: Json, current: Json) -> None:
    once = applied(threeway.three_way(original, modified, current), current)
    assert threeway.three_way(modified, modified, once) == {}


@given(DOCUMENTS, DOCUMENTS)
def test_what_nobody_applied_is_never_taken_away(modified: Json, current: Json) -> None:
    after = applied(threeway.three_way({}, modified, current), current)
    assert set(current) <= set(after)


def _has_empty(value: Any) -> bool:
    if isinstance(value, dict):
        return not value or any(_has_empty(inner) for inner in value.values())
    return False


def test_the_note_is_the_manifest_as_kubectl_writes_it_down() -> None:
    manifest = {"kind": "Fleet", "metadata": {"name": "a", "annotations": {"x": "<y>"}}}
    noted = threeway.noted(manifest)
    note = '{"kind":"Fleet","metadata":{"annotations":{"x":"\\u003cy\\u003e"},"name":"a"}}\n'
    assert threeway.note_of(noted) == note
    assert noted["metadata"]["annotations"]["x"] == "<y>"
    assert threeway.noted(noted) == noted
