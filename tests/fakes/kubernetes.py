"""Kubernetes itself: a real kube-apiserver on a real etcd, with the CRDs of this repository.

Not a fake: what ours is compared with. Both come from the cache that `tests/setup/kubernetes.sh`
fills. It listens on loopback alone, and knows one token.
"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.e2e import rootfs
from tests.fakes import apiserver_process

ROOT = Path(__file__).parents[2]
READY_S = 60.0
STOP_S = 15.0
TOKEN = "loopback"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def cache() -> Path:
    return rootfs.cache() / "kube"


def is_built() -> bool:
    return all((cache() / name).exists() for name in ("kube-apiserver", "etcd"))


@dataclass(frozen=True, slots=True)
class Kubernetes:
    url: str
    tls: ssl.SSLContext
    # Of its certificate, in PEM.
    authority: str = ""

    def ask(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        media: str = "application/json",
        user: str = "",
    ) -> tuple[int, str]:
        """As administrator, or as `user` by its leave."""
        headers = {"Content-Type": media, "Authorization": f"Bearer {TOKEN}"}
        if user:
            headers["Impersonate-User"] = user
        return apiserver_process.ask(self.url, self.tls, method, path, data, headers)

    def make(self, path: str, document: dict[str, Any]) -> dict[str, Any]:
        """A POST that must succeed."""
        code, text = self.ask("POST", path, json.dumps(document).encode())
        assert code in (200, 201), f"{path}: {text}"
        found: dict[str, Any] = json.loads(text)
        return found


@contextmanager
def running(directory: Path) -> Iterator[Kubernetes]:
    """Both processes, until the end of the block."""
    directory.mkdir(parents=True)
    with ExitStack() as stack:
        client, peer, port = _free(), _free(), _free()
        etcd_url = f"http://127.0.0.1:{client}"
        stack.enter_context(
            _process(
                directory / "etcd.log",
                [str(cache() / "etcd"), "--data-dir", str(directory / "etcd"),
                 "--listen-client-urls", etcd_url, "--advertise-client-urls", etcd_url,
                 "--listen-peer-urls", f"http://127.0.0.1:{peer}", "--unsafe-no-fsync"],
            )
        )  # fmt: skip
        key = directory / "sa.key"
        key.write_bytes(
            rsa.generate_private_key(65537, 2048).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        tokens = directory / "tokens.csv"
        tokens.write_text(f"{TOKEN},administrator,1,system:masters\n")
        process = stack.enter_context(
            _process(
                directory / "kube-apiserver.log",
                [str(cache() / "kube-apiserver"), "--etcd-servers", etcd_url,
                 "--bind-address", "127.0.0.1", "--secure-port", str(port),
                 "--cert-dir", str(directory / "certs"), "--token-auth-file", str(tokens),
                 "--authorization-mode", "RBAC",
                 "--service-account-issuer", "https://kubernetes.default.svc",
                 "--service-account-key-file", str(key),
                 "--service-account-signing-key-file", str(key),
                 "--service-cluster-ip-range", "10.0.0.0/24",
                 "--disable-admission-plugins", "ServiceAccount"],
            )
        )  # fmt: skip
        tls = ssl.create_default_context()
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
        made = Kubernetes(f"https://127.0.0.1:{port}", tls)
        _wait(process, made, "/readyz", directory)
        yield replace(made, authority=(directory / "certs" / "apiserver.crt").read_text())


def _free() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def _process(log: Path, command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(STOP_S)


def _wait(process: subprocess.Popen[bytes], made: Kubernetes, path: str, directory: Path) -> None:
    deadline = time.monotonic() + READY_S
    while time.monotonic() < deadline:
        try:
            if made.ask("GET", path)[0] == 200:
                return
        except OSError:
            pass
        said = (directory / "kube-apiserver.log").read_text(errors="replace")[-2000:]
        assert process.poll() is None, said
        time.sleep(0.2)
    raise AssertionError(f"kube-apiserver did not become ready in {READY_S} s")
