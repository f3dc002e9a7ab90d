"""`make demo CHECK=1` tells the whole story, and whoever stops it in the middle finds it tidy."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.e2e import devices, processes
from tests.e2e.checkout import CHECKOUT

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]

ARGV = [sys.executable, "-m", "tests.e2e.demo", "--check"]


def test_the_story_comes_true_from_beginning_to_end(tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    started = time.monotonic()
    with log.open("wb") as out:
        done = subprocess.run(ARGV, stdout=out, stderr=subprocess.STDOUT, cwd=CHECKOUT)
    told = log.read_text()
    print(told)
    assert done.returncode == 0, told[-4000:]
    assert "Done: every step was checked" in told
    assert ("No device can be booted here" in told) == bool(devices.cannot_boot())
    print(f"the demo took {time.monotonic() - started:.0f} s")
    _nothing_is_left(told)


@pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}")
def test_stopped_in_the_middle_it_leaves_nothing(tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    demo = processes.start(ARGV, log, cwd=CHECKOUT)
    processes.until(
        lambda: "get enrollmentrequests" in log.read_text(),
        "the devices are up",
        timeout_s=200,
        state=log.read_text,
    )
    demo.send_signal(signal.SIGINT)
    assert demo.wait(60) == 130, log.read_text()
    _nothing_is_left(log.read_text())
    assert not [m for m in _machines() if f"{devices.PREFIX}{demo.pid}-" in m]


def _nothing_is_left(told: str) -> None:
    folder = next(line for line in told.splitlines() if "homeport up --data" in line).split()[-1]
    folder = str(Path(folder).parent)
    assert not Path(folder).exists()
    assert folder not in Path("/proc/mounts").read_text()
    left = subprocess.run(["pgrep", "-af", folder], capture_output=True, text=True).stdout
    assert not left


def _machines() -> list[str]:
    return [group.name for group in devices.CGROUPS.glob(f"**/{devices.PREFIX}*")]
