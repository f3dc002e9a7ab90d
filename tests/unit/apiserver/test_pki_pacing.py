"""When a signer is asked again, by its answer, the clock and chance."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.pki import pacing
from apiserver.pki.orders import Pending, Unavailable, Unusable

AGAIN = (Pending("later"), Unavailable("down"), Unusable("garbage"))


@pytest.mark.parametrize("answer", AGAIN, ids=lambda answer: type(answer).__name__)
def test_it_is_waited_longer_each_time_up_to_a_bound(answer: object) -> None:
    pace, delays = pacing.START, []
    for _ in range(40):
        pace = pacing.after(answer, pace, now=100.0, chance=0.5)  # type: ignore[arg-type]
        delays.append(pace.next_at - 100.0)
    assert delays[0] == 0.75
    assert all(earlier <= later for earlier, later in pairwise(delays))
    assert delays[-1] == pacing.most_s(answer) * 0.75  # type: ignore[arg-type]


@given(
    chance=st.floats(0, 1, exclude_max=True),
    tries=st.integers(0, 10_000),
    asked=st.floats(0, 1e9),
    answer=st.sampled_from(AGAIN),
)
def test_no_wait_is_shorter_than_half_a_second_or_longer_than_asked_and_a_tenth(
    chance: float, tries: int, asked: float, answer: object
) -> None:
    if not isinstance(answer, Unusable):
        answer = type(answer)("why", asked)
    pace = pacing.after(answer, pacing.Pace(tries), now=0.0, chance=chance)  # type: ignore[arg-type]
    most = max(pacing.most_s(answer), min(asked, pacing.ASKED_S_MAX) * 1.1)  # type: ignore[arg-type]
    assert 0 < pace.next_at <= most
    assert pace.tries == tries + 1


@pytest.mark.parametrize("chance", [0.0, 0.99])
def test_a_signer_is_left_alone_for_as_long_as_it_says(chance: float) -> None:
    for answer in (Pending("later", 40.0), Unavailable("down", 40.0)):
        assert 40.0 <= pacing.after(answer, pacing.START, now=0.0, chance=chance).next_at <= 44.0
    long = pacing.Pace(tries=20)
    assert pacing.after(Unavailable("down", 40.0), long, now=0.0, chance=0.9).next_at > 200
    assert pacing.after(Pending("later", 40.0), long, now=0.0, chance=0.9).next_at < 44


def test_what_is_new_is_due_at_once_and_what_was_put_off_is_not() -> None:
    assert pacing.START.is_due(0.0)
    later = pacing.after(Unusable("garbage"), pacing.START, now=10.0, chance=0.0)
    assert not later.is_due(10.4)
    assert later.is_due(10.5)
