"""When windows are open: by the clock of their zone, over every change of it."""

from __future__ import annotations

import datetime as dt
import re
import zoneinfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import schedule

BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
LORD_HOWE = zoneinfo.ZoneInfo("Australia/Lord_Howe")


def window(at: str, grace: str = "30m", zone: str = "Europe/Berlin") -> schedule.Window:
    return schedule.parse({"at": at, "startGraceDuration": grace, "timeZone": zone})


def utc(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("at", "grace", "now", "is_open"),
    [
        ("0 2 * * *", "1h", "2026-11-20T00:59:59", False),
        ("0 2 * * *", "1h", "2026-11-20T01:00:00", True),
        ("0 2 * * *", "1h", "2026-11-20T02:00:00", True),
        ("0 2 * * *", "1h", "2026-11-20T02:00:01", False),
        # Where the reference's estimate is wrong: distances between starts differ.
        ("0 2,3 * * *", "30m", "2026-11-20T02:10:00", True),
        ("* 0-8 * * *", "1m", "2026-11-19T23:30:30", True),
        ("0 0 1 * *", "12h", "2027-03-01T01:00:00", True),
        ("0 0 29 2 *", "24h", "2028-02-29T12:00:00", True),
        ("0 0 30 2 *", "24h", "2028-02-29T12:00:00", False),
        # A grace of nothing is the minute that the expression names.
        ("0 2 * * *", "0s", "2026-11-20T01:00:40", True),
        # Over midnight, and over a day.
        ("30 23 * * *", "2h", "2026-11-20T00:10:00", True),
        ("0 12 * * 5", "72h", "2026-11-23T10:00:00", True),
        # 29 March 2026 has no 02:30 in Berlin: it comes an hour later.
        ("30 2 * * *", "30m", "2026-03-29T00:45:00", False),
        ("30 2 * * *", "30m", "2026-03-29T01:30:00", True),
        ("30 2 * * *", "30m", "2026-03-29T02:01:00", False),
        # 25 October 2026 has it twice.
        ("30 2 * * *", "20m", "2026-10-25T00:30:00", True),
        ("30 2 * * *", "20m", "2026-10-25T01:10:00", False),
        ("30 2 * * *", "20m", "2026-10-25T01:30:00", True),
        ("30 2 * * *", "45m", "2026-10-25T01:10:00", True),
    ],
)
def test_windows(at: str, grace: str, now: str, is_open: bool) -> None:
    assert schedule.is_open(window(at, grace), utc(now), BERLIN) is is_open


@pytest.mark.parametrize(
    ("at", "now", "start"),
    [
        ("0 2 * * *", "2026-11-20T00:59:59", "2026-11-20T01:00:00"),
        ("0 2 * * *", "2026-11-20T01:00:00", "2026-11-21T01:00:00"),
        ("30 2 * * *", "2026-03-28T12:00:00", "2026-03-29T01:30:00"),
        ("30 2 * * *", "2026-10-25T00:31:00", "2026-10-25T01:30:00"),
    ],
)
def test_the_next_start(at: str, now: str, start: str) -> None:
    assert schedule.next_start(window(at), utc(now), BERLIN) == utc(start)


def test_what_never_comes() -> None:
    never = window("0 0 30 2 *")
    assert schedule.next_start(never, utc("2026-11-20T00:00:00"), BERLIN) is None
    assert schedule.last_start(never, utc("2026-11-20T00:00:00"), BERLIN) is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"at": "@daily"}, "at: write five fields"),
        ({"startGraceDuration": "soon"}, "startGraceDuration: 'soon' is not a duration"),
        ({"startGraceDuration": None}, "startGraceDuration"),
        ({"timeZone": "../passwd"}, "timeZone: '../passwd' is not the name"),
        ({"timeZone": "/etc/passwd"}, "is not the name of a time zone"),
    ],
)
def test_what_is_no_window_is_said_by_field(fields: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        schedule.parse({"at": "0 2 * * *", "startGraceDuration": "1h", **fields})


@given(
    hours=st.integers(0, 23),
    minutes=st.integers(0, 59),
    zone=st.sampled_from([BERLIN, LORD_HOWE, dt.UTC]),
    at=st.integers(0, 366 * 24 * 60),
)
def test_the_last_start_is_one_and_there_is_none_between_it_and_now(
    hours: int, minutes: int, zone: dt.tzinfo, at: int
) -> None:
    """Against a walk over every minute of the day and a half before, by the clock of the zone."""
    now = dt.datetime(2026, 1, 3, tzinfo=dt.UTC) + dt.timedelta(minutes=at, seconds=30)
    found = schedule.last_start(window(f"{minutes} {hours} * * *"), now, zone)
    assert found is not None
    whole = now.replace(second=0)
    walk = (whole - dt.timedelta(minutes=n) for n in range(36 * 60))
    shown = (
        m for m in walk if (m.astimezone(zone).hour, m.astimezone(zone).minute) == (hours, minutes)
    )
    expected = next(shown, None)
    # In the hour that is skipped no clock shows it.
    assert found == expected or found.astimezone(zone).hour != hours or found > (expected or found)
