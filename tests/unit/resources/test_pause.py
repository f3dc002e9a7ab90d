"""Who is left alone after a restore, and until when."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources import pause
from resources.pause import AHEAD, AWAITING, FREE, HEARD


@pytest.mark.parametrize(
    ("before", "known", "rendered", "after"),
    [
        pytest.param(AWAITING, 3, 5, FREE, id="behind"),
        pytest.param(AWAITING, 5, 5, FREE, id="level"),
        pytest.param(AWAITING, 6, 5, AHEAD, id="ahead"),
        pytest.param(AWAITING, 0, 0, FREE, id="never had any"),
        pytest.param(AWAITING, 1, 0, AHEAD, id="the service has none for it"),
        pytest.param(FREE, 5, 5, FREE, id="no restore"),
        pytest.param(FREE, 6, 5, AHEAD, id="a restore that nobody declared"),
        pytest.param(AHEAD, 6, 5, AHEAD, id="told again"),
        pytest.param(HEARD, 6, 5, HEARD, id="has reported"),
        pytest.param(AHEAD, 5, 5, AHEAD, id="a person resumes, nobody else"),
    ],
)
def test_after_a_call(before: int, known: int, rendered: int, after: int) -> None:
    assert pause.after_call(before, known, rendered) == after
    assert pause.after_call(after, known, rendered) == after, "calling again changes nothing"


@pytest.mark.parametrize(
    ("before", "after"), [(FREE, FREE), (AWAITING, AWAITING), (AHEAD, HEARD), (HEARD, HEARD)]
)
def test_after_a_report(before: int, after: int) -> None:
    assert pause.after_report(before) == after


@pytest.mark.parametrize(
    ("text", "version"),
    [(None, 0), ("", 0), ("7", 7), ("v7", 0), ("-1", 0), ("٣", 0), ("9" * 19, 0)],
)
def test_what_a_device_says_that_it_knows(text: str | None, version: int) -> None:
    assert pause.version(text) == version


@given(
    st.sampled_from([FREE, AWAITING]),
    st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=8),
    st.integers(0, 9),
)
def test_who_was_once_ahead_stays_so_whatever_it_says_then(
    start: int, said: list[int | None], rendered: int
) -> None:
    """`said`: the versions of its calls, None for a report."""
    state = start
    for known in said:
        state = (
            pause.after_report(state) if known is None else pause.after_call(state, known, rendered)
        )
    was_ahead = any(known is not None and known > rendered for known in said)
    assert pause.is_conflict(state) == was_ahead
