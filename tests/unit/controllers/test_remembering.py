"""Answers that are remembered, for how long, and which are not."""

from __future__ import annotations

import pytest

from controllers.remembering import Memory


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def memory(clock: list[float]) -> Memory[str, int]:
    return Memory(2, monotonic=lambda: clock[0])


def test_an_answer_is_as_old_as_its_question(memory: Memory[str, int], clock: list[float]) -> None:
    question = memory.asking()
    clock[0] = 5.0
    memory.put("a", 1, question)
    assert memory.get("a", within_s=6.0) == 1
    assert memory.get("a", within_s=5.0) is None
    assert memory.get("a") == 1


def test_the_oldest_is_forgotten_when_there_are_too_many(memory: Memory[str, int]) -> None:
    for number, key in enumerate("abac"):
        memory.put(key, number)
    assert [memory.get(key) for key in "abc"] == [2, None, 3]


@pytest.mark.parametrize("way", ["drop", "drop_if", "clear"])
def test_what_was_asked_before_a_drop_is_not_remembered_after_it(
    memory: Memory[str, int], way: str
) -> None:
    memory.put("a", 1)
    question = memory.asking()
    match way:
        case "drop":
            memory.drop("a")
        case "drop_if":
            memory.drop_if(lambda key: key == "a")
        case "clear":
            memory.clear()
    memory.put("a", 1, question)
    assert memory.get("a") is None
    memory.put("a", 2)
    assert memory.get("a") == 2
