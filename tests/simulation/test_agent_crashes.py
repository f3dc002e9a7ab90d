"""[simulated] The agent dies at every effect of an update, in every way, and comes back whole."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from agent import states, world
from tests.fakes import sim_device
from tests.fakes.seeds import IS_SOAK, LIMIT_S, SEED, cuts
from tests.fakes.sim_device import Device, application, document, file
from tests.fakes.sim_podman import Image
from tests.fakes.sim_world import KINDS, Node, SimWorld

# A machine that is shared may take its time.
pytestmark = pytest.mark.timeout(LIMIT_S)

SAMPLES = 4000 if IS_SOAK else 250

GOOD, BAD, CRASHING = Image(health=True), Image(health=False), Image(exits=3)
V1 = document(
    1,
    [
        file("/etc/motd", "one"),
        file("/etc/app/secret", "hunter2", mode=0o600, user="web", group="web"),
        file("/etc/app/gone", "only in one"),
        file("/opt/tool", "#!", mode=0o4755),
        file("/etc/app/same", "same"),
    ],
    [application("web", "r/web:1", envVars={"A": "1"})],
)


def second(image: str) -> sim_device.Json:
    return document(
        2,
        [
            file("/etc/motd", "two"),
            file("/etc/app/secret", "hunter2b", mode=0o600, user="web", group="web"),
            file("/opt/tool", "#!", mode=0o1755),
            file("/etc/app/same", "same"),
            file("/etc/hosts", "new here"),
        ],
        [application("web", image, envVars={"A": "2"})],
    )


def settled_device() -> Device:
    """On version 1, with an original under a path of version 1 and one under a path of 2."""
    where = SimWorld(SEED)
    where.podman.registry = {"r/web:1": GOOD, "r/web:2": GOOD, "r/web:bad": BAD, "r/x": CRASHING}
    device = Device(where)
    device.put_original("/etc/motd", Node(world.LINK, b"/run/motd", 0o777))
    device.put_original("/etc/hosts", Node(world.FILE, b"of the image", 0o640, 0, 1001))
    device.offer(V1)
    device.run()
    assert device.picture(running=True) == device.expected("1", running=True)
    return device


def again(device: Device, latest: sim_device.Json, seed: int) -> Device:
    twin = Device(device.world.twin(seed), times=device.times)
    twin.known, twin.originals = dict(device.known), device.originals
    twin.offer(latest)
    return twin


def check_end(device: Device, *, is_good: bool) -> None:
    device.check_secrets()
    end = "2" if is_good else "1"
    assert device.version() == end
    assert device.picture(running=True) == device.expected(end, running=True)
    condition = device.condition()
    if is_good:
        assert (condition["status"], condition["reason"]) == ("False", "Updated")
    else:
        assert (condition["status"], condition["reason"]) == ("False", "Error")
        assert "applications failed for web" in condition["message"]
        assert "renderedVersion: 2" in condition["message"]
    # The next life knows it too, and does not try what failed again.
    before = device.world.podman.made
    device.run()
    assert device.condition()["message"] == condition["message"]
    assert device.world.podman.made == before


@pytest.mark.parametrize(
    ("image", "is_good"), [("r/web:2", True), ("r/web:bad", False), ("r/x", False)]
)
@pytest.mark.parametrize("power", [False, True], ids=["killed", "power-cut"])
def test_an_update_that_is_cut_off_anywhere_ends_whole(
    image: str, is_good: bool, power: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    base = settled_device()
    whole = again(base, second(image), SEED)
    whole.run()
    check_end(whole, is_good=is_good)
    count = len(again_effects(base, image))
    passed: Counter[str] = Counter()
    for k, kind in cuts(count, KINDS):
        device = again(base, second(image), SEED * 1000 + k)
        device.world.crash_at = {k: kind}
        assert device.run_through_crashes(power=power) == 1, (k, kind)
        check_end(device, is_good=is_good)
        assert device.world.monotonic() < 400
        passed[kind] += 1
    with capsys.disabled():
        name = "power cut" if power else "kill"
        print(f"\n[simulated] {image}: {name}, of {count} effects, whole after {dict(passed)}")


def again_effects(base: Device, image: str) -> list[str]:
    device = again(base, second(image), SEED)
    device.run()
    assert len(device.world.effects) > 40
    return device.world.effects


def test_two_crashes_anywhere_end_whole(capsys: pytest.CaptureFixture[str]) -> None:
    base = settled_device()
    rng = random.Random(SEED)
    counts = {image: len(again_effects(base, image)) for image in ("r/web:2", "r/web:bad")}
    for sample in range(SAMPLES):
        image = rng.choice(["r/web:2", "r/web:bad"])
        device = again(base, second(image), SEED * 100_000 + sample)
        first = rng.randrange(counts[image])
        later = first + 1 + rng.randrange(counts[image])
        device.world.crash_at = {first: rng.choice(KINDS), later: rng.choice(KINDS)}
        device.run_through_crashes(power=rng.random() < 0.5)
        check_end(device, is_good=image == "r/web:2")
    with capsys.disabled():
        print(f"\n[simulated] two crashes: {SAMPLES} samples, SIM_SEED={SEED}, all whole")


def test_after_a_power_cut_all_runs_again_wherever_the_next_life_dies() -> None:
    """podman calls what the power has ended a success, and so would an agent that takes what it
    meant to start for started."""
    base = settled_device()
    base.world.power_cut()

    whole = again(base, V1, SEED)
    whole.run()
    assert "podman start" in whole.world.effects
    for k in range(len(whole.world.effects)):
        for kind in KINDS:
            device = again(base, V1, SEED * 1000 + k)
            device.world.crash_at = {k: kind}
            device.run_through_crashes(power=False)
            assert device.picture(running=True) == device.expected("1", running=True), (k, kind)


def test_the_first_specification_ever_may_be_cut_off_too() -> None:
    def fresh(seed: int) -> Device:
        where = SimWorld(seed)
        where.podman.registry = {"r/web:1": GOOD}
        device = Device(where)
        device.put_original("/etc/motd", Node(world.FILE, b"of the image", 0o644))
        device.offer(V1)
        return device

    whole = fresh(SEED)
    whole.run()
    for k in range(len(whole.world.effects)):
        for kind in KINDS:
            device = fresh(SEED + k)
            device.world.crash_at = {k: kind}
            device.run_through_crashes(power=k % 2 == 0)
            assert device.picture(running=True) == device.expected("1", running=True), (k, kind)
            device.check_secrets()


def test_an_agent_that_dies_at_every_boot_gives_the_update_up_and_goes_back() -> None:
    base = settled_device()
    device = again(base, second("r/web:2"), SEED)
    lives = 0
    while lives < 40:
        lives += 1
        # Dies as soon as it makes the new container, whenever it comes to that.
        fatal = [b for b in device.world.podman.boxes.values() if b.image == "r/web:2"]
        try:
            agent = device.start()
            for _ in range(200):
                device._poll()
                device.world.sleep(agent.run_once())
                made = [b for b in device.world.podman.boxes.values() if b.image == "r/web:2"]
                if made and isinstance(agent.state, states.Applying | states.Verifying):
                    raise TimeoutError
        except TimeoutError:
            device.world.power_cut()
            continue
        break
    assert lives < 12, fatal
    check_end_after_loop(device)


def check_end_after_loop(device: Device) -> None:
    assert device.version() == "1"
    assert device.picture(running=True) == device.expected("1", running=True)
    assert "boots without success" in device.condition()["message"]
