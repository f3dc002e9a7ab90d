"""Downloads no faster than the configuration says: counted, not timed."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from agent import throttle

BODY = b"x" * 100_000


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_so_many_bytes_take_so_many_seconds() -> None:
    clock = Clock()
    bucket = throttle.Bucket(1000.0, lambda: clock.now, clock.sleep)
    for _ in range(100):
        bucket.take(100)
    assert clock.now == pytest.approx(10.0)
    # What was not used is saved for a second, not for longer.
    clock.now += 60
    bucket.take(1000)
    assert clock.now == pytest.approx(70.0)
    bucket.take(500)
    assert clock.now == pytest.approx(70.5)


def test_there_is_no_proxy_where_there_is_no_limit_or_another_proxy(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert throttle.Throttle(0, {}).environment() == {}
    assert throttle.Throttle(5, {"HTTPS_PROXY": "http://p:3128"}).environment() == {}
    assert "not limited" in caplog.text


@contextmanager
def site() -> Iterator[str]:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("X-Path", self.path)
            self.send_header("Content-Length", str(len(BODY)))
            self.end_headers()
            self.wfile.write(BODY)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def test_what_goes_through_it_arrives_whole_and_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    taken: list[int] = []
    monkeypatch.setattr(throttle.Bucket, "take", lambda self, count: taken.append(count))
    proxy = throttle.Throttle(1e9, {}).environment()["HTTP_PROXY"]
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy}))
    with site() as host:
        with opener.open(f"http://{host}/v2/blob?x=1", timeout=10) as answer:
            assert answer.read() == BODY
            assert answer.headers["X-Path"] == "/v2/blob?x=1"
        assert sum(taken) > len(BODY)
        tunnelled(proxy, host)
    assert sum(taken) > 2 * len(BODY)


def tunnelled(proxy: str, host: str) -> None:
    """As TLS goes through it: CONNECT, and bytes."""
    import http.client

    name, _, port = proxy.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(name, int(port), timeout=10)
    there, _, at = host.partition(":")
    connection.set_tunnel(there, int(at))
    connection.request("GET", "/tunnel", headers={"Connection": "close"})
    answer = connection.getresponse()
    assert answer.read() == BODY
    connection.close()


@pytest.mark.parametrize(
    "line", ["nonsense", "GET / HTTP/1.1", "CONNECT  HTTP/1.1", "GET http:/// HTTP/1.1"]
)
def test_what_is_no_request_of_a_proxy_is_not_passed_on(line: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        throttle._understood(line.encode())


def test_who_cannot_be_reached_is_an_answer() -> None:
    proxy = throttle.Throttle(1e9, {}).environment()["HTTP_PROXY"]
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy}))
    with pytest.raises(urllib.error.HTTPError) as caught:
        opener.open("http://127.0.0.1:9/", timeout=10)
    assert caught.value.code == 502
    caught.value.close()
