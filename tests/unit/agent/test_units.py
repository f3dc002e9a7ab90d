"""systemd units in the status."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import units, world
from tests.fakes.clocked_world import ClockedWorld

SHOWN = """Id=b.service
Description=The b = service
LoadState=loaded
ActiveState=active
SubState=running
UnitFileState=enabled

Id=a.service
LoadState=not-found
ActiveState=inactive
SubState=dead
UnitFileState=

Id=c.timer
LoadState=loaded
ActiveState=dancing
SubState=Very Odd
UnitFileState=new-in-v300

Id=a.service
"""


def test_units_are_sorted_once_each_and_odd_words_are_unknown() -> None:
    found = units.parse(SHOWN)
    assert [unit["unit"] for unit in found] == ["a.service", "b.service", "c.timer"]
    assert found[1] == {
        "unit": "b.service",
        "description": "The b = service",
        "enableState": "enabled",
        "loadState": "loaded",
        "activeState": "active",
        "subState": "running",
    }
    assert (found[2]["activeState"], found[2]["subState"], found[2]["enableState"]) == (
        "unknown",
        "unknown",
        "unknown",
    )


def test_no_patterns_no_question(tmp_path: Path) -> None:
    device = ClockedWorld(tmp_path)
    assert units.collect(device, units.patterns_of({"systemd": None})) == []
    assert device.commands == []


def test_patterns_cannot_become_options(tmp_path: Path) -> None:
    device = ClockedWorld(tmp_path)
    device.answer = lambda argv: world.Completed(argv, 0, SHOWN, "")
    patterns = units.patterns_of({"systemd": {"matchPatterns": ["--root=/x", 3, "a*"]}})
    units.collect(device, patterns)
    (argv,) = device.commands
    assert argv[-3:] == ("--", "--root=/x", "a*")


def test_a_systemctl_that_fails_says_so(tmp_path: Path) -> None:
    device = ClockedWorld(tmp_path)
    device.answer = lambda argv: world.Completed(argv, 1, "", "no bus")
    with pytest.raises(units.Failed, match="no bus"):
        units.collect(device, ["x"])


def test_what_belongs_to_a_quadlet_application_is_not_reported_twice(tmp_path: Path) -> None:
    device = ClockedWorld(tmp_path)
    names = ("web-365508-app.service", "web-365508-flightctl-quadlet-app.target", "web.service")
    shown = "\n\n".join(f"Id={name}\nLoadState=loaded" for name in names)
    device.answer = lambda argv: world.Completed(argv, 0, shown, "")
    assert [unit["unit"] for unit in units.collect(device, ["web*"])] == sorted(names)
    device.put("/etc/systemd/system/web-365508-flightctl-quadlet-app.target", "[Unit]\n")
    assert [unit["unit"] for unit in units.collect(device, ["web*"])] == ["web.service"]
