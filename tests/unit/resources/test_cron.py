"""Cron expressions mean what the reference's agent takes them to mean."""

from __future__ import annotations

import datetime as dt
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources import cron

START = dt.datetime(2024, 2, 28, 23, 30, tzinfo=dt.UTC)  # a Wednesday in a leap year


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0 2 * * *", ["02-29 02:00", "03-01 02:00", "03-02 02:00"]),
        ("*/20 * * * *", ["02-28 23:40", "02-29 00:00", "02-29 00:20"]),
        ("0 0 29 2 *", ["02-29 00:00", "02-29 00:00"]),
        ("0 4 * * sat,sun", ["03-02 04:00", "03-03 04:00", "03-09 04:00"]),
        ("0 0 1 jan-mar *", ["03-01 00:00", "01-01 00:00", "02-01 00:00"]),
        # Both days restricted: either will do.
        ("0 0 1 * 5", ["03-01 00:00", "03-08 00:00", "03-15 00:00"]),
        # One of them free: the other decides.
        ("0 0 ? * 1", ["03-04 00:00", "03-11 00:00"]),
        ("15/20 12 1 4 *", ["04-01 12:15", "04-01 12:35", "04-01 12:55"]),
        ("5-10/2 1 * * *", ["02-29 01:05", "02-29 01:07", "02-29 01:09", "03-01 01:05"]),
    ],
)
def test_firings_come_in_order(text: str, expected: list[str]) -> None:
    firings = islice(cron.parse(text).firings(START), len(expected))
    assert [moment.strftime("%m-%d %H:%M") for moment in firings] == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "* * * * * *",
        "@daily",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "* * * * 7",
        "5-1 * * * *",
        "*/0 * * * *",
        "a * * * *",
        "1,,2 * * * *",
        "-1 * * * *",
        "*-5 * * * *",
        "٣ * * * *",
        "* * * * mond",
    ],
)
def test_what_the_reference_refuses_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        cron.parse(text)


def test_what_never_comes_ends() -> None:
    assert list(cron.parse("0 0 30 2 *").firings(START)) == []
    assert cron.shortest_gap_s(cron.parse("0 0 31 4 *")) is None


@pytest.mark.parametrize(
    ("text", "gap_s"),
    [("0 2 * * *", 86400), ("*/10 * * * *", 600), ("0 2,3 * * *", 3600), ("0 0 * * 1", 604800)],
)
def test_the_shortest_gap_is_between_the_next_firings(text: str, gap_s: int) -> None:
    assert cron.shortest_gap_s(cron.parse(text)) == gap_s


@given(
    st.integers(0, 59),
    st.integers(0, 23),
    st.datetimes(dt.datetime(2000, 1, 1), dt.datetime(2099, 1, 1)),
)
def test_a_daily_firing_is_the_next_such_time(minute: int, hour: int, after: dt.datetime) -> None:
    found = next(cron.parse(f"{minute} {hour} * * *").firings(after))
    assert dt.timedelta(0) < found - after <= dt.timedelta(days=1)
    assert (found.minute, found.hour, found.second) == (minute, hour, 0)
