"""Room for a download: estimated before, watched during. Pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import room

MIB = 1 << 20
LAYERS = {"a": 100 * MIB, "b": 10 * MIB}


@pytest.mark.parametrize(
    ("known", "begun", "is_system", "need"),
    [
        ((), {}, False, 440),
        (("a",), {}, False, 40),
        (("a", "b", "c"), {}, False, 0),
        ((), {"a": 60 * MIB}, False, 380),
        # What is here already was begun once, too.
        (("a",), {"a": 60 * MIB}, False, 40),
        ((), {}, True, 660),
    ],
)
def test_only_what_is_not_here_needs_room(
    known: tuple[str, ...], begun: dict[str, int], is_system: bool, need: int
) -> None:
    assert room.needed(LAYERS, known, begun, is_system=is_system) == need * MIB


@given(
    st.dictionaries(st.text(max_size=3), st.integers(0, 10**12)),
    st.sets(st.text(max_size=3)),
    st.dictionaries(st.text(max_size=3), st.integers(0, 10**13)),
)
def test_it_is_never_less_than_nothing_and_more_on_the_disk_never_needs_more(
    layers: dict[str, int], known: set[str], begun: dict[str, int]
) -> None:
    need = room.needed(layers, known, begun)
    assert 0 <= need <= room.needed(layers, known, {}) <= room.needed(layers, (), {})


@pytest.mark.parametrize(
    ("free", "says"),
    [
        ({}, ""),
        ({"/a": room.RESERVE_BYTES, "/b": 10**12}, ""),
        ({"/b": 10**12, "/a": 5 * MIB}, "no space left for it: 5 MiB are free in /a"),
        ({"/a": 0}, "no space left for it: 0 MiB are free in /a"),
    ],
)
def test_a_download_stops_while_the_rest_can_still_write(free: dict[str, int], says: str) -> None:
    words = room.shortage(free)
    assert words.startswith(says)
    assert bool(words) == bool(says)


@pytest.mark.parametrize(("free", "keeps"), [([10**9], True), ([10**9, 65 * MIB], False)])
def test_what_was_begun_goes_where_the_disk_needs_it(free: list[int], keeps: bool) -> None:
    assert room.keeps_begun(free) is keeps
