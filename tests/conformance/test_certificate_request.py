"""`homeport certificate request` against the real server: what it prints, a device enrols with."""

from __future__ import annotations

import asyncio
import base64
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.fakes import apiserver_process
from tests.fakes.agent_client import Agent, Connection
from tests.fakes.apiserver_process import Process

# A dozen programs are started, one after the other.
pytestmark = pytest.mark.timeout(180)
HOMEPORT = Path(sys.executable).parent / "homeport"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    with apiserver_process.running(tmp_path_factory.mktemp("server") / "data") as process:
        yield process


def homeport(server: Process, *argv: str) -> subprocess.CompletedProcess[str]:
    command = [HOMEPORT, *argv, "--kubeconfig", server.kubeconfig]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_device_enrols_with_what_it_prints(server: Process, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    done = homeport(
        server, "certificate", "request", "--expires", "2h", "--name", "line-4", "--output", file
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("certificatesigningrequest/line-4-")
    assert file.stat().st_mode & 0o777 == 0o600
    section = yaml.safe_load(file.read_text())["enrollment-service"]
    assert section["service"]["server"] == server.agent_url
    assert section["enrollment-ui-endpoint"] == server.url

    shown = section["authentication"]
    pem = base64.b64decode(shown["client-certificate-data"])
    pem += base64.b64decode(shown["client-key-data"])
    (tmp_path / "some.pem").write_bytes(pem)
    authority = base64.b64decode(section["service"]["certificate-authority-data"])
    agent = Agent(server.agent_url, authority, tmp_path)

    async def enrol() -> int:
        async with Connection(server.agent_url, authority, tmp_path / "some.pem") as factory:
            return (await agent.enrol(factory)).code

    assert asyncio.run(enrol()) == 201

    def status(kind: str) -> list[str]:
        path = "{.status.conditions[*].type} {.status.lifecycle.status}"
        return homeport(server, "get", kind, agent.name, "-o", f"jsonpath={path}").stdout.split()

    for words, kind, becomes in (
        (["deny", f"er/{agent.name}"], "er", "Denied"),
        (["approve", f"er/{agent.name}"], "er", "Approved"),
        (["decommission", f"device/{agent.name}"], "device", "Decommissioning"),
    ):
        done = homeport(server, *words)
        assert done.returncode == 0, done.stderr
        assert becomes in status(kind)


def test_longer_than_the_signer_signs_is_refused_and_says_how_long(server: Process) -> None:
    done = homeport(server, "certificate", "request", "--expires", "3651d")
    assert done.returncode == 1
    assert "flightctl.io/enrollment signs for 3650 days" in done.stderr
    assert homeport(server, "certificate", "request", "--expires", "3650d").returncode == 0


def test_a_key_is_shown_on_a_terminal_only_to_who_says_so(server: Process) -> None:
    def on_a_terminal(*argv: str) -> tuple[int, str, str]:
        ours, theirs = pty.openpty()
        command = [HOMEPORT, "certificate", "request", "--kubeconfig", server.kubeconfig, *argv]
        done = subprocess.run(
            command, stdout=theirs, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
        os.close(theirs)
        try:
            shown = os.read(ours, 65536).decode() if done.returncode == 0 else ""
        finally:
            os.close(ours)
        return done.returncode, shown, done.stderr

    code, _, err = on_a_terminal()
    assert code == 2
    assert "private key" in err
    code, shown, _ = on_a_terminal("--output", "-")
    assert code == 0
    assert "enrollment-service" in shown


def test_it_names_the_formats_that_there_are(server: Process) -> None:
    done = homeport(server, "certificate", "request", "--format", "cdrom")
    assert done.returncode == 2
    assert "config, cloud-init, ignition, kickstart" in done.stderr
