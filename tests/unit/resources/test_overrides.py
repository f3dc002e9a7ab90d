"""What people ask of single applications: the last word holds, restarts add up."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources import overrides

Layer = dict[str, dict[str, Any]]


def entry(state: str = "", version: int = 0, restarts: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if state:
        found |= {"desiredState": state, "desiredStateVersion": version}
    return found | ({"restartGeneration": restarts} if restarts else {})


@pytest.mark.parametrize(
    ("own", "fleets", "holds"),
    [
        pytest.param({}, {}, {}, id="nothing asked"),
        pytest.param({"a": entry("stopped", 5)}, {}, {"a": {"desiredState": "stopped"}}, id="own"),
        pytest.param(
            {}, {"a": entry("stopped", 5)}, {"a": {"desiredState": "stopped"}}, id="fleet"
        ),
        pytest.param(
            {"a": entry("running", 6)},
            {"a": entry("stopped", 5)},
            {"a": {"desiredState": "running"}},
            id="own is later",
        ),
        pytest.param(
            {"a": entry("running", 4)},
            {"a": entry("stopped", 5)},
            {"a": {"desiredState": "stopped"}},
            id="fleet is later",
        ),
        pytest.param(
            {"a": {"desiredState": "running"}},
            {"a": entry("stopped", 5)},
            {"a": {"desiredState": "stopped"}},
            id="without a version it is the oldest",
        ),
        pytest.param(
            {"a": entry(restarts=2)},
            {"a": entry("stopped", 5, restarts=9)},
            {"a": {"desiredState": "stopped", "restartGeneration": 2}},
            id="restarts are the device's",
        ),
        pytest.param({"a": {}}, {}, {}, id="an entry of nothing"),
    ],
)
def test_effective(own: Layer, fleets: Layer, holds: dict[str, Any]) -> None:
    assert overrides.effective(own, fleets) == holds


def test_a_wish_is_newer_than_any_before_it_whatever_the_clock_says() -> None:
    own = overrides.asked({}, "stop", "a", 1_000)
    fleets = overrides.asked({}, "start", "a", 2_000)
    back = overrides.asked(own, "stop", "a", 10, fleets)
    assert overrides.effective(back, fleets) == {"a": {"desiredState": "stopped"}}


WISHES = st.lists(
    st.tuples(
        st.booleans(), st.sampled_from(["a", "b"]), st.sampled_from(overrides.ACTIONS),
        st.integers(0, 9),
    ),
    max_size=12,
)  # fmt: skip


@given(WISHES)
def test_of_any_history_the_last_word_on_each_application_holds(
    wishes: list[tuple[bool, str, str, int]],
) -> None:
    own: Any = {}
    fleets: Any = {}
    said: dict[str, str] = {}
    restarts: dict[str, int] = {}
    for is_own, name, action, clock in wishes:
        if action == "restart":
            own = overrides.asked(own, action, name, clock, fleets)
            restarts[name] = restarts.get(name, 0) + 1
            continue
        said[name] = {"stop": "stopped", "start": "running"}[action]
        if is_own:
            own = overrides.asked(own, action, name, clock, fleets)
        else:
            fleets = overrides.asked(fleets, action, name, clock, own)
    holds = overrides.effective(own, fleets)
    assert {n: e["desiredState"] for n, e in holds.items() if "desiredState" in e} == said
    assert {n: e["restartGeneration"] for n, e in holds.items() if "restartGeneration" in e} == (
        restarts
    )


def test_only_named_applications_of_the_rendered_document_are_touched() -> None:
    rendered = {
        "config": [],
        "applications": [{"name": "a", "image": "i"}, {"image": "j"}, {"name": "", "image": "k"}],
    }
    wished = {"a": {"desiredState": "stopped"}, "gone": {"desiredState": "stopped"}}
    assert overrides.laid_over(rendered, wished) == {
        "config": [],
        "applications": [
            {"name": "a", "image": "i", "desiredState": "stopped"},
            {"image": "j"},
            {"name": "", "image": "k"},
        ],
    }
    assert overrides.laid_over(rendered, {}) is rendered
    assert overrides.laid_over({"config": []}, wished) == {"config": []}
    assert overrides.names_of(rendered) == {"a"}


def test_each_set_of_wishes_has_a_mark_of_its_own_and_none_has_none() -> None:
    wishes = [{}, {"a": {"desiredState": "stopped"}}, {"a": {"desiredState": "running"}}]
    assert len({overrides.mark(w) for w in wishes}) == 3
    assert overrides.mark({}) == ""


def test_an_application_that_goes_takes_its_wishes_along() -> None:
    own = {"a": entry("stopped", 5), "b": entry(restarts=1)}
    assert overrides.pruned(own, {"b", "c"}) == {"b": entry(restarts=1)}
