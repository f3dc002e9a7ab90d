"""A mirror for one pull: what has come stays, and only the rest is asked for. Real HTTP on the
loopback, with a registry that breaks off where it is told to."""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent import resuming, upstream

BASIC = base64.b64encode(b"me:secret").decode()
LAYER = os.urandom(400_000)
OTHER = os.urandom(1000)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Registry(ThreadingHTTPServer):
    """`breaks`: after so many bytes of an answer it is cut off, one number for each answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.blobs = {digest(data): data for data in (LAYER, OTHER)}
        self.manifest = json.dumps({"layers": [f"sha256:{d}" for d in self.blobs]}).encode()
        self.breaks: list[int] = []
        self.knows_ranges = True
        self.challenge = ""
        self.sent = 0
        self.asked: list[str] = []
        # How often it is busy, and what it says then.
        self.busy = self.busy_after_break = 0
        self.manifests = {"1"}
        self.busy_with: tuple[int, dict[str, str]] = (429, {})

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class Answering(BaseHTTPRequestHandler):
    server: Registry

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(f"{self.path} {self.headers.get('Range', '')}".strip())
        authorization = self.headers.get("Authorization") or ""
        if self.server.busy:
            self.server.busy -= 1
            status, headers = self.server.busy_with
            self._answer(status, b"", headers)
        elif self.server.challenge and authorization != f"Basic {BASIC}":
            self._answer(401, b"", {"WWW-Authenticate": self.server.challenge})
        elif "/manifests/" in self.path:
            known = self.path.rpartition("/")[2] in self.server.manifests
            self._answer(200 if known else 404, self.server.manifest, {"Content-Type": "x/y"})
        else:
            self._blob(self.server.blobs.get(self.path.rpartition(":")[2], b""))

    def _blob(self, data: bytes) -> None:
        ranged = self.headers.get("Range", "").removeprefix("bytes=").removesuffix("-")
        if not ranged or not self.server.knows_ranges:
            self._answer(200 if data else 404, data, {})
            return
        start, total = int(ranged), len(data)
        if start >= total:
            self._answer(416, b"", {"Content-Range": f"bytes */{total}"})
            return
        headers = {"Content-Range": f"bytes {start}-{total - 1}/{total}"}
        self._answer(206, data[start:], headers)

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        is_broken = bool(body and self.server.breaks and "/blobs/" in self.path)
        part = body[: self.server.breaks.pop(0)] if is_broken else body
        if is_broken:
            self.server.busy, self.server.busy_after_break = self.server.busy_after_break, 0
        self.server.sent += len(part)
        self.wfile.write(part)


@pytest.fixture
def registry() -> Iterator[Registry]:
    yield from serving(Registry())


def serving(server: Any) -> Iterator[Any]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join(5)
        server.server_close()


@pytest.fixture
def mirror(registry: Registry, tmp_path: Path) -> Iterator[resuming.Mirror]:
    context = ssl.create_default_context()
    source = upstream.Source(registry.host, BASIC, context, scheme="http")
    yield from serving(resuming.Mirror(source, tmp_path, pauses_s=(0.01, 0.01)))


def ask(mirror: resuming.Mirror, what: str, start: int | None = None) -> tuple[int, bytes]:
    """(status, as much as comes)"""
    connection = http.client.HTTPConnection("127.0.0.1", mirror.server_address[1], timeout=10)
    headers = {} if start is None else {"Range": f"bytes={start}-"}
    try:
        connection.request("GET", f"/v2/{mirror.key}/org/web/{what}", headers=headers)
        answer = connection.getresponse()
        try:
            return answer.status, answer.read()
        except http.client.IncompleteRead as error:
            return answer.status, error.partial
    finally:
        connection.close()


def blob(data: bytes = LAYER) -> str:
    return f"blobs/sha256:{digest(data)}"


def kept(mirror: resuming.Mirror) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in mirror.blobs.iterdir()}


def test_a_layer_goes_through_and_is_kept(mirror: resuming.Mirror, registry: Registry) -> None:
    assert ask(mirror, blob()) == (200, LAYER)
    assert ask(mirror, blob(OTHER), 400) == (206, OTHER[400:])
    assert registry.sent == len(LAYER) + len(OTHER)
    assert kept(mirror) == {digest(LAYER): len(LAYER), digest(OTHER): len(OTHER)}
    assert ask(mirror, blob()) == (200, LAYER)
    assert registry.sent == len(LAYER) + len(OTHER), "nothing is asked for twice"


def test_a_short_break_is_not_noticed(mirror: resuming.Mirror, registry: Registry) -> None:
    registry.breaks = [150_000, 50_000, 0]
    assert ask(mirror, blob()) == (200, LAYER)
    assert registry.sent == len(LAYER)
    assert registry.asked[-1].endswith("bytes=200000-")


def test_after_a_long_one_the_rest_is_asked_for(
    mirror: resuming.Mirror, registry: Registry
) -> None:
    registry.breaks = [150_000, 0, 0, 0]
    status, part = ask(mirror, blob())
    assert (status, part) == (200, LAYER[:150_000])
    registry.breaks = []
    assert ask(mirror, blob(), 150_000) == (206, LAYER[150_000:])
    assert registry.sent == len(LAYER)


def test_another_process_goes_on_from_what_the_first_has_kept(
    mirror: resuming.Mirror, registry: Registry
) -> None:
    (mirror.blobs / digest(LAYER)).write_bytes(LAYER[:390_000])
    assert ask(mirror, blob()) == (200, LAYER)
    assert registry.sent == 10_000
    # All of it is here, and nobody knew.
    registry.sent = 0
    assert ask(mirror, blob()) == (200, LAYER)
    assert registry.sent == 0


def test_a_registry_that_knows_no_ranges_begins_anew(
    mirror: resuming.Mirror, registry: Registry
) -> None:
    registry.knows_ranges = False
    registry.breaks = [150_000]
    assert ask(mirror, blob()) == (200, LAYER)
    assert kept(mirror) == {digest(LAYER): len(LAYER)}


def test_what_was_damaged_is_not_kept_for_a_second_time(
    mirror: resuming.Mirror, registry: Registry
) -> None:
    (mirror.blobs / digest(LAYER)).write_bytes(b"\0" * 1000)
    status, got = ask(mirror, blob())
    # podman sees by the digest that it is wrong, and asks again.
    assert status == 200
    assert got != LAYER
    assert ask(mirror, blob()) == (200, LAYER)


@pytest.mark.parametrize(
    "came",
    [b"\0" * len(LAYER), LAYER[:-1], LAYER + b"more", LAYER[:100_000] + b"\0" + LAYER[100_001:]],
)
def test_nothing_of_wrong_content_is_kept(
    mirror: resuming.Mirror, registry: Registry, came: bytes
) -> None:
    registry.blobs[digest(LAYER)] = came
    for _ in range(2):
        assert ask(mirror, blob()) == (200, came), "podman sees by the digest that it is wrong"
        # Whoever has had all of it may be faster than the look at its digest.
        with mirror.lock(f"sha256:{digest(LAYER)}"):
            assert kept(mirror) == {}
    registry.blobs[digest(LAYER)] = LAYER
    assert ask(mirror, blob()) == (200, LAYER)


def test_a_manifest_that_is_another_is_podmans_to_complain_of_and_noted(
    mirror: resuming.Mirror, registry: Registry
) -> None:
    asked, came = f"sha256:{'a' * 64}", f"sha256:{digest(registry.manifest)}"
    registry.manifests = {asked, came, "1"}
    (mirror.blobs / ("0" * 64)).write_bytes(b"begun")
    assert ask(mirror, f"manifests/{asked}")[0] == 404
    assert list(mirror.notes()) == [f"manifest {asked} came as {came}"]
    assert kept(mirror) == {"0" * 64: 5}
    assert ask(mirror, f"manifests/{came}") == (200, registry.manifest)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("said", "seconds"),
    [({"Retry-After": "7"}, 7), ({"Retry-After": "99999"}, 3600), ({}, 0),
     ({"Retry-After": "Fri, 27 Nov 2026 07:28:00 GMT"}, 0)],
)  # fmt: skip
def test_a_registry_that_is_busy_is_heard_and_what_it_says_passed_on(
    mirror: resuming.Mirror,
    registry: Registry,
    status: int,
    said: dict[str, str],
    seconds: int,
) -> None:
    registry.busy, registry.busy_with = 1, (status, said)
    assert ask(mirror, blob())[0] == status
    assert list(mirror.notes()) == ([f"retry-after: {seconds}"] if seconds else [])
    assert ask(mirror, blob()) == (200, LAYER)
    assert list(mirror.notes()) == []


def test_a_registry_that_is_busy_in_the_middle_is_waited_for(
    mirror: resuming.Mirror, registry: Registry
) -> None:
    registry.breaks = [150_000]
    registry.busy_with = (503, {"Retry-After": "1"})
    waited: list[float] = []
    mirror.sleep = waited.append
    registry.busy_after_break = 1
    assert ask(mirror, blob()) == (200, LAYER)
    assert waited == [0.01, 1.0]


def test_one_that_wants_to_be_left_alone_for_long_is(
    mirror: resuming.Mirror, registry: Registry
) -> None:
    registry.breaks = [150_000]
    registry.busy_with = (429, {"Retry-After": "61"})
    waited: list[float] = []
    mirror.sleep = waited.append
    registry.busy_after_break = 9
    assert ask(mirror, blob()) == (200, LAYER[:150_000])
    assert waited == [0.01]
    assert kept(mirror) == {digest(LAYER): 150_000}
    assert list(mirror.notes()) == ["retry-after: 61"]


def test_the_folder_holds_what_one_image_is_made_of(
    mirror: resuming.Mirror, registry: Registry
) -> None:
    (mirror.blobs / ("0" * 64)).write_bytes(b"of another image")
    (mirror.blobs / digest(OTHER)).write_bytes(OTHER[:5])
    assert ask(mirror, "manifests/1") == (200, registry.manifest)
    assert kept(mirror) == {digest(OTHER): 5}


@pytest.mark.parametrize("challenge", ["", 'Basic realm="x"'])
def test_credentials_are_given_to_who_asks_for_them(
    mirror: resuming.Mirror, registry: Registry, challenge: str
) -> None:
    registry.challenge = challenge
    assert ask(mirror, "manifests/1")[0] == 200
    assert ask(mirror, blob())[1] == LAYER


@pytest.mark.parametrize(
    ("what", "challenge"),
    [
        ("manifests/2", ""),
        ("manifests/1", 'Negotiate realm="x"'),
        ("manifests/1", 'Bearer realm="http://127.0.0.1:9/token"'),
        ("tags/list", ""),
        ("blobs/sha256:" + "0" * 64, ""),
        ("blobs/md5:00", ""),
    ],
)
def test_what_it_does_not_have_or_understand_is_podmans_to_ask_for(
    mirror: resuming.Mirror, registry: Registry, what: str, challenge: str
) -> None:
    registry.challenge = challenge
    assert ask(mirror, what)[0] == 404


def test_who_does_not_know_the_path_gets_nothing(
    mirror: resuming.Mirror, registry: Registry
) -> None:
    mirror.key, key = "another", mirror.key
    try:
        connection = http.client.HTTPConnection("127.0.0.1", mirror.server_address[1], timeout=10)
        connection.request("GET", f"/v2/{key}/org/web/manifests/1")
        assert connection.getresponse().status == 404
        connection.close()
    finally:
        mirror.key = key
    assert registry.asked == []


def test_podmans_words_are_told_as_if_it_had_asked_the_registry() -> None:
    offer = resuming.Offer({}, "127.0.0.1:4711/k3y", "q.io")
    words = (
        "initializing source docker://q.io/web:1: (Mirrors also failed: [127.0.0.1:4711/k3y/web:1: "
        "reading manifest 1: StatusCode: 404]): q.io/web:1: manifest unknown\n"
        'while reconnecting: Get "http://127.0.0.1:4711/v2/k3y/web/blobs/sha256:0": EOF'
    )
    assert offer.plain(words) == (
        "initializing source docker://q.io/web:1: q.io/web:1: manifest unknown\n"
        'while reconnecting: Get "https://q.io/v2/web/blobs/sha256:0": EOF'
    )
    assert resuming.Offer().plain(words) == words
