"""[simulated] What somebody changes on a device is put right and told, or only told."""

from __future__ import annotations

from agent import world
from resources import records
from tests.fakes.sim_device import TIMES, Device, document, file
from tests.fakes.sim_world import Node, SimWorld

V1 = document(1, [file("/etc/motd", "one"), file("/etc/other", "two")], [])


def settled(*, repairs: bool = True) -> Device:
    times = records.replace(TIMES, repairs_files=repairs)
    device = Device(SimWorld(1), times=times)
    device.offer(V1)
    device.run()
    device.is_tampered = True
    return device


def summary(device: Device) -> dict[str, str]:
    found: dict[str, str] = device.mailbox.status()["summary"]
    return found


def test_what_was_put_right_is_told_for_a_while_and_is_no_trouble() -> None:
    device = settled()
    device.world.nodes["/etc/motd"] = Node(world.FILE, b"by hand", 0o644)
    del device.world.nodes["/etc/other"]
    device.run(settle_s=100)
    assert device.picture() == device.expected("1")
    assert summary(device)["status"] == "Online"
    assert "put right" in summary(device)["info"]
    assert summary(device)["info"].endswith(": /etc/motd, /etc/other")
    assert device.loop is not None
    for _ in range(200):
        device.world.sleep(device.loop.run_once())
    assert summary(device) == {"status": "Online"}


def test_where_the_configuration_says_so_it_is_left_and_told_until_an_update() -> None:
    device = settled(repairs=False)
    device.world.nodes["/etc/motd"] = Node(world.FILE, b"by hand", 0o644)
    device.run(settle_s=100)
    assert device.world.nodes["/etc/motd"].data == b"by hand"
    assert summary(device)["status"] == "Degraded"
    assert "left so by its configuration: /etc/motd" in summary(device)["info"]
    device.offer(document(2, [file("/etc/motd", "three")], []))
    device.run(settle_s=100)
    assert device.picture() == device.expected("2")
    assert summary(device) == {"status": "Online"}


HOME = "/home/web/.config"
WITH_HOME = document(1, [file(f"{HOME}/x", "one"), file("/etc/other", "two")], [])


def led_astray() -> Device:
    """A file below a home, to which its user has closed the way."""
    device = Device(SimWorld(1), times=TIMES)
    device.offer(WITH_HOME)
    device.run()
    device.is_tampered = True
    device.world.closed.add(HOME)
    return device


def test_a_link_of_a_users_keeps_nothing_else_from_being_put_right() -> None:
    device = led_astray()
    del device.world.nodes["/etc/other"]
    agent = device.start()
    for _ in range(20):
        device.world.sleep(agent.run_once())
    assert device.world.nodes["/etc/other"].data == b"two"
    info = summary(device)["info"]
    assert f"config: {HOME}/x: {HOME} is a link that root does not follow" in info
    device.world.closed.clear()
    device.world.nodes[f"{HOME}/x"] = Node(world.FILE, b"by hand", 0o644)
    device.run(settle_s=100)
    assert device.picture() == device.expected("1")


def test_a_version_behind_a_users_link_is_refused_and_one_without_is_not() -> None:
    device = led_astray()
    device.offer(document(2, [file(f"{HOME}/x", "three")], []))
    agent = device.start()
    for _ in range(60):
        device._poll()
        device.world.sleep(agent.run_once())
    message = device.condition()["message"]
    assert f"config failed for {HOME}/x: permission denied: {HOME} is a link" in message
    device.offer(document(3, [file("/etc/other", "four")], []))
    device.run(settle_s=100)
    assert device.condition()["reason"] == "Updated"
    # Theirs from now on; what lies beyond the link was never looked at.
    assert device.world.nodes[f"{HOME}/x"].data == b"one"
    assert device.world.nodes["/etc/other"].data == b"four"
