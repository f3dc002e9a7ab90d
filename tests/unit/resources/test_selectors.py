"""Selectors: what is read, what is refused, what matches, and that print and parse are one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resources import selectors
from resources.errors import Invalid
from resources.selectors import (
    EVERYTHING,
    FieldSelector,
    KeysetRequirement,
    LabelSelector,
    Requirement,
)

R = Requirement
FIELDS = ("metadata.name", "metadata.owner", "status.updated.status")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  ", []),
        ("a", [R("a", "exists")]),
        ("!a", [R("a", "!")]),
        ("! a", [R("a", "!")]),
        ("a=b", [R("a", "=", ("b",))]),
        ("a==b", [R("a", "=", ("b",))]),
        ("a = b", [R("a", "=", ("b",))]),
        ("a!=b", [R("a", "!=", ("b",))]),
        ("a=", [R("a", "=", ("",))]),
        ("a in (b,c)", [R("a", "in", ("b", "c"))]),
        ("a in(b)", [R("a", "in", ("b",))]),
        ("a notin ( b , c )", [R("a", "notin", ("b", "c"))]),
        ("x.io/a in (),b", [R("x.io/a", "in", ("",)), R("b", "exists")]),
        (
            "(a,b) in ((1,2),(3,4)),c",
            [KeysetRequirement(("a", "b"), (("1", "2"), ("3", "4"))), R("c", "exists")],
        ),
        ("(a, b)=( 1 ,2)", [KeysetRequirement(("a", "b"), (("1", "2"),))]),
    ],
)
def test_label_selectors_are_read(text: str, expected: list[Any]) -> None:
    assert list(selectors.parse_labels(text).requirements) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("a>1", "cannot read", id="greater than"),
        pytest.param("a contains b", "cannot read", id="contains"),
        pytest.param("a,,b", "empty requirement", id="empty requirement"),
        pytest.param("a,", "empty requirement", id="trailing comma"),
        pytest.param("a in (b", "without", id="open parenthesis"),
        pytest.param("a)", "without", id="closed parenthesis"),
        pytest.param("-a", "not a label key", id="key"),
        pytest.param("a/b/c", "not a label key", id="two slashes"),
        pytest.param("A.B/c", "not a label key", id="capital prefix"),
        pytest.param(f"{'a' * 64}", "not a label key", id="long name"),
        pytest.param(f"{'a' * 254}/b", "not a label key", id="long prefix"),
        pytest.param("a=b c", "not a label value", id="value with a blank"),
        pytest.param(f"a={'b' * 64}", "not a label value", id="long value"),
        pytest.param("a in (b,-)", "not a label value", id="value of a list"),
        pytest.param("a=\\,b", "not a label value", id="labels have no escapes"),
        pytest.param("(a,b) in ((1))", "each row wants 2", id="short row"),
        pytest.param("(a,b) in ((1,2) x (3,4))", "cannot read", id="garbage between rows"),
        pytest.param("(a,b) in ()", "cannot read", id="no rows"),
        pytest.param("(a,b)=(1,2)(3,4)", "cannot read", id="two rows with equals"),
        pytest.param("(a,-b) in ((1,2))", "not a label key", id="key of a set"),
    ],
)
def test_wrong_label_selectors_are_refused_with_a_reason(text: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        selectors.parse_labels(text)


@pytest.mark.parametrize(
    ("text", "labels", "matches"),
    [
        ("", {}, True),
        ("a", {"a": ""}, True),
        ("a", {"b": ""}, False),
        ("!a", {"a": ""}, False),
        ("!a", {}, True),
        ("a=1", {"a": "1"}, True),
        ("a=1", {}, False),
        ("a=", {}, False),
        ("a!=1", {}, True),
        ("a!=1", {"a": "1"}, False),
        ("a in (1,2)", {"a": "2"}, True),
        ("a in (1,2)", {"a": "3"}, False),
        ("a notin (1)", {}, True),
        ("a notin (1)", {"a": "1"}, False),
        ("a=1,b=2", {"a": "1"}, False),
        ("(a,b) in ((1,2),(3,4))", {"a": "3", "b": "4"}, True),
        ("(a,b) in ((1,2),(3,4))", {"a": "1", "b": "4"}, False),
        ("(a,b) in ((1,2))", {"a": "1"}, False),
    ],
)
def test_labels_match(text: str, labels: dict[str, str], matches: bool) -> None:
    assert selectors.parse_labels(text).matches(labels) is matches


def test_an_empty_selector_is_false_and_matches_everything() -> None:
    assert not EVERYTHING
    assert EVERYTHING.matches({"a": "b"})
    assert selectors.parse_labels("a")
    assert not FieldSelector()


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (None, ""),
        ({}, ""),
        ({"matchLabels": None, "matchExpressions": None}, ""),
        ({"matchLabels": {"a": "1", "b": "2"}}, "a=1,b=2"),
        (
            {
                "matchExpressions": [
                    {"key": "a", "operator": "In", "values": ["1", "2"]},
                    {"key": "b", "operator": "NotIn", "values": ["3"]},
                    {"key": "c", "operator": "Exists"},
                    {"key": "d", "operator": "DoesNotExist", "values": []},
                ]
            },
            "a in (1,2),b notin (3),c,!d",
        ),
    ],
)
def test_a_selector_document_says_the_same_as_a_text(document: Any, expected: str) -> None:
    assert selectors.from_match(document) == selectors.parse_labels(expected)


@pytest.mark.parametrize(
    ("document", "path"),
    [
        pytest.param("a=b", "matchLabels", id="a text"),
        pytest.param({"matchLabels": ["a"]}, "matchLabels", id="labels as a list"),
        pytest.param({"matchLabels": {"a": 1}}, "matchLabels", id="a number"),
        pytest.param({"matchExpressions": {}}, "matchExpressions", id="rules as an object"),
        pytest.param({"matchExpressions": ["a"]}, r"matchExpressions\[0\]", id="a rule as a text"),
        pytest.param(
            {"matchExpressions": [{"key": "a", "operator": "Like"}]},
            r"matchExpressions\[0\].operator",
            id="operator",
        ),
        pytest.param(
            {"matchExpressions": [{"key": "a", "operator": "In"}]},
            r"matchExpressions\[0\].values",
            id="In without values",
        ),
        pytest.param(
            {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["1"]}]},
            r"matchExpressions\[0\].values",
            id="Exists with values",
        ),
        pytest.param(
            {"matchExpressions": [{"key": 1, "operator": "Exists"}]},
            r"matchExpressions\[0\]",
            id="a number as key",
        ),
    ],
)
def test_wrong_selector_documents_are_refused_by_field(document: Any, path: str) -> None:
    with pytest.raises(Invalid, match=path):
        selectors.from_match(document)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("metadata.name=a", [R("metadata.name", "=", ("a",))]),
        ("metadata.name == a", [R("metadata.name", "=", ("a",))]),
        ("metadata.name!=a", [R("metadata.name", "!=", ("a",))]),
        ("metadata.name=", [R("metadata.name", "=", ("",))]),
        ("metadata.owner=Fleet/a:b", [R("metadata.owner", "=", ("Fleet/a:b",))]),
        ("metadata.name in (a, b)", [R("metadata.name", "in", ("a", "b"))]),
        ("metadata.name in ()", [R("metadata.name", "in", ("",))]),
        (r"metadata.name in (a\,b,,c)", [R("metadata.name", "in", ("a,b", "", "c"))]),
        ("metadata.name notin (a)", [R("metadata.name", "notin", ("a",))]),
        ("metadata.name contains a b", [R("metadata.name", "contains", ("a b",))]),
        ("metadata.name notcontains a", [R("metadata.name", "notcontains", ("a",))]),
        ("metadata.name", [R("metadata.name", "exists")]),
        ("!metadata.name", [R("metadata.name", "!")]),
        ("metadata.name>=a", [R("metadata.name", ">=", ("a",))]),
        ("metadata.name>a", [R("metadata.name", ">", ("a",))]),
        ("metadata.name <= a", [R("metadata.name", "<=", ("a",))]),
        ("metadata.name<a", [R("metadata.name", "<", ("a",))]),
        (r"metadata.name=a\,b\=c\\", [R("metadata.name", "=", ("a,b=c\\",))]),
        ("metadata.name=f(x)", [R("metadata.name", "=", ("f(x)",))]),
        (r"metadata.name=\(", [R("metadata.name", "=", ("(",))]),
        ("metadata.name=a in (b)", [R("metadata.name", "=", ("a in (b)",))]),
        ("metadata.name=a contains b", [R("metadata.name", "=", ("a contains b",))]),
        (
            "metadata.name=a,metadata.owner!=b",
            [R("metadata.name", "=", ("a",)), R("metadata.owner", "!=", ("b",))],
        ),
    ],
)
def test_field_selectors_are_read(text: str, expected: list[Any]) -> None:
    assert list(selectors.parse_fields(text, FIELDS).requirements) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param(r"metadata.name=a\b", "bad escape", id="unknown escape"),
        pytest.param("metadata.name=a\\", "bad escape", id="escape of nothing"),
        pytest.param("metadata.name contains 10%", "%", id="a percent sign"),
        pytest.param("metadata.name is a", "cannot read", id="unknown word"),
        pytest.param("metadata.name,", "empty requirement", id="trailing comma"),
        pytest.param("=a", "unknown selector", id="no field"),
    ],
)
def test_wrong_field_selectors_are_refused_with_a_reason(text: str, said: str) -> None:
    with pytest.raises(Invalid, match=said):
        selectors.parse_fields(text, FIELDS)


def test_an_unknown_field_lists_the_known_ones_for_scripts_to_read() -> None:
    with pytest.raises(Invalid) as caught:
        selectors.parse_fields("status.nothing=a", ("b.c", "a.b"))
    assert "status.nothing" in str(caught.value)
    assert str(caught.value).endswith("Supported selectors are: [a.b b.c]")


@pytest.mark.parametrize(
    ("text", "value", "matches"),
    [
        ("metadata.name=a", "a", True),
        ("metadata.name=a", None, False),
        ("metadata.name=", None, True),
        ("metadata.name!=", None, False),
        ("metadata.name!=a", None, True),
        ("metadata.name in (a,b)", "b", True),
        ("metadata.name notin (a,b)", "b", False),
        ("metadata.name", None, False),
        ("metadata.name", "", False),
        ("metadata.name", "x", True),
        ("!metadata.name", "", True),
        ("!metadata.name", "x", False),
        ("metadata.name contains b", "abc", True),
        ("metadata.name contains b", None, False),
        ("metadata.name notcontains b", None, True),
        ("metadata.name notcontains b", "abc", False),
        ("metadata.name>b", "c", True),
        ("metadata.name>b", "b", False),
        ("metadata.name>b", None, False),
        ("metadata.name>=b", "b", True),
        ("metadata.name<b", "a", True),
        ("metadata.name<b", None, False),
        ("metadata.name<=b", "b", True),
    ],
)
def test_fields_match(text: str, value: str | None, matches: bool) -> None:
    assert selectors.parse_fields(text, FIELDS).matches({"metadata.name": value}) is matches


def test_an_operator_that_nobody_knows_is_a_programmers_error() -> None:
    with pytest.raises(AssertionError):
        Requirement("a", "~", ("b",)).holds("b")


keys = st.from_regex(
    r"([a-z]{1,8}\.io/)?[a-zA-Z0-9]([a-zA-Z0-9._-]{0,8}[a-zA-Z0-9])?", fullmatch=True
)
values = st.from_regex(r"([a-zA-Z0-9]([a-zA-Z0-9._-]{0,8}[a-zA-Z0-9])?)?", fullmatch=True)


def rows(width: int) -> st.SearchStrategy[KeysetRequirement]:
    return st.builds(
        KeysetRequirement,
        st.tuples(*[keys] * width),
        st.lists(st.tuples(*[values] * width), min_size=1, max_size=3).map(tuple),
    )


label_requirements = st.one_of(
    st.builds(Requirement, keys, st.sampled_from(["exists", "!"])),
    st.builds(Requirement, keys, st.sampled_from(["=", "!="]), st.tuples(values)),
    st.builds(
        Requirement,
        keys,
        st.sampled_from(["in", "notin"]),
        st.lists(values, min_size=1, max_size=3).map(tuple),
    ),
    st.integers(1, 3).flatmap(rows),
)


@given(st.lists(label_requirements, max_size=4).map(tuple))
def test_a_printed_label_selector_parses_to_itself(requirements: tuple[Any, ...]) -> None:
    selector = LabelSelector(requirements)
    assert selectors.parse_labels(str(selector)) == selector


# Edge blanks are no part of a value in this grammar, and a percent sign cannot be searched for.
# NUL is refused: no database holds it in a text.
texts = st.text(st.characters(codec="utf-8", exclude_characters="%\0"), max_size=8).map(str.strip)
field_requirements = st.one_of(
    st.builds(Requirement, st.sampled_from(FIELDS), st.sampled_from(["exists", "!"])),
    st.builds(
        Requirement,
        st.sampled_from(FIELDS),
        st.sampled_from(["=", "!=", ">", ">=", "<", "<="]),
        st.tuples(texts),
    ),
    st.builds(
        Requirement,
        st.sampled_from(FIELDS),
        st.sampled_from(["contains", "notcontains"]),
        st.tuples(texts.filter(bool)),
    ),
    st.builds(
        Requirement,
        st.sampled_from(FIELDS),
        st.sampled_from(["in", "notin"]),
        st.lists(texts, min_size=1, max_size=3).map(tuple),
    ),
)


@example((Requirement("metadata.name", "in", (",",)),))
@given(st.lists(field_requirements, max_size=4).map(tuple))
def test_a_printed_field_selector_parses_to_itself(requirements: tuple[Requirement, ...]) -> None:
    selector = FieldSelector(requirements)
    assert selectors.parse_fields(str(selector), FIELDS) == selector


@given(st.text(max_size=30))
def test_no_text_breaks_the_parsers(text: str) -> None:
    for parse in (selectors.parse_labels, lambda t: selectors.parse_fields(t, FIELDS)):
        try:
            found = parse(text)
        except Invalid:
            continue
        assert str(found) == str(parse(str(found)))


labels_of = st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from(["", "1", "2"]))


@given(labels_of, st.sampled_from(["a", "b"]), st.sampled_from(["", "1", "2"]))
def test_a_negation_matches_exactly_the_rest(labels: dict[str, str], key: str, value: str) -> None:
    for positive, negative in (
        (f"{key}={value}", f"{key}!={value}"),
        (f"{key} in ({value},9)", f"{key} notin ({value},9)"),
        (key, f"!{key}"),
    ):
        assert selectors.parse_labels(positive).matches(labels) is not selectors.parse_labels(
            negative
        ).matches(labels)
