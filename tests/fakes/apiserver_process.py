"""The real API server as a process of its own, on ports from the kernel, ended by its id."""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

READY_S = 30.0
STOP_S = 12.0
ANSWER_S = 30.0


@dataclass(slots=True)
class Process:
    """A server that said "ready"."""

    data: Path
    url: str
    agent_url: str
    kubeconfig: Path
    process: subprocess.Popen[str]

    def stop(self) -> float:
        """SIGTERM; how many seconds it took to end."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_S)
        return time.monotonic() - began

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(STOP_S)


def start(data: Path, *more: str) -> subprocess.Popen[str]:
    """The process, which may refuse: its standard error says why."""
    arguments = ["--data", str(data), "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0"]
    with data.with_name(data.name + ".log").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "apiserver", *arguments, *more],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            cwd=Path(__file__).parents[2],
            env=os.environ | {"PYTHONUNBUFFERED": "1"},
        )


@contextmanager
def running(data: Path, *more: str) -> Iterator[Process]:
    """A server over `data` until the end of the block."""
    process = start(data, *more)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        log = data.with_name(data.name + ".log")
        assert line.startswith("ready "), f"{line!r}; {log.read_text()[-2000:]}"
        words = line.split()
        yield Process(data, words[1], words[3], data / "admin.kubeconfig", process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_S)
        process.stdout.close()


def ask(
    url: str,
    tls: ssl.SSLContext,
    method: str,
    path: str,
    data: bytes | None = None,
    content_type: str = "application/json",
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
        connection.request(method, path, data, {"Content-Type": content_type})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()
