"""[simulated] The whole agent, with its service and the network, cut off at every effect of an
update of its operating system and all, on both sides of the reboots; under bootc and rpm-ostree.

As `test_scenarios`; what is the device's system is asked of the boot loader, not of the agent.
`SIM_SEED` and the numbers that a failure names repeat it.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.fakes.seeds import IS_SOAK, LIMIT_S, SEED, cuts, naming
from tests.fakes.sim_image_agent import (
    TOOLS,
    UPDATES,
    Update,
    again,
    check_end,
    installed,
)
from tests.fakes.sim_world import KINDS

SAMPLES = 600 if IS_SOAK else 24
HOUR_S, DAY_S = 3600.0, 86400.0

pytestmark = pytest.mark.timeout(LIMIT_S)


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("update", UPDATES, ids=lambda one: one.name)
def test_an_update_of_all_that_is_cut_off_anywhere_ends_as_it_would_have(
    update: Update, tool: str, capsys: pytest.CaptureFixture[str]
) -> None:
    base = installed(SEED, tool, has_greenboot=update.has_greenboot)
    whole = again(base, update, SEED)
    whole.live(whole.world.elapsed_s + DAY_S)
    check_end(whole, update)
    effects = list(whole.world.effects)
    whole.check_lasts()
    passed: Counter[str] = Counter()
    points = cuts(len(effects), KINDS)
    # The loop alone is cut off in all ways by `test_os_crashes`, and what is the tool's own is the
    # same under both: they take turns.
    for k, kind in points if IS_SOAK else points[TOOLS.index(tool) :: len(TOOLS)]:
        device = again(base, update, SEED * 1000 + k)
        device.world.crash_at = {k: kind}
        with naming(tool, k, kind, effects[k]):
            device.live_through_crashes(device.world.elapsed_s + DAY_S, power=k % 2 == 0)
            check_end(device, update)
        passed[kind] += 1
    with capsys.disabled():
        count = len(effects)
        print(f"\n[simulated {tool}] {update.name}: {count} effects, cut off {dict(passed)}")


@pytest.mark.parametrize("tool", TOOLS)
def test_two_cuts_anywhere_in_an_update_of_all_end_whole(
    tool: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(SEED)
    bases = {good: installed(SEED, tool, has_greenboot=good) for good in (False, True)}
    for sample in range(SAMPLES):
        update = rng.choice(UPDATES)
        device = again(bases[update.has_greenboot], update, SEED * 100_000 + sample)
        first = rng.randrange(90)
        later = first + 1 + rng.randrange(60)
        device.world.crash_at = {first: rng.choice(KINDS), later: rng.choice(KINDS)}
        with naming(tool, update.name, sample, device.world.crash_at):
            device.live_through_crashes(device.world.elapsed_s + DAY_S, power=rng.random() < 0.5)
            check_end(device, update)
    with capsys.disabled():
        print(f"\n[simulated {tool}] update of all, two cuts: {SAMPLES} samples, SIM_SEED={SEED}")


@pytest.mark.parametrize(
    ("seconds", "every"),
    [(HOUR_S, 1 if IS_SOAK else 9), (DAY_S, 1 if IS_SOAK else 60)],
    ids=["hour", "day"],
)
@pytest.mark.parametrize("tool", TOOLS)
def test_a_network_that_goes_at_any_step_of_an_update_of_all_only_holds_it_up(
    tool: str, seconds: float, every: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the new system too: going back to the old one does not bring it back, so that the update
    was not at fault, and is made again."""
    base, update = installed(SEED, tool), UPDATES[0]
    whole = again(base, update, SEED)
    whole.live()
    steps = range(4 * TOOLS.index(tool), len(whole.world.effects), every)
    for k in steps:
        device = again(base, update, SEED * 1000 + k)
        device.lose_network(at=k, seconds=seconds)
        with naming(tool, k, whole.world.effects[k]):
            device.live(device.world.elapsed_s + 2 * DAY_S)
            check_end(device, update)
    with capsys.disabled():
        hours = seconds / HOUR_S
        print(f"\n[simulated {tool}] network gone for {hours:g} h at {len(steps)} steps: updated")
