"""Conditions: one a type, in its place, with a transition time that moves only with the status."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from resources import conditions

NOW, LATER = "2026-11-23T00:00:00Z", "2026-11-23T01:00:00Z"


def put(
    known: list[conditions.Json] | None,
    type_: str,
    status: str,
    now: str = NOW,
    observed_generation: int | None = None,
) -> list[conditions.Json]:
    return conditions.set_condition(known, type_, status, "Because", "so", now, observed_generation)


def test_a_new_condition_comes_last() -> None:
    (first, second) = put(put(None, "Valid", "True"), "Ready", "False")
    assert first["type"] == "Valid"
    assert second == {
        "type": "Ready",
        "status": "False",
        "reason": "Because",
        "message": "so",
        "lastTransitionTime": NOW,
    }


def test_a_known_condition_stays_in_its_place() -> None:
    known = put(put(None, "Valid", "True"), "Ready", "False")
    changed = put(known, "Valid", "False", LATER)
    assert [(c["type"], c["status"]) for c in changed] == [("Valid", "False"), ("Ready", "False")]


def test_the_transition_time_moves_only_with_the_status() -> None:
    known = put(None, "Valid", "True")
    assert put(known, "Valid", "True", LATER)[0]["lastTransitionTime"] == NOW
    assert put(known, "Valid", "False", LATER)[0]["lastTransitionTime"] == LATER


def test_a_condition_that_never_had_a_time_gets_one() -> None:
    assert put([{"type": "Valid", "status": "True"}], "Valid", "True")[0]["lastTransitionTime"] == (
        NOW
    )


def test_the_generation_is_written_when_it_is_known() -> None:
    assert put(None, "Valid", "True", observed_generation=3)[0]["observedGeneration"] == 3
    assert "observedGeneration" not in put(None, "Valid", "True")[0]


def test_a_second_entry_of_the_same_type_goes() -> None:
    doubled = put(None, "Valid", "True") + put(None, "Valid", "False")
    assert [c["status"] for c in put(doubled, "Valid", "True")] == ["True"]


def test_a_type_is_found_or_not() -> None:
    known = put(None, "Valid", "True")
    assert conditions.get(known, "Valid") == known[0]
    assert conditions.get(known, "Ready") is None
    assert conditions.get(None, "Ready") is None
    assert conditions.is_true(known, "Valid")
    assert not conditions.is_true(put(known, "Valid", "False"), "Valid")
    assert not conditions.is_true(None, "Valid")


types = st.sampled_from(["A", "B", "C"])
statuses = st.sampled_from(["True", "False", "Unknown"])


@given(st.lists(st.tuples(types, statuses), max_size=8), types, statuses)
def test_setting_twice_is_setting_once_and_the_given_list_stays(
    history: list[tuple[str, str]], type_: str, status: str
) -> None:
    known: list[conditions.Json] = []
    for name, value in history:
        known = put(known, name, value)
    before = [dict(c) for c in known]
    once = put(known, type_, status)
    assert put(once, type_, status, LATER) == once
    assert known == before
    assert len({c["type"] for c in once}) == len(once)
