"""What stands before several API servers: each connection goes to the next server, as it is, TLS
and all. A server that does not answer is passed over.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
from collections.abc import Iterator, Sequence

from tests.fakes import relaying
from tests.fakes.relaying import Relay


class Balancer:
    """Has its port from its making; the ports of `targets` may be given later."""

    def __init__(self) -> None:
        self._relay = Relay(self._connect)
        self.port = self._relay.port
        self.targets: Sequence[int] = ()
        self._turns = itertools.count()
        self.connections: dict[int, int] = {}

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def __enter__(self) -> Balancer:
        self._relay.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._relay.close()

    def _connect(self) -> socket.socket | None:
        turn = next(self._turns)
        for offset in range(len(self.targets)):
            target = self.targets[(turn + offset) % len(self.targets)]
            with contextlib.suppress(OSError):
                server = relaying.to(target)
                self.connections[target] = self.connections.get(target, 0) + 1
                return server
        return None


@contextlib.contextmanager
def running() -> Iterator[Balancer]:
    with Balancer() as balancer:
        yield balancer
