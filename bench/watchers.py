"""Watchers by the thousand that cost their process little, for it shares the server's cores.

Real TLS and real HTTP, but no client library: bytes are cut at line ends, and what a line says is
looked up in its bytes. The answer is chunked; the lines between chunks are not events and are
passed over. An event that were split by a chunk would go missing, and whoever waits for it says so.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode, urlsplit

See = Callable[[bytes], None]

CONNECTING = 50
START_S = 120.0


class Watcher(asyncio.Protocol):
    """One watch; `see` is called with each line that is an event."""

    def __init__(self, request: bytes, see: See) -> None:
        self._request = request
        self._see = see
        self._rest = b""
        self.began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.ended = False

    def connection_made(self, transport: Any) -> None:
        transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"{"):
                self._see(line)
            elif not self.began.done() and line.startswith(b"HTTP/1.1 "):
                assert line.startswith(b"HTTP/1.1 200"), line
                self.began.set_result(None)


@asynccontextmanager
async def watching(
    url: str, tls: ssl.SSLContext, path: str, query: dict[str, str], sees: list[See]
) -> AsyncIterator[None]:
    """One watcher for each of `sees`, all of them answered before the block begins."""
    parts = urlsplit(url)
    asked = urlencode(query | {"watch": "true", "timeoutSeconds": "600"})
    request = f"GET {path}?{asked} HTTP/1.1\r\nHost: {parts.netloc}\r\n\r\n".encode()
    host, port = parts.hostname or "", parts.port or 0
    loop, gate = asyncio.get_running_loop(), asyncio.Semaphore(CONNECTING)
    opened: list[tuple[asyncio.BaseTransport, Watcher]] = []

    async def connect(see: See) -> None:
        async with gate:
            made = lambda: Watcher(request, see)  # noqa: E731
            transport, watcher = await loop.create_connection(made, host, port, ssl=tls)
            opened.append((transport, watcher))
            await watcher.began

    try:
        async with asyncio.timeout(START_S):
            await asyncio.gather(*(connect(see) for see in sees))
        yield
        assert not any(watcher.ended for _, watcher in opened), "a watch was ended by the server"
    finally:
        for transport, _ in opened:
            transport.close()
