"""[simulated] The whole agent on a device that was installed from an image, under either tool; and
what an update of its operating system, its files and its applications may come to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from agent import settings, world
from resources.records import replace
from tests.fakes import sim_device, sim_image_device
from tests.fakes.sim_agent import SimAgent
from tests.fakes.sim_bootc import OsImage, SimBootc
from tests.fakes.sim_image_device import ISSUE, NEW, NEW_ISSUE, OLD, TAGS, digest
from tests.fakes.sim_podman import Image
from tests.fakes.sim_rpmostree import SimRpmOstree
from tests.fakes.sim_service import SimService
from tests.fakes.sim_world import Node, SimWorld

TOOLS = ("bootc", "rpm-ostree")
RED = OsImage(digest("9"), is_called_good=False, red_s=45.0, etc=(NEW_ISSUE,))
IMAGES = {**TAGS, "r/os:red": RED}
# Less than the agent asks again for what is not as its digest says.
A_WHILE_S = 30.0
TIMES = replace(sim_device.TIMES, boot_complete_s=120.0)
EXACT = f"r/os:2@{NEW.digest}"


@dataclass(frozen=True)
class Update:
    """`words`: one of them is in the message of an end that is an error."""

    name: str
    image: str = "r/os:2"
    is_good: bool = True
    words: tuple[str, ...] = ("",)
    app: str = "r/web:2"
    has_greenboot: bool = False
    times: settings.LoopSettings = TIMES
    prepare: Callable[[SimAgent], None] = lambda device: None


def no_network_in_the_new_one(device: SimAgent) -> None:
    device.service.is_up = lambda at_s: system_of(device).booted.digest == OLD.digest
    device.world.has_network = device.service.is_reachable


def a_bad_registry_for_a_while(device: SimAgent) -> None:
    """Something on the way to it hands out another image than was asked for."""
    system, since = system_of(device), device.world.elapsed_s
    pull = system._pull
    name = f"r/os@{NEW.digest}"

    def looked(argv: list[str]) -> world.Completed:
        is_mended = device.world.elapsed_s > since + A_WHILE_S
        system.corrupt = frozenset() if is_mended else frozenset({name})
        return pull(argv)

    system._pull = looked  # type: ignore[assignment,method-assign]


def a_hook_that_fails_when_it_is_staged(device: SimAgent) -> None:
    folder = "/etc/flightctl/hooks.d/beforerebooting"
    device.world.mkdir(folder)
    device.world.nodes[f"{folder}/10.yaml"] = Node(world.FILE, b"- run: /bin/check\n")
    device.world.hooks = {"/bin/check": 3}
    device.world.effects.clear()


UPDATES = [
    Update("OS and all"),
    Update("OS by digest", EXACT, prepare=a_bad_registry_for_a_while),
    Update(
        "digest of nothing",
        f"r/os:2@{digest('7')}",
        is_good=False,
        words=("required resource not found",),
    ),
    Update(
        "staged, and a hook fails",
        is_good=False,
        words=("/bin/check: exit status 3",),
        prepare=a_hook_that_fails_when_it_is_staged,
    ),
    Update(
        "does not boot",
        "r/os:dead",
        is_good=False,
        words=("did not start; the boot loader went back to",),
    ),
    Update(
        "boots and an application fails late",
        is_good=False,
        words=("applications failed for web",),
        app="r/web:late",
        times=replace(TIMES, stability_s=60.0),
    ),
    Update(
        "boots and is not called good",
        "r/os:bad",
        is_good=False,
        words=("(greenboot)",),
        has_greenboot=True,
    ),
    Update(
        "greenboot goes back",
        "r/os:red",
        is_good=False,
        words=("went back to r/os:1", "boots without success", "(greenboot)"),
        has_greenboot=True,
    ),
    Update(
        "boots without a network",
        is_good=False,
        words=("no longer reaches the service",),
        prepare=no_network_in_the_new_one,
    ),
]


def system_of(device: SimAgent) -> SimBootc:
    assert device.world.system is not None
    return device.world.system


def installed(seed: int, tool: str, *, has_greenboot: bool = False) -> SimAgent:
    """Enrolled, and on version 1."""
    where = SimWorld(seed)
    where.podman.registry = {
        "r/web:1": Image(health=True),
        "r/web:2": Image(health=True),
        "r/web:late": Image(health=True, well_s=10.0),
    }
    kind = SimRpmOstree if tool == "rpm-ostree" else SimBootc
    system = where.system = kind.installed("r/os:1", list(IMAGES.values()))
    system.registry = {tag: image.digest for tag, image in IMAGES.items()}
    system.has_greenboot = has_greenboot
    where.mkdir("/etc")
    where.nodes.update(OLD.etc)
    first = sim_image_device.first()
    device = SimAgent(where, SimService(where, first=first), times=TIMES)
    device.known["1"] = first
    device.put_original("/etc/hosts", Node(world.FILE, b"of the image", 0o640, 0, 1001))
    device.systems = {"0": OLD.digest, "1": OLD.digest, "2": NEW.digest}
    where.effects.clear()
    device.live()
    assert device.picture(running=True) == device.expected("1", running=True)
    assert (where.reboots_ordered, system.switches) == (0, 0)
    return device


def again(base: SimAgent, update: Update, seed: int) -> SimAgent:
    device = base.twin(seed, times=update.times)
    update.prepare(device)
    device.publish(sim_image_device.next_version(2, update.image, app=update.app))
    return device


def check_end(device: SimAgent, update: Update) -> None:
    """From the disk, the boot loader, the containers, and the last thing that the service heard."""
    device.check_secrets()
    end, system = "2" if update.is_good else "1", system_of(device)
    assert device.picture(running=True) == device.expected(end, running=True)
    assert system.staged is None
    assert device.world.nodes[ISSUE].data == (b"new" if update.is_good else b"old")
    told = device.service.statuses[-1][1]
    updating = next(one for one in told["conditions"] if one["type"] == "Updating")
    reason = "Updated" if update.is_good else "Error"
    assert (updating["status"], updating["reason"]) == ("False", reason), updating
    assert any(words in updating["message"] for words in update.words), updating
    image = update.image if update.is_good else "r/os:1"
    assert told["os"] == {"image": image, "imageDigest": system.booted.digest}
    assert told["config"]["renderedVersion"] == end
