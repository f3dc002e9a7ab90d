from __future__ import annotations

import pytest

from apiserver.errors import BadRequest, StatusError, Unprocessable
from apiserver.wire import options
from resources.registry import DEVICE, FLEET


@pytest.mark.parametrize(
    ("query", "limit", "version", "match"),
    [
        ({}, 0, None, ""),
        ({"limit": "500"}, 500, None, ""),
        ({"resourceVersion": "0"}, 0, 0, ""),
        ({"resourceVersion": "7"}, 0, 7, ""),
        ({"resourceVersion": "7", "resourceVersionMatch": "NotOlderThan"}, 0, 7, "NotOlderThan"),
        ({"resourceVersion": "7", "resourceVersionMatch": "Exact"}, 0, 7, "Exact"),
        ({"resourceVersion": "7", "limit": "5"}, 5, 7, "Exact"),
        ({"resourceVersion": "0", "limit": "5"}, 5, 0, ""),
        ({"limit": "0", "pretty": "true", "unknown": "x"}, 0, None, ""),
    ],
)
def test_lists(query: dict[str, str], limit: int, version: int | None, match: str) -> None:
    found = options.list_query(FLEET, query)
    assert (found.limit, found.resource_version, found.match) == (limit, version, match)


@pytest.mark.parametrize(
    ("query", "code", "words"),
    [
        ({"limit": "-1"}, 400, "limit"),
        ({"limit": "many"}, 400, "limit"),
        ({"limit": "99999999999"}, 400, "limit"),
        ({"resourceVersion": "abc"}, 400, "invalid resource version"),
        ({"resourceVersion": "-1"}, 400, "invalid resource version"),
        ({"resourceVersion": "9" * 30}, 400, "invalid resource version"),
        ({"resourceVersion": "٣"}, 400, "invalid resource version"),
        ({"resourceVersionMatch": "Exact"}, 422, "without resourceVersion"),
        ({"resourceVersionMatch": "Maybe", "resourceVersion": "1"}, 422, "supported values"),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "0"}, 422, "Exact is forbidden"),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "1", "continue": "x"}, 422,
         "continue"),
        ({"resourceVersion": "1", "continue": "x"}, 400, "continue"),
        ({"sendInitialEvents": "true"}, 422, "sendInitialEvents"),
        ({"labelSelector": "a in (b"}, 400, "labelSelector"),
        ({"fieldSelector": "spec.nothing=1"}, 400, "spec.nothing"),
    ],
)  # fmt: skip
def test_lists_that_contradict_themselves(query: dict[str, str], code: int, words: str) -> None:
    with pytest.raises(StatusError, match=words) as caught:
        options.list_query(FLEET, query)
    assert caught.value.code == code


def test_a_refused_field_names_those_that_work() -> None:
    with pytest.raises(BadRequest, match=r"metadata\.name.*status\.summary\.status"):
        options.selection(DEVICE, {"fieldSelector": "spec.os=1"})


WATCH_LIST = {
    "sendInitialEvents": "true",
    "resourceVersionMatch": "NotOlderThan",
    "allowWatchBookmarks": "true",
}


@pytest.mark.parametrize(
    ("query", "state", "end"),
    [
        ({}, True, False),
        ({"resourceVersion": "0"}, True, False),
        ({"resourceVersion": "7"}, False, False),
        (WATCH_LIST, True, True),
        (WATCH_LIST | {"resourceVersion": "7"}, True, True),
        (WATCH_LIST | {"sendInitialEvents": "false"}, False, False),
    ],
)
def test_watches_begin_with_the_state_or_not(query: dict[str, str], state: bool, end: bool) -> None:
    found = options.watch_query(FLEET, query)
    assert (found.initial_state, found.initial_end) == (state, end)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"sendInitialEvents": "true"}, 422),
        ({"sendInitialEvents": "true", "resourceVersionMatch": "Exact"}, 422),
        ({"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}, 422),
        ({"sendInitialEvents": "maybe"}, 400),
        ({"resourceVersionMatch": "NotOlderThan", "resourceVersion": "1"}, 422),
        ({"timeoutSeconds": "soon"}, 400),
        ({"continue": "x"}, 400),
    ],
)
def test_watches_that_contradict_themselves(query: dict[str, str], code: int) -> None:
    with pytest.raises(StatusError) as caught:
        options.watch_query(FLEET, query)
    assert caught.value.code == code


def test_a_watch_of_one_object_selects_its_name() -> None:
    found = options.watch_query(FLEET, {"fieldSelector": "metadata.namespace=a"}, name="web")
    fields = found.selection.fields
    assert fields is not None
    assert fields.matches({"metadata.name": "web", "metadata.namespace": "a"})
    assert not fields.matches({"metadata.name": "other", "metadata.namespace": "a"})


@pytest.mark.parametrize(
    ("text", "value"),
    [(None, False), ("", True), ("1", True), ("true", True), ("0", False), ("false", False)],
)
def test_truth(text: str | None, value: bool) -> None:
    query = {} if text is None else {"watch": text}
    assert options.is_watch(query) is value


@pytest.mark.parametrize(
    ("query", "agent", "expected"),
    [
        ({}, "kubectl/v1.33 (linux)", options.WriteQuery(False, "Warn", "kubectl")),
        ({"fieldManager": "me"}, "kubectl/v1", options.WriteQuery(False, "Warn", "me")),
        ({"dryRun": "All", "fieldValidation": "Strict"}, "",
         options.WriteQuery(True, "Strict", "unknown")),
    ],
)  # fmt: skip
def test_writes(query: dict[str, str], agent: str, expected: options.WriteQuery) -> None:
    assert options.write_query(query, agent) == expected


@pytest.mark.parametrize(
    "query",
    [{"dryRun": "Some"}, {"fieldValidation": "Perhaps"}, {"fieldManager": "x" * 129},
     {"fieldManager": "a\nb"}],
)  # fmt: skip
def test_writes_with_unknown_values_are_422(query: dict[str, str]) -> None:
    with pytest.raises(Unprocessable):
        options.write_query(query)


@pytest.mark.parametrize(
    ("query", "body", "expected"),
    [
        ({}, {}, options.DeleteQuery()),
        ({"propagationPolicy": "Orphan"}, {}, options.DeleteQuery(propagation="Orphan")),
        ({"propagationPolicy": "Orphan"}, {"propagationPolicy": "Foreground"},
         options.DeleteQuery(propagation="Foreground")),
        ({}, {"orphanDependents": True}, options.DeleteQuery(propagation="Orphan")),
        ({}, {"dryRun": ["All"]}, options.DeleteQuery(dry_run=True)),
        ({"dryRun": "All"}, {}, options.DeleteQuery(dry_run=True)),
        ({}, {"preconditions": {"uid": "u"}}, options.DeleteQuery(preconditions={"uid": "u"})),
    ],
)  # fmt: skip
def test_deletes(
    query: dict[str, str], body: dict[str, object], expected: options.DeleteQuery
) -> None:
    assert options.delete_query(query, body) == expected


@pytest.mark.parametrize(
    "body",
    [{"dryRun": "All"}, {"dryRun": ["Some"]}, {"propagationPolicy": "Later"},
     {"preconditions": {"name": "x"}}, {"preconditions": ["uid"]},
     {"preconditions": {"uid": 1}}],
)  # fmt: skip
def test_deletes_with_unknown_values_are_422(body: dict[str, object]) -> None:
    with pytest.raises(Unprocessable):
        options.delete_query({}, body)
