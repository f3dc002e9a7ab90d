"""What ends a command of the stand-in: the message goes to standard error, the exit status is 1."""

from __future__ import annotations


class Failed(Exception):
    """The command could not be carried out; nothing was staged."""
