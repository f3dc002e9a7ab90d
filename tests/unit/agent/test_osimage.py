"""Which image is the same, and what is left to do about the slots."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import osimage
from agent.osimage import (
    DequeueRollback,
    DiscardStaged,
    Plan,
    QueueRollback,
    Reboot,
    Slot,
    Slots,
    StageOs,
    Wanted,
)

D1, D2 = f"sha256:{'1' * 64}", f"sha256:{'2' * 64}"
A = Slot("q.io/os:a", D1, "a.0")
B = Slot("q.io/os:b", D2, "b.0")
C = Slot("q.io/os:c", f"sha256:{'3' * 64}", "c.0")


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("q.io/os", "q.io/os:latest"),
        ("q.io/os:2", "q.io/os:2"),
        ("q.io:5000/os", "q.io:5000/os:latest"),
        ("[::1]:5000/os:2", "[::1]:5000/os:2"),
        (f"q.io/os@{D1}", f"q.io/os@{D1}"),
        (f"q.io:5000/a/os:2@{D1}", f"q.io:5000/a/os@{D1}"),
    ],
)
def test_references_are_read_as_they_mean(text: str, read: str) -> None:
    assert str(osimage.reference(text)) == read
    assert osimage.reference(read) == osimage.reference(text)


@pytest.mark.parametrize(
    "text",
    ["", "-o", "a b", "os:", "os:a:b", "os@", "os@sha256:12", "/os", "os/", "os:ä", "--x/os"],
)
def test_what_is_no_reference_is_said_to_be_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not an image reference"):
        osimage.reference(text)


@pytest.mark.parametrize(
    ("wanted", "slot", "same"),
    [
        (Wanted("q.io/os:a"), A, True),
        (Wanted("q.io/os:b"), A, False),
        (Wanted("q.io/os"), Slot("q.io/os:latest"), True),
        (Wanted(f"q.io/os@{D1}"), A, True),
        (Wanted(f"q.io/os:whatever@{D1}"), A, True),
        (Wanted(f"q.io/os:a@{D2}"), A, False),
        # The tag is the same and has moved since; another tag means the same.
        (Wanted("q.io/os:a", (D2,)), A, False),
        (Wanted("q.io/os:other", (D1,)), A, True),
        # An old tool that tells no digest.
        (Wanted("q.io/os:a", (D1,)), Slot("q.io/os:a"), True),
        (Wanted(f"q.io/os:a@{D1}"), Slot(f"q.io/os@{D1}"), True),
        # The index has one digest, the image of this architecture in it another.
        (Wanted(f"q.io/os@{D1}"), Slot(f"q.io/os@{D1}", D2), True),
        (Wanted("q.io/os:a", (D1, D2)), Slot("q.io/os:a", D2), True),
        (Wanted("q.io/os:a"), None, False),
        (Wanted("q.io/os:a"), Slot(""), False),
        (Wanted("no reference"), Slot("no reference"), True),
    ],
)
def test_the_same_image(wanted: Wanted, slot: Slot | None, same: bool) -> None:
    assert osimage.is_same(wanted, slot) is same


WANTS_A = Wanted("q.io/os:a")
BACK_TO_A = Wanted("q.io/os:a", may_roll_back=True)


@pytest.mark.parametrize(
    ("wanted", "slots", "plan"),
    [
        (None, Slots(A, B), Plan()),
        (WANTS_A, None, Plan()),
        (WANTS_A, Slots(A), Plan()),
        (WANTS_A, Slots(A, rollback=B), Plan()),
        (WANTS_A, Slots(A, staged=A), Plan()),
        (WANTS_A, Slots(A, staged=B), Plan((DiscardStaged("q.io/os:a", "q.io/os:b"),))),
        (WANTS_A, Slots(A, None, B, True), Plan((DequeueRollback("q.io/os:a"),))),
        (
            WANTS_A,
            Slots(B, rollback=C),
            Plan((StageOs("q.io/os:a", "q.io/os:a"),), Reboot("q.io/os:a", "c.0")),
        ),
        (WANTS_A, Slots(B, staged=A), Plan((), Reboot("q.io/os:a"))),
        # Forward never by the slot that is there: its configuration is of its own time.
        (
            WANTS_A,
            Slots(B, rollback=A),
            Plan((StageOs("q.io/os:a", "q.io/os:a"),), Reboot("q.io/os:a", "a.0")),
        ),
        (
            BACK_TO_A,
            Slots(B, rollback=A),
            Plan((QueueRollback("q.io/os:a"),), Reboot("q.io/os:a", "a.0"), is_back=True),
        ),
        (BACK_TO_A, Slots(B, None, A, True), Plan((), Reboot("q.io/os:a", "a.0"), is_back=True)),
        # What was queued is not what boots while something is staged.
        (
            BACK_TO_A,
            Slots(B, C, A, True),
            Plan((QueueRollback("q.io/os:a"),), Reboot("q.io/os:a", "a.0"), is_back=True),
        ),
        (
            BACK_TO_A,
            Slots(B, rollback=C),
            Plan((StageOs("q.io/os:a", "q.io/os:a"),), Reboot("q.io/os:a", "c.0")),
        ),
        (Wanted("q.io/os:a", may_reboot=False), Slots(B, C, A), Plan()),
        (
            Wanted("q.io/os:a", may_reboot=False),
            Slots(A, B),
            Plan((DiscardStaged("q.io/os:a", "q.io/os:b"),)),
        ),
    ],
)
def test_plans(wanted: Wanted | None, slots: Slots | None, plan: Plan) -> None:
    assert osimage.plan(wanted, slots) == plan


@pytest.mark.parametrize(
    ("wanted", "slots", "name"),
    [
        (Wanted("q.io/os:a"), Slots(B), "q.io/os:a"),
        (Wanted("q.io/os:a", (D2,)), Slots(B), "q.io/os:a"),
        (Wanted(f"q.io/os:a@{D1}"), Slots(B), f"q.io/os@{D1}"),
        # bootc would call it unchanged.
        (Wanted("q.io/os:a", (D2, D1)), Slots(A), f"q.io/os@{D2}"),
        (Wanted("q.io/os:a", (D2,)), Slots(B, staged=A), f"q.io/os@{D2}"),
        (Wanted("q.io/os:a"), Slots(A), "q.io/os:a"),
    ],
)
def test_the_name_that_is_staged_is_one_that_the_tool_does_not_know_yet(
    wanted: Wanted, slots: Slots, name: str
) -> None:
    assert osimage.stage_name(wanted, slots) == name


@pytest.mark.parametrize(
    ("slots", "before", "fallen"),
    [
        (Slots(A, rollback=B), "", False),
        (Slots(B, rollback=A), "", True),
        (Slots(B, rollback=A), "c.0", True),
        # It was there already: the power went before the shutdown was through.
        (Slots(B, rollback=A), "a.0", False),
        (Slots(B, rollback=C), "c.0", False),
        (Slots(B), "", False),
    ],
)
def test_a_system_that_was_bootable_and_does_not_run_has_been_gone_back_from(
    slots: Slots, before: str, fallen: bool
) -> None:
    assert osimage.has_fallen_back(WANTS_A, slots, before) is fallen


slot_choice = st.sampled_from([None, A, B, C])


def follow(step: Any, slots: Slots) -> Slots:
    """What bootc makes of a step."""
    match step:
        case StageOs():
            return Slots(slots.booted, A, slots.rollback, False)
        case QueueRollback() | DequeueRollback() | DiscardStaged():
            return Slots(slots.booted, None, slots.rollback, not slots.is_rollback_queued)
    raise AssertionError(step)


def restarted(slots: Slots) -> Slots:
    if slots.staged is not None:
        return Slots(slots.staged, None, slots.booted)
    if slots.is_rollback_queued:
        return Slots(slots.rollback, None, slots.booted)
    return slots


@given(
    booted=st.sampled_from([A, B, C]),
    staged=slot_choice,
    rollback=slot_choice,
    is_queued=st.booleans(),
    may_roll_back=st.booleans(),
)
def test_from_everywhere_one_reboot_at_most_ends_with_nothing_left_to_do(
    booted: Slot, staged: Slot | None, rollback: Slot | None, is_queued: bool, may_roll_back: bool
) -> None:
    # bootc keeps no staged system and a queued rollback at once; without a slot nothing is queued.
    slots = Slots(booted, staged, rollback, is_queued and rollback is not None and staged is None)
    if rollback is None and staged is not None:
        # Then dropping is done by staging what runs, which the simulation has.
        slots = Slots(booted, None, None)
    wanted = Wanted("q.io/os:a", may_roll_back=may_roll_back)
    reboots = 0
    for _ in range(6):
        plan = osimage.plan(wanted, slots)
        if plan == Plan():
            break
        for step in plan.steps:
            slots = follow(step, slots)
        if plan.reboot is not None and not osimage.plan(wanted, slots).steps:
            reboots += 1
            slots = restarted(slots)
    assert osimage.plan(wanted, slots) == Plan()
    assert osimage.is_same(wanted, slots.booted)
    assert reboots <= 1
