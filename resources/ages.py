"""How long ago, in kubectl's short words: `5d3h`. Standard library only, since the command line
says it too."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

# From how many seconds on, with which two units a duration is written; kubectl's own steps.
_DAY = 86_400
_YEAR = 365 * _DAY
_SCALES: Sequence[tuple[int, int, str, int, str]] = (
    (8 * _YEAR, _YEAR, "y", 0, ""),
    (2 * _YEAR, _YEAR, "y", _DAY, "d"),
    (8 * _DAY, _DAY, "d", 0, ""),
    (2 * _DAY, _DAY, "d", 3600, "h"),
    (8 * 3600, 3600, "h", 0, ""),
    (3 * 3600, 3600, "h", 60, "m"),
    (600, 60, "m", 0, ""),
    (120, 60, "m", 1, "s"),
)


def duration(seconds: int) -> str:
    """A duration in kubectl's short words; a clock that is a little behind counts as now."""
    if seconds < -1:
        return "<invalid>"
    seconds = max(seconds, 0)
    for least, unit, letter, minor, minor_letter in _SCALES:
        if seconds >= least:
            rest = seconds % unit // minor if minor else 0
            return f"{seconds // unit}{letter}" + (f"{rest}{minor_letter}" if rest else "")
    return f"{seconds}s"


def moment(text: str) -> datetime | None:
    """An RFC 3339 time, in UTC where it names no zone; None for what is none."""
    try:
        then = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return then if then.tzinfo is not None else then.replace(tzinfo=UTC)
