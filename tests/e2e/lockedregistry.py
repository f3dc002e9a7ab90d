"""The way into a registry that asks who one is: TLS, and a name with a password (htpasswd).

It serves what `tests.e2e.registry` holds, from the same folder: what is put in there is had here.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import bcrypt

from tests.e2e import processes
from tests.e2e.registry import ARGV, Registry
from tests.fakes.service import Authority

USER, PASSWORD = "puller", "correct horse"
CONFIG = """version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {data}}}}}
http:
  addr: 127.0.0.1:{port}
  tls: {{certificate: {folder}/tls.crt, key: {folder}/tls.key}}
auth: {{htpasswd: {{realm: yard, path: {folder}/htpasswd}}}}
"""


@dataclass(frozen=True, slots=True)
class Locked:
    """`authority`: the PEM of who has signed its certificate."""

    port: int
    authority: bytes


@contextmanager
def serving(registry: Registry, folder: Path, port: int, *names: str) -> Iterator[Locked]:
    """`names`: what it is called, besides localhost."""
    folder.mkdir()
    authority = Authority("registry-ca")
    certificate, key = authority.pair("registry", names=("localhost", *names))
    hashed = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    config = CONFIG.format(data=registry.folder / "data", port=port, folder=folder)
    for name, content in (
        ("tls.crt", certificate),
        ("tls.key", key),
        ("htpasswd", f"{USER}:{hashed}\n".encode()),
        ("registry.yml", config.encode()),
    ):
        (folder / name).write_bytes(content)
    env = {k: v for k, v in os.environ.items() if not k.startswith("REGISTRY_")}
    process = processes.start([*ARGV, folder / "registry.yml"], folder / "log", env=env)
    try:
        processes.until(
            lambda: _listens(process, port),
            "the locked registry serves",
            timeout_s=20,
            state=lambda: processes.tail(folder / "log"),
        )
        yield Locked(port, authority.pem)
    finally:
        processes.stop(process)


def auth(host: str, password: str = PASSWORD) -> str:
    """What `podman login` would write."""
    word = base64.b64encode(f"{USER}:{password}".encode()).decode()
    return json.dumps({"auths": {host: {"auth": word}}})


def _listens(process: subprocess.Popen[bytes], port: int) -> bool:
    assert process.poll() is None, "it has ended"
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
