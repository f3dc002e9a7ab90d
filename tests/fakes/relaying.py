"""Connections to servers on the loopback, carried as they are, TLS and all: what ways that count,
lose, break or share out are made of.

A connection has a thread for each direction. Where one ends, the far end hears of it and may still
answer, as over any network; both have ended before the connection is closed.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

CHUNK_BYTES = 64 << 10
CONNECT_S = 10.0


@dataclass(frozen=True, slots=True)
class Line:
    """One connection: who called, and the server that it was led to."""

    client: socket.socket
    server: socket.socket


# Whether bytes are carried on; where they are not, their direction ends.
Passing = Callable[[bytes, Line], bool]


def everything(chunk: bytes, line: Line) -> bool:
    return True


class Relay:
    """Has its port from its making, and carries from `start` to `close`. `connect` gives what a
    call is led to, or None; `is_closed` lets nobody in."""

    def __init__(
        self,
        connect: Callable[[], socket.socket | None],
        *,
        asks: Passing = everything,
        answers: Passing = everything,
    ) -> None:
        self._connect = connect
        self._asks = asks
        self._answers = answers
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.is_closed = False
        self._lock = threading.Lock()
        self._lines: set[Line] = set()
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def start(self) -> None:
        self._threads[0].start()

    def cut(self) -> None:
        """Every connection, now."""
        with self._lock:
            for line in self._lines:
                _hang_up(line.client, socket.SHUT_RDWR)
                _hang_up(line.server, socket.SHUT_RDWR)

    def close(self) -> None:
        self.is_closed = True
        _hang_up(self._listener, socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join(CONNECT_S)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._attend, args=(client,), daemon=True)
            self._threads = [t for t in self._threads if t.is_alive()] + [thread]
            thread.start()

    def _attend(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            server = None if self.is_closed else self._connect()
            if server is None:
                return
            with server, self._listed(Line(client, server)) as line:
                asking = threading.Thread(target=_carry, args=(client, server, line, self._asks))
                asking.start()
                _carry(server, client, line, self._answers)
                asking.join()

    @contextlib.contextmanager
    def _listed(self, line: Line) -> Iterator[Line]:
        with self._lock:
            self._lines.add(line)
        # After it is in the list: who closes looks there second.
        if self.is_closed:
            _hang_up(line.client, socket.SHUT_RDWR)
            _hang_up(line.server, socket.SHUT_RDWR)
        try:
            yield line
        finally:
            with self._lock:
                self._lines.discard(line)


def to(port: int) -> socket.socket:
    """A connection to a port of the loopback."""
    server = socket.create_connection(("127.0.0.1", port), CONNECT_S)
    server.settimeout(None)
    return server


def _carry(source: socket.socket, sink: socket.socket, line: Line, passing: Passing) -> None:
    with contextlib.suppress(OSError):
        while chunk := source.recv(CHUNK_BYTES):
            if not passing(chunk, line):
                break
            sink.sendall(chunk)
    _hang_up(sink, socket.SHUT_WR)
    _hang_up(source, socket.SHUT_RD)


def _hang_up(end: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(how)
