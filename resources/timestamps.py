"""Times as metadata, statuses and events carry them: RFC 3339 in UTC, whole seconds; so they sort
as text.

Standard library only and pure, for the agent writes them too.
"""

from __future__ import annotations

from datetime import UTC, datetime


def of(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def of_seconds(seconds: float) -> str:
    """Since the epoch."""
    return of(datetime.fromtimestamp(seconds, UTC))


def read(text: str) -> datetime:
    """Raises ValueError."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
