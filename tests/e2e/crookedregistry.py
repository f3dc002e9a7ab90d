"""A registry that does not give what is asked for: other content than its digest says, or "later".

TLS and real answers; what it holds is in memory. `lie` is what it says wrong from now on, `times`
how often yet (None = for ever).
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.e2e import images
from tests.fakes import tls_listener
from tests.fakes.service import Authority

LAYER, CONFIG, MANIFEST, SHORT = "layer", "config", "manifest", "short"
BUSY, DOWN = "busy", "down"


@dataclass
class Crooked:
    """`manifests`: by tag and by digest, with their media types. `asked`: paths, in order."""

    port: int
    authority: bytes
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    configs: set[str] = field(default_factory=set)
    lie: str = ""
    times: int | None = None
    retry_after: str = ""
    asked: list[str] = field(default_factory=list)

    def hold(self, tag: str, manifest: bytes, media_type: str, blobs: tuple[bytes, ...]) -> str:
        """The digest that it has."""
        digest = images.digest(manifest)
        self.manifests |= {tag: (manifest, media_type), digest: (manifest, media_type)}
        self.blobs |= {images.digest(blob): blob for blob in blobs}
        self.configs.add(json.loads(manifest)["config"]["digest"])
        return digest

    def hold_image(self, tag: str, image: images.Image) -> str:
        built = images.build(image)
        return self.hold(tag, built.manifest, images.MANIFEST, (built.layer, built.config))

    def hold_artifact(self, tag: str, files: dict[str, str]) -> str:
        made = images.artifact(files)
        return self.hold(tag, made.manifest, images.OCI_MANIFEST, made.blobs)

    def lies(self, *kinds: str) -> bool:
        """Whether it does now; each time counts."""
        if self.lie not in kinds or self.times == 0:
            return False
        self.times = None if self.times is None else self.times - 1
        return True


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    registry: Crooked

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        registry, what = self.registry, self.path.rpartition("/")[2]
        registry.asked.append(self.path)
        if self.path == "/v2/":
            self._answer(200, b"{}", "application/json")
        elif registry.lies(BUSY, DOWN):
            self._answer(429 if registry.lie == BUSY else 503, b"", "text/plain")
        elif "/manifests/" in self.path:
            self._manifest(what)
        elif what in registry.blobs:
            self._blob(what, registry.blobs[what])
        else:
            self._answer(404, b"", "text/plain")

    def _manifest(self, what: str) -> None:
        body, media_type = self.registry.manifests.get(what, (b"", "text/plain"))
        if body and self.command == "GET" and self.registry.lies(MANIFEST):
            body += b" "
        self._answer(200 if body else 404, body, media_type)

    def _blob(self, digest: str, body: bytes) -> None:
        kind = CONFIG if digest in self.registry.configs else LAYER
        if kind == LAYER and self.command == "GET" and self.registry.lies(SHORT):
            body = body[:-1]
        elif self.command == "GET" and self.registry.lies(kind):
            body = bytes([body[0] ^ 1]) + body[1:]
        self._answer(200, body, "application/octet-stream")

    def _answer(self, status: int, body: bytes, media_type: str) -> None:
        headers = {"Content-Type": media_type}
        if status >= 400 and self.registry.retry_after:
            headers["Retry-After"] = self.registry.retry_after
        if self.command == "HEAD":
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(key, value)
            self.end_headers()
        else:
            tls_listener.answer(self, status, headers, body)


@contextmanager
def serving(folder: Path, *names: str) -> Iterator[Crooked]:
    """`names`: what it is called, besides localhost."""
    folder.mkdir()
    authority = Authority("crooked-ca")
    certificate, key = authority.pair("registry", names=("localhost", *names))
    (folder / "tls.crt").write_bytes(certificate)
    (folder / "tls.key").write_bytes(key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    handler = type("Mine", (Handler,), {})
    listener = tls_listener.Listener(context, handler)
    handler.registry = registry = Crooked(listener.port, authority.pem)
    with tls_listener.serving(listener):
        yield registry
