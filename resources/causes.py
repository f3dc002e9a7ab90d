"""What went wrong on many devices, told once: messages without what is one device's own.

Two devices that fail alike say so in different words: a version of theirs, a time, an address, a
name. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

Json = dict[str, Any]

_PARTICULARS = (
    (re.compile(r"renderedVersion: ?\d+"), "renderedVersion: N"),
    (re.compile(r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?"), "TIME"),
    (re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE), "ID"),
    (re.compile(r"\b(?:sha256:)?[0-9a-f]{12,}\b"), "ID"),
    (re.compile(r"\b\d{1,3}(\.\d{1,3}){3}(:\d+)?\b"), "ADDRESS"),
    (re.compile(r"\b(\d+(\.\d+)?(h|m|s|ms|µs))+\b"), "DURATION"),
    (re.compile(r"\b(pid|port|status) \d+\b"), r"\1 N"),
)


def cause_of(message: str, device: str = "") -> str:
    """The message without the particulars of `device`, whose it is."""
    if device:
        message = re.sub(rf"(?<![\w.-]){re.escape(device)}(?![\w.-])", "DEVICE", message)
    for pattern, instead in _PARTICULARS:
        message = pattern.sub(instead, message)
    return message


def grouped(messages: Iterable[Json], limit: int) -> Sequence[Json]:
    """`cause`, `count` and `example`, the most frequent first; of messages told likewise, each with
    a device that said it."""
    found: dict[str, Json] = {}
    for said in messages:
        cause = cause_of(str(said["cause"]), str(said["example"]))
        known = found.setdefault(cause, {"cause": cause, "count": 0, "example": said["example"]})
        known["count"] += said["count"]
        known["example"] = min(known["example"], said["example"])
    return sorted(found.values(), key=lambda each: (-each["count"], each["cause"]))[:limit]
