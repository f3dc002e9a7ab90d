"""What kubectl's users type, in the words of the parser; and what it asks for."""

from __future__ import annotations

import pytest

from cli import marking, waiting, words
from cli.waiting import BadGoal, Condition


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("get devices -n x", "get devices -n x"),
        ("-n x get devices", "get -n x devices"),
        ("--namespace=x --context c get devices", "get --namespace=x --context c devices"),
        ("-nx get devices", "get -nx devices"),
        ("-n x rollout status web", "rollout status -n x web"),
        ("rollout -n x status web", "rollout status -n x web"),
        ("--help", "--help"),
        ("--unknown get", "--unknown get"),
        ("", ""),
    ],
)
def test_options_before_the_verb_go_behind_it(typed: str, expected: str) -> None:
    assert words.verb_first(typed.split()) == expected.split()


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("-o=yaml", "-oyaml"),
        ("-l=a=b", "-la=b"),
        ("-o=jsonpath={.a}", "-ojsonpath={.a}"),
        ("--output=yaml", "--output=yaml"),
        ("--wait=false", "--no-wait"),
        ("--wait=true", "--wait"),
        ("--watch=false", ""),
        ("-w=true", "-w"),
        ("a=b", "a=b"),
        ("-- --wait=false", "-- --wait=false"),
    ],
)
def test_values_are_taken_as_kubectl_takes_them(typed: str, expected: str) -> None:
    flags = {"--wait": "--no-wait", "--watch": None, "-w": None}
    found = words.rewritten(typed.split(), flags=flags, valued={"-o", "-l", "--output"})
    assert found == expected.split()


@pytest.mark.parametrize(
    ("typed", "objects", "marks"),
    [
        ("fleet web a=b c-", "fleet web", "a=b c-"),
        ("fleet/web x-", "fleet/web", "x-"),
        ("fleets a=b", "fleets", "a=b"),
        ("fleet web", "fleet web", ""),
    ],
)
def test_marks_follow_the_names(typed: str, objects: str, marks: str) -> None:
    assert marking.split(typed.split()) == (objects.split(), marks.split())


@pytest.mark.parametrize(
    ("typed", "complaint"),
    [("=b", "has no key"), ("a=1 a-", "set and taken away"), ("a=1 b", "neither KEY=VALUE")],
)
def test_marks_that_mean_nothing_are_refused(typed: str, complaint: str) -> None:
    with pytest.raises(marking.BadMark, match=complaint):
        marking.parse(typed.split())


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("1h30m", 5400), ("500ms", 0.5), ("0", 0), ("-1s", 604800)]
)
def test_durations_are_gos(text: str, seconds: float) -> None:
    assert waiting.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5", "1d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BadGoal, match="not a duration such as"):
        waiting.seconds(text)


def test_goals_are_read() -> None:
    assert waiting.parse("delete") == waiting.Deleted()
    assert waiting.parse("create") == waiting.Created()
    assert waiting.parse("condition=Ready") == Condition("Ready")
    assert waiting.parse("condition=Ready=false") == Condition("Ready", "false")
    value = waiting.parse("jsonpath={.a.b}=c")
    assert isinstance(value, waiting.Value)
    assert value.holds({"a": {"b": "c"}})
    assert not value.holds({"a": {"b": "d"}})
    bare = waiting.parse("jsonpath=.a")
    assert isinstance(bare, waiting.Value)
    assert bare.holds({"a": 1})
    for text in ("", "condition", "condition=", "deletion", "jsonpath={.a"):
        with pytest.raises(BadGoal):
            waiting.parse(text)


def test_a_condition_of_an_older_specification_does_not_count() -> None:
    condition = {"type": "Ready", "status": "True", "observedGeneration": 1}
    document = {"metadata": {"generation": 2}, "status": {"conditions": [condition]}}
    assert not Condition("ready").holds(document)
    condition["observedGeneration"] = 2
    assert Condition("ready").holds(document)
    assert not Condition("ready", "False").holds(document)
