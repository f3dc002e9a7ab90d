"""Times as Kubernetes writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources import timestamps


@given(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC)))
def test_what_is_written_is_read_again_to_the_second(moment: datetime) -> None:
    whole = moment.replace(microsecond=0)
    assert timestamps.read(timestamps.of(moment)) == whole
    assert timestamps.of_seconds(whole.timestamp()) == timestamps.of(moment)


def test_whatever_the_zone_it_is_written_in_utc() -> None:
    moment = datetime(2026, 11, 26, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert timestamps.of(moment) == "2026-11-25T23:30:00Z"


def test_what_is_no_time_is_an_error() -> None:
    with pytest.raises(ValueError, match="soon"):
        timestamps.read("soon")
