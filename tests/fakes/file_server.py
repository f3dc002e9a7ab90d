"""A real HTTPS server of files on loopback: an authority of its own, credentials, entity tags.

with file_server.running(folder) as server:
    server.files["/motd"] = b"hello"
    server.spec(), server.requests
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.fakes.service import Authority
from tests.fakes.tls_listener import Listener, answer, serving


@dataclass
class FileServer:
    """`files` may be changed while it serves; `answers` holds statuses to give instead, by path;
    `redirects` targets by path. `requests` holds (path, status, headers)."""

    authority: Authority
    username: str
    password: str
    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, int] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, int, dict[str, str]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    def spec(self, **config: Any) -> dict[str, Any]:
        """The spec of a Repository that is read from here; `config` changes its httpConfig."""
        known = {
            "username": self.username,
            "password": self.password,
            "ca.crt": base64.b64encode(self.authority.pem).decode(),
        }
        given = {key: value for key, value in (known | config).items() if value is not None}
        return {"type": "http", "url": self.url, "httpConfig": given}

    def answer(self, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        expected = base64.b64encode(f"{self.username}:{self.password}".encode()).decode()
        if headers.get("Authorization") != f"Basic {expected}":
            return 401, {"WWW-Authenticate": "Basic"}, b""
        if path in self.redirects:
            return 302, {"Location": self.redirects[path]}, b""
        if path in self.answers:
            return self.answers[path], {}, b""
        if path not in self.files:
            return 404, {}, b""
        body = self.files[path]
        etag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
        if headers.get("If-None-Match") == etag:
            return 304, {"ETag": etag}, b""
        return 200, {"ETag": etag}, body


@contextlib.contextmanager
def running(folder: Path, *, username: str = "reader", password: str) -> Iterator[FileServer]:
    server = FileServer(Authority("files-authority"), username, password)
    certificate, key = server.authority.pair("localhost")
    pem = folder / "files.pem"
    pem.write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    listener = Listener(context, _handler(server))
    server.port = listener.port
    with serving(listener):
        yield server


def _handler(server: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            asked = dict(self.headers.items())
            status, headers, body = server.answer(self.path, asked)
            server.requests.append((self.path, status, asked))
            answer(self, status, headers, body)

    return Handler
