"""[simulated] Hooks: once for each transition, again after a crash, and no is no."""

from __future__ import annotations

import json

import pytest

from agent import world
from tests.fakes.sim_device import Device, application, document, file
from tests.fakes.sim_podman import Image
from tests.fakes.sim_world import KINDS, Node, SimWorld

FOLDER = "/etc/flightctl/hooks.d"
BEFORE = b"- run: /bin/before\n"
AFTER = b"""
- run: /bin/after
- {run: '/bin/reload ${Files}', if: [{path: /etc/motd, op: [created, updated]}]}
"""
REBOOTED = b"- {run: /bin/rebooted, if: ['rebooted == true']}\n"
V1 = document(1, [file("/etc/motd", "one")], [application("web", "r/web:1")])
V2 = document(2, [file("/etc/motd", "two")], [application("web", "r/web:2")])
SAME = document(3, [file("/etc/motd", "two")], [application("web", "r/web:2")])
ONCE = [("/bin/before",), ("/bin/after",), ("/bin/reload", "/etc/motd")]


def settled(**programs: int) -> Device:
    where = SimWorld(1)
    where.podman.registry = {"r/web:1": Image(health=True), "r/web:2": Image(health=True)}
    hooks = {"before": BEFORE, "after": AFTER}
    files = {f"{FOLDER}/{point}updating/10.yaml": data for point, data in hooks.items()}
    files[f"{FOLDER}/afterrebooting/10.yaml"] = REBOOTED
    for path, data in files.items():
        where.mkdir(path.rsplit("/", 1)[0])
        where.nodes[path] = Node(world.FILE, data)
    where.hooks = {f"/bin/{name}": 0 for name in ("before", "after", "reload", "rebooted")}
    device = Device(where)
    device.offer(V1)
    device.run()
    where.hooks.update({f"/bin/{name}": status for name, status in programs.items()})
    where.hooked.clear()
    return device


def again(base: Device, seed: int = 1) -> Device:
    twin = Device(base.world.twin(seed), times=base.times)
    twin.known = dict(base.known)
    twin.offer(V2)
    return twin


def test_an_update_runs_each_point_once_and_looks_run_none() -> None:
    device = settled()
    device.offer(V2)
    device.run(settle_s=600.0)
    assert device.world.hooked == ONCE
    device.offer(SAME)
    device.run(settle_s=100.0)
    assert device.world.hooked == ONCE


def test_files_are_there_when_the_hooks_after_them_run_and_containers_are_not() -> None:
    device = settled()
    device.offer(V2)
    device.world.effects.clear()
    device.run()
    effects = device.world.effects
    marks = ["write /etc/motd", "hook /bin/after", "hook /bin/reload", "podman stop"]
    at = [effects.index(mark) for mark in ("hook /bin/before", *marks)]
    assert at == sorted(at)


def test_a_repaired_file_runs_what_asked_for_it_and_nothing_else() -> None:
    device = settled()
    device.world.nodes["/etc/motd"] = Node(world.FILE, b"by hand", 0o644)
    device.is_tampered = True
    device.run(settle_s=31.0)
    assert device.world.hooked == [("/bin/reload", "/etc/motd")]


def test_no_before_an_update_refuses_it_and_nothing_was_touched() -> None:
    device = settled(before=1)
    device.offer(V2)
    made = device.world.podman.made
    device.run(settle_s=100.0)
    message = device.condition()["message"]
    assert "While Preparing: hooks failed for beforeupdating/10.yaml" in message
    assert "/bin/before: exit status 1: said no" in message
    assert device.world.podman.made == made
    assert device.world.hooked == [("/bin/before",)]


def test_no_after_an_update_takes_it_back_with_the_hooks_of_the_way_back() -> None:
    device = settled(reload=1)
    device.offer(V2)
    device.run(settle_s=100.0)
    message = device.condition()["message"]
    assert "While ApplyingUpdate: hooks failed for afterupdating/10.yaml" in message
    assert device.picture(running=True) == device.expected("1", running=True)
    # The way back calls them too, and their no does not hold it up.
    assert device.world.hooked == [*ONCE, *ONCE[1:]]


def test_a_reboot_is_told_once_and_the_first_boot_is_none() -> None:
    device = settled()
    device.run()
    assert device.world.hooked == []
    device.world.power_cut()
    device.run()
    device.run()
    assert device.world.hooked == [("/bin/rebooted",)]
    device.world.hooks["/bin/rebooted"] = 1
    device.world.power_cut()
    device.run()
    assert "afterrebooting/10.yaml" in device.mailbox.status()["summary"]["info"]


def test_a_reboot_in_which_the_agents_were_changed_is_one() -> None:
    """`system.json` is the other agent's memory, and we write it for it."""
    device = settled()
    device.run()
    path = "/var/lib/flightctl/system.json"
    kept = json.loads(device.world.nodes[path].data)
    assert kept["bootID"] == device.world.boot_id()
    assert kept["bootTime"].endswith("Z")
    del device.world.nodes["/var/lib/flightctl/homeport/hooks.json"]
    device.run()
    assert device.world.hooked == [], "the same boot"
    device.world.nodes[path] = Node(world.FILE, json.dumps({**kept, "bootID": "older"}).encode())
    device.run()
    assert device.world.hooked == [("/bin/rebooted",)]
    assert json.loads(device.world.nodes[path].data)["bootID"] == device.world.boot_id()


@pytest.mark.parametrize(
    "text", [b"- {run: /bin/after, when: now}", b"- {run: 'a \"'}", b"nothing"]
)
def test_a_file_that_is_no_hook_refuses_the_update_by_name(text: bytes) -> None:
    device = settled()
    device.world.nodes[f"{FOLDER}/beforeupdating/10.yaml"] = Node(world.FILE, text)
    device.offer(V2)
    device.run()
    assert "hooks failed for beforeupdating/10.yaml" in device.condition()["message"]


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power-cut"])
def test_whatever_cuts_an_update_off_its_hooks_have_run_in_order(
    power: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    base = settled()
    whole = again(base)
    whole.run()
    count = len(whole.world.effects)
    for k in range(count):
        for kind in KINDS:
            device = again(base, seed=k)
            device.world.crash_at = {k: kind}
            assert device.run_through_crashes(power=power) == 1, (k, kind)
            assert device.picture(running=True) == device.expected("2", running=True)
            hooked = [call for call in device.world.hooked if call != ("/bin/rebooted",)]
            assert hooked[0] == ONCE[0], (k, kind, hooked)
            # The point that was cut off is done again, and from its beginning.
            assert hooked[-2:] == ONCE[1:], (k, kind, hooked)
            assert len(hooked) <= len(ONCE) + 2, (k, kind, hooked)
    with capsys.disabled():
        name = "power cut" if power else "kill"
        print(f"\n[simulated] hooks: {name} at {count} effects × {len(KINDS)}")
