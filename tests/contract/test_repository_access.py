"""Whether repositories can be read: a real HTTPS server and a real registry on loopback, with what
each may answer, told in words that help. Git's own troubles are in `test_git_access`."""

from __future__ import annotations

import base64
import contextlib
import os
import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import bcrypt
import pytest

from controllers import access
from controllers.gitmirror import Mirrors
from controllers.gitprogram import Git
from controllers.remotes import Known
from tests.e2e import processes
from tests.fakes import file_server, ports
from tests.fakes.file_server import FileServer
from tests.fakes.service import Authority

Json = dict[str, Any]
PASSWORD, WRONG = "open-sesame-1", "guessed-pa55"
REGISTRY = """version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {data}}}}}
http: {{addr: 127.0.0.1:{port}, tls: {{certificate: {certificate}, key: {key}}}}}
auth: {auth}
"""


async def tried(tmp_path: Path, spec: Json) -> str:
    mirrors = Mirrors(tmp_path / "git", Git(tmp_path / "known_hosts"))
    said = await access.problem_of(mirrors, Known({"metadata": {"name": "x"}, "spec": spec}))
    for secret in (PASSWORD, WRONG):
        assert secret not in said
    return said


# --- http ---------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Iterator[FileServer]:
    with file_server.running(tmp_path, password=PASSWORD) as server:
        server.files["/health"] = b"fine"
        server.answers["/broken"] = 500
        server.redirects["/moved"] = "https://elsewhere.example.com/"
        yield server


@pytest.mark.parametrize(
    ("suffix", "config", "says"),
    [
        ("/health", {}, ""),
        ("/health", {"ca.crt": None, "skipServerVerification": True}, ""),
        ("/health", {"ca.crt": None}, "authority's certificate into spec.httpConfig[ca.crt]"),
        ("/health", {"password": WRONG}, "answered 401: renew the credentials of spec.httpConfig"),
        ("/gone", {}, "answered 404: spec.url with spec.validationSuffix is not there"),
        ("/broken", {}, "answered 500; 200 is expected"),
        ("/moved", {}, "sends to another address: write that one into spec.url"),
        ("/health", {"ca.crt": base64.b64encode(b"no certificate").decode()},
         "spec.httpConfig: holds a certificate or key that cannot be used"),
    ],
)  # fmt: skip
async def test_an_http_server(
    files: FileServer, tmp_path: Path, suffix: str, config: Json, says: str
) -> None:
    said = await tried(tmp_path, files.spec(**config) | {"validationSuffix": suffix})
    assert says in said
    assert bool(said) == bool(says)


# --- oci ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def registry(folder: Path, authority: Authority, auth: str) -> Iterator[str]:
    """A registry of the distribution over TLS; its host."""
    port = ports.free_port()
    certificate, key = authority.pair("localhost")
    (folder / "r.crt").write_bytes(certificate)
    (folder / "r.key").write_bytes(key)
    text = REGISTRY.format(
        data=folder / "data",
        port=port,
        certificate=folder / "r.crt",
        key=folder / "r.key",
        auth=auth,
    )
    (folder / "registry.yml").write_text(text)
    env = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")}
    log = folder / "registry.log"
    process = processes.start(["docker-registry", "serve", folder / "registry.yml"], log, env=env)
    try:
        processes.until(
            lambda: _is_open(port), "the registry serves", timeout_s=20,
            state=lambda: processes.tail(log),
        )  # fmt: skip
        yield f"localhost:{port}"
    finally:
        processes.stop(process)


def _is_open(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def oci(host: str, authority: Authority, password: str = "") -> Json:
    ca = base64.b64encode(authority.pem).decode()
    spec: Json = {"type": "oci", "registry": host, "ca.crt": ca}
    if password:
        spec["ociAuth"] = {"authType": "docker", "username": "me", "password": password}
    return spec


async def test_a_registry_that_wants_a_name_and_a_password(tmp_path: Path) -> None:
    authority = Authority()
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    (tmp_path / "htpasswd").write_text(f"me:{hashed}\n")
    auth = f"{{htpasswd: {{realm: here, path: {tmp_path}/htpasswd}}}}"
    with registry(tmp_path, authority, auth) as host:
        assert await tried(tmp_path, oci(host, authority, PASSWORD)) == ""
        said = await tried(tmp_path, oci(host, authority, WRONG))
        assert said == f"{host} refused the credentials of spec.ociAuth: renew them"
        said = await tried(tmp_path, oci(host, authority))
        assert said.endswith("give username and password in spec.ociAuth")
        said = await tried(tmp_path, oci(host, Authority("other"), PASSWORD))
        assert "put the authority's certificate into spec[ca.crt]" in said
    said = await tried(tmp_path, oci(host, authority, PASSWORD))
    assert said.startswith(f"{host} does not take connections")


@contextlib.contextmanager
def token_service() -> Iterator[tuple[str, list[str]]]:
    """What gives out tokens, as far as the registry's clients see it; and what it was asked."""
    expected = f"Basic {base64.b64encode(f'me:{PASSWORD}'.encode()).decode()}"
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            asked.append(self.path)
            given = self.headers.get("Authorization")
            body = b'{"token": "t"}'
            self.send_response(200 if given == expected else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=listener.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_address[1]}/token", asked
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join(5)


async def test_a_registry_that_sends_to_a_token_service(tmp_path: Path) -> None:
    print("[simulated] the token service is a stand-in; the registry that sends to it is real")
    authority = Authority()
    (tmp_path / "bundle.pem").write_bytes(authority.pem)
    with token_service() as (realm, asked):
        auth = (
            f"{{token: {{realm: '{realm}', service: here, issuer: me, "
            f"rootcertbundle: {tmp_path}/bundle.pem}}}}"
        )
        with registry(tmp_path, authority, auth) as host:
            # Over TLS to the registry and without to the service: a password does not go there.
            said = await tried(tmp_path, oci(host, authority, PASSWORD))
            assert "sent without encryption; they are not sent" in said
            assert not asked
            said = await tried(tmp_path, oci(host, authority))
            assert said.endswith("give username and password in spec.ociAuth")
            assert asked == ["/token?service=here"]


async def test_what_is_no_registry_says_so(files: FileServer, tmp_path: Path) -> None:
    said = await tried(tmp_path, oci(f"localhost:{files.port}", files.authority, WRONG))
    assert "spec.ociAuth: renew them" in said
    assert "name nobody.invalid cannot be resolved" in await tried(
        tmp_path, {"type": "oci", "registry": "nobody.invalid"}
    )
