"""The API server as a process: its first files, who may come in, what it refuses, how it ends."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from tests.fakes import apiserver_process
from tests.fakes.apiserver_process import Process

Document = dict[str, Any]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with apiserver_process.running(tmp_path_factory.mktemp("process") / "data") as process:
        yield process


def read(path: Path) -> Document:
    found: Document = yaml.safe_load(path.read_text())
    return found


def context(data: Path, holder: Document | None, authority: str) -> ssl.SSLContext:
    """TLS that trusts the server's authority and shows the credential in `holder`."""
    made = ssl.create_default_context(cadata=base64.b64decode(authority).decode())
    if holder is not None:
        for key in ("client-certificate-data", "client-key-data"):
            (data.parent / key).write_bytes(base64.b64decode(holder[key]))
        made.load_cert_chain(
            data.parent / "client-certificate-data", data.parent / "client-key-data"
        )
    return made


def administrator(server: Process) -> ssl.SSLContext:
    config = read(server.kubeconfig)
    authority = config["clusters"][0]["cluster"]["certificate-authority-data"]
    return context(server.data, config["users"][0]["user"], authority)


def early_binding(server: Process) -> tuple[Document, ssl.SSLContext]:
    config = read(server.data / "enrollment" / "config.yaml")
    section: Document = config["enrollment-service"]
    authority = section["service"]["certificate-authority-data"]
    return section, context(server.data, section["authentication"], authority)


def status_of(url: str, path: str, tls: ssl.SSLContext) -> int:
    return apiserver_process.ask(url, tls, "GET", path)[0]


FLEETS = "/apis/flightctl.io/v1beta1/namespaces/default/fleets"


def test_the_first_files_are_for_their_owner_only(server: Process) -> None:
    for path in (server.kubeconfig, server.data / "enrollment" / "config.yaml"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE((server.data / "controllers.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE(server.data.stat().st_mode) == 0o700
    config = read(server.kubeconfig)
    assert config["clusters"][0]["cluster"]["server"] == server.url
    assert config["contexts"][0]["context"]["namespace"] == "default"
    section = read(server.data / "enrollment" / "config.yaml")["enrollment-service"]
    assert section["service"]["server"] == server.agent_url
    assert section["enrollment-ui-endpoint"] == server.url


def test_the_administrators_certificate_opens_the_users_api(server: Process) -> None:
    assert status_of(server.url, FLEETS, administrator(server)) == 200


def test_an_enrolment_certificate_does_not(server: Process) -> None:
    """Though the same authority signed it."""
    _, tls = early_binding(server)
    assert status_of(server.url, FLEETS, tls) == 401


def test_nobody_may_ask_for_health_and_version_only(server: Process) -> None:
    authority = read(server.kubeconfig)["clusters"][0]["cluster"]["certificate-authority-data"]
    tls = context(server.data, None, authority)
    assert status_of(server.url, "/readyz", tls) == 200
    assert status_of(server.url, "/version", tls) == 200
    assert status_of(server.url, FLEETS, tls) == 401
    assert status_of(server.url, "/apis", tls) == 401


def test_the_enrolment_certificate_opens_the_agents_api(server: Process) -> None:
    section, tls = early_binding(server)
    url = section["service"]["server"]
    assert status_of(url, "/api/v1/enrollmentrequests/nobody", tls) == 404


async def test_the_socket_is_the_controllers(server: Process) -> None:
    connector = aiohttp.UnixConnector(str(server.data / "controllers.sock"))
    async with aiohttp.ClientSession(connector=connector) as session:
        path = "http://localhost/apis/authentication.k8s.io/v1/selfsubjectreviews"
        async with session.post(path, json={}) as response:
            user = (await response.json())["status"]["userInfo"]
            assert user["username"] == "system:homeport:controllers"
        # They keep fleets that come from Git; devices are never theirs to delete.
        devices = FLEETS.replace("fleets", "devices")
        async with session.delete(f"http://localhost{devices}/web") as response:
            assert response.status == 403


def test_a_locked_directory_is_refused_with_its_holder(server: Process) -> None:
    other = apiserver_process.start(server.data)
    assert other.stdout is not None
    with other.stdout:
        assert other.wait(apiserver_process.READY_S) == 1
    said = server.data.with_name("data.log").read_text()
    assert f"error: {server.data} is in use by process {server.process.pid}" in said


def test_a_port_in_use_is_refused_and_leaves_nothing_locked(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for option in ("--listen", "--agent-listen"):
            other = apiserver_process.start(data, option, f"127.0.0.1:{port}")
            assert other.stdout is not None
            with other.stdout:
                assert other.wait(apiserver_process.READY_S) == 1
            said = data.with_name("data.log").read_text()
            assert f"error: {option}: port {port} on 127.0.0.1 is in use" in said


def test_what_was_written_is_there_after_a_kill_and_credentials_stay(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with apiserver_process.running(data) as first:
        create_fleet(first, "web")
        user = read(first.kubeconfig)["users"]
        enrollment = read(data / "enrollment" / "config.yaml")
        first.kill()
    with apiserver_process.running(data) as second:
        config = read(second.kubeconfig)
        assert config["users"] == user
        assert config["clusters"][0]["cluster"]["server"] == second.url
        section = read(data / "enrollment" / "config.yaml")["enrollment-service"]
        assert section["authentication"] == enrollment["enrollment-service"]["authentication"]
        found = status_of(second.url, f"{FLEETS}/web", administrator(second))
        assert found == 200


def create_fleet(server: Process, name: str) -> None:
    body = {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "Fleet",
        "metadata": {"name": name},
        "spec": {"template": {"spec": {}}},
    }
    data = json.dumps(body).encode()
    code, text = apiserver_process.ask(server.url, administrator(server), "POST", FLEETS, data)
    assert code == 201, text


async def test_sigterm_ends_watches_cleanly_and_the_process(tmp_path: Path) -> None:
    with apiserver_process.running(tmp_path / "data") as server:
        create_fleet(server, "web")
        url, tls = f"{server.url}{FLEETS}?watch=1", administrator(server)
        async with aiohttp.ClientSession() as session, session.get(url, ssl=tls) as response:
            event = json.loads(await response.content.readline())
            assert event["type"] == "ADDED"
            stopping = asyncio.get_running_loop().run_in_executor(None, server.stop)
            # A clean end is an end of the body, not a broken connection.
            assert await response.content.read() == b""
            await stopping
        assert server.process.returncode == 0, "by itself, before it was killed"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--listen", "3443"), "is not HOST:PORT"),
        (("--listen", "::1:3443"), "write the address as"),
        (("--url", "http://x"), "is not https://HOST:PORT"),
        (("--database", "mysql://x"), "is neither"),
        (("--listen", "127.0.0.1:3443", "--agent-listen", "127.0.0.1:3443"), "must differ"),
    ],
)
def test_options_that_can_not_be_served(
    tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    process = apiserver_process.start(tmp_path / "data", *options)
    assert process.stdout is not None
    with process.stdout:
        assert process.wait(apiserver_process.READY_S) == 1
    said = (tmp_path / "data.log").read_text()
    assert said.startswith("error: --")
    assert words in said
