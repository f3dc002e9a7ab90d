"""Who waits for one kind is not sent to look for what only another kind can have."""

from __future__ import annotations

from apiserver.store.hub import Hub


def test_an_own_commit_moves_the_kinds_that_it_noted_and_no_others() -> None:
    hub = Hub(100)
    hub.note(100, 103, ["Device", "Event"])
    hub.publish(103)
    assert hub.version == 103
    assert hub.may_have_moved("Device", 100)
    assert not hub.may_have_moved("Device", 103)
    assert not hub.may_have_moved("Fleet", 100)


def test_of_a_commit_of_others_anything_may_have_moved() -> None:
    hub = Hub(100)
    hub.heard(104)
    assert hub.may_have_moved("Fleet", 103)
    assert not hub.may_have_moved("Fleet", 104)


def test_what_others_committed_in_between_may_have_moved_anything() -> None:
    hub = Hub(100)
    hub.note(105, 107, ["Device"])
    hub.publish(107)
    assert hub.may_have_moved("Fleet", 104)
    assert not hub.may_have_moved("Fleet", 105)
    assert hub.may_have_moved("Device", 106)


def test_a_note_of_what_was_rolled_back_says_nothing_of_whoever_got_the_version() -> None:
    hub = Hub(100)
    hub.note(100, 102, ["Device"])
    hub.heard(102)
    assert hub.may_have_moved("Fleet", 101)


def test_a_commit_without_a_note_of_its_own_may_have_moved_anything() -> None:
    hub = Hub(100)
    hub.note(100, 102, ["Device"])
    hub.publish(102)
    hub.publish(103)
    assert hub.may_have_moved("Fleet", 102)


def test_what_was_heard_first_stays_what_anything_may_have_moved() -> None:
    hub = Hub(100)
    hub.note(100, 102, ["Device"])
    hub.heard(102)
    hub.publish(102)
    assert hub.version == 102
    assert hub.may_have_moved("Fleet", 101)
