"""A rollout on a terminal: one picture that is drawn anew in place, until the rollout has ended.

The terminal is as it was before whatever happens: at the end, at Ctrl-C, and when an error comes.
The picture is drawn twice a second, since what it says of time goes on while nothing is heard.
"""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Console
from rich.live import Live
from rich.text import Text

from cli import paint, rollouts, rolloutview
from cli.reaching import Reach
from cli.rollouts import Attempt

REDRAWN_PER_S = 2


class Picture:
    """What is drawn now, by the drawing thread; what is heard comes from the other one."""

    def __init__(self, attempt: Attempt, console: Console) -> None:
        self.attempt = attempt
        self.notice = ""
        self._console = console

    def tell(self, text: str) -> None:
        """Of the server: that it is gone, or back, which the picture shows by itself."""
        self.notice = text if text.startswith("warning: ") else ""

    def drawn(self) -> Text:
        width = self._console.width
        lines = rolloutview.lines(self.attempt.document, datetime.now(UTC), width)
        if self.notice:
            lines += ["", *rolloutview.wrapped(self.notice, width)]
        text = "\n".join(lines)
        if not paint.is_wanted():
            return Text(text)
        return Text.from_ansi(paint.painted(text))


def follow(reach: Reach, attempt: Attempt, timeout_s: float) -> str:
    """The last word. Raises Unsuccessful, watching.Ended, Refused, KeyboardInterrupt."""
    console = Console()
    picture = Picture(attempt, console)
    with Live(
        console=console,
        get_renderable=picture.drawn,
        refresh_per_second=REDRAWN_PER_S,
        vertical_overflow="ellipsis",
    ) as live:
        for current in rollouts.as_it_goes(reach, attempt, timeout_s, picture.tell):
            picture.attempt = current
            live.refresh()
            if current.has_ended:
                break
    return rollouts.outcome(picture.attempt)
