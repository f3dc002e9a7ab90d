"""A wire to a server on the loopback: what comes down it is counted, and it can break.

Bytes are counted as they go to the client, TLS and all. `break_after` breaks every connection once
so many more bytes have come down, and tells how often it has; `is_down` lets nobody in.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

CHUNK_BYTES = 16 << 10


class Wire:
    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self.carried = 0
        self.is_down = False
        # How many bytes were carried when it is to break; then it stays down, or not.
        self._break_at: int | None = None
        self._stays_down = False
        self.breaks = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def break_after(self, count: int, *, stays_down: bool) -> None:
        with self._lock:
            self._break_at = self.carried + count
            self._stays_down = stays_down

    def down(self) -> None:
        """Everything that is connected is cut off."""
        self.is_down = True
        self._cut()

    def up(self) -> None:
        self.is_down = False

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.down()

    def _cut(self) -> None:
        with self._lock:
            ends = list(self._open)
        for end in ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._attend, args=(client,), daemon=True).start()

    def _attend(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if self.is_down:
                return
            with socket.create_connection(("127.0.0.1", self._target), timeout=10) as server:
                server.settimeout(None)
                with self._lock:
                    self._open |= {client, server}
                up = threading.Thread(target=self._carry, args=(client, server, False))
                up.start()
                self._carry(server, client, True)
                up.join()
                with self._lock:
                    self._open -= {client, server}

    def _carry(self, source: socket.socket, sink: socket.socket, is_counted: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK_BYTES):
                if is_counted and self._breaks(len(chunk)):
                    self._cut()
                    break
                sink.sendall(chunk)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _breaks(self, count: int) -> bool:
        with self._lock:
            self.carried += count
            if self._break_at is None or self.carried < self._break_at:
                return False
            self._break_at = None
            self.breaks += 1
            self.is_down = self._stays_down
            return True


@contextlib.contextmanager
def leading_to(port: int) -> Iterator[Wire]:
    wire = Wire(port)
    try:
        yield wire
    finally:
        wire.close()
