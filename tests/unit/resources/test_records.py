"""Records keep those promises of dataclasses that the agent relies on: each is asked of both."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from resources import records

BOTH = [pytest.param(dataclasses, id="python"), pytest.param(records, id="ours")]
Made = tuple[Any, Any, Any, Any]


def classes(of: Any) -> Made:
    @of.dataclass(frozen=True, slots=True)
    class Point:
        x: int
        y: int = 0
        names: dict[str, int] = of.field(default_factory=dict)
        secret: str = of.field(default="", repr=False)

        @property
        def total(self) -> int:
            return self.x + self.y

    @of.dataclass(frozen=True, slots=True)
    class Other:
        x: int
        y: int = 0

    @of.dataclass(slots=True)
    class Tally:
        count: int = 0
        points: tuple[Any, ...] = ()

    @of.dataclass(frozen=True, slots=True)
    class Child(Other):
        z: int = 9

    return Point, Other, Tally, Child


@pytest.mark.parametrize("of", BOTH)
def test_values_come_by_place_by_name_or_from_the_default(of: ModuleType) -> None:
    point, _, tally, child = classes(of)
    one = point(1, names={"a": 1})
    assert (one.x, one.y, one.names, one.total) == (1, 0, {"a": 1}, 1)
    assert point(1).names is not point(1).names
    assert (child(1).y, child(1, 2, 3).z, child(x=4).z) == (0, 3, 9)
    counted = tally()
    counted.count += 1
    assert counted == tally(1)


@pytest.mark.parametrize("of", BOTH)
@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(lambda point: point(), id="too few"),
        pytest.param(lambda point: point(1, 2, {}, "", 5), id="too many"),
        pytest.param(lambda point: point(1, z=3), id="unknown"),
        pytest.param(lambda point: point(1, x=3), id="twice"),
    ],
)
def test_a_wrong_call_is_a_type_error(of: ModuleType, wrong: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError):
        wrong(classes(of)[0])


@pytest.mark.parametrize("of", BOTH)
def test_equal_are_those_of_one_class_with_equal_values(of: ModuleType) -> None:
    point, other, tally, _ = classes(of)
    assert point(1) == point(1, 0)
    assert point(1) != point(2)
    assert point(1) != other(1)
    assert other(1) != (1, 0)
    assert {other(1): "found"}[other(1, 0)] == "found"
    with pytest.raises(TypeError, match="unhashable"):
        hash(tally())


@pytest.mark.parametrize("of", BOTH)
def test_what_is_frozen_cannot_be_changed_and_nothing_can_be_added(of: ModuleType) -> None:
    _, other, tally, child = classes(of)
    for one in (other(1), child(1)):
        with pytest.raises(AttributeError):
            one.x = 2
        with pytest.raises(AttributeError):
            del one.x
        assert one.x == 1
    with pytest.raises(AttributeError):
        tally().total = 1
    assert not hasattr(other(1), "__dict__")


@pytest.mark.parametrize("of", BOTH)
def test_secrets_are_not_shown(of: ModuleType) -> None:
    point, *_ = classes(of)
    shown = repr(point(1, secret="hunter2")).rpartition(".")[2]
    assert shown == "Point(x=1, y=0, names={})"


@pytest.mark.parametrize("of", BOTH)
def test_a_pattern_takes_them_apart(of: ModuleType) -> None:
    _, other, _, child = classes(of)
    match child(1, 2):
        case other(x, y):
            assert (x, y) == (1, 2)
    assert child.__match_args__ == ("x", "y", "z")


@pytest.mark.parametrize("of", BOTH)
def test_another_is_made_of_one(of: Any) -> None:
    point, other, tally, _ = classes(of)
    one = of.replace(point(1, secret="s"), y=5)
    assert (one.x, one.y, one.secret) == (1, 5, "s")
    with pytest.raises(TypeError):
        of.replace(one, z=1)
    whole = tally(2, (other(1), {"k": [other(2)]}))
    told = {"count": 2, "points": ({"x": 1, "y": 0}, {"k": [{"x": 2, "y": 0}]})}
    assert of.asdict(whole) == told


@records.dataclass(frozen=True, slots=True)
class Kept:
    name: str
    size: int = 0


def test_a_record_is_copied_and_pickled_as_it_is() -> None:
    assert pickle.loads(pickle.dumps(Kept("a", 3))) == Kept("a", 3)


@pytest.mark.parametrize("of", BOTH)
def test_what_a_class_says_itself_counts(of: ModuleType) -> None:
    @of.dataclass(frozen=True, slots=True)  # type: ignore[attr-defined]
    class Secret:
        text: str

        def __repr__(self) -> str:
            return "hidden"

    assert repr(Secret("a")) == "hidden"
    assert Secret("a") == Secret("a")


@pytest.mark.parametrize("of", BOTH)
def test_a_default_that_could_be_changed_for_all_is_refused(of: ModuleType) -> None:
    def make() -> None:
        @of.dataclass(frozen=True, slots=True)  # type: ignore[attr-defined]
        class Wrong:
            names: list[str] = []  # noqa: RUF012 - what this is about

    with pytest.raises((AssertionError, ValueError)):
        make()


def test_what_would_never_be_called_is_refused() -> None:
    with pytest.raises(AssertionError, match="__post_init__"):

        @records.dataclass(frozen=True, slots=True)
        class Wrong:
            name: str

            def __post_init__(self) -> None: ...
