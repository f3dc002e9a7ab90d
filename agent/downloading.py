"""A download in a process of its own: watched for room, and continued where one was broken off.

Started for each download as `python -m agent.downloading`, with an order as JSON on standard input;
 it ends with the tool's own status and words. Meanwhile it looks whether the disk fills up
and stops the tool before the rest of the device cannot write any more, and it offers podman what
was begun earlier (`resuming`). What the tool leaves in its temporary folder goes at the end, and
what a killed one has left at the beginning of the next.

A process of its own, since the agent should be small where it rests, and waits for nothing but an
end. If the agent dies, so does the download: the next agent begins it again. For an application of
a user it runs as that user.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from agent import downloads, resuming, room

# A fast disk takes 20 MiB in between; looking costs next to nothing.
LOOK_S = 0.05
STOPPED = 1


Free = Callable[[tuple[str, ...]], dict[str, int]]
Offering = Callable[[str, str, Path, Path], contextlib.AbstractContextManager[resuming.Offer]]


def run(
    order: downloads.Order, free: Free | None = None, offered: Offering = resuming.offered
) -> int:
    """The exit status. `free`: how much is, by folder; None = as the disks say."""
    free = free or _free
    Path(order.folder).mkdir(mode=0o700, parents=True, exist_ok=True)
    scratch = Path(order.folder, downloads.SCRATCH)
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    blobs = Path(order.folder, downloads.BLOBS)
    try:
        with (
            offered(order.reference, order.auth_file, blobs, scratch) as offer,
            (scratch / "errors").open("w+b") as said,
        ):
            env = {**os.environ, "TMPDIR": str(scratch), **offer.env}
            status, words = _watched(order, env, said, free)
            said.seek(0)
            for note in offer.notes() if status else ():
                print(note, file=sys.stderr)
            sys.stderr.write(offer.plain(said.read().decode(errors="replace")))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    if status == 0 or (words and not room.keeps_begun(free(order.watched).values())):
        shutil.rmtree(blobs, ignore_errors=True)
    if words:
        print(f"Error: {words}", file=sys.stderr)
    return status


def _watched(
    order: downloads.Order, env: Mapping[str, str], said: BinaryIO, free: Free
) -> tuple[int, str]:
    """(exit status, why it was stopped)."""
    parent = os.getppid()
    try:
        tool = subprocess.Popen(order.argv, stdin=subprocess.DEVNULL, stderr=said, env=env)
    except OSError as error:
        return STOPPED, f"{order.argv[0]}: {error.strerror}"
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                status = tool.wait(LOOK_S)
                return 128 - status if status < 0 else status, ""
            if words := room.shortage(free(order.watched)):
                return STOPPED, words
            if os.getppid() != parent:
                return STOPPED, "the agent has ended"
    finally:
        _end(tool)


def _end(tool: subprocess.Popen[bytes]) -> None:
    """At once, with what it has started: asked to end, podman still unpacks what it has begun."""
    if tool.poll() is not None:
        return
    tool.send_signal(signal.SIGSTOP)
    for pid in _family(tool.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    tool.wait()


def _family(pid: int) -> list[int]:
    """`pid`, its children, and theirs."""
    found = [pid]
    for one in found:
        for tasks in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += map(int, tasks.read_text().split())
    return found


def _free(folders: tuple[str, ...]) -> dict[str, int]:
    found = {}
    for folder in folders:
        with contextlib.suppress(OSError):
            seen = os.statvfs(folder)
            found[folder] = seen.f_bavail * seen.f_frsize
    return found


def main() -> int:
    try:
        return run(downloads.decode(sys.stdin.buffer.read()))
    except OSError as error:
        # A disk that is full, a home that cannot be written.
        print(f"Error: {error.filename or 'download'}: {error.strerror}", file=sys.stderr)
        return STOPPED


if __name__ == "__main__":
    sys.exit(main())
