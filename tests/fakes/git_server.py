"""A real Git server, only small: repositories over HTTPS (git's own http-backend, basic
authentication, an authority of its own) and over SSH (an sshd of its own), both on loopback.

    with git_server.running(folder) as server:
        tree = server.repository("fleets")
        tree.push(**{"web.yaml": "…"})
        server.https_url("fleets"), server.username, server.password, server.ca_pem
        server.ssh_url("fleets"), server.private_key, server.known_hosts

Everything it starts ends with the block.
"""

from __future__ import annotations

import base64
import contextlib
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.fakes import ports
from tests.fakes.git_worktree import ENVIRONMENT, WorkTree, git
from tests.fakes.service import Authority
from tests.fakes.tls_listener import Listener, answer, serving
from tests.fakes.waiting import PATIENCE_S

READY_S = 30.0
BODY_BYTES = 1 << 16


@dataclass
class GitServer:
    """Repositories below `root`, and how to get in. `requests` holds (method, path) of those over
    HTTPS."""

    folder: Path
    authority: Authority
    username: str
    password: str
    https_port: int = 0
    ssh_port: int = 0
    private_key: str = ""
    passphrase: str = ""
    known_hosts: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)

    @property
    def root(self) -> Path:
        return self.folder / "repositories"

    @property
    def ca_pem(self) -> str:
        return self.authority.pem.decode()

    def repository(self, name: str) -> WorkTree:
        """A new repository on the server, and a working tree that pushes to it."""
        bare = self.root / f"{name}.git"
        bare.mkdir(parents=True)
        git(bare, "init", "--quiet", "--bare", "--initial-branch=main")
        git(bare, "config", "http.receivepack", "true")
        # People rename their default branch.
        git(bare, "config", "receive.denyDeleteCurrent", "ignore")
        return WorkTree(self.folder / "trees" / name, bare)

    def https_url(self, name: str) -> str:
        return f"https://localhost:{self.https_port}/{name}.git"

    def ssh_url(self, name: str) -> str:
        user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True)
        return f"ssh://{user.stdout.strip()}@127.0.0.1:{self.ssh_port}{self.root}/{name}.git"

    def https_spec(self, name: str, **config: Any) -> dict[str, Any]:
        """The spec of a Repository that is read over HTTPS; `config` changes its httpConfig."""
        known = {
            "username": self.username,
            "password": self.password,
            "ca.crt": base64.b64encode(self.authority.pem).decode(),
        }
        return {"type": "git", "url": self.https_url(name), "httpConfig": known | config}

    def ssh_spec(self, name: str, **config: Any) -> dict[str, Any]:
        """The spec of a Repository that is read over SSH; `config` changes its sshConfig."""
        known = {
            "sshPrivateKey": base64.b64encode(self.private_key.encode()).decode(),
            "privateKeyPassphrase": self.passphrase,
            "knownHosts": self.known_hosts,
        }
        return {"type": "git", "url": self.ssh_url(name), "sshConfig": known | config}


@contextlib.contextmanager
def running(
    folder: Path, *, username: str = "reader", password: str = "pa55-in-the-clear"
) -> Iterator[GitServer]:
    """Both servers, until the end of the block."""
    server = GitServer(folder, Authority("git-authority"), username, password)
    server.root.mkdir(parents=True)
    with _https(server), _ssh(server):
        yield server


# --- HTTPS ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def _https(server: GitServer) -> Iterator[None]:
    certificate, key = server.authority.pair("localhost")
    pem = server.folder / "https.pem"
    pem.write_bytes(certificate + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    listener = Listener(context, _handler(server))
    server.https_port = listener.port
    with serving(listener):
        yield


def _handler(server: GitServer) -> type[BaseHTTPRequestHandler]:
    expected = base64.b64encode(f"{server.username}:{server.password}".encode()).decode()
    backend = subprocess.run(
        ["git", "--exec-path"], capture_output=True, text=True, check=True
    ).stdout.strip()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            self._serve()

        def do_POST(self) -> None:
            self._serve()

        def _serve(self) -> None:
            body = b"".join(self._body())
            server.requests.append((self.command, self.path))
            if self.headers.get("Authorization") != f"Basic {expected}":
                return answer(self, 401, {"WWW-Authenticate": 'Basic realm="git"'}, b"")
            parts = urlsplit(self.path)
            environment = ENVIRONMENT | {
                "GIT_PROJECT_ROOT": str(server.root),
                "GIT_HTTP_EXPORT_ALL": "1",
                "REQUEST_METHOD": self.command,
                "PATH_INFO": parts.path,
                "QUERY_STRING": parts.query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "CONTENT_LENGTH": str(len(body)),
                "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "REMOTE_USER": server.username,
                "REMOTE_ADDR": self.client_address[0],
            }
            done = subprocess.run(
                [f"{backend}/git-http-backend"],
                input=body, env=environment, capture_output=True, check=False, timeout=120,
            )  # fmt: skip
            head, _, rest = done.stdout.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if line)
            status = int(headers.pop("Status", "200").split()[0])
            return answer(self, status, headers, rest)

        def _body(self) -> Iterator[bytes]:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                yield self.rfile.read(int(self.headers.get("Content-Length") or 0))
                return
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()

    return Handler


# --- SSH -----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _ssh(server: GitServer) -> Iterator[None]:
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "make setup brings an sshd"
    home = server.folder / "ssh"
    home.mkdir()
    server.passphrase = "opens-the-key"
    _keygen(home / "host", "")
    _keygen(home / "user", server.passphrase)
    server.private_key = (home / "user").read_text()
    shutil.copy(home / "user.pub", home / "authorized_keys")
    if not os.geteuid():
        # Where sshd of root shuts itself in before anybody is known.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    server.ssh_port = ports.free_port()
    (home / "config").write_text(_CONFIG.format(home=home, port=server.ssh_port))
    with (home / "log").open("w") as log:
        process = subprocess.Popen(
            [program, "-D", "-e", "-f", str(home / "config")],
            stderr=log, env={"PATH": os.environ["PATH"]},
        )  # fmt: skip
    try:
        _wait_for(server.ssh_port, process, home / "log")
        key = (home / "host.pub").read_text().split()
        server.known_hosts = f"[127.0.0.1]:{server.ssh_port} {key[0]} {key[1]}\n"
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)


_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {home}/host
AuthorizedKeysFile {home}/authorized_keys
PidFile none
UsePAM no
StrictModes no
PasswordAuthentication no
UseDNS no
KexAlgorithms curve25519-sha256
PermitRootLogin prohibit-password
"""


def _keygen(path: Path, passphrase: str) -> None:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", "", "-f", str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + READY_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, f"sshd ended: {log.read_text()}"
        assert time.monotonic() < deadline, f"sshd does not answer: {log.read_text()}"
        time.sleep(0.05)
