"""A proxy on the loopback for downloads, which lets through no more than so many bytes a second.

podman, skopeo and helm know no such limit, but all of them use the proxy that their environment
names. So the limit is one for everything that the agent downloads at a time, whatever does it, and
goes on a link that others share. Registries on the loopback itself are never asked for by a proxy.
Where the device already goes through a proxy, that one is used and nothing is limited: it says so.

It carries bytes and knows nothing of them; TLS goes through it unseen. It begins with the first
download and ends with the process.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping
from urllib.parse import urlsplit

log = logging.getLogger("agent.throttle")

HEAD_BYTES_MAX = 16 << 10
CHUNK_BYTES = 16 << 10
CONNECTIONS_MAX = 32
CONNECT_S = 30.0
# A side that says nothing for so long is gone.
SILENCE_S = 300.0
VARIABLES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")


class Bucket:
    """Tokens of a byte. Taking waits until there are enough; a second's worth can be saved up."""

    def __init__(
        self,
        rate: float,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._rate = rate
        self._clock, self._sleep = clock, sleep
        self._lock = threading.Lock()
        self._filled, self._at = 0.0, clock()

    def take(self, count: int) -> None:
        with self._lock:
            now = self._clock()
            self._filled = min(self._rate, self._filled + (now - self._at) * self._rate) - count
            self._at = now
            debt_s = -self._filled / self._rate
        if debt_s > 0:
            self._sleep(debt_s)


class Throttle:
    """`rate` in bytes a second; 0 = no limit, and no proxy."""

    def __init__(self, rate: float, environment: Mapping[str, str] = os.environ) -> None:
        self._rate = rate
        self._environment = environment
        self._address = ""
        self._slots = threading.BoundedSemaphore(CONNECTIONS_MAX)

    def environment(self) -> dict[str, str]:
        """What a download needs in its environment."""
        if self._rate <= 0:
            return {}
        if any(self._environment.get(name) for name in VARIABLES):
            log.warning("downloads are not limited: they go through a proxy of the device's")
            return {}
        if not self._address:
            self._address = self._open()
        return dict.fromkeys(VARIABLES, self._address)

    def _open(self) -> str:
        listener = socket.create_server(("127.0.0.1", 0), backlog=CONNECTIONS_MAX)
        self._bucket = Bucket(self._rate)
        threading.Thread(target=self._serve, args=(listener,), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    def _serve(self, listener: socket.socket) -> None:
        while True:
            # More than these wait in the backlog.
            self._slots.acquire()
            try:
                caller, _ = listener.accept()
            except OSError as error:
                log.error("no more downloads through the limit: %s", error)
                return
            threading.Thread(target=self._attend, args=(caller,), daemon=True).start()

    def _attend(self, caller: socket.socket) -> None:
        try:
            with caller, contextlib.suppress(OSError, ValueError):
                caller.settimeout(SILENCE_S)
                head, rest = _head(caller)
                host, port, answer, request = _understood(head)
                try:
                    other = socket.create_connection((host, port), timeout=CONNECT_S)
                except OSError as error:
                    caller.sendall(f"HTTP/1.1 502 {error.strerror or 'away'}\r\n\r\n".encode())
                    return
                with other:
                    other.settimeout(SILENCE_S)
                    caller.sendall(answer)
                    other.sendall(request + rest)
                    up = threading.Thread(target=_carry, args=(caller, other), daemon=True)
                    up.start()
                    _carry(other, caller, self._bucket)
                    up.join(1.0)
        finally:
            self._slots.release()


def _head(caller: socket.socket) -> tuple[bytes, bytes]:
    raw = b""
    while b"\r\n\r\n" not in raw:
        part = caller.recv(CHUNK_BYTES)
        if not part or len(raw) > HEAD_BYTES_MAX:
            raise ValueError("no request")
        raw += part
    head, _, rest = raw.partition(b"\r\n\r\n")
    return head, rest


def _understood(head: bytes) -> tuple[str, int, bytes, bytes]:
    """(host, port, what to answer at once, what to pass on). Raises ValueError."""
    first, _, fields = head.decode("latin-1").partition("\r\n")
    method, target, _ = first.split(" ")
    if method == "CONNECT":
        parts = urlsplit(f"//{target}")
        return _host(parts.hostname), parts.port or 443, b"HTTP/1.1 200 OK\r\n\r\n", b""
    parts = urlsplit(target)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    # One request a connection: the next might be for another host.
    kept = [f for f in fields.split("\r\n") if not f.lower().startswith(("connection", "proxy-"))]
    lines = [f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""]
    return _host(parts.hostname), parts.port or 80, b"", "\r\n".join(lines).encode("latin-1")


def _host(name: str | None) -> str:
    if not name:
        raise ValueError("no host")
    return name


def _carry(source: socket.socket, sink: socket.socket, bucket: Bucket | None = None) -> None:
    with contextlib.suppress(OSError):
        while part := source.recv(CHUNK_BYTES):
            if bucket is not None:
                bucket.take(len(part))
            sink.sendall(part)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
