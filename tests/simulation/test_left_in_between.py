"""[simulated] A further version after one from which going back was given up.

The device is left in the system of the version that failed. Whatever comes next, and wherever the
agent dies meanwhile, it ends whole on one version.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from agent import states
from tests.fakes.seeds import IS_SOAK
from tests.fakes.sim_bootc import SimBootc
from tests.fakes.sim_device import DATA, Device, Json, application, document, file
from tests.fakes.sim_image_device import (
    NEW,
    OLD,
    TAGS,
    assert_settled,
    next_version,
    settled_device,
    until,
)
from tests.fakes.sim_podman import Image
from tests.fakes.sim_world import KINDS, Crash

SEED = 5


def refused(device: Device, version: int) -> bool:
    condition = device.condition()
    is_error = (condition["status"], condition["reason"]) == ("False", "Error")
    return is_error and f"renderedVersion: {version}" in condition["message"]


def left_in_the_second_system() -> tuple[Device, SimBootc]:
    """Version 2 has failed, and going back from it was given up: the tool is busy for ever."""
    device, system = settled_device(SEED)
    device.goes_back_later = True
    device.systems |= {"3": NEW.digest}
    device.offer(next_version(2, "r/os:2", app="r/bad"))
    until(device, states.Verifying, reboots=1)
    system.complaints = ["error: Acquiring lock: busy"] * 10_000
    until(device, states.Refused)
    assert system.booted.digest == NEW.digest
    return device, system


def twin(base: Device, seed: int) -> Device:
    device = Device(base.world.twin(seed), times=base.times)
    device.known, device.originals = dict(base.known), base.originals
    device.systems, device.goes_back_later = base.systems, True
    return device


def third(image: str, app: str) -> Json:
    """With none of the files of the second."""
    files = [file("/opt/tool", "#!3"), file("/etc/third", "of the third")]
    return document(3, files, [application("web", app)], os={"image": image})


@pytest.mark.parametrize("image", ["r/os:2", "r/os:3"], ids=["same-system", "another"])
def test_what_a_later_version_gave_back_is_given_back_in_the_system_that_is_gone_back_to(
    image: str,
) -> None:
    """In the first system's own `/etc` the files of the second version lie still when the third,
    which has none of them, fails as well."""
    device, system = left_in_the_second_system()
    device.offer(third(image, "r/bad"))
    until(device, states.Applying)
    agent = device.loop
    assert agent is not None
    while device.world.nodes["/etc/hosts"].data == b"new here":
        device.world.sleep(agent.run_once())
    system.complaints = []
    device.run(settle_s=4000)
    assert refused(device, 3)
    assert system.booted.digest == OLD.digest
    assert_settled(device, "1")


@pytest.mark.parametrize("is_good", [True, False])
def test_a_system_that_was_left_is_not_committed_before_its_boot_is_called_good(
    is_good: bool,
) -> None:
    """The third version needs no reboot, for the second has brought its system; but the boot loader
    may still take that away."""
    device, system = left_in_the_second_system()
    system.has_greenboot = True
    contents = system.contents
    system.contents = {**contents, NEW.digest: replace(NEW, is_called_good=False)}
    device.offer(third("r/os:2", "r/web:2"))
    until(device, states.Verifying)
    agent, since = device.loop, device.world.monotonic()
    assert agent is not None
    while device.world.monotonic() < since + device.times.boot_complete_s / 2:
        assert isinstance(agent.state, states.Verifying)
        device.world.sleep(agent.run_once())
    system.complaints = []
    system.contents = contents if is_good else system.contents
    device.run(settle_s=600)
    if is_good:
        assert_settled(device, "3")
    else:
        assert refused(device, 3)
        assert "do not call its boot good" in device.condition()["message"]
        assert system.booted.digest == OLD.digest
        assert_settled(device, "1")


def test_what_greenboot_says_of_the_committed_system_holds_up_no_other_files() -> None:
    device, system = settled_device(SEED, has_greenboot=True)
    system.contents = {**system.contents, OLD.digest: replace(OLD, is_called_good=False)}
    device.systems |= {"3": OLD.digest}
    device.offer(third("r/os:1", "r/web:2"))
    device.run(settle_s=600)
    assert_settled(device, "3")


def test_a_later_version_that_is_well_leaves_nothing_to_give_back() -> None:
    device, system = left_in_the_second_system()
    device.offer(third("r/os:2", "r/web:2"))
    device.run(settle_s=600)
    assert_settled(device, "3")
    system.complaints = []
    kept = [device.world.nodes[path].data for path in device.world.nodes if "/originals/" in path]
    assert kept
    assert not [record for record in kept if b"isGivenBack" in record]
    assert device.mailbox.status()["summary"] == {"status": "Online"}


def test_what_is_kept_in_mind_is_kept_until_the_commit_is_on_the_disk() -> None:
    """The agent dies just before it, and the application is not well any more in the next life."""
    base, _ = left_in_the_second_system()
    whole = twin(base, 1)
    whole.offer(third("r/os:2", "r/web:2"))
    whole.run()
    commit = whole.world.effects.index(f"write {DATA}/current.json") - 1
    device = twin(base, 1)
    device.offer(third("r/os:2", "r/web:2"))
    device.world.crash_at = {commit: "before"}
    with pytest.raises(Crash):
        device.run()
    assert device.world.effects[commit].startswith("append ")
    for one in device.world.podman.images:
        device.world.podman.images[one] = Image(health=one == "r/web:1")
    assert device.world.system is not None
    device.world.system.complaints = []
    device.run(settle_s=600)
    assert refused(device, 3)
    assert_settled(device, "1")


def test_an_old_system_that_would_not_start_at_first_is_given_back_its_files_when_it_does() -> None:
    device, system = settled_device(SEED)
    device.goes_back_later = True
    device.systems |= {"3": NEW.digest}
    device.offer(next_version(2, "r/os:2", app="r/bad"))
    until(device, states.Verifying, reboots=1)
    contents = system.contents
    system.contents = {**contents, OLD.digest: replace(OLD, comes_up=False)}
    until(device, states.Refused)
    device.run(settle_s=100)
    assert system.booted.digest == NEW.digest
    assert "going back to renderedVersion 1 is not finished" in str(
        device.mailbox.status()["summary"]
    )
    system.contents = contents
    device.offer(third("r/os:2", "r/bad"))
    device.run(settle_s=600)
    assert refused(device, 3)
    assert system.booted.digest == OLD.digest
    assert_settled(device, "1")
    assert device.mailbox.status()["summary"] == {"status": "Online"}


@pytest.mark.parametrize("sample", range(100 if IS_SOAK else 6))
def test_going_back_that_was_given_up_is_made_up_for_whenever_the_agent_dies(sample: int) -> None:
    base, _ = left_in_the_second_system()
    rng = random.Random(sample)
    device = twin(base, sample)
    system = device.world.system
    assert system is not None
    image, is_good = rng.choice(["r/os:2", "r/os:3"]), rng.random() < 0.3
    # The tool comes back before the third version is tried, while it is, or after.
    system.complaints = ["error: Acquiring lock: busy"] * rng.randrange(12)
    device.systems = {**base.systems, "3": TAGS[image].digest}
    device.offer(third(image, "r/web:2" if is_good else "r/bad"))
    device.world.crash_at = {rng.randrange(70): rng.choice(KINDS) for _ in range(2)}
    device.run_through_crashes(power=rng.random() < 0.5)
    device.world.crash_at = {}
    device.run(settle_s=4000)
    # A good one may have been refused for the tool.
    assert device.version() == "1" or is_good
    assert_settled(device, device.version())
    if device.version() == "1":
        assert refused(device, 3)
