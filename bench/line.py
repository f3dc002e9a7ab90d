"""One HTTP/1.1 connection over mutual TLS, that costs its process little: simulated devices are as
many in one process as the service has to serve, and share its cores.

Real TLS and real HTTP, but no client library: one request at a time, its answer by length or in
chunks. What is asked for is opened when it is needed, and opened again after it was lost.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

Json = dict[str, Any]

# The reference gives a poll 4 minutes.
ANSWER_S = 240.0
CONNECT_S = 60.0
_LENGTH = re.compile(rb"\r\nContent-Length: *(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\nTransfer-Encoding: *chunked", re.IGNORECASE)
_CLOSES = re.compile(rb"\r\nConnection: *close", re.IGNORECASE)


class Lost(Exception):
    """The connection was refused, or ended before the answer was here."""


@dataclass(frozen=True, slots=True)
class Reply:
    code: int
    body: bytes

    @property
    def json(self) -> Json:
        found: Json = orjson.loads(self.body)
        return found


class Line:
    """To `url` under the certificate in `tls`."""

    __slots__ = ("_address", "_host", "_protocol", "_tls")

    def __init__(self, url: str, tls: ssl.SSLContext) -> None:
        parts = urlsplit(url)
        self._host = parts.netloc
        self._address = parts.hostname or "", parts.port or 443
        self._tls = tls
        self._protocol: _Protocol | None = None

    async def ask(
        self, method: str, path: str, body: Json | None = None, kind: str = "application/json"
    ) -> Reply:
        """`kind` is what the body is. Raises Lost, or TimeoutError."""
        protocol = self._protocol
        if protocol is None or protocol.is_over:
            protocol = self._protocol = await self._open()
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self._host}", "Accept: application/json"]
        data = b"" if body is None else orjson.dumps(body)
        if body is not None:
            lines += [f"Content-Type: {kind}", f"Content-Length: {len(data)}"]
        head = "\r\n".join([*lines, "\r\n"]).encode()
        try:
            async with asyncio.timeout(ANSWER_S):
                return await protocol.exchange(head + data)
        except BaseException:
            # An answer that comes all the same would be taken for the next one's.
            self.close()
            raise

    async def _open(self) -> _Protocol:
        host, port = self._address
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                _, protocol = await loop.create_connection(_Protocol, host, port, ssl=self._tls)
        except OSError as refused:
            raise Lost(str(refused)) from refused
        return protocol

    def close(self) -> None:
        if self._protocol is not None:
            self._protocol.abort()
            self._protocol = None


class _Protocol(asyncio.Protocol):
    def __init__(self) -> None:
        self.is_over = False
        self._transport: Any = None
        self._answer: asyncio.Future[Reply] | None = None
        self._data = b""

    async def exchange(self, request: bytes) -> Reply:
        assert self._answer is None, "one request at a time"
        if self.is_over:
            raise Lost("the connection ended")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._answer
        finally:
            self._answer = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_over = True
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(Lost(f"the connection ended: {exc}"))

    def data_received(self, data: bytes) -> None:
        self._data += data
        found = parted(self._data)
        if found is None or self._answer is None or self._answer.done():
            return
        reply, self._data, closes = found
        if closes:
            self.is_over = True
            self._transport.close()
        self._answer.set_result(reply)

    def abort(self) -> None:
        self.is_over = True
        if self._transport is not None:
            self._transport.abort()


def parted(data: bytes) -> tuple[Reply, bytes, bool] | None:
    """The first answer in `data`, what comes after it, and whether the connection ends with it;
    None while it is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, rest = data[:end], data[end + 4 :]
    code = int(head[9:12])
    closes = _CLOSES.search(head) is not None
    if code in (204, 304):
        return Reply(code, b""), rest, closes
    length = _LENGTH.search(head)
    if length is not None:
        size = int(length[1])
        return (Reply(code, rest[:size]), rest[size:], closes) if len(rest) >= size else None
    assert _CHUNKED.search(head), f"an answer without an end: {head!r}"
    body = b""
    while True:
        size_text, found, rest = rest.partition(b"\r\n")
        size = int(size_text.partition(b";")[0], 16) if found else 0
        if not found or len(rest) < size + 2:
            return None
        body, rest = body + rest[:size], rest[size + 2 :]
        if not size:
            return Reply(code, body), rest, closes
