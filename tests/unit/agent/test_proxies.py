"""Through tinyproxy, a real one; and past it where curl would go past it too."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import transport
from tests.fakes import service as services
from tests.fakes.waiting import PATIENCE_S, until_so

DEVICE = "device:one"
needs_tinyproxy = pytest.mark.skipif(
    shutil.which("tinyproxy") is None, reason="no tinyproxy: make setup installs it on Debian"
)


@contextlib.contextmanager
def tinyproxy(folder: Path, *lines: str) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    settings = folder / "tinyproxy.conf"
    settings.write_text("\n".join([f"Port {port}", "Listen 127.0.0.1", "Timeout 60", *lines]))
    command = ["tinyproxy", "-d", "-c", str(settings)]
    with (
        (folder / "tinyproxy.log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as child,
    ):
        try:
            until_so(lambda: _is_open(port))
            yield port
        finally:
            child.terminate()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[services.Service]:
    with services.running(tmp_path) as made:
        made.hold_s = 0.05
        yield made


def client(service: services.Service, proxy: str, **more: str) -> transport.Client:
    """By a name of this machine that does not read as loopback, which no proxy is asked for."""
    certificate, key = service.authority.pair(DEVICE)
    shown = transport.Credentials(service.authority.pem, certificate, key, "localhost")
    environ = {"HTTPS_PROXY": proxy, **more}
    return transport.Client(f"https://127.1:{service.port}", lambda: shown, environ=environ)


@needs_tinyproxy
def test_requests_and_long_polls_go_through_with_tls_inside(
    service: services.Service, tmp_path: Path
) -> None:
    service.render("one", 1)
    log = tmp_path / "tinyproxy.log"
    with tinyproxy(tmp_path, "BasicAuth user pass", f"ConnectPort {service.port}") as port:
        made = client(service, f"http://user:pass@127.0.0.1:{port}")
        assert made.get("/devices/one/rendered").status == 200
        service.hold_s = 1.0
        assert made.get("/devices/one/rendered", {"knownRenderedVersion": "1"}).status == 204
        made.request("PUT", "/devices/one/status", body={"status": {}})
        made.close()
    assert [seen.peer for seen in service.requests] == [DEVICE] * 3
    assert log.read_text().count("CONNECT 127.1:") == 1, "one tunnel for all of them"


@needs_tinyproxy
@pytest.mark.parametrize(
    ("who", "ports", "words"), [("user:wrong", "ours", "407|401"), ("user:pass", "443", "403")]
)
def test_a_proxy_that_refuses_is_an_unreachable_service_with_its_words(
    service: services.Service, tmp_path: Path, who: str, ports: str, words: str
) -> None:
    allowed = service.port if ports == "ours" else 443
    with tinyproxy(tmp_path, "BasicAuth user pass", f"ConnectPort {allowed}") as port:
        made = client(service, f"http://{who}@127.0.0.1:{port}")
        with pytest.raises(transport.Unreachable, match=words):
            made.get("/x")


def test_a_proxy_that_is_not_there_is_an_unreachable_service(service: services.Service) -> None:
    with pytest.raises(transport.Unreachable, match="refused"):
        client(service, "http://127.0.0.1:1").get("/x")
    made = client(service, "http://127.0.0.1:1", NO_PROXY="127.1")
    service.render("one", 1)
    assert made.get("/devices/one/rendered").status == 200
    made.close()


EXCEPTIONS = {
    "nothing": ("h.example.com", ""),
    "the name": ("h.example.com", "h.example.com"),
    "a domain": ("h.example.com", "other,example.com"),
    "a domain with its dot": ("h.example.com", ".example.com"),
    "with spaces": ("h.example.com", "other , example.com"),
    "another domain": ("h.example.com", "ample.com"),
    "in capitals": ("h.example.com", "EXAMPLE.COM"),
    "all": ("h.example.com", "*"),
    "an address": ("192.0.2.7", "192.0.2.7"),
    "another address": ("192.0.2.7", "192.0.2.8"),
    "a network": ("192.0.2.7", "192.0.2.0/24"),
    "another network": ("192.0.2.7", "192.0.3.0/24"),
}


def _is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False


def asks_curl_the_proxy(host: str, no_proxy: str) -> bool:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with subprocess.Popen(
            ["curl", "-s", "--connect-timeout", "0.3", "-m", "2", f"https://{host}:7443/"],
            env={"https_proxy": f"http://127.0.0.1:{port}", "no_proxy": no_proxy},
            stdout=subprocess.DEVNULL,
        ) as child:
            listener.settimeout(0.05)
            has_ended = False
            # Once more after its end: it may have called in between.
            while not has_ended:
                has_ended = child.poll() is not None
                with contextlib.suppress(TimeoutError):
                    listener.accept()[0].close()
                    child.wait(PATIENCE_S)
                    return True
        return False


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl")
@pytest.mark.parametrize("case", EXCEPTIONS.values(), ids=EXCEPTIONS)
def test_exceptions_are_read_as_curl_reads_them(case: tuple[str, str]) -> None:
    host, no_proxy = case
    environ = {"HTTPS_PROXY": "http://p", "NO_PROXY": no_proxy}
    is_asked = transport.proxy_for(host, 7443, environ) is not None
    assert is_asked == asks_curl_the_proxy(host, no_proxy)
