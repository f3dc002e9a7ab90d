"""[simulated] An update that must wait: windows, holds, a hook that says later. Nothing is touched
until then, what is there is looked after, and no crash lets it begin early."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest

from agent import holding, states, world
from tests.fakes.sim_device import Device, application, document, file
from tests.fakes.sim_podman import Image
from tests.fakes.sim_world import KINDS, START, Node, SimWorld

# It is 12:00 UTC when these begin.
SOON = {"at": "4 12 * * *", "timeZone": "UTC", "startGraceDuration": "1m"}
LATER = {"at": "8 12 * * *", "timeZone": "UTC", "startGraceDuration": "5m"}
AT_TWO = {"at": "0 14 * * *", "timeZone": "UTC", "startGraceDuration": "1h"}
AT_ONE = {"at": "0 13 * * *", "timeZone": "UTC", "startGraceDuration": "10m"}
V1 = document(1, [file("/etc/motd", "one")], [application("web", "r/web:1")])
FILES, APPS = [file("/etc/motd", "two")], [application("web", "r/web:2")]


def settled() -> Device:
    where = SimWorld(1)
    where.podman.registry = {"r/web:1": Image(health=True), "r/web:2": Image(health=True)}
    device = Device(where)
    device.offer(V1)
    device.run()
    return device


def second(**policy: Any) -> dict[str, Any]:
    return document(2, FILES, APPS, **({"updatePolicy": policy} if policy else {}))


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def run_until(device: Device, moment: datetime) -> None:
    """Passes until the clock shows `moment`, or the device is done."""
    agent = device.loop or device.start()
    for _ in range(4000):
        device._poll()
        rest_s = agent.run_once()
        device._check_claims()
        left_s = (moment - device.world.now()).total_seconds()
        if left_s <= 0 or (rest_s and device._is_done(agent) and left_s <= rest_s):
            return
        device.world.sleep(min(rest_s, left_s))
    raise AssertionError("the clock stands still")


def test_an_update_waits_for_its_window_and_the_old_one_is_looked_after() -> None:
    device = settled()
    device.offer(second(updateSchedule=AT_TWO))
    run_until(device, at(1.9))
    condition = device.condition()
    assert (condition["status"], condition["reason"]) == ("True", "Preparing")
    assert (
        "renderedVersion: 2: waiting for the window for updates at 2026-11-23 14:00 UTC"
        in (condition["message"])
    )
    assert "r/web:2" in device.world.podman.images
    assert device.picture() == device.expected("1")
    device.world.nodes["/etc/motd"] = Node(world.FILE, b"by hand")
    run_until(device, at(1.95))
    assert device.picture() == device.expected("1")
    run_until(device, at(2.1))
    assert device.condition()["reason"] == "Updated"
    assert device.picture(running=True) == device.expected("2", running=True)


def test_downloads_wait_for_their_own_window_and_then_go_on_beyond_its_end() -> None:
    device = settled()
    device.offer(second(downloadSchedule=AT_ONE, updateSchedule=AT_TWO))
    run_until(device, at(0.9))
    assert "window for downloads at 2026-11-23 13:00 UTC" in device.condition()["message"]
    assert "r/web:2" not in device.world.podman.images
    device.world.podman.is_registry_down = True
    run_until(device, at(1.1))
    assert isinstance(device.loop and device.loop.state, states.Fetching)
    run_until(device, at(1.5))
    device.world.podman.is_registry_down = False
    run_until(device, at(1.9))
    assert "r/web:2" in device.world.podman.images
    assert "window for updates" in device.condition()["message"]
    assert device.picture() == device.expected("1")
    run_until(device, at(2.1))
    assert device.version() == "2"


def test_a_newer_specification_without_windows_does_not_wait() -> None:
    device = settled()
    device.offer(second(updateSchedule=AT_TWO))
    run_until(device, at(0.5))
    device.offer(document(3, FILES, APPS))
    run_until(device, at(0.6))
    assert device.version() == "3"


def test_a_zone_that_the_device_does_not_know_is_refused_by_name() -> None:
    device = settled()
    device.offer(second(updateSchedule={**AT_TWO, "timeZone": "Mars/Olympus"}))
    run_until(device, at(0.1))
    message = device.condition()["message"]
    assert "While Preparing: update policy failed" in message
    assert "no time zone Mars/Olympus" in message


def hold(device: Device, hours: float, name: str = "press") -> None:
    until = at(hours).isoformat()
    data = json.dumps({"owner": name, "reason": "batch 7", "until": until}).encode()
    device.world.mkdir(holding.FOLDER)
    device.world.nodes[f"{holding.FOLDER}/{name}"] = Node(world.FILE, data)


def test_a_hold_keeps_an_update_away_until_it_is_released_or_over() -> None:
    device = settled()
    hold(device, 1.0)
    hold(device, 2.0, "oven")
    device.world.nodes[f"{holding.FOLDER}/broken"] = Node(world.FILE, b"?")
    device.offer(second())
    run_until(device, at(0.5))
    message = device.condition()["message"]
    assert "held by oven until 2026-11-23T14:00:00Z: batch 7 (and by 1 more)" in message
    assert "hold.d/broken holds nothing" in device.mailbox.status()["summary"]["info"]
    del device.world.nodes[f"{holding.FOLDER}/oven"]
    run_until(device, at(0.6))
    assert "held by press" in device.condition()["message"]
    assert device.picture() == device.expected("1")
    run_until(device, at(1.1))
    assert device.version() == "2"


def test_a_hook_may_ask_for_another_time_as_often_as_it_likes() -> None:
    device = settled()
    where = device.world
    where.mkdir("/etc/flightctl/hooks.d/beforeupdating")
    hook = Node(world.FILE, b"- run: /bin/ready\n")
    where.nodes["/etc/flightctl/hooks.d/beforeupdating/10.yaml"] = hook
    where.hooks["/bin/ready"] = 75
    device.offer(second())
    run_until(device, at(10))
    condition = device.condition()
    assert condition["reason"] == "Preparing"
    assert "beforeupdating/10.yaml asks for another time: said no" in condition["message"]
    # More often than an update may stumble, and than steps that lead nowhere are done.
    assert len(where.hooked) > 300
    assert device.picture() == device.expected("1")
    where.hooks["/bin/ready"] = 0
    run_until(device, at(10.1))
    assert device.version() == "2"


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power-cut"])
def test_no_crash_lets_an_update_begin_before_its_time(power: bool) -> None:
    whole = settled()
    whole.world.effects.clear()
    whole.offer(second(downloadSchedule=SOON, updateSchedule=LATER))
    run_until(whole, at(0.2))
    count = len(whole.world.effects)
    print(f"crash points: {count} effects x {len(KINDS)} kinds")
    base = settled()
    for k in range(count):
        for kind in KINDS:
            device = Device(base.world.twin(k), times=base.times)
            device.known = dict(base.known)
            device.offer(second(downloadSchedule=SOON, updateSchedule=LATER))
            device.world.crash_at = {k: kind}
            device.run_through_crashes(power=power)
            begun = [p for p, n in device.world.nodes.items() if p == "/etc/motd" and n.data]
            assert begun
            assert device.world.now() >= at(8 / 60), (k, kind)
            assert device.picture() == device.expected("2"), (k, kind)


def test_a_disk_that_is_nearly_full_takes_no_downloads_until_it_is_not() -> None:
    device = settled()
    device.mailbox.set_levels({"cpu": "Healthy", "memory": "Healthy", "disk": "Critical"})
    device.offer(second())
    run_until(device, at(0.5))
    assert device.condition()["reason"] == "Preparing"
    assert "waiting: Critical resource alert: Disk" in device.condition()["message"]
    assert "r/web:2" not in device.world.podman.images
    assert device.picture() == device.expected("1")
    device.mailbox.set_levels({"cpu": "Healthy", "memory": "Healthy", "disk": "Warning"})
    device.run()
    assert device.picture() == device.expected("2")


def test_a_full_disk_does_not_hold_up_what_needs_no_download() -> None:
    """It may be what frees it."""
    device = settled()
    device.mailbox.set_levels({"disk": "Critical"})
    device.offer(document(2, FILES, []))
    device.run()
    assert device.picture() == device.expected("2")


def test_a_device_without_memory_begins_no_update() -> None:
    device = settled()
    device.offer(second(updateSchedule=AT_TWO))
    run_until(device, at(1.9))
    device.mailbox.set_levels({"memory": "Critical"})
    run_until(device, at(2.2))
    assert "waiting: Critical resource alert: Memory" in device.condition()["message"]
    assert device.picture() == device.expected("1")
    device.mailbox.set_levels({"memory": "Healthy"})
    device.run()
    assert device.picture() == device.expected("2")
