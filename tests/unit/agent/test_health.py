"""`homeport-agent health`, as greenboot calls it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from agent import __main__ as command_line
from agent import health, world

PACKAGING = Path(__file__).resolve().parents[3] / "agent/packaging"


def unit(state: str = "active", *, restarts: int = 0, **more: str) -> dict[str, str]:
    found = {"UnitFileState": "enabled", "ActiveState": state, "NRestarts": str(restarts)}
    return {**found, **more}


class Watched:
    """systemd answers one look after the other, then the last again and again."""

    def __init__(self, *looks: dict[str, str] | None) -> None:
        self.looks = list(looks)
        self.elapsed_s = 0.0

    def monotonic(self) -> float:
        return self.elapsed_s

    def sleep(self, seconds: float) -> None:
        self.elapsed_s += seconds

    def run(self, argv: list[str], **options: Any) -> world.Completed:
        assert argv == ["systemctl", "show", "--all", "--", "flightctl-agent.service"]
        look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        text = "\n".join(f"{k}={v}" for k, v in (look or {}).items())
        return world.Completed(tuple(argv), 0 if look is not None else 1, text, "")


@pytest.mark.parametrize(
    ("looks", "status", "words", "took_s"),
    [
        ([unit()], 0, "is up and stays up", 60),
        ([unit("activating"), None, unit()], 0, "is up and stays up", 70),
        ([unit("reloading", StatusText="Connected")], 0, "says: Connected", 60),
        # Offline is healthy: nothing but the unit counts.
        ([unit(StatusText="Waiting for approval")], 0, "is up and stays up", 60),
        ([unit("activating")], 1, "is not up after 150 s: it is activating", 150),
        ([None], 1, "is not up after 150 s: it is unknown", 150),
        ([unit("failed", Result="exit-code")], 1, "has failed: exit-code", 0),
        ([unit(UnitFileState="disabled")], 1, "is not enabled: disabled", 0),
        ([unit(UnitFileState="")], 1, "is not enabled: no such unit", 0),
        ([unit(), unit(), unit("activating")], 1, "did not stay up: it is activating", 10),
        ([unit(), unit(), unit(restarts=1)], 1, "was restarted within 60 s", 10),
    ],
)
def test_health(looks: list[dict[str, str] | None], status: int, words: str, took_s: float) -> None:
    where = Watched(*looks)
    said: list[str] = []
    assert health.check(where, health.Patience(), said.append) == status  # type: ignore[arg-type]
    assert words in " ".join(said)
    assert where.elapsed_s == took_s


@pytest.mark.parametrize(
    "argv", [["--timeout", "soon"], ["--timeout=-1s"], ["--nope"], ["--poll-interval"], ["more"]]
)
def test_wrong_flags_have_an_exit_status_of_their_own(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command_line.main(["health", *argv])
    assert ended.value.code == health.WRONG_USAGE


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({}, ["--timeout", "150s", "--stability-window", "60s", "--poll-interval", "5s"]),
        (
            {"FLIGHTCTL_HEALTH_CHECK_TIMEOUT": "9", "FLIGHTCTL_HEALTH_POLL_INTERVAL": "1"},
            ["--timeout", "9s", "--stability-window", "60s", "--poll-interval", "1s"],
        ),
    ],
)
def test_the_script_of_greenboot_passes_on_what_is_set_and_the_verdict(
    tmp_path: Path, settings: dict[str, str], flags: list[str]
) -> None:
    agent = tmp_path / "flightctl-agent"
    agent.write_text('#!/bin/sh\necho "$@"\nexit 1\n')
    agent.chmod(0o755)
    script = PACKAGING / "greenboot/check/required.d/20_check_flightctl_agent.sh"
    ended = subprocess.run(
        [script],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **settings},
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert ended.stdout.split() == ["health", "--verbose", *flags]
    assert ended.returncode == health.UNHEALTHY
