"""Requests as bytes over a connection of their own, so that they may be as wrong as one likes, and
what became of the connection.

The invariant: `ask` ends. It gives what was answered, or None where the other side ended the
connection without an answer, as TLS does; who only waits meets TimeoutError.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterable
from contextlib import closing, suppress
from dataclasses import dataclass

ANSWER_S = 10.0

Headers = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Door:
    """Where to ask, with which certificate; `after` is a request that any good connection there
    answers with `after_code`. No `tls`: plain text."""

    address: tuple[str, int]
    tls: ssl.SSLContext | None
    after: bytes
    after_code: int


@dataclass(frozen=True, slots=True)
class Answer:
    """`is_sound`: the connection was closed as was said, or answers the next request."""

    code: int
    headers: str
    body: bytes
    is_sound: bool

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


class _Response(http.client.HTTPResponse):
    """One of another version than ours can be read: it answers a request of that version."""

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        return "HTTP/1.0" if not version.startswith("HTTP/1.") else version, status, reason


def request(method: str, target: str, headers: Headers = (), body: bytes = b"") -> bytes:
    """The bytes of a request. Host and Content-Length are said unless `headers` say them; latin-1,
    so any byte may be in a header."""
    said = list(headers)
    names = {name.lower() for name, _ in said}
    if "host" not in names:
        said.insert(0, ("Host", "localhost"))
    if body and not names & {"content-length", "transfer-encoding"}:
        said.append(("Content-Length", str(len(body))))
    lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in said)]
    return "\r\n".join((*lines, "", "")).encode("latin-1") + body


def ask(door: Door, raw: bytes, method: str = "GET") -> Answer | None:
    """Send the bytes, read the answer to the first request in them. Raises TimeoutError."""
    plain = socket.create_connection(door.address, timeout=ANSWER_S)
    with closing(plain):
        try:
            secured = plain
            if door.tls is not None:
                secured = door.tls.wrap_socket(plain, server_hostname="localhost")
            with closing(secured):
                return _answered(secured, door, raw, method)
        except (ssl.SSLError, ConnectionError, http.client.BadStatusLine):
            # RemoteDisconnected is of both: the end before any answer.
            return None


def _answered(connection: socket.socket, door: Door, raw: bytes, method: str) -> Answer:
    # Who refuses early may close before all of it was taken.
    with suppress(ConnectionError, ssl.SSLError):
        connection.sendall(raw)
    response = _Response(connection, method=method)
    response.begin()
    body = response.read()
    is_sound = _is_closed(connection) if response.will_close else _goes_on(connection, door)
    return Answer(response.status, str(response.headers), body, is_sound)


def _is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except (ssl.SSLError, ConnectionError):
        return True


def _goes_on(connection: socket.socket, door: Door) -> bool:
    response = http.client.HTTPResponse(connection)
    try:
        connection.sendall(door.after)
        response.begin()
    except (ssl.SSLError, ConnectionError):
        return False
    response.read()
    return response.status == door.after_code
