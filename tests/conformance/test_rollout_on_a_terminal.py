"""`homeport rollout status` on a real terminal, over a real server. The rollout is written by hand:
what controllers conclude is another's test."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.fakes import apiserver_process, terminal

Json = dict[str, Any]
HOMEPORT = Path(sys.executable).parent / "homeport"
ROLLOUT = "/apis/homeport.dev/v1alpha1/namespaces/default/rollouts"
HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"
SEQUENCE = [{"limit": 2}, {"limit": "50%"}]


def ago(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


class Site:
    """A server, and somebody who plays the controllers."""

    def __init__(self, process: apiserver_process.Process, name: str) -> None:
        self.process = process
        self.name = name

    def send(self, method: str, path: str, body: Json, kind: str = "application/json") -> None:
        tls = apiserver_process.administrator(self.process)
        code, text = apiserver_process.ask(
            self.process.url, tls, method, path, json.dumps(body).encode(), {"Content-Type": kind}
        )
        assert code < 300, text

    def begin(self) -> None:
        target = {
            "fleet": "web",
            "templateVersion": "web.v3",
            "policy": {"deviceSelection": {"strategy": "BatchSequence", "sequence": SEQUENCE}},
        }
        document = {
            "apiVersion": "homeport.dev/v1alpha1",
            "kind": "Rollout",
            "metadata": {"name": self.name},
            "spec": {"target": target},
        }
        self.send("POST", ROLLOUT, document)

    def put(self, phase: str, reason: str, message: str, done: int, **more: Any) -> None:
        counts = {"selected": 40, "done": done, "failed": 1, "timedOut": 0, "disconnected": 2}
        status = {
            "phase": phase,
            "currentBatch": 1,
            "startedAt": ago(200),
            "counts": counts,
            "batches": [
                {"number": 0, "phase": "Completed", "counts": {"selected": 2, "done": 2}},
                {"number": 1, "phase": "Active", "counts": counts, "startedAt": ago(60)},
                {"number": 2, "phase": "Pending"},
            ],
            "failures": [{"cause": "no such image", "count": 1, "example": "d-17"}],
            "conditions": [
                {
                    "type": "Progressing",
                    "status": "True" if phase == "Active" else "False",
                    "reason": reason,
                    "message": message,
                    "lastTransitionTime": ago(130),
                }
            ],
        } | more
        path = f"{ROLLOUT}/{self.name}/status"
        self.send("PATCH", path, {"status": status}, "application/merge-patch+json")

    @property
    def command(self) -> list[str]:
        config = str(self.process.kubeconfig)
        return [str(HOMEPORT), "rollout", "status", f"rollout/{self.name}", "--kubeconfig", config]


@pytest.fixture
def site(server: apiserver_process.Process, request: pytest.FixtureRequest) -> Site:
    site = Site(server, f"web.v3-{abs(hash(request.node.name)) % 10_000}")
    site.begin()
    site.put("Active", "Updating", "Rolling out batch 2.", 20)
    return site


def test_a_picture_is_drawn_in_place_until_the_rollout_has_ended(site: Site) -> None:
    with terminal.running(site.command) as screen:
        drawn = screen.until("20/40")
        text = "\n".join(drawn)
        assert "Active for 3m" in text
        assert "devices a minute; about" in text
        assert "no such image (such as d-17)" in text
        site.put("Suspended", "SuccessThreshold", "Too few succeeded.", 39)
        text = "\n".join(screen.until("39/40"))
        assert "Too few succeeded. It has waited for 2m1" in text
        assert "To go on: homeport rollout approve web" in text
        assert "a minute" not in text
        assert text.count("batch 2") == 1, "one picture, not one below the other"
        site.put("Completed", "Completed", "All 40 devices.", 40, finishedAt=ago(0))
        assert screen.end() == 0
        last = screen.screen()
    assert f'rollout "{site.name}" successfully rolled out' in last
    assert "40/40" in "\n".join(last)
    assert max(map(len, last)) <= 80
    assert screen.written.rindex(SHOWN) > screen.written.rindex(HIDDEN)


def test_what_does_not_end_well_ends_with_1_and_says_why(site: Site) -> None:
    with terminal.running(site.command, columns=60) as screen:
        drawn = screen.until("20/40")
        assert max(map(len, drawn)) <= 60
        site.put("Failed", "DevicesFailed", "3 of 40 failed.", 37, finishedAt=ago(0))
        assert screen.end() == 1
        text = " ".join(screen.screen())
    assert f"error: rollout.homeport.dev/{site.name} has ended: Failed: 3 of 40 failed." in text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_a_clean_terminal(site: Site, number: signal.Signals) -> None:
    with terminal.running(site.command) as screen:
        screen.until("20/40")
        screen.send(number)
        assert screen.end() == 128 + number
        assert "Traceback" not in screen.written
        assert screen.written.rindex(SHOWN) > screen.written.rindex(HIDDEN)
        assert screen.screen()[-1] == "", "the shell's prompt comes below the picture"


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, {}], ids=["dumb terminal", "pipe"])
def test_where_nothing_can_be_redrawn_lines_are_printed(site: Site, env: dict[str, str]) -> None:
    site.put("Completed", "Completed", "All.", 40, finishedAt=ago(0))
    said = ["d-17: no such image", f'rollout "{site.name}" successfully rolled out']
    if env:
        with terminal.running(site.command, env=env) as screen:
            assert screen.end() == 0
            assert screen.screen()[:2] == said
            assert "\x1b" not in screen.written.replace("\x1b[0m", "")
        return
    done = subprocess.run(site.command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == said


def test_a_server_that_goes_and_comes_back_is_told_in_the_picture(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with apiserver_process.running(data) as process:
        port = str(urlsplit(process.url).port)
        site = Site(process, "web.v3-1")
        site.begin()
        site.put("Active", "Updating", "Rolling out batch 2.", 20)
        screen = terminal.Terminal(site.command, 80, {})
        screen.until("20/40")
        process.kill()
    try:
        # By a look that is cut off, or by the next one.
        gone = screen.until("no answer from")
        assert "20/40" in "\n".join(gone), "what was known stays"
        with apiserver_process.running(data, "--listen", f"127.0.0.1:{port}") as again:
            site.process = again
            site.put("Completed", "Completed", "All.", 40, finishedAt=ago(0))
            assert screen.end() == 0
        assert "no answer from" not in "\n".join(screen.screen())
    finally:
        screen.close()
