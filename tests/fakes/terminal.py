"""A terminal of so many columns, with somebody at it: a real pseudo-terminal, and of what a program
writes to it the picture that a person would see."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

_PARTS = re.compile(r"\x1b\[([?0-9;]*)([A-Za-z])|\r|\n|[^\x1b\r\n]+")
WAIT_S = 40.0


class Terminal:
    def __init__(self, argv: Sequence[str], columns: int, env: Mapping[str, str]) -> None:
        self._main, theirs = pty.openpty()
        size = struct.pack("HHHH", 40, columns, 0, 0)
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, size)
        quiet = {key: value for key, value in os.environ.items() if key not in _FORCING}
        self.process = subprocess.Popen(
            argv,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=quiet | {"TERM": "xterm"} | env,
            start_new_session=True,
        )
        os.close(theirs)
        self._heard = bytearray()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        try:
            while part := os.read(self._main, 65536):
                self._heard += part
        except OSError:
            return  # the program has ended

    @property
    def written(self) -> str:
        return bytes(self._heard).decode(errors="replace")

    def screen(self) -> list[str]:
        """The lines as they stand now."""
        return seen(self.written)

    def until(self, text: str) -> list[str]:
        """The screen, once `text` is on it."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            found = self.screen()
            if any(text in line for line in found):
                return found
            time.sleep(0.05)
        raise AssertionError(f"{text!r} never came:\n" + "\n".join(self.screen()))

    def send(self, number: signal.Signals) -> None:
        """SIGINT is Ctrl-C."""
        os.killpg(self.process.pid, number)

    def end(self) -> int:
        code = self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        return code

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        os.close(self._main)


_FORCING = ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES", "TTY_COMPATIBLE", "TTY_INTERACTIVE")


@contextmanager
def running(
    argv: Sequence[str], columns: int = 80, env: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    terminal = Terminal(argv, columns, env or {})
    try:
        yield terminal
    finally:
        terminal.close()


def seen(written: str) -> list[str]:
    """What stands on a screen that is high enough, of the sequences that our programs write."""
    lines, row, column = [""], 0, 0
    for found in _PARTS.finditer(written):
        number, verb = found[1], found[2]
        if found[0] == "\r":
            column = 0
        elif found[0] == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif verb == "A":
            row = max(0, row - int(number or 1))
        elif verb == "K":
            lines[row] = "" if number == "2" else lines[row][:column]
        elif verb is None:
            kept = lines[row].ljust(column)
            lines[row] = kept[:column] + found[0] + kept[column + len(found[0]) :]
            column += len(found[0])
    return [line.rstrip() for line in lines]
