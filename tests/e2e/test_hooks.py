"""Hooks on a real device: a changed file reloads a real unit, and hooks that fail say no.

One device through a row of updates; each test changes what the one before has left.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e import devices, processes
from tests.e2e.yard import Yard, condition

Json = dict[str, Any]

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
]

HOOKS = "/etc/flightctl/hooks.d"
# Reads its file at the start and at each reload, and shows what it has read.
LAMP = """#!/bin/sh
look() { cat /etc/lamp.conf > /run/lamp.now; }
trap look HUP
look
while :; do sleep 0.2; done
"""
UNIT = """[Service]
ExecStart=/usr/local/bin/lamp
ExecReload=/bin/kill -HUP $MAINPID
"""
AFTER = """
- run: /bin/sh -c 'echo run >> /run/after.count'
- if:
    - {path: /etc/systemd/system/lamp.service, op: [created, updated]}
  run: systemctl restart lamp.service
- if:
    - {path: /etc/lamp.conf, op: [created, updated, removed]}
  run: systemctl reload lamp.service
- if:
    - {path: /etc/bad.conf, op: [created]}
  run: /bin/sh -c 'echo ${Files} is no good >&2; exit 3'
"""
BEFORE = """
- run: /bin/sh -c 'if test -e /run/slow; then sleep 4; rm /run/slow; fi'
- run: /usr/bin/test ! -e /run/not-now
"""
REBOOTED = """
- if: ["rebooted == true"]
  run: /bin/sh -c 'cat /proc/sys/kernel/random/boot_id > /var/lib/rebooted'
"""


def spec(lamp: str, **more: str) -> Json:
    files = {
        "/usr/local/bin/lamp": LAMP,
        "/etc/systemd/system/lamp.service": UNIT,
        f"{HOOKS}/afterupdating/50-lamp.yaml": AFTER,
        f"{HOOKS}/beforeupdating/50-lamp.yaml": BEFORE,
        f"{HOOKS}/afterrebooting/50-lamp.yaml": REBOOTED,
        "/etc/lamp.conf": f"{lamp}\n",
        **more,
    }
    inline = [
        {"path": path, "content": text, "mode": 0o755 if "/bin/" in path else 0o644}
        for path, text in files.items()
    ]
    return {"config": [{"name": "lamp", "inline": inline}]}


@pytest.fixture(scope="module")
def yard(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    with Yard(tmp_path_factory.mktemp("yard"), "lamp") as yard:
        yield yard


def pid(yard: Yard) -> int:
    argv = ["systemctl", "show", "--property=MainPID", "--value", "lamp.service"]
    return int(yard.device.exec(*argv, check=True).out)


def shows(yard: Yard, lamp: str, timeout_s: float = 30) -> None:
    processes.until(
        lambda: yard.device.read("/run/lamp.now") == f"{lamp}\n",
        f"the lamp has read {lamp}",
        timeout_s=timeout_s,
        state=yard.how_it_is,
    )


def runs(yard: Yard) -> int:
    return yard.device.read("/run/after.count").count("run")


def test_a_changed_file_reloads_its_unit_without_a_restart(yard: Yard) -> None:
    assert condition(yard.declare(**spec("one")))["reason"] == "Updated"
    shows(yard, "one")
    before = pid(yard)
    assert before
    assert condition(yard.declare(**spec("two")))["reason"] == "Updated"
    shows(yard, "two")
    assert pid(yard) == before
    assert yard.device.boots == 1


def test_a_file_that_was_edited_by_hand_is_given_back_and_reloaded(yard: Yard) -> None:
    before, count = pid(yard), runs(yard)
    yard.device.write("/etc/lamp.conf", "by hand\n")
    yard.device.exec("systemctl", "reload", "lamp.service", check=True)
    shows(yard, "two")
    assert pid(yard) == before
    # What has no condition is for updates: neither this repair nor any look since has run it.
    time.sleep(6)
    assert runs(yard) == count == 2


def test_the_status_goes_on_while_a_hook_runs(yard: Yard) -> None:
    yard.device.write("/run/slow", "")
    yard.order(**spec("three"))
    processes.until(
        lambda: (
            condition(yard.status()).get("reason") == "ApplyingUpdate"
            and yard.device.path("/run/slow").exists()
        ),
        "the service knows of the update while the hook runs",
        timeout_s=30,
        every_s=0.1,
        state=yard.how_it_is,
    )
    shows(yard, "three")
    yard.settled()


def test_a_hook_that_says_no_before_an_update_leaves_everything_as_it_was(yard: Yard) -> None:
    yard.device.write("/run/not-now", "")
    message = condition(yard.declare(**spec("four")))["message"]
    assert "While Preparing: hooks failed for beforeupdating/50-lamp.yaml" in message
    assert "/usr/bin/test: exit status 1" in message
    assert yard.device.read("/etc/lamp.conf") == "three\n"
    yard.device.path("/run/not-now").unlink()


def test_a_hook_that_fails_after_an_update_takes_it_back(yard: Yard) -> None:
    before = pid(yard)
    message = condition(yard.declare(**spec("five", **{"/etc/bad.conf": "x"})))["message"]
    assert "While ApplyingUpdate: hooks failed for afterupdating/50-lamp.yaml" in message
    assert "/etc/bad.conf is no good" in message
    assert not yard.device.path("/etc/bad.conf").exists()
    assert yard.device.read("/etc/lamp.conf") == "three\n"
    # The way back has its hooks too.
    shows(yard, "three")
    assert pid(yard) == before


def test_hooks_after_a_reboot_run_once(yard: Yard) -> None:
    yard.device.reboot()
    boot = yard.device.exec("cat", "/proc/sys/kernel/random/boot_id").out
    processes.until(
        lambda: yard.device.read("/var/lib/rebooted") == boot,
        "the hook has run",
        timeout_s=30,
        state=yard.how_it_is,
    )
    yard.device.path("/var/lib/rebooted").unlink()
    yard.device.kill_agent()
    yard.device.start_agent()
    processes.until(yard.device.agent_pid, "the agent is back", timeout_s=30)
    time.sleep(3)
    assert not yard.device.path("/var/lib/rebooted").exists()
