"""Paths, continue tokens, warnings, tables and frames."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apiserver.builtins.kinds import EVENT
from apiserver.errors import BadRequest, Expired
from apiserver.wire import continuing, paths, shapes, table, warning
from apiserver.wire.frames import Writer
from resources import ages
from resources.registry import BACKLOG, DEVICE, FLEET, KINDS

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("fleets", ("fleets", "", "", "", False)),
        ("namespaces", ("namespaces", "", "", "", False)),
        ("namespaces/a", ("namespaces", "", "a", "", False)),
        ("namespaces/a/status", ("namespaces", "", "a", "status", False)),
        ("namespaces/a/fleets", ("fleets", "a", "", "", True)),
        ("namespaces/a/fleets/web", ("fleets", "a", "web", "", True)),
        ("namespaces/a/fleets/web/status", ("fleets", "a", "web", "status", True)),
        ("organizations/x", ("organizations", "", "x", "", False)),
    ],
)
def test_paths_have_one_reading(text: str, expected: tuple[str, str, str, str, bool]) -> None:
    found = paths.parse("g", "v1", text.split("/"))
    assert found is not None
    read = (found.plural, found.namespace, found.name, found.subresource, found.namespaced)
    assert read == expected


@pytest.mark.parametrize(
    "text", ["", "fleets/", "namespaces//fleets", "namespaces/a/fleets/b/c/d", "fleets/a/b/c"]
)
def test_paths_without_a_reading(text: str) -> None:
    assert paths.parse("g", "v1", text.split("/")) is None


# NUL is in no name, and no database takes it.
words = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=30)


@given(st.integers(0, 2**63 - 1), words, words, st.text(max_size=9))
def test_tokens_come_back(version: int, namespace: str, name: str, scope: str) -> None:
    position = continuing.Position(version, (namespace, name))
    try:
        token = continuing.write(position, scope)
    except UnicodeEncodeError:
        return  # names never hold lone surrogates
    assert continuing.read(token, scope) == position
    assert token.replace("-", "").replace("_", "").isalnum()


@given(st.data())
def test_a_token_that_was_changed_is_refused(data: st.DataObject) -> None:
    token = continuing.write(continuing.Position(7, ("default", "web")), "scope")
    at = data.draw(st.integers(0, len(token) - 2))
    letter = data.draw(st.sampled_from("ABCxyz019-_").filter(lambda c: c != token[at]))
    with pytest.raises(BadRequest, match="continue key is not valid"):
        continuing.read(token[:at] + letter + token[at + 1 :], "scope")


@pytest.mark.parametrize("token", ["x", "!!!!", "", "A" * 5000, "é"])
def test_no_token_of_ours(token: str) -> None:
    with pytest.raises(BadRequest):
        continuing.read(token, "scope")


def test_a_token_is_of_one_list() -> None:
    token = continuing.write(continuing.Position(7, ("a", "b")), continuing.scope_of("fleets", "a"))
    with pytest.raises(BadRequest, match="another list"):
        continuing.read(token, continuing.scope_of("devices", "a"))


def test_scopes_do_not_run_together() -> None:
    assert continuing.scope_of("a", "bc") != continuing.scope_of("ab", "c")


def test_warnings_are_quoted_shortened_and_said_once() -> None:
    assert warning.headers(['say "hi"\n\\']) == ['299 - "say \\"hi\\" \\\\"']
    assert len(warning.headers(["a", "a", "b"])) == 2
    assert len(warning.headers(["x" * 500])[0]) < 140
    many = warning.headers(f"{n} " + "x" * 200 for n in range(100))
    assert sum(len(value) for value in many) <= warning.TOTAL_BYTES_MAX


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0, "0s"), (59, "59s"), (119, "119s"), (120, "2m"),
        (125, "2m5s"), (599, "9m59s"), (600, "10m"), (3 * 3600 - 1, "179m"), (3 * 3600, "3h"),
        (3 * 3600 + 60, "3h1m"), (8 * 3600, "8h"), (47 * 3600, "47h"), (48 * 3600, "2d"),
        (49 * 3600, "2d1h"), (8 * 86400, "8d"), (729 * 86400, "729d"), (730 * 86400, "2y"),
        (800 * 86400, "2y70d"), (8 * 365 * 86400, "8y"),
    ],
)  # fmt: skip
def test_durations_are_those_of_kubectl(seconds: int, text: str) -> None:
    assert ages.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("2026-11-23T11:59:30Z", "30s"),
        ("2026-11-23T11:00:00.123456Z", "59m"),
        (None, "<unknown>"),
        (7, "<unknown>"),
        ("yesterday", "<invalid>"),
    ],
)
def test_ages(value: object, text: str) -> None:
    assert table.age(value, NOW) == text


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (".metadata.name", "web"),
        ("metadata.name", "web"),
        (".status.conditions[type=Ready].status", "True"),
        (".status.conditions[type=Other].status", None),
        (".status.conditions[0].type", "Ready"),
        (".status.conditions[5].type", None),
        (".metadata.labels['a.b/c']", "x"),
        (".metadata.name.deeper", None),
        (".nothing.at.all", None),
    ],
)
def test_column_paths(path: str, value: object) -> None:
    document = {
        "metadata": {"name": "web", "labels": {"a.b/c": "x"}},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }
    assert table.reader(path)(document) == value


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["status", "spec", "metadata", "labels", "type"]), inner)
    ),
    max_leaves=10,
)


@pytest.mark.parametrize("kind", [*KINDS, EVENT], ids=lambda kind: kind.kind)
@settings(max_examples=25)
@given(metadata=st.dictionaries(st.text(max_size=5), JUNK), spec=JUNK, status=JUNK)
def test_a_row_has_a_cell_for_each_column_whatever_the_document_holds(
    kind: Any, metadata: dict[str, Any], spec: Any, status: Any
) -> None:
    document = {"metadata": metadata, "spec": spec, "status": status}
    made = table.table(kind, [document], now=NOW)
    assert len(made["rows"][0]["cells"]) == len(made["columnDefinitions"])
    assert made["columnDefinitions"][0]["format"] == "name"


def test_what_a_row_carries_is_chosen() -> None:
    document = {"metadata": {"name": "a"}, "spec": {}}
    rows = {
        include: table.table(FLEET, [document], now=NOW, include=include)["rows"][0]
        for include in table.INCLUDES
    }
    assert "object" not in rows["None"]
    assert rows["Metadata"]["object"]["kind"] == "PartialObjectMetadata"
    assert rows["Object"]["object"] is document
    with pytest.raises(BadRequest):
        table.parse_include("Everything")


def device(version: int, name: str = "a") -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"u-{name}", "resourceVersion": str(version)}}


def writer(shape: str = "") -> Writer:
    return Writer(DEVICE, shape, now=lambda: NOW)


def test_an_event_is_one_line() -> None:
    frame = writer().event("MODIFIED", device(1) | {"spec": {"text": "two\nlines"}})
    assert frame.count(b"\n") == 1
    assert orjson.loads(frame)["object"]["spec"]["text"] == "two\nlines"


def test_only_the_first_table_of_a_watch_has_columns() -> None:
    one = writer("Table")
    objects = [orjson.loads(one.event("ADDED", device(v)))["object"] for v in (1, 2)]
    assert objects[0]["columnDefinitions"]
    assert objects[1]["columnDefinitions"] is None
    assert objects[1]["metadata"] == {"resourceVersion": "2"}
    assert len(objects[1]["rows"]) == 1


def test_a_bookmark_ends_the_initial_events() -> None:
    event = orjson.loads(writer().bookmark("7", initial_end=True))
    assert event["type"] == "BOOKMARK"
    assert event["object"]["metadata"]["annotations"] == {shapes.INITIAL_EVENTS_END: "true"}
    plain = orjson.loads(writer().bookmark("8", initial_end=False))
    assert "annotations" not in plain["object"]["metadata"]


def test_errors_are_events_with_a_status() -> None:
    event = orjson.loads(writer().error(Expired("too old")))
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    assert event["object"]["reason"] == "Expired"


def test_a_kind_without_columns_shows_its_age() -> None:
    bare = replace(BACKLOG, columns=())
    names = [c["name"] for c in table.table(bare, [], now=NOW)["columnDefinitions"]]
    assert names == ["Name", "Age"]
