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
