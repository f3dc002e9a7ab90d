"""Which systems are bootable is asked when it may have changed, and not before."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agent import osimage, system, world
from agent.settings import LoopSettings
from tests.fakes.clocked_world import ClockedWorld


class Device:
    """Booted by bootc, with libostree's marks of what was changed."""

    def __init__(self, folder: Path) -> None:
        self.world = ClockedWorld(folder)
        self.world.answer = self._answer
        self.staged = ""
        self.system = system.System(self.world, LoopSettings(), osimage.BOOTC)

    def _answer(self, argv: tuple[str, ...]) -> world.Completed:
        def slot(image: str) -> dict[str, object] | None:
            return {"image": {"image": {"image": image}, "imageDigest": "sha256:1"}}

        status = {"booted": slot("r/os:1"), "staged": slot(self.staged) if self.staged else None}
        return world.Completed(argv, 0, json.dumps({"status": status}), "")

    def touch(self, path: str) -> None:
        place = self.world.path(path)
        place.mkdir(parents=True, exist_ok=True)
        # A moment that differs from the one before, on whatever clock the disk has.
        before = place.stat().st_ctime_ns
        while place.stat().st_ctime_ns == before:
            os.utime(place)

    def stage(self, image: str) -> None:
        self.staged = image
        self.world.put(system.STAGED, image)

    def look(self) -> str:
        """What is staged, as far as the agent knows."""
        slots = self.system.slots()
        assert slots is not None
        return slots.staged.image if slots.staged else ""

    def asked(self) -> int:
        commands, self.world.commands = len(self.world.commands), []
        return commands


@pytest.fixture
def device(tmp_path: Path) -> Device:
    made = Device(tmp_path)
    made.touch(system.DEPLOYMENTS)
    assert made.look() == ""
    assert made.asked() == 1
    return made


def test_while_nothing_is_touched_nothing_is_asked_for_five_minutes(device: Device) -> None:
    for _ in range(9):
        device.world.sleep(30)
        device.look()
    assert device.asked() == 0
    device.world.sleep(30)
    device.look()
    assert device.asked() == 1


def test_what_somebody_stages_or_deploys_is_seen_by_the_next_look(device: Device) -> None:
    device.stage("r/os:2")
    assert device.look() == "r/os:2"
    device.staged = ""
    device.world.remove(system.STAGED)
    assert device.look() == ""
    device.touch(system.DEPLOYMENTS)
    assert device.asked() == 2
    device.look()
    assert device.asked() == 1


def test_where_nothing_tells_of_changes_they_are_asked_for(tmp_path: Path) -> None:
    """As with a bootc that has no libostree beneath it."""
    device = Device(tmp_path)
    device.look()
    device.staged = "r/os:2"
    device.world.sleep(system.FRESH_S)
    assert device.look() == "r/os:2"


def test_who_is_about_to_change_them_looks_afresh(device: Device) -> None:
    device.system.slots(is_fresh=True)
    assert device.asked() == 1
