"""The socket by which a workload holds updates: `/run/flightctl/hold.sock`, one line, one answer.

    hold OWNER DURATION REASON...     ok held until 2026-01-31T12:00:00Z
    release OWNER                     ok
    list                              ok, and a line for each hold

It only writes and removes the files that `holding` reads; so it may die at any moment, and a device
without it (its folder cannot be written) still has the files. Who may connect is said by the mode
of the socket: root, or whom the socket was given to.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Callable
from pathlib import Path

from agent import durations
from agent.holding import Hold, Holds
from resources import timestamps

log = logging.getLogger("agent.holddoor")

SOCKET = "/run/flightctl/hold.sock"
MODE = 0o660
LINE_BYTES_MAX = 1024
# A caller that says nothing keeps the others waiting no longer than this.
PATIENCE_S = 5.0
# Less than the agent takes to end.
LOOK_S = 3.0
AGAIN_S = 30.0
USAGE = "hold OWNER DURATION REASON..., release OWNER, or list"


def answer(holds: Holds, line: str) -> str:
    """What a line is answered with."""
    words = line.split(None, 3)
    try:
        match words:
            case ["hold", owner, duration, *reason]:
                seconds = durations.parse(duration)
                if seconds <= 0:
                    return "error: a hold lasts longer than nothing"
                hold = holds.put(owner, " ".join(reason), seconds)
                return f"ok held until {timestamps.of(hold.until)}"
            case ["release", owner]:
                holds.release(owner)
                return "ok"
            case ["list"]:
                found, _ = holds.current()
                return "\n".join(["ok", *map(_line, found)])
    except (ValueError, OSError) as error:
        return f"error: {error}"
    return f"error: {line.strip()[:40]!r} is none of: {USAGE}"


class Door:
    """`real_path` leads from the device's path to this process's."""

    def __init__(
        self, holds: Holds, real_path: Callable[[str], str], changed: Callable[[], None]
    ) -> None:
        self._holds = holds
        self._path = Path(real_path(SOCKET))
        self._changed = changed

    def run(self, wait: Callable[[float], bool]) -> None:
        """Until `wait` says that it is over. A place that cannot be bound is tried again."""
        is_told = False
        while True:
            try:
                with self._bound() as listener:
                    self._serve(listener, wait)
                    return
            except OSError as error:
                if not is_told:
                    log.warning("no socket for holds path=%s: %s", self._path, error)
                is_told = True
            if wait(AGAIN_S):
                return

    def _bound(self) -> socket.socket:
        self._holds.make_room()
        # Under another name until somebody listens, so that who sees it may knock.
        early = self._path.with_name(f".{self._path.name}")
        with contextlib.suppress(FileNotFoundError):
            early.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            listener.bind(str(early))
            early.chmod(MODE)
            listener.listen(8)
            listener.settimeout(LOOK_S)
            early.replace(self._path)
        except BaseException:
            listener.close()
            raise
        return listener

    def _serve(self, listener: socket.socket, wait: Callable[[float], bool]) -> None:
        while not wait(0):
            try:
                caller, _ = listener.accept()
            except TimeoutError:
                continue
            with caller, contextlib.suppress(OSError):
                caller.settimeout(PATIENCE_S)
                line = _read_line(caller)
                said = answer(self._holds, line)
                caller.sendall(f"{said}\n".encode())
                log.info("hold socket line=%r answer=%r", line.strip(), said.partition("\n")[0])
                self._changed()
        with contextlib.suppress(OSError):
            self._path.unlink()


def _read_line(caller: socket.socket) -> str:
    raw = b""
    while b"\n" not in raw and len(raw) < LINE_BYTES_MAX:
        part = caller.recv(LINE_BYTES_MAX - len(raw))
        if not part:
            break
        raw += part
    return raw.partition(b"\n")[0].decode(errors="replace")


def _line(hold: Hold) -> str:
    return f"{hold.owner} until {timestamps.of(hold.until)} {hold.reason}".rstrip()
