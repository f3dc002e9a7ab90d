"""[simulated] A device that was installed from an image, and the images that it may be given."""

from __future__ import annotations

from agent import states, world
from resources.records import replace
from tests.fakes import sim_device
from tests.fakes.sim_bootc import OsImage, SimBootc
from tests.fakes.sim_device import Device, Json, application, document, file
from tests.fakes.sim_podman import Image
from tests.fakes.sim_world import Node, SimWorld


def digest(letter: str) -> str:
    return f"sha256:{letter * 64}"


ISSUE = "/etc/issue"
NEW_ISSUE = (ISSUE, Node(world.FILE, b"new"))
OLD = OsImage(digest("a"), etc=((ISSUE, Node(world.FILE, b"old")),))
NEW = OsImage(digest("b"), etc=(NEW_ISSUE,))
DEAD = OsImage(digest("d"), comes_up=False, etc=(NEW_ISSUE,))
UNWELL = OsImage(digest("e"), is_called_good=False, etc=(NEW_ISSUE,))
THIRD = OsImage(digest("f"), etc=(NEW_ISSUE,))
TAGS = {"r/os:1": OLD, "r/os:2": NEW, "r/os:dead": DEAD, "r/os:bad": UNWELL, "r/os:3": THIRD}
TIMES = replace(sim_device.TIMES, boot_complete_s=60.0)


def first(*, names_system: bool = True) -> Json:
    fields: Json = {"os": {"image": "r/os:1"}} if names_system else {}
    files = [
        file("/etc/motd", "one"),
        file("/etc/app/gone", "only in one"),
        file("/opt/tool", "#!"),
    ]
    return document(1, files, [application("web", "r/web:1")], **fields)


def next_version(version: int, image: str = "", *, app: str = "r/web:2") -> Json:
    """Files and application differ from the first; the system as `image` says."""
    return document(
        version,
        [file("/etc/motd", "two"), file("/etc/hosts", "new here"), file("/opt/tool", "#!2")],
        [application("web", app)],
        **({"os": {"image": image}} if image else {}),
    )


def settled_device(
    seed: int, *, names_system: bool = True, has_greenboot: bool = False
) -> tuple[Device, SimBootc]:
    """On version 1. Whether it names its system is the difference between an update from one image
    to another, and the first image that a device is ever given."""
    where = SimWorld(seed)
    good = Image(health=True)
    where.podman.registry = {"r/web:1": good, "r/web:2": good, "r/bad": Image(health=False)}
    system = where.system = SimBootc.installed("r/os:1", list(TAGS.values()))
    system.registry = {tag: image.digest for tag, image in TAGS.items()}
    system.has_greenboot = has_greenboot
    device = Device(where, times=TIMES)
    where.mkdir("/etc")
    where.nodes.update(OLD.etc)
    device.put_original("/etc/hosts", Node(world.FILE, b"of the image", 0o640, 0, 1001))
    device.systems = {"0": OLD.digest, "1": OLD.digest, "2": NEW.digest}
    device.offer(first(names_system=names_system))
    device.run()
    assert device.picture(running=True) == device.expected("1", running=True)
    assert where.reboots_ordered == 0
    return device, system


def assert_settled(device: Device, version: str) -> None:
    assert device.version() == version
    assert device.picture(running=True) == device.expected(version, running=True)


def until(device: Device, kind: type[states.State], *, reboots: int = 0) -> None:
    """Lives on through reboots, until the agent is in `kind` after so many of them."""
    agent = device.start()
    seen = 0
    for _ in range(3000):
        if isinstance(agent.state, kind) and seen >= reboots:
            return
        device._poll()
        device.world.sleep(agent.run_once())
        if device.world.is_going_down:
            device.world.restart()
            seen += 1
            agent = device.start()
    raise AssertionError(f"never {kind.__name__}")
