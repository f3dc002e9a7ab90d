"""The real API server as a process of its own, on ports from the kernel, ended by its id."""

from __future__ import annotations

import base64
import http.client
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from urllib.parse import urlsplit

import yaml

from apiserver.config import KEYS_FILE
from apiserver.pki.authority import Authority
from apiserver.store import KeyFile
from tests.fakes import balancer
from tests.fakes.waiting import PATIENCE_S

# Others may need the machine too.
READY_S = 120.0
STOP_S = 45.0
ANSWER_S = 30.0
LENT = " is in use; stop what uses it, or give another"


@dataclass(slots=True)
class Process:
    """A server that said "ready"."""

    data: Path
    url: str
    agent_url: str
    kubeconfig: Path
    process: subprocess.Popen[str]
    database: str = ""

    def stop(self) -> float:
        """SIGTERM; how many seconds it took to end."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_S)
        return time.monotonic() - began

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(STOP_S)


def start(data: Path, *more: str, module: str = "apiserver") -> subprocess.Popen[str]:
    """The process, which may refuse: its standard error says why. It dies with the thread that
    started it, however that ends. `module` is what to run in the API server's place."""
    arguments = ["--data", str(data), "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0"]
    setpriv = shutil.which("setpriv")
    bound = [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []
    with data.with_name(data.name + ".log").open("a") as log:
        return subprocess.Popen(
            [*bound, sys.executable, "-m", module, *arguments, *more],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )


@contextmanager
def running(
    data: Path, *more: str, database: str = "", module: str = "apiserver"
) -> Iterator[Process]:
    """A server over `data` until the end of the block. Where it shall listen on the port that it
    had, the kernel may have lent that to somebody who went out meanwhile: it is waited for."""
    where = ("--database", database) if database else ()
    log, deadline = data.with_name(data.name + ".log"), time.monotonic() + PATIENCE_S
    while True:
        said = log.stat().st_size if log.exists() else 0
        process = start(data, *more, *where, module=module)
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line and LENT in log.read_text()[said:] and time.monotonic() < deadline:
                time.sleep(0.5)
                continue
            yield replace(_ready(data, process, line), database=database)
            return
        finally:
            _end(process)
            process.stdout.close()


@dataclass(slots=True)
class Replicas:
    """Several servers on one database, of one authority. A killed one is started again over its
    own directory."""

    directory: Path
    database: str
    number: int
    processes: dict[int, Process] = field(default_factory=dict)
    _started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def kubeconfig(self) -> Path:
        """Of the first, unless something stands before them."""
        front = self.directory / "front.kubeconfig"
        return front if front.exists() else self.data(0) / "admin.kubeconfig"

    def data(self, which: int) -> Path:
        return self.directory / f"server-{which}"

    def launch(self, which: int) -> subprocess.Popen[str]:
        """Start it; `ready` waits for it."""
        process = start(self.data(which), "--database", self.database)
        self._started.append(process)
        return process

    def ready(self, which: int, process: subprocess.Popen[str]) -> Process:
        self.processes[which] = _ready(self.data(which), process)
        return self.processes[which]

    def kill(self, which: int) -> None:
        self.processes.pop(which).kill()

    def __enter__(self) -> Replicas:
        # Made here, so that all can start at once; an operator copies it from the first server.
        Authority.load_or_create(self.directory / "pki", now=lambda: datetime.now(UTC))
        keys = self.directory / KEYS_FILE
        KeyFile(keys).make()
        for which in range(self.number):
            self.data(which).mkdir(mode=0o700)
            shutil.copytree(self.directory / "pki", self.data(which) / "pki")
            shutil.copy(keys, self.data(which) / keys.name)
        started = [self.launch(which) for which in range(self.number)]
        try:
            for which, process in enumerate(started):
                self.ready(which, process)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Those too that were not ready yet."""
        alive = [process for process in self._started if process.poll() is None]
        for process in alive:
            process.send_signal(signal.SIGTERM)
        for process in self._started:
            _end(process)
            if process.stdout is not None:
                process.stdout.close()


def _ready(data: Path, process: subprocess.Popen[str], line: str = "") -> Process:
    assert process.stdout is not None
    line = line or process.stdout.readline()
    log = data.with_name(data.name + ".log")
    assert line.startswith("ready "), f"{line!r}; {log.read_text()[-2000:]}"
    words = line.split()
    return Process(data, words[1], words[3], data / "admin.kubeconfig", process)


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_S)


@contextmanager
def balanced(directory: Path, database: str) -> Iterator[Replicas]:
    """Two servers on `database`, and before them what gives each connection to the other one: its
    address is the one in the kubeconfig."""
    directory.mkdir(parents=True, exist_ok=True)
    with balancer.running() as front:
        with Replicas(directory, database, 2) as replicas:
            urls = [each.url for each in replicas.processes.values()]
            parts = [urlsplit(url) for url in urls]
            front.targets = [part.port or 0 for part in parts]
            theirs = replicas.kubeconfig.read_text()
            (directory / "front.kubeconfig").write_text(theirs.replace(urls[0], front.url))
            yield replicas
        asked = [front.connections.get(target, 0) for target in front.targets]
        # A worker may have had so little to do that a single connection was enough.
        assert all(asked) or sum(asked) <= 1, f"one was never asked: {asked}"


def administrator(server: Process) -> ssl.SSLContext:
    """TLS with the certificate in the server's kubeconfig."""
    config = yaml.safe_load(server.kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    decoded = {
        key: base64.b64decode(value)
        for key, value in (cluster | user).items()
        if key.endswith("-data")
    }
    tls = ssl.create_default_context(cadata=decoded["certificate-authority-data"].decode())
    pair = server.data.with_name(server.data.name + ".administrator.pem")
    pair.write_bytes(decoded["client-certificate-data"] + decoded["client-key-data"])
    tls.load_cert_chain(pair)
    return tls


def ask(
    url: str,
    tls: ssl.SSLContext,
    method: str,
    path: str,
    data: bytes | None = None,
    headers: Mapping[str, str] = MappingProxyType({"Content-Type": "application/json"}),
) -> tuple[int, str]:
    """One request on a connection of its own: the status and the text of its answer.

    Not by aiohttp: it does not wait for the end of a TLS connection that closes because the answer
    came before the whole request was written, which early refusals do, and `-W error` tells.
    """
    parts = urlsplit(url)
    connection = http.client.HTTPSConnection(
        parts.hostname or "", parts.port, context=tls, timeout=ANSWER_S
    )
    try:
        connection.request(method, path, data, dict(headers))
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()
