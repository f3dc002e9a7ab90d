"""The judge of watches notices what a client was not told, was told too much, or was told late."""

from __future__ import annotations

import random
from typing import Any

import pytest

from apiserver.store.watchrule import ADDED, DELETED, MODIFIED, Change
from resources import registry
from tests.fakes.watch_rig import Broken, Client, Known, Selection, judge

FLEET = registry.by_kind("Fleet")
IN: Any = ({"n": "1"}, {})
OUT: Any = ({"n": "2"}, {})


def row(version: int, uid: str, type_: Any, old: Any, new: Any) -> Change:
    return Change(version, "Fleet", "default", uid, uid, type_, old, new, None)


LOG = [
    row(1, "a", ADDED, None, IN),
    row(2, "b", ADDED, None, IN),
    row(3, "a", MODIFIED, None, None),
    row(4, "b", MODIFIED, IN, OUT),
    row(5, "a", DELETED, IN, None),
]


def judged(*notes: tuple[int, Known]) -> int:
    session: Any = None
    client = Client(Selection(FLEET, labels="n=1"), session, str, random.Random(1))
    client.notes = [(version, known, "bookmark") for version, known in notes]
    return judge(client, LOG)


def test_what_a_list_would_have_said_is_right() -> None:
    assert judged((2, {"a": 1, "b": 2}), (3, {"a": 3, "b": 2}), (4, {"a": 3}), (5, {})) == 4


@pytest.mark.parametrize(
    ("version", "known"),
    [(4, {"a": 3, "b": 2}), (5, {"a": 3}), (3, {"a": 1, "b": 2}), (2, {"a": 1}), (1, {"x": 1})],
    ids=["a departure missed", "a delete missed", "an old version", "a birth missed", "a stranger"],
)
def test_everything_else_is_not(version: int, known: Known) -> None:
    with pytest.raises(Broken, match=f"at the bookmark {version}"):
        judged((version, known))
