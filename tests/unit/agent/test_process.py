"""The whole agent as a process, against a service on loopback."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fakes import agent_rig

REPOSITORY = Path(__file__).resolve().parents[3]
PATIENCE_S = 30.0


class Agent:
    def __init__(self, rig: agent_rig.Rig, log: Path) -> None:
        self.rig = rig
        self.root = rig.world.path("/")
        self.log = log
        self.child: subprocess.Popen[bytes] | None = None

    def start(self, **environ: str) -> None:
        command = [sys.executable, "-m", "agent", "--root", str(self.root)]
        with self.log.open("ab") as out:
            self.child = subprocess.Popen(
                command,
                cwd="/",
                stdout=out,
                stderr=out,
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": str(REPOSITORY),
                    "FLIGHTCTL_DISABLE_CONSOLE_BANNER": "1",
                    **environ,
                },
            )

    def asks(self) -> str:
        """Start it, and wait for its request to be let in, which has this name."""
        self.start()
        self.until(lambda: self.rig.service.enrollments)
        (name,) = self.rig.service.enrollments
        return name

    def signal(self, number: int) -> None:
        assert self.child is not None
        self.child.send_signal(number)

    def wait(self, seconds: float = PATIENCE_S) -> int:
        assert self.child is not None
        return self.child.wait(seconds)

    def until(self, what: Callable[[], object]) -> None:
        assert self.child is not None
        deadline = time.monotonic() + PATIENCE_S
        while not what():
            assert self.child.poll() is None, self.words()
            assert time.monotonic() < deadline, self.words()
            time.sleep(0.05)

    def told(self, command: str) -> str:
        """What a person is answered who asks beside the running agent."""
        argv = [sys.executable, "-m", "agent", "--root", str(self.root), command]
        environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(argv, cwd="/", env=environ, capture_output=True, text=True)
        return done.stdout

    def words(self) -> str:
        return self.log.read_text()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    with agent_rig.rigged(tmp_path) as rig:
        # Longer than anybody waits for it to stop.
        rig.service.hold_s = 600
        rig.settings(**{"enrollment-verify-interval": "2s", "status-update-interval": "2s"})
        made = Agent(rig, tmp_path / "agent.log")
        yield made
        if made.child is not None and made.child.poll() is None:
            made.child.kill()
            made.child.wait()


def reported(agent: Agent, version: str) -> Callable[[], bool]:
    def found() -> bool:
        bodies: list[dict[str, Any]] = agent.rig.service.statuses
        return any(b["status"]["config"]["renderedVersion"] == version for b in bodies)

    return found


def test_a_device_enrols_reports_and_stops_though_its_poll_is_held(agent: Agent) -> None:
    service = agent.rig.service
    name = agent.asks()
    service.approve(name)
    agent.until(reported(agent, "1"))
    (body, *_) = service.statuses
    assert body["metadata"]["name"] == name
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 0, agent.words()

    agent.start()
    service.render(name, 2)
    agent.until(reported(agent, "2"))
    assert len(service.seen("POST", "/enrollmentrequests")) == 1
    agent.signal(signal.SIGINT)
    assert agent.wait() == 0, agent.words()


def test_a_person_beside_it_sees_how_the_running_agent_gets_on(agent: Agent) -> None:
    service = agent.rig.service
    name = agent.asks()
    agent.until(lambda: "not enrolled" in agent.told("status"))
    service.approve(name)
    agent.until(lambda: "connected, last answer" in agent.told("status"))
    agent.until(lambda: "runs         version 1" in agent.told("status"))
    agent.until(lambda: "condition    Updating Updated" in agent.told("status"))
    told = agent.told("status")
    assert told.startswith(f"device       {name}, certificate until 20"), told
    assert "is reached" in agent.told("doctor")


def test_only_one_agent_runs_on_a_data_directory(agent: Agent, tmp_path: Path) -> None:
    agent.start()
    agent.until(lambda: agent.rig.service.enrollments)
    second = Agent(agent.rig, tmp_path / "second.log")
    second.start()
    assert second.wait() == 1
    assert "another agent" in second.words()


def test_a_denial_ends_the_process_with_1_and_the_reason(agent: Agent) -> None:
    service = agent.rig.service
    name = agent.asks()
    condition = {"type": "Denied", "status": "True", "reason": "R", "message": "stolen goods"}
    service.enrollments[name]["status"]["conditions"] = [condition]
    assert agent.wait() == 1
    assert "stolen goods" in agent.words()


def test_hangup_reads_the_configuration_again_and_a_bad_one_changes_nothing(
    agent: Agent,
) -> None:
    service = agent.rig.service
    name = agent.asks()
    service.approve(name)
    agent.until(lambda: service.statuses)
    assert "kernel" in service.statuses[-1]["status"]["systemInfo"]
    config = agent.rig.world.path("/etc/flightctl/config.yaml")
    document = yaml.safe_load(config.read_text())
    config.write_text(yaml.safe_dump({**document, "system-info": ["cpuCores"]}))
    agent.signal(signal.SIGHUP)
    agent.until(lambda: "kernel" not in service.statuses[-1]["status"]["systemInfo"])
    config.write_text("a: [")
    agent.signal(signal.SIGHUP)
    agent.until(lambda: "not reloaded" in agent.words())
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 0


@pytest.mark.parametrize("text", ["a: [", "nowhere"])
def test_a_configuration_that_leads_nowhere_does_not_lose_the_device(
    agent: Agent, text: str
) -> None:
    """The last one that worked is used, said in the summary, and left once the new one works."""
    service = agent.rig.service
    config = agent.rig.world.path("/etc/flightctl/config.yaml")
    good = config.read_text()
    name = agent.asks()
    service.approve(name)
    agent.until(reported(agent, "1"))
    agent.signal(signal.SIGTERM)
    agent.wait()

    if text == "nowhere":
        document = yaml.safe_load(good)
        document["enrollment-service"]["service"]["server"] = "https://127.0.0.1:1"
        text = yaml.safe_dump(document)
    config.write_text(text)
    service.render(name, 2)
    agent.start()
    agent.until(reported(agent, "2"))
    agent.until(lambda: service.statuses[-1]["status"]["summary"]["status"] == "Degraded")
    assert "reach" in service.statuses[-1]["status"]["summary"]["info"]
    agent.signal(signal.SIGTERM)
    agent.wait()

    config.write_text(good)
    agent.start()
    agent.until(lambda: service.statuses[-1]["status"]["summary"]["status"] == "Online")
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 0


def test_a_metered_device_asks_once_an_interval_and_when_its_configuration_is_read_again(
    agent: Agent,
) -> None:
    service = agent.rig.service
    service.hold_s = 0.2
    agent.rig.settings(**{"network-profile": "metered", "enrollment-verify-interval": "2s"})
    name = agent.asks()
    service.approve(name)
    current = agent.rig.world.path("/var/lib/flightctl/current.json")
    agent.until(lambda: '"device-controller/renderedVersion":"1"' in current.read_text())
    agent.until(lambda: service.statuses)
    polls = len(service.seen("GET", f"/devices/{name}/rendered"))
    service.render(name, 2)
    time.sleep(6)
    assert len(service.seen("GET", f"/devices/{name}/rendered")) == polls
    agent.signal(signal.SIGHUP)
    agent.until(lambda: len(service.seen("GET", f"/devices/{name}/rendered")) > polls)
    agent.signal(signal.SIGTERM)
    assert agent.wait() == 0


def test_systemd_hears_that_the_agent_does_not_hang(agent: Agent, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(PATIENCE_S)
        agent.start(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="900000")
        messages = b""
        while messages.count(b"WATCHDOG=1\n") < 2:
            messages += heard.recv(1000)
        assert messages.index(b"READY=1") < messages.index(b"WATCHDOG=1")


def test_an_agent_that_dies_again_and_again_says_so(agent: Agent) -> None:
    service = agent.rig.service
    name = agent.asks()
    service.approve(name)
    agent.until(reported(agent, "1"))
    lives = agent.rig.world.path("/var/lib/flightctl/homeport/lives.json")
    for _ in range(3):
        before = lives.read_text()
        agent.signal(signal.SIGKILL)
        agent.wait()
        agent.start()
        agent.until(lambda before=before: lives.read_text() != before)
    agent.until(
        lambda: "ended unasked" in service.statuses[-1]["status"]["summary"].get("info", "")
    )
    assert service.statuses[-1]["status"]["summary"]["status"] == "Degraded"
