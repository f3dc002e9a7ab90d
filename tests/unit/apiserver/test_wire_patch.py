from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.errors import BadRequest, StatusError, TooLarge, Unprocessable
from apiserver.wire import patch

KEYS = st.sampled_from(["a", "b", "c", "~", "/", "x/y"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)
DOCUMENTS = st.dictionaries(KEYS, VALUES, max_size=4)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_nulls(v) for k, v in value.items() if v is not None}
    return value


@pytest.mark.parametrize(
    ("document", "change", "expected"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({"a": "foo"}, {"a": {"b": {"c": None}}}, {"a": {"b": {}}}),
    ],
)
def test_the_examples_of_rfc_7396(
    document: dict[str, Any], change: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert patch.merge_patch(change)(document) == expected


@given(DOCUMENTS, DOCUMENTS)
def test_a_merge_patch_is_idempotent_and_touches_nothing(
    document: dict[str, Any], change: dict[str, Any]
) -> None:
    before = copy.deepcopy(document)
    once = patch.merge_patch(change)(document)
    assert document == before
    assert patch.merge_patch(change)(once) == once


@given(DOCUMENTS, DOCUMENTS)
def test_a_later_merge_patch_overrides_an_earlier_one(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    wanted = without_nulls(second)
    merged = patch.merge_patch(second)(patch.merge_patch(first)({}))
    for key, value in wanted.items():
        if not isinstance(value, dict):
            assert patch.same(merged[key], value)


@pytest.mark.parametrize("content", [[], "x", 1, None])
def test_a_merge_patch_is_an_object(content: object) -> None:
    with pytest.raises(BadRequest):
        patch.merge_patch(content)


@pytest.mark.parametrize(
    ("document", "operations", "expected"),
    [
        ({"a": 1}, [{"op": "add", "path": "/b", "value": 2}], {"a": 1, "b": 2}),
        ({"a": [1, 3]}, [{"op": "add", "path": "/a/1", "value": 2}], {"a": [1, 2, 3]}),
        ({"a": [1]}, [{"op": "add", "path": "/a/-", "value": 2}], {"a": [1, 2]}),
        ({"a": [1, 2]}, [{"op": "remove", "path": "/a/0"}], {"a": [2]}),
        ({"a": 1}, [{"op": "replace", "path": "/a", "value": None}], {"a": None}),
        ({"a": [1, 2]}, [{"op": "replace", "path": "/a/1", "value": 9}], {"a": [1, 9]}),
        ({"a": {"b": 1}}, [{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "c": 1}),
        ({"a": {"b": 1}}, [{"op": "copy", "from": "/a", "path": "/c"}],
         {"a": {"b": 1}, "c": {"b": 1}}),
        ({"x/y": 1, "~": 2}, [{"op": "test", "path": "/x~1y", "value": 1},
                              {"op": "test", "path": "/~0", "value": 2}], {"x/y": 1, "~": 2}),
        ({"a": 1}, [{"op": "test", "path": "/a", "value": 1.0}], {"a": 1}),
        ({"a": 1}, [{"op": "add", "path": "", "value": {"b": 2}}], {"b": 2}),
        ({"a": 1}, [{"op": "move", "from": "/a", "path": "/a"}], {"a": 1}),
    ],
)  # fmt: skip
def test_json_patches(
    document: dict[str, Any], operations: list[Any], expected: dict[str, Any]
) -> None:
    before = json.dumps(document)
    assert patch.json_patch(operations)(document) == expected
    assert json.dumps(document) == before


@pytest.mark.parametrize(
    ("document", "operation"),
    [
        ({"a": 1}, {"op": "test", "path": "/a", "value": 2}),
        ({"a": 1}, {"op": "test", "path": "/a", "value": True}),
        ({"a": 1}, {"op": "test", "path": "/a", "value": "1"}),
        ({"a": 1}, {"op": "test", "path": "/b", "value": None}),
        ({"a": 1}, {"op": "remove", "path": "/b"}),
        ({"a": 1}, {"op": "replace", "path": "/b", "value": 1}),
        ({"a": 1}, {"op": "add", "path": "/b/c", "value": 1}),
        ({"a": 1}, {"op": "add", "path": "/a/c", "value": 1}),
        ({"a": []}, {"op": "add", "path": "/a/1", "value": 1}),
        ({"a": [1]}, {"op": "remove", "path": "/a/-"}),
        ({"a": [1]}, {"op": "remove", "path": "/a/01"}),
        ({"a": [1]}, {"op": "remove", "path": "/a/-1"}),
        ({"a": [1]}, {"op": "remove", "path": "/a/99999999999999999999"}),
        ({"a": 1}, {"op": "copy", "from": "/b", "path": "/c"}),
        ({"a": 1}, {"op": "remove", "path": ""}),
        ({"a": 1}, {"op": "replace", "path": "", "value": []}),
    ],
)
def test_a_document_that_is_not_as_expected_is_422(
    document: dict[str, Any], operation: dict[str, Any]
) -> None:
    with pytest.raises(Unprocessable):
        patch.json_patch([operation])(document)


@pytest.mark.parametrize(
    "operations",
    [
        {},
        ["x"],
        [{"path": "/a"}],
        [{"op": "wish", "path": "/a"}],
        [{"op": "add", "path": "/a"}],
        [{"op": "add", "value": 1}],
        [{"op": "add", "path": "a", "value": 1}],
        [{"op": "add", "path": 1, "value": 1}],
        [{"op": "copy", "path": "/a"}],
        [{"op": "move", "from": "/a", "path": "/a/b"}],
    ],
)
def test_a_malformed_list_is_400(operations: Any) -> None:
    with pytest.raises(BadRequest):
        patch.json_patch(operations)


def test_too_many_operations_are_413() -> None:
    with pytest.raises(TooLarge):
        patch.json_patch([{"op": "remove", "path": "/a"}] * (patch.OPERATIONS_MAX + 1))


@pytest.mark.parametrize("path", ["/a/-", "/a/0"], ids=["wider", "deeper"])
def test_copies_may_not_grow_without_bound(path: str) -> None:
    with pytest.raises(TooLarge):
        patch.json_patch([{"op": "copy", "from": "/a", "path": path}] * 5000)({"a": ["x" * 100]})


OPERATIONS = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "test", "move", "copy"]),
     "path": st.lists(st.sampled_from(["a", "b", "0", "1", "-", "~1"]), max_size=3).map(
         lambda parts: "".join(f"/{part}" for part in parts)),
     "from": st.sampled_from(["/a", "/b", "/a/0", "/a/a"])},
    optional={"value": VALUES},
)  # fmt: skip


@given(DOCUMENTS, st.lists(OPERATIONS, max_size=5))
def test_any_patch_applies_or_is_refused_and_touches_nothing(
    document: dict[str, Any], operations: list[Any]
) -> None:
    before = copy.deepcopy(document)
    try:
        result = patch.json_patch(operations)(document)
    except StatusError:
        pass
    else:
        assert isinstance(result, dict)
        # What was changed shares nothing with what was given.
        for value in result.values():
            if isinstance(value, list):
                value.append("mine")
    assert document == before
