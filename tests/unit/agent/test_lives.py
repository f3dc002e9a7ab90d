"""A crash loop of the agent itself is seen from afar."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import lives
from tests.fakes.clocked_world import ClockedWorld

OWN = "/var/lib/flightctl/homeport"


@pytest.fixture
def device(tmp_path: Path) -> ClockedWorld:
    return ClockedWorld(tmp_path)


def life(device: ClockedWorld, *, lasts_s: float = 20.0, failure: str | None = None) -> str:
    """One that ends by itself: killed, or with last words. What it had to say of those before."""
    subject = lives.Lives(device, OWN)
    subject.begin()
    said = subject.trouble()
    device.elapsed_s += lasts_s
    if failure is not None:
        subject.end(failure)
    return said


def test_ends_that_nobody_asked_for_are_counted_and_named(device: ClockedWorld) -> None:
    assert [life(device, failure="contact: broken") for _ in range(3)] == [""] * 3
    assert life(device) == "the agent ended unasked 3 times within 15 minutes: contact: broken"


def test_a_life_that_was_killed_counts_too(device: ClockedWorld) -> None:
    said = [life(device) for _ in range(5)]
    assert said[:3] == [""] * 3
    assert said[4] == "the agent ended unasked 4 times within 15 minutes"


def test_restarts_that_were_asked_for_are_none(device: ClockedWorld) -> None:
    assert [life(device, failure="") for _ in range(9)] == [""] * 9


def test_it_is_over_once_a_life_has_lasted(device: ClockedWorld) -> None:
    for _ in range(4):
        life(device)
    subject = lives.Lives(device, OWN)
    subject.begin()
    assert subject.trouble()
    device.elapsed_s += lives.WITHIN_S
    assert not subject.trouble()


def test_what_is_kept_is_bounded_and_what_is_damaged_is_nothing(device: ClockedWorld) -> None:
    for _ in range(100):
        life(device, lasts_s=0.1)
    assert len(device.read(f"{OWN}/{lives.NAME}") or b"") < 1000
    for raw in (b"", b"{", b"[]", b'{"boot": 1, "begun": "x", "words": ""}'):
        device.put(f"{OWN}/{lives.NAME}", raw)
        assert life(device) == ""


def test_a_device_that_was_wiped_gets_nothing_back(device: ClockedWorld) -> None:
    subject = lives.Lives(device, OWN)
    subject.begin()
    device.remove(f"{OWN}/{lives.NAME}")
    subject.end("loop: ended by itself")
    assert device.read(f"{OWN}/{lives.NAME}") is None
