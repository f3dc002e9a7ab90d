"""Colour for people: states that read well or badly stand out on a terminal.

Text for programs never changes: without a terminal, or with NO_COLOR, it goes out as it is.
"""

from __future__ import annotations

import os
import sys

import typer

GOOD = ("Online", "UpToDate", "Healthy", "Completed", "Enrolled")
BUSY = ("Updating", "Active", "Waiting", "Preparing", "Rebooting", "Starting")
BAD = ("OutOfDate", "Degraded", "Error", "Failed", "Aborted", "Disconnected", "Unknown")


def echo(text: str) -> None:
    """Print to standard output, in colour where somebody looks."""
    if not sys.stdout.isatty() or "NO_COLOR" in os.environ:
        typer.echo(text)
        return
    from rich.console import Console
    from rich.text import Text

    painted = Text(text)
    for words, style in ((GOOD, "green"), (BUSY, "yellow"), (BAD, "red")):
        painted.highlight_regex(rf"(?m)(?<=\s)({'|'.join(words)})(?=\s|$)", style)
    Console(soft_wrap=True, highlight=False).print(painted)
