"""Colour for people: states that read well or badly stand out on a terminal.

Text for programs never changes: without a terminal, or with NO_COLOR, it goes out as it is. What is
written is out at once, so that a watch in a pipe is heard when it speaks.
"""

from __future__ import annotations

import os
import re
import sys

GOOD = ("Online", "UpToDate", "Healthy", "Completed", "Enrolled")
BUSY = ("Updating", "Active", "Waiting", "Preparing", "Rebooting", "Starting")
BAD = ("OutOfDate", "Degraded", "Error", "Failed", "Aborted", "Disconnected", "Unknown")
GREEN, YELLOW, RED, PLAIN = "\x1b[32m", "\x1b[33m", "\x1b[31m", "\x1b[0m"

_COLOURS = dict.fromkeys(GOOD, GREEN) | dict.fromkeys(BUSY, YELLOW) | dict.fromkeys(BAD, RED)
_STATES = re.compile(rf"(?<=\s)(?:{'|'.join(_COLOURS)})(?=\s|$)", re.MULTILINE)


def is_wanted() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ


def can_redraw() -> bool:
    """Whether what was written can be written over."""
    return sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def write(text: str) -> None:
    """To standard output, in colour where somebody looks."""
    write_plain(painted(text) if is_wanted() else text)


def write_plain(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def painted(text: str) -> str:
    return _STATES.sub(lambda found: f"{_COLOURS[found[0]]}{found[0]}{PLAIN}", text)


def painted_difference(text: str) -> str:
    """A unified diff."""
    return "".join(_line(line) for line in text.splitlines(keepends=True))


def _line(line: str) -> str:
    if line.startswith(("--- ", "+++ ")):
        return line
    colour = {"+": GREEN, "-": RED}.get(line[:1])
    return f"{colour}{line.rstrip(chr(10))}{PLAIN}\n" if colour else line
