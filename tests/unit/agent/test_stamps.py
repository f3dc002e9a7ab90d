"""What was applied last outlives the process; rot of it is as if another agent had been here."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.appplan import Stamp
from agent.stamps import STAMPS_MAX, Stamps
from tests.fakes.clocked_world import ClockedWorld

PLAIN = Stamp("d", "boot", 3, ("/a", "/b"))
TAKEN = Stamp("adopted", "boot", 0, ("/a",), "s1", {"/a": ("theirs", 0o644, 0, 0)})


def made(folder: Path) -> tuple[ClockedWorld, Stamps]:
    where = ClockedWorld(folder)
    where.mkdir("/own")
    return where, Stamps(where, "/own")


def test_a_stamp_comes_back_as_it_was(tmp_path: Path) -> None:
    where, stamps = made(tmp_path)
    stamps.put("quadlet", "a-1", PLAIN)
    stamps.put("helm", "n_a", TAKEN)
    assert Stamps(where, "/own").read() == {("quadlet", "a-1"): PLAIN, ("helm", "n_a"): TAKEN}
    stamps.put("quadlet", "a-1", None)
    assert stamps.read() == {("helm", "n_a"): TAKEN}


def test_there_is_an_end_to_how_many_are_kept(tmp_path: Path) -> None:
    _, stamps = made(tmp_path)
    for n in range(STAMPS_MAX + 3):
        stamps.put("quadlet", f"a-{n}", PLAIN)
    assert len(stamps.read()) == STAMPS_MAX


@pytest.mark.parametrize("text", ["", "{", "[]", '{"quadlet": {"a": {"digest": "d"}}}'])
def test_rot_is_no_stamp(tmp_path: Path, text: str) -> None:
    where, stamps = made(tmp_path)
    where.put("/own/applications.json", text)
    assert stamps.read() == {}
