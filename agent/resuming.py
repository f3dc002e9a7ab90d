"""Layers that were broken off go on where they were: a mirror on the loopback for one pull.

podman keeps whole layers of a pull that failed, and asks for the rest of one that breaks while it
runs. When it ends (no network for a while, a time limit, a reboot) the layer under way is lost; on
a bad line a large one would never come. So podman is told of a mirror, which is this process: it
fetches from the registry, keeps what has come in a folder, and asks for the rest the next time.

It is a convenience and no authority. podman checks every digest, and whatever the mirror does not
understand (credential helpers, signature policies, registries with a configuration of their own, a
refusal) it answers with 404: podman then goes to the registry itself, and says what is wrong.

Only who knows the path may use it, for it asks with the device's credentials.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import re
import secrets
import threading
import time
import urllib.error
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from agent import upstream
from resources.records import dataclass, field

CHUNK_BYTES = 64 << 10
# A broken line is asked again after these; podman and the agent have patience of their own.
PAUSES_S = (1.0, 2.0, 4.0, 8.0)
# A registry that wants to be left alone for longer: the agent waits, and no podman with it.
RETRY_AFTER_S_MAX = 60.0
MANIFEST_BYTES_MAX = 4 << 20
_PATH = re.compile(r"/v2/(?P<key>[^/]+)/(?P<name>.+)/(?P<kind>manifests|blobs)/(?P<what>[^/]+)")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_RANGE = re.compile(r"bytes=(\d+)-")
_ALSO_FAILED = re.compile(r"\(Mirrors also failed: \[.*?\]\): ")
BROKEN = (OSError, http.client.HTTPException)


class Broken(Exception):
    """The rest of a layer does not come now."""


@dataclass(frozen=True, slots=True)
class Offer:
    """`env` is what podman needs in its environment to use what is in the folder; `notes` what the
    mirror has heard and podman does not say (for `pullerrors`)."""

    env: Mapping[str, str] = field(default_factory=dict)
    mirror: str = ""
    host: str = ""
    notes: Callable[[], Iterable[str]] = tuple

    def plain(self, words: str) -> str:
        """What podman says, as if it had asked the registry."""
        if not self.mirror:
            return words
        words = _ALSO_FAILED.sub("", words)
        key = self.mirror.partition("/")[2]
        words = words.replace(f"http://{self.mirror.partition('/')[0]}", f"https://{self.host}")
        return words.replace(self.mirror, self.host).replace(f"{key}/", "")


@contextlib.contextmanager
def offered(reference: str, auth_file: str, blobs: Path, scratch: Path) -> Iterator[Offer]:
    """An empty offer where this can be no help."""
    source = upstream.of(reference, auth_file, os.environ) if reference else None
    if source is None:
        yield Offer()
        return
    blobs.mkdir(mode=0o700, parents=True, exist_ok=True)
    mirror = Mirror(source, blobs)
    thread = threading.Thread(target=mirror.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    place = f"127.0.0.1:{mirror.server_address[1]}/{mirror.key}"
    conf = scratch / "registries.conf"
    conf.write_text(
        f'[[registry]]\nlocation = "{source.host}"\n'
        f'[[registry.mirror]]\nlocation = "{place}"\ninsecure = true\n'
    )
    try:
        env = {"CONTAINERS_REGISTRIES_CONF": str(conf)}
        yield Offer(env, place, source.host, mirror.notes)
    finally:
        mirror.shutdown()
        mirror.server_close()


class Mirror(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(
        self, source: upstream.Source, blobs: Path, pauses_s: tuple[float, ...] = PAUSES_S
    ) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.source = source
        self.blobs = blobs
        self.pauses_s = pauses_s
        self.sleep: Callable[[float], None] = time.sleep
        self.key = secrets.token_hex(16)
        self.other_manifest = ""
        self._guard = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}

    def notes(self) -> Iterable[str]:
        if self.other_manifest:
            yield self.other_manifest
        if self.source.retry_after_s:
            yield f"retry-after: {self.source.retry_after_s}"

    def lock(self, name: str) -> threading.Lock:
        """podman asks again for a layer whose first answer may still be under way."""
        with self._guard:
            return self._locks.setdefault(name, threading.Lock())

    def forget_all_but(self, manifest: bytes) -> None:
        """The folder holds what one image is made of."""
        wanted = set(_DIGEST.findall(manifest.decode(errors="replace")))
        for file in self.blobs.iterdir():
            if file.name not in wanted:
                file.unlink(missing_ok=True)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked has gone."""


class Handler(BaseHTTPRequestHandler):
    server: Mirror
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        if self.path == "/v2/":
            self._answer(200, b"{}", {"Docker-Distribution-Api-Version": "registry/2.0"})
            return
        found = _PATH.fullmatch(self.path)
        if found is None or not secrets.compare_digest(found["key"], self.server.key):
            self._answer(404)
        elif found["kind"] == "manifests":
            self._manifest(found["name"], found["what"])
        else:
            self._blob(found["name"], found["what"])

    def _manifest(self, name: str, what: str) -> None:
        accepted = ", ".join(self.headers.get_all("Accept") or ())
        try:
            with self.server.source.open(f"{name}/manifests/{what}", accept=accepted) as answer:
                body = answer.read(MANIFEST_BYTES_MAX)
                kept = ("Content-Type", "Docker-Content-Digest")
                headers = {key: answer.headers[key] for key in kept if answer.headers[key]}
        except (*BROKEN, upstream.NotUnderstood):
            self._answer(404)
            return
        came = f"sha256:{hashlib.sha256(body).hexdigest()}"
        if _DIGEST.fullmatch(what) and what != came:
            # podman will not have it either, and does not say what came.
            self.server.other_manifest = f"manifest {what} came as {came}"
            self._answer(404)
            return
        if b'"layers"' in body:
            self.server.forget_all_but(body)
        self._answer(200, body, headers)

    def _blob(self, name: str, what: str) -> None:
        asked = self.headers.get("Range") or ""
        ranged = _RANGE.fullmatch(asked)
        digest = _DIGEST.fullmatch(what)
        if digest is None or (asked and ranged is None):
            # Several ranges at once: podman then takes the whole.
            self._answer(400 if digest else 404)
            return
        start = int(ranged[1]) if ranged else 0
        with self.server.lock(what):
            blob = Blob(self.server, name, what, self.server.blobs / digest[1])
            try:
                self._send(blob, start, is_ranged=ranged is not None)
            except urllib.error.HTTPError as error:
                later = error.headers.get("Retry-After")
                self._answer(error.code, headers={"Retry-After": later} if later else None)
            except (*BROKEN, Broken, upstream.NotUnderstood):
                # In the middle of an answer, or before it: podman tries elsewhere, or again.
                self.close_connection = True
            finally:
                blob.close()

    def _send(self, blob: Blob, start: int, *, is_ranged: bool) -> None:
        total = blob.total()
        if start > total:
            self._answer(416)
            return
        self.send_response(206 if is_ranged else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(total - start))
        if is_ranged:
            self.send_header("Content-Range", f"bytes {start}-{total - 1}/{total}")
        self.end_headers()
        if self.command == "HEAD":
            return
        for chunk in blob.chunks(start):
            self.wfile.write(chunk)

    def _answer(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Blob:
    """One layer: the beginning in a file, the rest at the registry. Used under its lock."""

    def __init__(self, mirror: Mirror, name: str, digest: str, path: Path) -> None:
        self._mirror = mirror
        self._what = f"{name}/blobs/{digest}"
        self._digest = digest
        self._path = path
        self._rest: Any = None
        self._total = 0

    def total(self) -> int:
        """Its length; asks the registry for what is not here yet. Raises as `Source.open` does."""
        self._ask()
        return self._total

    def chunks(self, start: int) -> Iterator[bytes]:
        """From `start` on. Raises Broken."""
        sent, tries = start, 0
        with self._path.open("a+b") as file:
            file.seek(start)
            while chunk := file.read(CHUNK_BYTES):
                sent += len(chunk)
                yield chunk
            while self._have() < self._total:
                chunk = self._next(tries)
                tries = 0 if chunk else tries + 1
                # NB a registry that knows no ranges has begun anew meanwhile, and so has the file.
                have = self._have()
                chunk = chunk[: self._total - have]
                file.write(chunk)
                file.flush()
                if have + len(chunk) > sent:
                    yield chunk[max(0, sent - have) :]
                    sent = have + len(chunk)
            file.seek(0)
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if f"sha256:{found}" != self._digest:
            self._path.unlink(missing_ok=True)

    def close(self) -> None:
        if self._rest is not None:
            self._rest.close()
            self._rest = None

    def _have(self) -> int:
        return self._path.stat().st_size if self._path.exists() else 0

    def _next(self, tries: int) -> bytes:
        """Empty = ask once more. Raises Broken."""
        reason: Exception | None = None
        try:
            if self._rest is None:
                self._ask()
            chunk: bytes = self._rest.read1(CHUNK_BYTES)
            if chunk:
                return chunk
        except (*BROKEN, upstream.NotUnderstood) as error:
            reason = error
        self.close()
        if tries >= len(self._mirror.pauses_s):
            raise Broken from reason
        asked_s = float(self._mirror.source.retry_after_s)
        if asked_s > RETRY_AFTER_S_MAX:
            raise Broken from reason
        self._mirror.sleep(max(self._mirror.pauses_s[tries], asked_s))
        return b""

    def _ask(self) -> None:
        have = self._have()
        if self._total and have == self._total:
            return
        try:
            self._rest = self._mirror.source.open(self._what, offset=have)
        except urllib.error.HTTPError as error:
            total = (error.headers.get("Content-Range") or "").rpartition("/")[2]
            if error.code != 416 or not have or total != str(have):
                raise
            # Nothing lies behind the end of what is here.
            self._total = have
            return
        length = self._rest.headers.get("Content-Length") or ""
        if not length.isdigit():
            raise upstream.NotUnderstood
        if have and not self._continues(have):
            os.truncate(self._path, 0)
            have = 0
        self._total = have + int(length)

    def _continues(self, have: int) -> bool:
        """Whether the answer begins where we have stopped; a registry may know no ranges."""
        span = self._rest.headers.get("Content-Range") or ""
        return self._rest.status == 206 and span.startswith(f"bytes {have}-")
