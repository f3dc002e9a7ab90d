"""[simulated] The power goes at every effect of an OS update, on both sides of the reboot."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest

from tests.fakes.seeds import IS_SOAK, LIMIT_S, SEED, cuts
from tests.fakes.sim_device import Device
from tests.fakes.sim_image_device import ISSUE, OLD, next_version, settled_device
from tests.fakes.sim_world import KINDS

SAMPLES = 3000 if IS_SOAK else 150


@dataclass(frozen=True)
class Scenario:
    """`limit`: the most reboots that we order; a power cut may cost one more."""

    name: str
    image: str
    is_good: bool
    limit: int
    words: str = ""
    app: str = "r/web:2"
    is_cut_off: bool = False
    has_greenboot: bool = False


SCENARIOS = [
    Scenario("good", "r/os:2", True, 1),
    Scenario(
        "does not start", "r/os:dead", False, 1, "did not start; the boot loader went back to"
    ),
    Scenario("cut off", "r/os:2", False, 2, "no longer reaches the service", is_cut_off=True),
    Scenario("application fails", "r/os:2", False, 2, "applications failed for web", app="r/bad"),
    Scenario("boot not called good", "r/os:bad", False, 2, "(greenboot)", has_greenboot=True),
]
FROM_NOTHING = SCENARIOS if IS_SOAK else [SCENARIOS[3]]


def again(base: Device, scenario: Scenario, seed: int) -> Device:
    device = Device(base.world.twin(seed), times=base.times)
    device.known, device.originals = dict(base.known), base.originals
    device.systems = base.systems
    system = device.world.system
    assert system is not None
    if scenario.is_cut_off:
        device.reachable = lambda: system.booted.digest == OLD.digest
    device.offer(next_version(2, scenario.image, app=scenario.app))
    return device


def check_end(device: Device, scenario: Scenario, *, cuts: int, lasts: bool = True) -> None:
    """`lasts`: through one more power cut, too; that takes as long as the update."""
    device.check_secrets()
    end = "2" if scenario.is_good else "1"
    assert device.version() == end
    assert device.picture(running=True) == device.expected(end, running=True)
    assert device.world.nodes[ISSUE].data == (b"new" if scenario.is_good else b"old")
    condition = device.condition()
    reason = "Updated" if scenario.is_good else "Error"
    assert (condition["status"], condition["reason"]) == ("False", reason), condition
    assert scenario.words in condition["message"], condition
    assert device.world.reboots_ordered <= scenario.limit + cuts
    status = device.mailbox.status()
    assert status["os"]["image"] == ("r/os:2" if scenario.is_good else "r/os:1")
    if not lasts:
        return
    # The next life knows it too; what failed is not tried again, and no reboot comes late.
    before = (device.world.podman.made, device.world.reboots_ordered)
    device.world.power_cut()
    device.run(settle_s=60)
    assert device.condition()["message"] == condition["message"]
    assert device.picture(running=True) == device.expected(end, running=True)
    assert (device.world.podman.made, device.world.reboots_ordered) == before
    assert device.mailbox.status()["summary"] == {"status": "Online"}


@pytest.mark.timeout(LIMIT_S)
@pytest.mark.parametrize(
    ("scenario", "names_system"),
    # The way back is the only one that differs where the old specification names no system.
    [*((one, True) for one in SCENARIOS), *((one, False) for one in FROM_NOTHING)],
    ids=lambda value: value.name.replace(" ", "-") if isinstance(value, Scenario) else "",
)
def test_an_os_update_that_is_cut_off_anywhere_ends_whole(
    scenario: Scenario, names_system: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    base, _ = settled_device(SEED, names_system=names_system, has_greenboot=scenario.has_greenboot)
    whole = again(base, scenario, SEED)
    whole.run()
    check_end(whole, scenario, cuts=0)
    assert whole.world.reboots_ordered == scenario.limit
    effects = again(base, scenario, SEED)
    effects.run()
    passed: Counter[str] = Counter()
    kinds = KINDS if names_system or IS_SOAK else ("unsynced",)
    count = len(effects.world.effects)
    for k, kind in cuts(count, kinds):
        device = again(base, scenario, SEED * 1000 + k)
        device.world.crash_at = {k: kind}
        # Every other time it is only the agent that dies.
        assert device.run_through_crashes(power=(k + KINDS.index(kind)) % 2 == 0) == 1
        check_end(device, scenario, cuts=1, lasts=IS_SOAK or kind == "unsynced")
        passed[kind] += 1
    with capsys.disabled():
        name = scenario.name
        print(f"\n[simulated] OS update, {name}: of {count} effects {dict(passed)}, all whole")


@pytest.mark.timeout(LIMIT_S)
def test_two_crashes_anywhere_in_an_os_update_end_whole(capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(SEED)
    bases = {s.name: settled_device(SEED, has_greenboot=s.has_greenboot)[0] for s in SCENARIOS}
    for sample in range(SAMPLES):
        scenario = rng.choice(SCENARIOS)
        device = again(bases[scenario.name], scenario, SEED * 100_000 + sample)
        first = rng.randrange(100)
        device.world.crash_at = {
            first: rng.choice(KINDS),
            first + 1 + rng.randrange(60): rng.choice(KINDS),
        }
        crashes = device.run_through_crashes(power=rng.random() < 0.5)
        device.world.crash_at = {}
        check_end(device, scenario, cuts=crashes)
    with capsys.disabled():
        print(
            f"\n[simulated] OS update, two crashes: {SAMPLES} samples, SIM_SEED={SEED}, all whole"
        )
