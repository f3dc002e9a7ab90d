"""Five-field cron expressions: when a device may download and update; standard library only.

The invariant: what is accepted here means the same to the reference's agent, so no descriptors
(`@daily`), no seconds, Sunday is 0 and never 7; day of month and day of week, when both are
restricted, are alternatives. It is pure: time enters as an argument.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from resources.records import dataclass

_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
# Name, lowest, highest, names counted from the lowest.
_FIELDS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 6, _DAYS),
)
# 29 February falls on a given day of the week once in 28 years, save around 2100.
_HORIZON_DAYS = 40 * 366


@dataclass(frozen=True, slots=True)
class Cron:
    """A parsed expression: the allowed values of each field."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool
    any_weekday: bool

    def _has_day(self, day: dt.date) -> bool:
        if day.month not in self.months:
            return False
        by_day = day.day in self.days
        by_weekday = day.isoweekday() % 7 in self.weekdays
        if self.any_day or self.any_weekday:
            return by_day and by_weekday
        return by_day or by_weekday

    def firings(self, after: dt.datetime) -> Iterator[dt.datetime]:
        """The firings later than `after`, in order; ends if none comes for decades."""
        day, empty = after.date(), 0
        while empty < _HORIZON_DAYS:
            empty += 1
            if self._has_day(day):
                for hour in self.hours:
                    for minute in self.minutes:
                        moment = dt.datetime.combine(
                            day, dt.time(hour, minute, tzinfo=after.tzinfo)
                        )
                        if moment > after:
                            empty = 0
                            yield moment
            day += dt.timedelta(days=1)

    def firings_before(self, until: dt.datetime) -> Iterator[dt.datetime]:
        """The firings not later than `until`, latest first; ends if none came for decades."""
        day, empty = until.date(), 0
        while empty < _HORIZON_DAYS:
            empty += 1
            if self._has_day(day):
                for hour in reversed(self.hours):
                    for minute in reversed(self.minutes):
                        moment = dt.datetime.combine(
                            day, dt.time(hour, minute, tzinfo=until.tzinfo)
                        )
                        if moment <= until:
                            empty = 0
                            yield moment
            day -= dt.timedelta(days=1)


def parse(text: str) -> Cron:
    """Raises ValueError with a sentence that says what to write."""
    parts = text.split()
    if len(parts) != len(_FIELDS):
        raise ValueError(
            "write five fields: minute hour day-of-month month day-of-week, like 0 2 * * 6"
        )
    minutes, hours, days, months, weekdays = (
        _values(part, *field) for part, field in zip(parts, _FIELDS, strict=True)
    )
    return Cron(
        minutes=tuple(sorted(minutes)),
        hours=tuple(sorted(hours)),
        days=days,
        months=months,
        weekdays=weekdays,
        any_day=parts[2][0] in "*?",
        any_weekday=parts[4][0] in "*?",
    )


def shortest_gap_s(cron: Cron, count: int = 5) -> float | None:
    """The shortest time between the next `count` firings; None when it never fires.

    Counted from a fixed Monday in a leap year, so that the answer depends on the expression only.
    """
    firings = cron.firings(dt.datetime(2024, 1, 1, tzinfo=dt.UTC))
    previous = next(firings, None)
    if previous is None:
        return None
    gaps = []
    for _ in range(count - 1):
        following = next(firings, None)
        if following is None:
            break
        gaps.append((following - previous).total_seconds())
        previous = following
    return min(gaps, default=float("inf"))


def _values(text: str, name: str, low: int, high: int, names: tuple[str, ...]) -> frozenset[int]:
    values: set[int] = set()
    for item in text.split(","):
        span, slash, step_text = item.partition("/")
        step = _number(step_text, name, 1, high, ()) if slash else 1
        first_text, dash, last_text = span.partition("-")
        if first_text in ("*", "?") and not dash:
            first, last = low, high
        else:
            first = _number(first_text, name, low, high, names)
            last = first
            if dash:
                last = _number(last_text, name, low, high, names)
            elif slash:
                last = high
        if first > last:
            raise ValueError(f"{name}: the range {span} runs backwards")
        values.update(range(first, last + 1, step))
    return frozenset(values)


def _number(text: str, name: str, low: int, high: int, names: tuple[str, ...]) -> int:
    if text.lower() in names:
        return low + names.index(text.lower())
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and low <= int(text) <= high):
        raise ValueError(f"{name}: {text!r} must be {low} to {high}")
    return int(text)
