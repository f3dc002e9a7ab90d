"""What stands before several API servers: each connection goes to the next server, as it is, TLS
and all. A server that does not answer is passed over.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Iterator, Sequence

CONNECT_S = 5.0
CHUNK = 64 * 1024

Address = tuple[str, int]


class Balancer:
    """Listens from its making; `targets` may be given later."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.targets: Sequence[Address] = ()
        self._turns = itertools.count()
        self._served = [threading.Thread(target=self._accept, daemon=True)]
        self._open: set[socket.socket] = set()
        self.connections: dict[Address, int] = {}

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def __enter__(self) -> Balancer:
        self._served[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._served:
            thread.join(CONNECT_S)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._served = [t for t in self._served if t.is_alive()] + [thread]
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        server = self._connect()
        if server is None:
            client.close()
            return
        self._open |= {client, server}
        back = threading.Thread(target=_copy, args=(server, client), daemon=True)
        back.start()
        _copy(client, server)
        back.join()
        for each in (client, server):
            self._open.discard(each)
            each.close()

    def _connect(self) -> socket.socket | None:
        turn = next(self._turns)
        for offset in range(len(self.targets)):
            target = self.targets[(turn + offset) % len(self.targets)]
            with contextlib.suppress(OSError):
                server = socket.create_connection(target, CONNECT_S)
                server.settimeout(None)
                self.connections[target] = self.connections.get(target, 0) + 1
                return server
        return None


def _copy(source: socket.socket, sink: socket.socket) -> None:
    """Until either end is gone; then the other hears of it."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(CHUNK):
            sink.sendall(chunk)
    for each, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
        with contextlib.suppress(OSError):
            each.shutdown(how)


@contextlib.contextmanager
def running() -> Iterator[Balancer]:
    with Balancer() as balancer:
        yield balancer
