"""[simulated] Applications that the operating system's image has brought with it."""

from __future__ import annotations

import posixpath
from typing import Any

import pytest

from agent import compose, embedded, loop, world
from tests.fakes import sim_device, sim_image_device
from tests.fakes.sim_device import Device, document, file
from tests.fakes.sim_podman import Image
from tests.fakes.sim_world import KINDS, Node, SimWorld

WEB = "r.io/web"
UNIT = f"[Container]\nImage={WEB}:1\n[Install]\nWantedBy=default.target\n"
PROJECT = f"services:\n  x: {{image: '{WEB}:1'}}\n"
QUADLET = f"{embedded.QUADLETS}/page/page.container"
COMPOSE = f"{compose.EMBEDDED}/stack/docker-compose.yaml"


def put(where: SimWorld, path: str, text: str) -> None:
    """As the image has it: nobody writes it."""
    folder = path
    while (folder := posixpath.dirname(folder)) not in where.nodes:
        where.nodes[folder] = Node(world.DIRECTORY)
    where.nodes[path] = Node(world.FILE, text.encode())


def brought(*, seed: int = 1) -> Device:
    where = SimWorld(seed).with_systemd()
    where.podman.registry = {f"{WEB}:{tag}": Image() for tag in ("1", "2")}
    put(where, QUADLET, UNIT)
    put(where, COMPOSE, PROJECT)
    put(where, f"{compose.EMBEDDED}/notes/readme.yaml", "a: b\n")
    device = Device(where)
    # What is looked at here is not only what specifications say.
    device.is_tampered = True
    return device


def settle(device: Device) -> None:
    device.run(settle_s=120.0)


def boxes(device: Device) -> dict[str, tuple[str, str]]:
    """Name -> (identifier, image)."""
    found = device.world.podman.boxes
    return {b.name: (key, b.image) for key, b in found.items() if b.status == "running"}


def listed(device: Device) -> dict[str, tuple[str, bool]]:
    found = device.mailbox.status()["applications"]
    return {app["name"]: (app["status"], app["embedded"]) for app in found}


def images(device: Device) -> list[str]:
    return sorted(image for _, image in boxes(device).values())


def spec(version: int, *apps: Any, **fields: Any) -> sim_device.Json:
    return document(version, [file("/etc/motd", str(version))], list(apps), **fields)


def quadlet(name: str, tag: str) -> sim_device.Json:
    files = [{"path": "a.container", "content": UNIT.replace(":1", f":{tag}")}]
    return {"name": name, "appType": "quadlet", "inline": files}


def test_a_device_that_nobody_has_spoken_to_has_them() -> None:
    device = brought()
    own = "/etc/containers/systemd/own.container"
    device.put_original(own, Node(world.FILE, UNIT.encode()))
    settle(device)
    assert images(device) == [f"{WEB}:1"] * 2
    assert listed(device) == {"page": ("Running", True), "stack": ("Running", True)}
    assert device.version() == "0"
    assert device.mailbox.status()["applicationsSummary"]["status"] == "Healthy"
    marker = device.world.nodes["/etc/containers/systemd/page/.flightctl-embedded"]
    assert marker.data, "an empty one is an error to the other agent"
    assert "/etc/compose" not in device.world.nodes, "a project runs where the image has it"
    assert device.world.nodes[own].data == UNIT.encode()


def test_specifications_come_and_go_beside_them_and_they_run_on() -> None:
    device = brought()
    settle(device)
    before = boxes(device)
    device.offer(spec(1, quadlet("mine", "2")))
    settle(device)
    assert device.condition()["reason"] == "Updated"
    assert set(listed(device)) == {"mine", "page", "stack"}
    assert before.items() <= boxes(device).items()
    device.offer(spec(2))
    settle(device)
    assert boxes(device) == before


def test_what_an_image_brings_no_more_goes_and_its_containers_with_it() -> None:
    device = brought()
    device.offer(spec(1))
    settle(device)
    for path in (QUADLET, COMPOSE):
        del device.world.nodes[path]
    device.world.restart()
    settle(device)
    assert device.world.podman.boxes == {}
    assert listed(device) == {}
    left = [path for path in device.world.files() if path.startswith("/etc/containers/systemd/")]
    assert left == []


def test_a_new_content_of_the_image_is_what_runs_after_its_boot() -> None:
    device = brought()
    device.offer(spec(1))
    settle(device)
    put(device.world, QUADLET, UNIT.replace(":1", ":2"))
    put(device.world, COMPOSE, PROJECT.replace(":1", ":2"))
    device.world.restart()
    settle(device)
    assert images(device) == [f"{WEB}:2"] * 2


@pytest.mark.parametrize("name", ["page", "stack"])
def test_a_specifications_application_of_the_same_name_is_meant(name: str) -> None:
    device = brought()
    settle(device)
    project = {"path": "docker-compose.yaml", "content": PROJECT.replace(":1", ":2")}
    own = quadlet("page", "2")
    if name == "stack":
        own = {"name": "stack", "appType": "compose", "inline": [project]}
    device.offer(spec(1, own))
    settle(device)
    assert images(device) == [f"{WEB}:1", f"{WEB}:2"]
    assert listed(device)[name] == ("Running", False)
    assert "takes the place of this system's" in device.mailbox.status()["summary"]["info"]
    device.offer(spec(2))
    settle(device)
    assert images(device) == [f"{WEB}:1"] * 2
    assert listed(device)[name] == ("Running", True)
    assert device.world.nodes[COMPOSE].data == PROJECT.encode()


def test_somebody_stops_or_removes_one_and_it_comes_back() -> None:
    device = brought()
    settle(device)
    device.world.podman.boxes.clear()
    settle(device)
    assert images(device) == [f"{WEB}:1"] * 2


@pytest.mark.parametrize(
    ("path", "text", "words"),
    [
        (COMPOSE, "services: {x: {build: .}}", "stack of this system cannot run: service x: build"),
        (QUADLET, "[Container]\nImage=short\n", "page of this system cannot run: page.container"),
    ],
)
def test_one_that_cannot_run_is_told_and_holds_up_nothing(path: str, text: str, words: str) -> None:
    device = brought()
    put(device.world, path, text)
    device.offer(spec(1, quadlet("mine", "2")))
    settle(device)
    assert device.condition()["reason"] == "Updated"
    assert images(device) == [f"{WEB}:1", f"{WEB}:2"]
    summary = device.mailbox.status()["summary"]
    assert summary["status"] == "Degraded"
    assert words in summary["info"]


@pytest.mark.parametrize("image", ["r.io/none:1", "r.io/ill:1"])
def test_one_that_does_not_live_holds_up_no_specification(image: str) -> None:
    """Nobody has its image, or it ends again and again; the specification is not to blame."""
    device = brought()
    device.world.podman.registry["r.io/ill:1"] = Image(exits=3)
    put(device.world, QUADLET, UNIT.replace(f"{WEB}:1", image))
    device.run(settle_s=60.0)
    device.offer(spec(1, quadlet("mine", "2")))
    device.run(settle_s=60.0)
    assert device.condition()["reason"] == "Updated", device.condition()
    assert {f"{WEB}:1", f"{WEB}:2"} <= set(images(device))
    assert device.mailbox.status()["summary"]["status"] != "Online"


def test_links_are_followed_within_the_folder_only() -> None:
    device = brought()
    put(device.world, f"{embedded.QUADLETS}/shared.container", UNIT)
    put(device.world, "/etc/secret", UNIT)
    for name, target in (("good", "../shared.container"), ("bad", "/etc/secret")):
        place = f"{embedded.QUADLETS}/{name}/a.container"
        put(device.world, place, "")
        device.world.nodes[place] = Node(world.LINK, target.encode())
    found = embedded.look(device.world, lambda app: None)
    assert [app.name for app in found.apps] == ["stack", "good", "page"]
    assert [one.element for one in found.broken] == ["bad"]


class Imaged(Device):
    """Each system has a project of its own, or one that cannot run."""

    projects: dict[str, str]

    def start(self) -> loop.Reconciler:
        assert self.world.system is not None
        put(self.world, COMPOSE, self.projects[self.world.system.booted.digest])
        return super().start()


def test_a_system_that_brings_what_cannot_run_is_gone_back_from() -> None:
    _, system = sim_image_device.settled_device(1)
    where = _.world.with_systemd()
    where.podman.registry[f"{WEB}:1"] = Image()
    device = Imaged(where, times=sim_image_device.TIMES)
    device.is_tampered = True
    device.known = _.known
    device.projects = {sim_image_device.OLD.digest: PROJECT, sim_image_device.NEW.digest: "}{"}
    device.offer(sim_image_device.next_version(2, "r/os:2"))
    settle(device)
    assert device.condition()["reason"] == "Error"
    assert "applications failed for stack: invalid configuration" in device.condition()["message"]
    assert system.booted.digest == sim_image_device.OLD.digest
    assert f"{WEB}:1" in images(device)
    assert device.version() == "1"


def test_what_another_agent_has_started_of_them_runs_on() -> None:
    """As a take-over finds it: the project runs, the quadlets are installed, no stamp of ours."""
    device = brought()
    device.offer(spec(1))
    settle(device)
    before = boxes(device)
    where = device.world
    for path in [p for p in where.nodes if p.startswith("/var/lib/flightctl/homeport/")]:
        del where.nodes[path]
    marker = "/etc/containers/systemd/page/.flightctl-embedded"
    where.nodes[marker] = Node(world.FILE, b"2026-11-23T11:00:00Z")
    settle(device)
    assert boxes(device) == before
    assert where.nodes[marker].data == b"2026-11-23T11:00:00Z", "its files are right as they are"


@pytest.mark.parametrize("power", [False, True], ids=["killed", "power-cut"])
@pytest.mark.parametrize("is_going", [False, True], ids=["they come", "they go"])
def test_cut_off_anywhere_they_come_and_go_whole(
    power: bool, is_going: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    base = brought()
    if is_going:
        base.offer(spec(1))
        settle(base)
        for path in (QUADLET, COMPOSE):
            del base.world.nodes[path]
    whole = Device(base.world.twin(1))
    whole.is_tampered = True
    settle(whole)
    count = len(whole.world.effects)
    assert count > 10
    for k in range(count):
        device = Device(base.world.twin(1000 + k))
        device.is_tampered = True
        device.world.crash_at = {k: KINDS[k % len(KINDS)]}
        crashes = device.world.through_crashes(lambda d=device: settle(d), power=power)  # type: ignore[misc]
        at = (k, whole.world.effects[k])
        assert crashes == 1, at
        assert images(device) == images(whole), at
        assert listed(device) == listed(whole), at
        assert units(device) == units(whole), at
    with capsys.disabled():
        name = "power cut" if power else "kill"
        print(f"\n[simulated] applications of a system: {name} at {count} effects")


def units(device: Device) -> list[str]:
    folders = ("/etc/containers/systemd/", "/etc/systemd/system/")
    return sorted(path for path in device.world.files() if path.startswith(folders))
