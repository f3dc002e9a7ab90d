"""A way to PostgreSQL that can be cut: a relay on loopback that loses the answer of a COMMIT, or
the COMMIT itself, as networks do.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

COMMIT = b"COMMIT\0"
CHUNK = 64 * 1024

What = Literal["nothing", "commit", "answer"]


class Relay:
    """Leads to `target`. `lose` is what is lost next, once; `closed` lets nobody in."""

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.lose: What = "nothing"
        self.lost = threading.Event()
        self.closed = False
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def url(self, direct: str) -> str:
        """The URL of a database by this way."""
        parts = urlsplit(direct)
        user = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{self.port}"))

    def cut(self) -> None:
        """Every connection, now."""
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.closed:
                client.close()
                continue
            server = socket.create_connection(self._target)
            self._open += [client, server]
            threading.Thread(target=self._up, args=(client, server), daemon=True).start()
            threading.Thread(target=self._down, args=(server, client), daemon=True).start()

    def _up(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := client.recv(CHUNK):
                if COMMIT in chunk and self.lose != "nothing":
                    what, self.lose = self.lose, "nothing"
                    # The client hears of it at once, before any answer.
                    client.shutdown(socket.SHUT_RDWR)
                    if what == "answer":
                        server.sendall(chunk)
                    self.lost.set()
                    break
                server.sendall(chunk)
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_WR)

    def _down(self, server: socket.socket, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := server.recv(CHUNK):
                client.sendall(chunk)
        for each in (client, server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@contextlib.contextmanager
def leading_to(port: int) -> Iterator[Relay]:
    relay = Relay(("127.0.0.1", port))
    try:
        yield relay
    finally:
        relay.close()
