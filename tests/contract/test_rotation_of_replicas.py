"""Two server processes on one PostgreSQL, each with its own directory: rotated at one of them, both
follow, at the same moment; ended at the other, it is ended for both."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from apiserver import ca
from tests.fakes.apiserver_process import Replicas

PATIENCE_S = 60.0
OVERLAP_S = "6"


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def is_trusted(url: str, authority: Path) -> bool:
    """Whether a server's certificate leads to this root."""
    parts = urlsplit(url)
    context = ssl.create_default_context(cafile=authority)
    try:
        with socket.create_connection((parts.hostname or "", parts.port or 0)) as plain:
            context.wrap_socket(plain, server_hostname=parts.hostname).close()
    except ssl.SSLCertVerificationError:
        return False
    return True


@pytest.mark.timeout(400)
def test_all_servers_of_a_database_follow(
    tmp_path: Path, new_database: Callable[[str], str]
) -> None:
    with Replicas(tmp_path, new_database("postgresql"), 2) as replicas:
        pkis = [replicas.data(which) / "pki" for which in range(2)]
        urls = [process.url for process in replicas.processes.values()]
        words = ["--rotate", "--overlap", OVERLAP_S, "--renew-within", "60"]
        assert ca.main(["--data", str(replicas.data(0)), *words]) == 0
        until(lambda: all((pki / "2" / "ca.crt").exists() for pki in pkis))
        first, second = (pki / "2" / "ca.crt" for pki in pkis)
        assert first.read_bytes() == second.read_bytes()
        signs_from = [(pki / "2" / "signs-from").read_text() for pki in pkis]
        assert signs_from[0] == signs_from[1]
        until(lambda: all(is_trusted(url, first) for url in urls))
        assert all(is_trusted(url, pkis[0] / "ca.crt") for url in urls), "who knows the old one too"
        assert ca.main(["--data", str(replicas.data(1)), "--end", "1"]) == 0
        until(lambda: all((pki / "trusted-until").exists() for pki in pkis))
        replicas.kill(0)
        again = replicas.ready(0, replicas.launch(0))
        assert is_trusted(again.url, first)
