"""Processes that a test starts: they end with it, however it ends.

A child gets SIGKILL when the thread that started it is gone (the kernel sees to it), so that not
even a killed test run leaves a service behind. Start them from a thread that lives as long as they
shall: the main one.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# Limits are written for a machine that has nothing else to do. One that has takes a few times as
# long, and that is no claim of these tests: what does not happen is told later then, and is told.
BUSY = 3


class Late(AssertionError):
    """Something did not come true in time; the message says what, and how it was instead."""


def start(
    argv: Sequence[str | Path],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    mode: str = "wb",
) -> subprocess.Popen[bytes]:
    """Run `argv` with its output in the file `log`; it dies with the calling thread."""
    command = [str(word) for word in argv]
    if setpriv := shutil.which("setpriv"):
        command = [setpriv, "--pdeathsig", "KILL", "--", *command]
    with log.open(mode) as out:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=env, cwd=cwd
        )


def stop(process: subprocess.Popen[bytes], *, patience_s: float = 10) -> int:
    """SIGTERM, then SIGKILL to one that does not listen; the exit status."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(at_most(patience_s))
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()


def at_most(timeout_s: float) -> float:
    """The limit of what takes less than `timeout_s` where nobody else is."""
    return BUSY * timeout_s


def until(
    probe: Callable[[], T | None],
    what: str,
    *,
    timeout_s: float,
    every_s: float = 0.2,
    state: Callable[[], object] | None = None,
) -> T:
    """What `probe` answers once it answers something; Late, with `state`, if it never does."""
    limit_s = at_most(timeout_s)
    deadline = time.monotonic() + limit_s
    while True:
        if answer := probe():
            return answer
        if time.monotonic() > deadline:
            seen = f"; instead: {state()}" if state else ""
            raise Late(f"{what}: not within {limit_s:g} s{seen}")
        time.sleep(every_s)


def tail(log: Path, lines: int = 15) -> str:
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""
