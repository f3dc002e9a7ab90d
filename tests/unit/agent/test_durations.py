"""Go's durations."""

from __future__ import annotations

import pytest

from agent import durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("60s", 60),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("300ms", 0.3),
        ("0", 0),
        ("-2m", -120),
        ("1h0m1s", 3601),
        (".5s", 0.5),
        ("10us", 1e-5),
    ],
)
def test_a_duration_is_read_as_go_reads_it(text: str, seconds: float) -> None:
    assert durations.parse(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "60", "s", "1d", "1 s", "1h30", "one", "1s,", "--1s"])
def test_what_go_refuses_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        durations.parse(text)


@pytest.mark.parametrize(("seconds", "text"), [(90, "1m30s"), (7200, "2h"), (0, "0s")])
def test_a_duration_is_shown_short(seconds: float, text: str) -> None:
    assert durations.show(seconds) == text
