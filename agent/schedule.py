"""When a device may download or update: windows of `spec.updatePolicy`. Pure: time is an argument.

A window opens whenever its cron expression fires by the clock of its zone, and stays open for the
grace. The last start is found by walking back from now, and not estimated from a distance between
starts, which irregular expressions do not have.

Where clocks change: a start in the hour that is skipped comes an hour later; one in the hour that
comes twice comes twice, for whoever looks at a clock on the wall expects the device to follow it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

from agent import durations
from resources import cron
from resources.records import dataclass

# What clocks are set by, and some. (Islands that change sides of the date line are a day late.)
SLACK = dt.timedelta(hours=3)
# A cron expression names a minute, all of it.
GRACE_LEAST_S = 60.0
LOCAL = "Local"


@dataclass(frozen=True, slots=True)
class Window:
    """`zone` empty = the device's."""

    text: str
    cron: cron.Cron
    zone: str
    grace_s: float


def parse(document: dict[str, Any]) -> Window:
    """Raises ValueError with a sentence for a person."""
    text, zone = str(document.get("at") or ""), str(document.get("timeZone") or "")
    try:
        parsed = cron.parse(text)
    except ValueError as error:
        raise ValueError(f"at: {error}") from error
    try:
        grace_s = durations.parse(str(document.get("startGraceDuration") or ""))
    except ValueError as error:
        raise ValueError(f"startGraceDuration: {error}") from error
    zone = "" if zone == LOCAL else zone
    if zone.startswith(("/", ".")) or ".." in zone:
        raise ValueError(f"timeZone: {zone!r} is not the name of a time zone")
    return Window(text, parsed, zone, max(grace_s, GRACE_LEAST_S))


def is_open(window: Window, now: dt.datetime, zone: dt.tzinfo) -> bool:
    start = last_start(window, now, zone)
    return start is not None and now <= start + dt.timedelta(seconds=window.grace_s)


def last_start(window: Window, now: dt.datetime, zone: dt.tzinfo) -> dt.datetime | None:
    """The latest start that is not after `now`; None = it never was."""
    wall = now.astimezone(zone).replace(tzinfo=None)
    best: dt.datetime | None = None
    lowest: dt.datetime | None = None
    for moment in window.cron.firings_before(wall + SLACK):
        if lowest is not None and moment < lowest:
            break
        for instant in _instants(moment, zone):
            if instant <= now and (best is None or instant > best):
                # NB by the wall an earlier one may have come later.
                best, lowest = instant, lowest or moment - SLACK
    return best


def next_start(window: Window, now: dt.datetime, zone: dt.tzinfo) -> dt.datetime | None:
    """The first start after `now`; None = it never comes."""
    wall = now.astimezone(zone).replace(tzinfo=None)
    for moment in window.cron.firings(wall - SLACK):
        for instant in _instants(moment, zone):
            if instant > now:
                return instant
    return None


def _instants(moment: dt.datetime, zone: dt.tzinfo) -> Iterator[dt.datetime]:
    """When a clock on the wall shows `moment`: mostly once, sometimes twice."""
    first = moment.replace(tzinfo=zone, fold=0).astimezone(dt.UTC)
    yield first
    second = moment.replace(tzinfo=zone, fold=1).astimezone(dt.UTC)
    if second != first and first.astimezone(zone).replace(tzinfo=None, fold=0) == moment:
        yield second
