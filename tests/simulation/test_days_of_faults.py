"""[simulated] Days on which everything goes wrong, with one specification after another.

A seed says which specifications come when, and what fails meanwhile: the network, the registry, the
disk, podman, the clock, the power, the agent itself at any of its effects; commands that are slow
or hang, tools that are busy. At every moment what the device tells of itself is compared with what
it is (`SimAgent`): it never says of itself that it is on one specification and is on two; where it
could not go back from one that failed yet, its summary says what is amiss.

When the faults stop it ends on the last that came; if it has refused that one in all the trouble,
it is whole on an earlier one and says why, and takes the last when it is offered again.

`SIM_SEED` repeats it; in soak there are many, and twice as many days.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from agent import errors
from tests.fakes.seeds import IS_SOAK, LIMIT_S, SEED
from tests.fakes.sim_agent import SimAgent
from tests.fakes.sim_device import Json, application, document, file
from tests.fakes.sim_image_agent import IMAGES, TOOLS, installed, system_of
from tests.fakes.sim_podman import Image
from tests.fakes.sim_world import KINDS, Crash

SEEDS = range(SEED, SEED + (150 if IS_SOAK else 6))
DAY_S = 86400.0
DAYS = 4 if IS_SOAK else 2
FAULTS_A_DAY = 14
VERSIONS_A_DAY = 4
# systemd starts an agent that has ended with an error again.
RESTART_S = 30.0
PATHS = ("/etc/motd", "/etc/hosts", "/etc/app/one", "/etc/app/two", "/opt/tool")
GOOD_SYSTEMS, BAD_SYSTEMS = ("r/os:1", "r/os:2", "r/os:3"), ("r/os:dead", "r/os:bad", "r/os:red")
GOOD_APPS, BAD_APPS = ("r/web:1", "r/web:2", "r/web:3"), ("r/web:late", "r/sick", "r/nowhere")


@dataclass
class Events:
    """What happens when; looked at between any two turns of the agent's threads."""

    device: SimAgent
    planned: list[tuple[float, str, Callable[[], None]]]
    seen: Counter[str]

    def happen(self) -> bool:
        while self.planned and self.planned[0][0] <= self.device.world.elapsed_s:
            _, name, act = self.planned.pop(0)
            self.seen[name] += 1
            act()
        return False


def version(number: int, rng: random.Random, *, is_good: bool) -> Json:
    files = [
        file(path, f"{path} of {number}", mode=rng.choice((0o644, 0o600)))
        for path in PATHS
        if rng.random() < 0.6
    ]
    systems, apps = GOOD_SYSTEMS, GOOD_APPS
    if not is_good and rng.random() < 0.5:
        systems = BAD_SYSTEMS
    elif not is_good:
        apps = BAD_APPS
    applications = [application("web", rng.choice(apps))]
    if rng.random() < 0.4:
        applications.append(application("db", rng.choice(GOOD_APPS), envVars={"N": str(number)}))
    return document(number, files, applications, os={"image": rng.choice(systems)})


def publish(device: SimAgent, latest: Json) -> None:
    number = latest["metadata"]["annotations"]["device-controller/renderedVersion"]
    device.systems[number] = IMAGES[latest["spec"]["os"]["image"]].digest
    device.publish(latest)


def planned(device: SimAgent, rng: random.Random, end_s: float) -> tuple[Events, Json]:
    """With the last specification, which is a good one."""
    begun, seen = device.world.elapsed_s, Counter[str]()
    plan: list[tuple[float, str, Callable[[], None]]] = []
    alone = [rng.uniform(begun, end_s) for _ in range(VERSIONS_A_DAY * DAYS // 2)]
    # Every other one comes upon the heels of the one before, and meets it in whatever it does.
    moments = sorted([*alone, *(at_s + rng.expovariate(1 / 30.0) for at_s in alone)])
    latest: Json = {}
    for number, at_s in enumerate(moments, start=2):
        is_last = at_s == moments[-1]
        latest = version(number, rng, is_good=is_last or rng.random() < 0.6)
        plan.append((at_s, "specification", lambda one=latest: publish(device, one)))  # type: ignore[misc]
    for _ in range(FAULTS_A_DAY * DAYS):
        # Most where it hurts: in the minutes after a specification has come.
        at_s = rng.choice(moments) + rng.expovariate(1 / 200.0)
        at_s = min(at_s, end_s) if rng.random() < 0.8 else rng.uniform(begun, end_s)
        name, start, stop = rng.choice(FAULTS)(device, rng)
        plan.append((at_s, name, start))
        length_s = min(rng.expovariate(1 / 1200.0), 6 * 3600.0)
        plan.append((min(at_s + length_s, end_s), f"{name} over", stop))
    return Events(device, sorted(plan, key=lambda one: one[0]), seen), latest


# Faults: (name, what begins it, what ends it). ----------------------------------------------------

Fault = tuple[str, Callable[[], None], Callable[[], None]]


def network(device: SimAgent, rng: random.Random) -> Fault:
    def put(is_up: bool) -> None:
        device.service.is_up = lambda at_s: is_up

    return "network", lambda: put(False), lambda: put(True)


def restart_of_the_service(device: SimAgent, rng: random.Random) -> Fault:
    def restart() -> None:
        back_s = device.world.elapsed_s + rng.uniform(1, 30)
        device.service.is_up = lambda at_s: at_s >= back_s

    return "service restarted", restart, lambda: None


def registry(device: SimAgent, rng: random.Random) -> Fault:
    def put(is_down: bool) -> None:
        system_of(device).is_registry_down = is_down
        device.world.has_network = lambda: not is_down

    return "registry", lambda: put(True), lambda: put(False)


def full_disk(device: SimAgent, rng: random.Random) -> Fault:
    def put(is_full: bool) -> None:
        device.world.full = is_full

    return "disk full", lambda: put(True), lambda: put(False)


def broken_podman(device: SimAgent, rng: random.Random) -> Fault:
    def put(is_broken: bool) -> None:
        device.world.podman.is_broken = is_broken

    return "podman broken", lambda: put(True), lambda: put(False)


def clock(device: SimAgent, rng: random.Random) -> Fault:
    def put(off_s: float) -> None:
        device.world.clock_off_s = off_s

    jump_s = rng.choice((-1, 1)) * 10 ** rng.uniform(1, 7.8)
    return "clock jumps", lambda: put(jump_s), lambda: put(0.0)


def slow(device: SimAgent, rng: random.Random) -> Fault:
    def put(seconds: float) -> None:
        device.world.slowness_s = seconds

    seconds = rng.choice((2.0, 20.0, 90.0))
    return "commands slow", lambda: put(seconds), lambda: put(0.0)


def busy(device: SimAgent, rng: random.Random) -> Fault:
    def put(words: list[str]) -> None:
        system_of(device).complaints = words

    count = rng.randrange(1, 4)
    return "tool busy", lambda: put(["error: Acquiring lock: busy"] * count), lambda: put([])


def crash(device: SimAgent, rng: random.Random) -> Fault:
    """At one of the effects that come."""

    def soon() -> None:
        at = len(device.world.effects) + rng.randrange(40)
        device.world.crash_at[at] = rng.choice(KINDS)

    return "cut off", soon, lambda: None


def power_cut(device: SimAgent, rng: random.Random) -> Fault:
    def now() -> None:
        raise Crash

    return "cut off at rest", now, lambda: None


FAULTS = (
    network,
    restart_of_the_service,
    registry,
    full_disk,
    broken_podman,
    clock,
    slow,
    busy,
    crash,
    crash,
    crash,
    power_cut,
)


def live(device: SimAgent, events: Events, end_s: float, rng: random.Random) -> None:
    while device.world.elapsed_s < end_s:
        try:
            device.live(end_s, events.happen)
        except Crash:
            events.seen["crashes"] += 1
            if device.world.is_going_down and rng.random() < 0.5:
                device.world.restart()
            elif rng.random() < 0.5:
                device.world.power_cut()
        except errors.Fatal:
            events.seen["ends by itself"] += 1
            device.world.elapsed_s += RESTART_S


def is_whole(device: SimAgent, last: str) -> bool:
    """Whether it is on the last; else it has refused it, and says so. Nothing else is an end."""
    told = device.service.statuses[-1][1]
    version = told["config"]["renderedVersion"]
    updating = next(one for one in told["conditions"] if one["type"] == "Updating")
    assert device.picture(running=True) == device.expected(version, running=True)
    device.check_secrets()
    assert system_of(device).staged is None
    if version == last:
        assert (updating["status"], updating["reason"]) == ("False", "Updated"), updating
        return True
    assert (updating["status"], updating["reason"]) == ("False", "Error"), updating
    assert f"renderedVersion: {last}" in updating["message"], updating
    return False


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize("seed", SEEDS)
def test_days_of_faults_end_on_the_last_specification(
    seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rng, tool = random.Random(seed), TOOLS[seed % 2]
    device = installed(seed, tool, has_greenboot=True)
    images = {f"r/web:{n}": Image(health=True) for n in (1, 2, 3)}
    device.world.podman.registry |= images | {"r/sick": Image(health=False)}
    device.systems = dict(device.systems)
    # Where podman or bootc does not answer for an hour, there is no way forward and none back.
    device.goes_back_later = True
    device.world.is_shared = True
    end_s = device.world.elapsed_s + DAYS * DAY_S
    events, latest = planned(device, rng, end_s)
    try:
        live(device, events, end_s, rng)
        device.world.crash_at = {}
        events.happen()
        last = str(device.service.version_of(device.name))
        device.live(device.world.elapsed_s + DAY_S)
        if not is_whole(device, last):
            events.seen["last one refused"] += 1
            annotations = latest["metadata"]["annotations"] | {
                "device-controller/renderedVersion": str(int(last) + 1),
                "device-controller/renderedSpecHash": "again",
            }
            publish(device, {**latest, "metadata": {"name": "d1", "annotations": annotations}})
            device.live(device.world.elapsed_s + DAY_S)
            assert is_whole(device, str(int(last) + 1))
    except BaseException as error:
        error.add_note(f"{tool}, SIM_SEED={seed}, {dict(events.seen)}")
        raise
    with capsys.disabled():
        seen = {name: n for name, n in sorted(events.seen.items()) if not name.endswith(" over")}
        told = device.judged
        print(f"\n[simulated {tool}] {DAYS} days of faults, SIM_SEED={seed}: {told} told, {seen}")
