"""[simulated] The agent dies at every effect of an update of quadlets and Compose projects, root's
and those of users."""

from __future__ import annotations

from typing import Any

import pytest

from agent import loop, world
from resources.records import replace
from tests.fakes import sim_device
from tests.fakes.seeds import LIMIT_S, SEED, cuts
from tests.fakes.sim_device import Device, application, document, file
from tests.fakes.sim_podman import Image
from tests.fakes.sim_world import KINDS, Crash, SimWorld

# A machine that is shared may take its time.
pytestmark = pytest.mark.timeout(LIMIT_S)

# Looks at what starts less often than a device does: the same states, fewer of them.
TIMES = replace(sim_device.TIMES, verify_interval_s=4.0)
GOOD = Image(health=True)
PLAIN, CRASHING = Image(), Image(exits=3)
WEB = "r.io/web"


def quadlet(tag: str, **fields: Any) -> sim_device.Json:
    text = f"[Container]\nImage={WEB}:{tag}\n[Install]\nWantedBy=default.target\n"
    files = [{"path": "a.container", "content": text}]
    return {"name": "q", "appType": "quadlet", "inline": files, "envVars": {"TAG": tag}, **fields}


def project(tag: str) -> sim_device.Json:
    text = "services:\n" + "".join(f"  {n}: {{image: '{WEB}:{tag}'}}\n" for n in ("x", "y"))
    return {
        "name": "c",
        "appType": "compose",
        "inline": [{"path": "docker-compose.yaml", "content": text}],
    }


def version(number: int, tag: str, extra: list[sim_device.Json]) -> sim_device.Json:
    apps = [quadlet(tag), project(tag), *extra]
    return document(number, [file("/etc/motd", tag), file("/etc/app/conf", tag)], apps)


V1 = version(1, "1", [application("old", f"{WEB}:1")])
SECOND = {
    "good": version(2, "2", [application("new", f"{WEB}:2")]),
    "bad": version(2, "bad", [application("new", f"{WEB}:2")]),
}


def of_users(number: int, tag: str, extra: list[sim_device.Json]) -> sim_device.Json:
    return document(number, [file("/etc/motd", tag)], [quadlet(tag, runAs="web"), *extra])


# One stays with its user, one goes over to another, one has been root's.
V1_OF_USERS = of_users(
    1,
    "1",
    [application("m", f"{WEB}:1", runAs="web"), application("r", f"{WEB}:1")],
)
SECOND_OF_USERS = {
    kind: of_users(
        2,
        tag,
        [application("m", f"{WEB}:2", runAs="ops"), application("r", f"{WEB}:2", runAs="ops")],
    )
    for kind, tag in (("good", "2"), ("bad", "bad"))
}


class AppsDevice(Device):
    """Its picture is all that is on it but the agent's own; right is what an undisturbed one has.

    `rights`: version -> that picture.
    """

    rights: dict[str, sim_device.Picture]

    def picture(self, *, running: bool = False) -> sim_device.Picture:
        outside = ("/var/lib/flightctl", "/run")
        files = [
            (p, n.data, n.mode)
            for p, n in sorted(self.world.nodes.items())
            if n.kind == world.FILE and not p.startswith(outside) and ".homeport-" not in p
        ]
        podmans = {0: self.world.podman, **{u: o.podman for u, o in self.world.owned.items()}}
        boxes = sorted(
            (uid, b.name, b.image, b.status)
            for uid, podman in podmans.items()
            for b in podman.boxes.values()
        )
        return (tuple(files), tuple(boxes))

    def expected(self, version: str, *, running: bool = False) -> sim_device.Picture:
        return self.rights.get(version) or self.picture()

    def start(self) -> loop.Reconciler:
        self.is_tampered = self.is_tampered or not self.rights
        return super().start()


def settled(first: sim_device.Json = V1) -> AppsDevice:
    where = SimWorld(SEED).with_systemd().with_user("web").with_user("ops")
    where.podman.registry = {f"{WEB}:1": PLAIN, f"{WEB}:2": GOOD, f"{WEB}:bad": CRASHING}
    device = AppsDevice(where, times=TIMES)
    device.rights = {}
    device.offer(first)
    device.run()
    assert device.condition()["reason"] == "Updated", device.condition()
    device.rights = {"1": device.picture()}
    device.is_tampered = False
    return device


def again(device: AppsDevice, latest: sim_device.Json, seed: int) -> AppsDevice:
    twin = AppsDevice(device.world.twin(seed), times=device.times)
    twin.rights = dict(device.rights)
    twin.offer(latest)
    return twin


@pytest.mark.parametrize("kind_of_update", ["good", "bad"])
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power-cut"])
def test_applications_that_are_cut_off_anywhere_end_whole(
    kind_of_update: str, power: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    base = settled()
    # One for each quadlet, two for the project.
    assert len(base.world.podman.boxes) == 4
    cut_off_anywhere(base, SECOND[kind_of_update], kind_of_update, power, capsys)


@pytest.mark.parametrize("kind_of_update", ["good", "bad"])
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power-cut"])
def test_applications_of_users_that_are_cut_off_anywhere_end_whole(
    kind_of_update: str, power: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    base = settled(V1_OF_USERS)
    owned = {uid: len(own.podman.boxes) for uid, own in base.world.owned.items()}
    assert (len(base.world.podman.boxes), owned) == (1, {1001: 2, 1002: 0})
    cut_off_anywhere(base, SECOND_OF_USERS[kind_of_update], kind_of_update, power, capsys)


def cut_off_anywhere(
    base: AppsDevice,
    latest: sim_device.Json,
    kind_of_update: str,
    power: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole = again(base, latest, SEED)
    whole.rights = {}
    whole.run()
    end, reason = ("2", "Updated") if kind_of_update == "good" else ("1", "Error")
    assert whole.condition()["reason"] == reason, whole.condition()
    rights = {**base.rights, end: whole.picture()}
    assert rights["1"] == base.rights["1"], "the way back does not lead back"
    count = len(whole.world.effects)
    assert count > 40
    points = cuts(count, KINDS)
    for k, kind in points:
        device = again(base, latest, SEED * 1000 + k)
        device.rights = rights
        device.world.crash_at = {k: kind}
        assert device.run_through_crashes(power=power) == 1, (k, kind)
        at = (k, kind, whole.world.effects[k])
        assert device.picture() == rights[end], at
        assert (device.version(), device.condition()["reason"]) == (end, reason), at
    with capsys.disabled():
        bound = f"{'power cut' if power else 'kill'} at {len(points)} points of {count} effects"
        print(f"\n[simulated] applications, {kind_of_update}: {bound}")


def drift_target(device: AppsDevice) -> None:
    assert device.world.systemd is not None
    targets = list(device.world.systemd.targets)
    device.world.systemd.run(["systemctl", "stop", targets[0]], {})


def drift_unit_file(device: AppsDevice) -> None:
    path = next(p for p in device.world.nodes if p.endswith("-a.container"))
    del device.world.nodes[path]


def drift_edited(device: AppsDevice) -> None:
    """Another image in the unit, and systemd has taken it in."""
    where = device.world
    assert where.systemd is not None
    where.podman.images[f"{WEB}:2"] = GOOD
    path = next(p for p in where.nodes if p.endswith("-a.container"))
    where.nodes[path] = replace(
        where.nodes[path], data=where.nodes[path].data.replace(b"web:1", b"web:2")
    )
    where.systemd.run(["systemctl", "daemon-reload"], where.files())
    unit = path.rsplit("/", 1)[1].replace(".container", ".service")
    where.systemd.run(["systemctl", "restart", unit], {})
    assert any(box.image == f"{WEB}:2" for box in where.podman.boxes.values())


def drift_project(device: AppsDevice) -> None:
    boxes = device.world.podman.boxes
    del boxes[next(i for i, b in boxes.items() if b.name.startswith("c-"))]


def drift_stamps(device: AppsDevice) -> None:
    """What another agent has left: everything right, and nothing known about it."""
    del device.world.nodes[f"{sim_device.DATA}/homeport/applications.json"]


def test_a_repair_that_is_cut_off_anywhere_is_done_again_as_a_whole() -> None:
    base = settled()
    drift_edited(base)
    whole = again(base, V1, SEED)
    whole.is_tampered = True
    whole.world.effects.clear()
    whole.run(settle_s=31.0)
    count = len(whole.world.effects)
    assert count > 10
    for k in range(count):
        for kind in KINDS:
            device = again(base, V1, SEED * 1000 + k)
            device.is_tampered = True
            device.world.crash_at = {k: kind}
            with pytest.raises(Crash):
                device.run(settle_s=31.0)
            device.run(settle_s=61.0)
            assert device.picture() == base.rights["1"], (k, kind, whole.world.effects[k])


@pytest.mark.parametrize(
    "drift", [drift_target, drift_unit_file, drift_edited, drift_project, drift_stamps]
)
def test_what_drifts_is_repaired_within_half_a_minute(drift: Any) -> None:
    device = settled()
    made = device.world.podman.made
    drift(device)
    device.is_tampered = True
    device.run(settle_s=31.0)
    assert device.picture() == device.rights["1"]
    if drift is drift_stamps:
        assert device.world.podman.made == made, "what was right was made anew"
