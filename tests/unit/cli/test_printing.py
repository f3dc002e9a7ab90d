"""Tables, documents, templates: pure functions from documents to text, as kubectl prints them."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cli import columns, forms, gojson, goyaml, jsonpath, paint, tables
from resources import kubeyaml

Json = dict[str, Any]

COLUMNS = [
    {"name": "Name", "format": "name", "priority": 0},
    {"name": "Updated", "priority": 0},
    {"name": "Labels", "priority": 1},
]
FLEET: Json = {
    "apiVersion": "flightctl.io/v1beta1",
    "kind": "Fleet",
    "metadata": {"name": "web", "labels": {"a.b/c": "x"}, "managedFields": [{"manager": "me"}]},
    "parts": [
        {"name": "a", "size": 1, "ready": True},
        {"name": "b", "size": 2},
    ],
    "ratio": 1.0,
}


def rows_of(*rows: list[Any]) -> list[Json]:
    metadata = {"namespace": "default", "labels": {"site": "a", "tier": "edge"}}
    return [{"cells": cells, "object": {"metadata": metadata}} for cells in rows]


def table(**style: Any) -> tables.Table:
    made = tables.Table(tables.Style(**style))
    made.know(COLUMNS)
    return made


def test_columns_are_aligned_and_wide_ones_wait_for_wide() -> None:
    rows = rows_of(["a-long-name", "UpToDate", "x=y"], ["b", None, 3])
    assert table().lines(rows) == ["NAME          UPDATED", "a-long-name   UpToDate",
                                   "b             "]  # fmt: skip
    assert table(wide=True).lines(rows)[0] == "NAME          UPDATED    LABELS"


def test_what_a_watch_brings_stands_under_the_first_rows_and_has_no_second_head() -> None:
    growing = table()
    growing.lines(rows_of(["a-long-name", "Updating", ""]))
    growing.know(None)
    assert growing.lines(rows_of(["b", "UpToDate", ""])) == ["b             UpToDate"]


def test_a_table_that_begins_empty_gets_its_head_with_the_first_row() -> None:
    growing = table()
    assert growing.lines([]) == []
    assert growing.lines(rows_of(["b", "x", ""])) == ["NAME   UPDATED", "b      x"]


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ({"namespaces": True}, ["NAMESPACE   NAME   UPDATED", "default     b      x"]),
        ({"headers": False}, ["b     x"]),
        ({"show_labels": True}, ["NAME   UPDATED   LABELS", "b      x         site=a,tier=edge"]),
        ({"label_columns": ["acme.io/no", "site"]},
         ["NAME   UPDATED   NO    SITE", "b      x               a"]),
        ({"kind": "fleet.flightctl.io"},
         ["NAME                   UPDATED", "fleet.flightctl.io/b   x"]),
        ({"events": True}, ["EVENT   NAME   UPDATED", "ADDED   b      x"]),
    ],
    ids=str,
)  # fmt: skip
def test_columns_can_be_added_and_the_head_left_out(style: Json, expected: list[str]) -> None:
    assert table(**style).lines(rows_of(["b", "x", ""]), "ADDED") == expected


def test_a_cell_of_several_lines_ends_with_its_first_and_says_so() -> None:
    assert table().lines(rows_of(["b", "one\ntwo", ""]))[1] == "b      one..."


def test_objects_and_rows_are_sorted_by_numbers_then_words() -> None:
    items = [{"v": "b"}, {"v": 10}, {"v": 9}, {}, {"v": "a"}]
    wanted = [{}, {"v": 9}, {"v": 10}, {"v": "a"}, {"v": "b"}]
    assert tables.sorted_by(items, ".v") == wanted
    rows = [{"cells": [], "object": item} for item in items]
    assert [row["object"] for row in tables.sorted_by(rows, "{.v}")] == wanted


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{.metadata.name}", "web"),
        ('name: {.metadata.name}{"\\n"}', "name: web\n"),
        ('{range .parts[*]}{.name}={.size}{"\\t"}{end}', "a=1\tb=2\t"),
        ('{.parts[?(@.name=="b")].size}', "2"),
        ("{.parts[?(@.size>1)].name}", "b"),
        ("{.parts[?(@.ready==true)].name}", "a"),
        ("{.parts[?(@.ready)].name}", "a"),
        ("{.parts[-1:].name}", "b"),
        ("{.parts[0].name}", "a"),
        ("{.parts[*]['name','size']}", "a b 1 2"),
        ("{.metadata.labels.a\\.b/c}", "x"),
        ("{.metadata['labels']}", '{"a.b/c":"x"}'),
        ("{..size}", "1 2"),
        ("{$.ratio}", "1"),
        ("{.nothing.here}|", "|"),
        ("{.parts[0]}", '{"name":"a","ready":true,"size":1}'),
        ("no braces at all", "no braces at all"),
    ],
)
def test_templates_find_what_kubectl_finds(template: str, expected: str) -> None:
    assert jsonpath.evaluate(jsonpath.parse(template), FLEET) == expected


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{.a", "not closed at character 4"),
        ("{range .a}{.b}", "{range} without {end}"),
        ("{end}", "{end} without {range}"),
        ("{.a[}", "an index, a slice"),
        ('{"x}', "a quote is not closed"),
        ("{.a[?(@.b=~'x')]}", "=~ is not supported"),
        ("{.parts[7].name}", "array index out of bounds: index 7, length 2"),
        ("{.a[1:2:0]}", "a step must be at least 1"),
    ],
)
def test_what_is_no_template_is_told_where(template: str, words: str) -> None:
    with pytest.raises(jsonpath.BadTemplate) as caught:
        jsonpath.evaluate(jsonpath.parse(template), FLEET)
    assert words in str(caught.value)


@given(st.text(alphabet="{}[]().*?@$'\"\\,:=<>ab1 \nrangeend", max_size=40))
def test_any_text_is_a_template_or_refused(text: str) -> None:
    with contextlib.suppress(jsonpath.BadTemplate):
        jsonpath.evaluate(jsonpath.parse(text), FLEET)


def test_columns_of_ones_own_print_as_go_prints() -> None:
    spec = "N:.metadata.name,L:.metadata.labels,S:.parts[*].name,R:.ratio,X:.nothing"
    assert columns.rows(columns.parse(spec), [FLEET], head=True) == [
        ["N", "L", "S", "R", "X"],
        ["web", "map[a.b/c:x]", "a,b", "1", "<none>"],
    ]
    assert columns.printed({"b": [1, None], "a": True}) == "map[a:true b:[1 <none>]]"


def test_a_comma_inside_brackets_divides_no_columns() -> None:
    spec = "A:.parts[*]['name','size'],B:{.ratio}"
    assert [column.header for column in columns.parse(spec)] == ["A", "B"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("xml", 'the output format "xml", allowed formats are: custom-columns,'),
        ("jsonpath", "no template given"),
        ("jsonpath={.a", "not closed"),
        ("custom-columns=", "no custom columns given"),
        ("custom-columns=A", "expected <header>:<json-path-expr>"),
        ("jsonpath-file=/nowhere", "/nowhere cannot be read"),
    ],
)
def test_a_form_that_cannot_be_is_refused_with_those_that_can(text: str, words: str) -> None:
    with pytest.raises(forms.BadForm) as caught:
        forms.parse(text)
    assert words in str(caught.value)


def test_managed_fields_are_for_those_who_ask() -> None:
    form = forms.parse("yaml")
    assert "managedFields" not in forms.document(form, FLEET)
    assert "managedFields" not in forms.document(form, forms.collected([FLEET]))
    assert "managedFields" in forms.document(form, FLEET, managed=True)


def test_json_is_written_as_go_writes_it() -> None:
    value = {"b": "<a & b>", "a": [1.0, 1.5, 1e-7, True, None, "ü"]}
    assert gojson.compact(value) == (
        '{"a":[1,1.5,1e-07,true,null,"ü"],"b":"\\u003ca \\u0026 b\\u003e"}'
    )
    assert gojson.number(0.00001) == "0.00001"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1", 'x: "1"\n'),
        ("true", 'x: "true"\n'),
        ("y", 'x: "y"\n'),
        ("2026-11-26T00:00:00Z", 'x: "2026-11-26T00:00:00Z"\n'),
        ("0644", 'x: "0644"\n'),
        ("10:20", 'x: "10:20"\n'),
        ("", 'x: ""\n'),
        ("1.2.3", "x: 1.2.3\n"),
        ("a: b", "x: 'a: b'\n"),
        ("- a", "x: '- a'\n"),
        ("one\ntwo\n", "x: |\n  one\n  two\n"),
        ("w " * 80, "x: '" + "w " * 80 + "'\n"),
        (2.0, "x: 2\n"),
        ([1, {"a": "b"}], "x:\n- 1\n- a: b\n"),
        ({}, "x: {}\n"),
    ],
)
def test_yaml_is_written_as_kubectl_writes_it(value: Any, expected: str) -> None:
    assert goyaml.dump({"x": value}) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), JSON, max_size=4))
def test_what_is_written_is_read_again_as_it_was(document: Json) -> None:
    assert json.loads(gojson.indented(document)) == document
    text = goyaml.dump(document)
    assert yaml.load(text, kubeyaml.Loader) == document


def test_states_are_coloured_where_they_stand_alone() -> None:
    assert paint.painted("a Online b") == f"a {paint.GREEN}Online{paint.PLAIN} b"
    assert paint.painted("a OnlineShop b") == "a OnlineShop b"
