"""A way to PostgreSQL that can be cut: a relay on loopback that loses the answer of a COMMIT, or
the COMMIT itself, as networks do.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from functools import partial
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from tests.fakes import relaying
from tests.fakes.relaying import Line, Relay

COMMIT = b"COMMIT\0"

What = Literal["nothing", "commit", "answer"]


class Way:
    """Leads to the server at `port`. `lose` is what is lost next, once; `relay` cuts, and lets
    nobody in."""

    def __init__(self, port: int) -> None:
        self.relay = Relay(partial(relaying.to, port), asks=self._is_kept)
        self.lose: What = "nothing"
        self.lost = threading.Event()

    def url(self, direct: str) -> str:
        """The URL of a database by this way."""
        parts = urlsplit(direct)
        user = parts.netloc.rpartition("@")[0]
        return urlunsplit(parts._replace(netloc=f"{user}@127.0.0.1:{self.relay.port}"))

    def _is_kept(self, chunk: bytes, line: Line) -> bool:
        if COMMIT not in chunk or self.lose == "nothing":
            return True
        what, self.lose = self.lose, "nothing"
        # The client hears of it at once, before any answer.
        line.client.shutdown(socket.SHUT_RDWR)
        if what == "answer":
            line.server.sendall(chunk)
        self.lost.set()
        return False


@contextlib.contextmanager
def leading_to(port: int) -> Iterator[Way]:
    way = Way(port)
    way.relay.start()
    try:
        yield way
    finally:
        way.relay.close()
