"""The HTTPS client: what counts as which error, and what never leaves or enters unbounded."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent import transport
from tests.fakes import service as services
from tests.fakes.waiting import PATIENCE_S

DEVICE = "device:one"
Connect = Callable[..., transport.Client]


@pytest.fixture(scope="module")
def authority() -> services.Authority:
    return services.Authority()


@pytest.fixture
def service(tmp_path: Path, authority: services.Authority) -> Iterator[services.Service]:
    with services.running(tmp_path, authority) as running:
        yield running


@pytest.fixture
def connect(service: services.Service, authority: services.Authority) -> Iterator[Connect]:
    made: list[transport.Client] = []
    certificate, key = authority.pair(DEVICE)

    def make(url: str = "", **changes: object) -> transport.Client:
        shown = transport.Credentials(
            authority=changes.pop("authority", authority.pem),  # type: ignore[arg-type]
            certificate=changes.pop("certificate", certificate),  # type: ignore[arg-type]
            key=changes.pop("key", key),  # type: ignore[arg-type]
            server_name=str(changes.pop("server_name", "")),
            insecure=bool(changes.pop("insecure", False)),
        )
        client = transport.Client(url or service.url, lambda: shown, environ={}, **changes)  # type: ignore[arg-type]
        made.append(client)
        return client

    yield make
    for client in made:
        client.close()


def test_a_request_carries_the_headers_of_the_contract_over_mutual_tls(
    service: services.Service, connect: Connect
) -> None:
    client = connect()
    service.render("one", 1)
    assert client.get("/devices/one/rendered").document["metadata"]["name"] == "one"
    client.request("PUT", "/devices/one/status", body={"a": "ü"})
    first, second = service.requests
    assert first.peer == DEVICE
    assert first.headers["Flightctl-API-Version"] == "v1beta1"
    assert len(first.headers["X-Request-Id"]) == 36
    assert first.headers["X-Request-Id"] != second.headers["X-Request-Id"]
    assert second.headers["Content-Type"] == "application/json"
    assert second.body == {"a": "ü"}


def test_queries_and_prefixes_are_kept(service: services.Service, connect: Connect) -> None:
    client = connect(f"{service.url}/tenant")
    with pytest.raises(transport.Rejected):
        client.get("/devices/one/rendered", {"knownRenderedVersion": "1&2"})
    (seen,) = service.requests
    assert seen.path == "/tenant/api/v1/devices/one/rendered"
    assert seen.query == {"knownRenderedVersion": ["1&2"]}


def test_204_has_no_document(service: services.Service, connect: Connect) -> None:
    service.script("/x", 204)
    assert connect().get("/x") == transport.Answer(204)


@pytest.mark.parametrize(
    ("said", "seconds"), [("60", 60.0), ("0", 0.0), ("", None), ("soon", None), ("-1", None)]
)
def test_the_service_says_within_which_time_to_renew(
    service: services.Service, connect: Connect, said: str, seconds: float | None
) -> None:
    service.script("/x", 204, "", {transport.RENEW_WITHIN: said})
    assert connect().get("/x").renew_within_s == seconds


@pytest.mark.parametrize("status", [400, 401, 404, 409, 500, 502])
def test_a_refusal_has_status_and_message(
    service: services.Service, connect: Connect, status: int
) -> None:
    service.script("/x", status, {"kind": "Status", "message": "because"})
    with pytest.raises(transport.Rejected) as caught:
        connect().get("/x")
    assert (caught.value.status, caught.value.message) == (status, "because")
    assert "because" in caught.value.body


def test_a_refusal_of_a_proxy_has_its_text(service: services.Service, connect: Connect) -> None:
    service.script("/x", 502, "<h1>Bad\n gateway</h1>")
    with pytest.raises(transport.Rejected) as caught:
        connect().get("/x")
    assert caught.value.message == "<h1>Bad gateway</h1>"


@pytest.mark.parametrize(
    ("status", "header", "after_s"),
    [(429, "7", 7), (503, "", 0), (503, "99999", 300), (429, "Wed, 21 Oct 2026", 0)],
)
def test_later_says_when(
    service: services.Service, connect: Connect, status: int, header: str, after_s: float
) -> None:
    service.script("/x", status, {"message": "busy"}, {"Retry-After": header} if header else None)
    with pytest.raises(transport.Throttled) as caught:
        connect().get("/x")
    assert caught.value.after_s == after_s


def test_an_answer_that_is_not_json_cannot_be_trusted(
    service: services.Service, connect: Connect
) -> None:
    service.script("/x", 200, "<html>")
    with pytest.raises(transport.Unreachable, match="JSON"):
        connect().get("/x")


def test_an_answer_has_a_limit(service: services.Service, connect: Connect) -> None:
    service.script("/x", 200, {"big": "x" * 300_000})
    with pytest.raises(transport.Unreachable, match="larger"):
        connect(answer_bytes_max=100_000).get("/x")


def test_the_words_of_a_refusal_have_a_limit(service: services.Service, connect: Connect) -> None:
    service.script("/x", 500, "y" * 500_000)
    with pytest.raises(transport.Rejected) as caught:
        connect().get("/x")
    assert len(caught.value.body) <= transport.ERROR_BYTES_MAX
    assert len(caught.value.message) <= 300


def test_a_silent_service_is_given_up(service: services.Service, connect: Connect) -> None:
    service.render("one", 1)
    service.hold_s = 600
    with pytest.raises(transport.Unreachable):
        connect().get("/devices/one/rendered", {"knownRenderedVersion": "1"}, timeout_s=0.3)
    service.hold_s = 0
    service.render("one", 2)


def test_nobody_there_is_unreachable(connect: Connect) -> None:
    with pytest.raises(transport.Unreachable):
        connect("https://127.0.0.1:1").get("/x")


def test_another_authority_is_not_trusted(connect: Connect) -> None:
    stranger = services.Authority("stranger")
    with pytest.raises(transport.Untrusted, match="not trusted"):
        connect(authority=stranger.pem).get("/x")


def test_the_name_in_the_certificate_must_fit(service: services.Service, connect: Connect) -> None:
    service.render("one", 1)
    with pytest.raises(transport.Untrusted):
        connect(server_name="elsewhere").get("/devices/one/rendered")
    local = f"https://127.0.0.1:{service.port}"
    with pytest.raises(transport.Untrusted):
        connect(local).get("/devices/one/rendered")
    assert connect(local, server_name="localhost").get("/devices/one/rendered").status == 200
    assert connect(local, insecure=True, authority=b"").get("/devices/one/rendered").status == 200


def test_a_certificate_that_the_service_refuses_is_unreachable(connect: Connect) -> None:
    certificate, key = services.Authority("stranger").pair(DEVICE)
    with pytest.raises(transport.Unreachable):
        connect(certificate=certificate, key=key).get("/x")


def test_credentials_that_are_no_pem_are_unreachable(connect: Connect) -> None:
    with pytest.raises(transport.Unreachable, match="certificates"):
        connect(certificate=b"nonsense").get("/x")


def test_a_connection_is_kept(service: services.Service, connect: Connect) -> None:
    client = connect()
    service.render("one", 1)
    client.get("/devices/one/rendered")
    held = client._connection
    client.request("PUT", "/devices/one/status", body={})
    client.get("/devices/one/rendered")
    assert held is not None
    assert client._connection is held


def test_a_connection_that_died_while_idle_is_no_failure(
    service: services.Service, connect: Connect
) -> None:
    client = connect()
    service.hangs_up = True
    service.render("one", 1)
    for _ in range(5):
        assert client.get("/devices/one/rendered").status == 200
        time.sleep(0.02)


def test_an_idle_connection_is_given_back(service: services.Service, connect: Connect) -> None:
    now = [0.0]
    client = connect(monotonic=lambda: now[0])
    service.render("one", 1)
    client.get("/devices/one/rendered")
    client.close_idle()
    assert client._connection is not None
    now[0] += transport.IDLE_S_MAX + 1
    client.close_idle()
    assert client._connection is None


def test_replaced_credentials_are_used_from_the_next_request_on(
    service: services.Service, authority: services.Authority
) -> None:
    pairs = [authority.pair("device:old"), authority.pair("device:new")]
    current = [pairs[0]]

    def shown() -> transport.Credentials:
        certificate, key = current[0]
        return transport.Credentials(authority.pem, certificate, key)

    client = transport.Client(service.url, shown, environ={})
    service.render("one", 1)
    client.get("/devices/one/rendered")
    current[0] = pairs[1]
    client.get("/devices/one/rendered")
    client.close()
    assert [seen.peer for seen in service.requests] == ["device:old", "device:new"]


def test_a_waiting_request_can_be_ended_by_another_thread(
    service: services.Service, connect: Connect
) -> None:
    service.render("one", 1)
    service.hold_s = 600
    client = connect()
    trouble: list[Exception] = []

    def wait() -> None:
        try:
            client.get("/devices/one/rendered", {"knownRenderedVersion": "1"}, timeout_s=600)
        except transport.ServiceError as error:
            trouble.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not service.requests:
        time.sleep(0.01)
    client.abort()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert isinstance(trouble[0], transport.Unreachable)
    with pytest.raises(transport.Unreachable):
        client.get("/devices/one/rendered")
    service.hold_s = 0
    service.render("one", 2)


def test_reading_only_the_head_is_enough_to_know(
    service: services.Service, connect: Connect
) -> None:
    service.script("/x", 200, "not even JSON")
    assert connect().request("GET", "/x", want_body=False).status == 200


PROXIES = {
    "none": ({}, "h.example", None),
    "named": ({"HTTPS_PROXY": "http://p:3128"}, "h.example", ("p", 3128)),
    "lower case, no scheme": ({"https_proxy": "p"}, "h.example", ("p", 80)),
    "loopback never": ({"HTTPS_PROXY": "http://p"}, "127.0.0.1", None),
    "localhost never": ({"HTTPS_PROXY": "http://p"}, "localhost", None),
    "excluded domain": ({"HTTPS_PROXY": "p", "NO_PROXY": "x, example"}, "h.example", None),
    "excluded subdomains only": (
        {"HTTPS_PROXY": "p", "NO_PROXY": ".h.example"},
        "h.example",
        ("p", 80),
    ),
    "excluded port": ({"HTTPS_PROXY": "p", "NO_PROXY": "h.example:7443"}, "h.example", None),
    "other port": ({"HTTPS_PROXY": "p", "NO_PROXY": "h.example:1"}, "h.example", ("p", 80)),
    "excluded network": ({"HTTPS_PROXY": "p", "NO_PROXY": "10.0.0.0/8"}, "10.1.2.3", None),
    "all excluded": ({"HTTPS_PROXY": "p", "no_proxy": "*"}, "h.example", None),
    "similar name": ({"HTTPS_PROXY": "p", "NO_PROXY": "ample"}, "h.example", ("p", 80)),
}


@pytest.mark.parametrize("case", PROXIES.values(), ids=PROXIES)
def test_the_environment_names_the_proxy(
    case: tuple[dict[str, str], str, tuple[str, int] | None],
) -> None:
    environ, host, wanted = case
    found = transport.proxy_for(host, 7443, environ)
    assert (found and (found.host, found.port)) == wanted


def test_a_proxy_may_want_a_password() -> None:
    found = transport.proxy_for("h", 1, {"HTTPS_PROXY": "http://u:p%40ss@proxy:8080"})
    assert found is not None
    assert found.authorization == "Basic dTpwQHNz"


def test_other_kinds_of_proxies_are_refused() -> None:
    with pytest.raises(ValueError, match="socks5"):
        transport.proxy_for("h", 1, {"HTTPS_PROXY": "socks5://p"})
    shown = transport.Credentials(b"", b"", b"")
    client = transport.Client("https://h", lambda: shown, environ={"HTTPS_PROXY": "socks5://p"})
    with pytest.raises(transport.Unreachable, match="socks5"):
        client.get("/x")


def test_credentials_do_not_show_keys() -> None:
    assert "SECRET" not in repr(transport.Credentials(b"", b"", b"SECRET"))


class ConnectProxy:
    """Tunnels one connection at a time; remembers what it was asked."""

    def __init__(self, target_port: int, verdict: bytes = b"200 OK") -> None:
        self._target_port = target_port
        self._verdict = verdict
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.asked = b""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._listener, self._listener.accept()[0] as client:
            while b"\r\n\r\n" not in self.asked:
                self.asked += client.recv(4096)
            client.sendall(b"HTTP/1.1 " + self._verdict + b"\r\n\r\n")
            if not self._verdict.startswith(b"200"):
                return
            with socket.create_connection(("127.0.0.1", self._target_port)) as upstream:
                back = threading.Thread(target=self._copy, args=(upstream, client))
                back.start()
                self._copy(client, upstream)
                back.join(PATIENCE_S)

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def join(self) -> None:
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()


def test_a_proxy_tunnels_tls_and_sees_only_the_address(
    service: services.Service, authority: services.Authority
) -> None:
    proxy = ConnectProxy(service.port)
    certificate, key = authority.pair(DEVICE)
    shown = transport.Credentials(authority.pem, certificate, key, server_name="localhost")
    environ = {"HTTPS_PROXY": f"http://user:pw@127.0.0.1:{proxy.port}"}
    client = transport.Client("https://device-api.example:7443", lambda: shown, environ=environ)
    service.render("one", 1)
    assert client.get("/devices/one/rendered").status == 200
    client.close()
    proxy.join()
    assert proxy.asked.startswith(b"CONNECT device-api.example:7443 HTTP/1.")
    assert b"Proxy-Authorization: Basic dXNlcjpwdw==" in proxy.asked


def test_a_proxy_that_says_no_is_unreachable(
    service: services.Service, authority: services.Authority
) -> None:
    proxy = ConnectProxy(service.port, b"407 Proxy Authentication Required")
    shown = transport.Credentials(authority.pem, *authority.pair(DEVICE))
    environ = {"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"}
    client = transport.Client("https://device-api.example:7443", lambda: shown, environ=environ)
    with pytest.raises(transport.Unreachable, match="407"):
        client.get("/x")
    client.close()
    proxy.join()
