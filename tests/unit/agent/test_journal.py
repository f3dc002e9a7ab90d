"""The journal: torn ends, rot, budgets, compaction."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import errors, journal, states
from agent.states import Target
from tests.fakes.sim_world import Node, SimWorld

T, U = Target("7", "sha7"), Target("8", "sha8")
WHY = errors.Failure("ApplyingUpdate", "applications", "web", errors.ABORTED, "died", "now")
PATH = "/j/journal.jsonl"
STORY = [
    journal.booted("boot-1"),
    journal.entered(states.Fetching(T)),
    journal.entered(states.Applying(T, True)),
    journal.intent({"do": "WriteFile", "path": "/a"}),
    journal.outcome({"do": "WriteFile", "path": "/a"}),
    journal.entered(states.Verifying(T, True)),
    journal.commit(T, "today"),
    journal.entered(states.Fetching(U)),
    journal.refuse(U, WHY),
]


def opened(raw: bytes = b"") -> tuple[SimWorld, journal.Journal]:
    where = SimWorld()
    where.mkdir("/j")
    if raw:
        where.nodes[PATH] = Node("file", raw, 0o600)
    book = journal.Journal(where, PATH)
    book.load()
    return where, book


def test_a_story_is_remembered_by_the_next_life() -> None:
    where, book = opened()
    for record in STORY:
        book.append(record)
    again = journal.Journal(where, PATH)
    memory = again.load()
    assert memory == book.memory
    assert memory.state == states.Refused(U, WHY)
    assert memory.committed == T
    assert memory.refusal_of(Target("9", "sha8")) == journal.Refusal(U, WHY)
    assert memory.refusal_of(Target("8", "other")) == journal.Refusal(U, WHY)
    assert memory.refusal_of(Target("9", "")) is None
    assert where.nodes[PATH].mode == 0o600


@given(st.integers(0, len(STORY)), st.data())
def test_cut_off_anywhere_all_whole_lines_count(lines: int, data: st.DataObject) -> None:
    whole = [journal.line(record) for record in STORY]
    torn = b""
    if lines < len(whole):
        torn = whole[lines][: data.draw(st.integers(0, len(whole[lines]) - 1))]
    where, book = opened(b"".join(whole[:lines]) + torn)
    assert book.memory == journal.fold(STORY[:lines])
    book.append(journal.booted("boot-2"))
    again = journal.Journal(where, PATH)
    assert again.load() == book.memory
    assert again.load().boot_id == "boot-2"


def test_rot_in_the_middle_loses_one_line_and_keeps_the_evidence() -> None:
    raw = b"".join(journal.line(record) for record in STORY)
    damaged = raw.replace(b'"at":"today"', b'"at":"todax"')
    where, book = opened(damaged)
    assert book.memory.committed is None
    assert book.memory.state == states.Refused(U, WHY)
    assert where.nodes[f"{PATH}.damaged"].data == damaged


def test_the_evidence_of_rot_is_on_the_disk_before_the_journal_is_made_anew() -> None:
    damaged = b"".join(journal.line(one) for one in STORY).replace(b'"at":"today"', b'"at":"todax"')
    where = SimWorld()
    where.mkdir("/j")
    where.nodes[PATH] = Node("file", damaged, 0o600)
    journal.Journal(where, PATH).load()
    assert where.effects[1:] == [f"write {PATH}.damaged", f"write {PATH}"]


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "state", "state": {"name": "Dancing"}},
        {"kind": "of the future"},
        {"kind": "commit"},
    ],
)
def test_a_record_that_makes_no_sense_here_is_passed_over(record: dict[str, object]) -> None:
    _, book = opened(journal.line(STORY[0]) + journal.line(record) + journal.line(STORY[6]))
    assert book.memory.committed == T


def test_compaction_says_the_same_in_one_record() -> None:
    where, book = opened()
    for _ in range(journal.RECORDS_MAX // len(STORY) + 2):
        for record in STORY:
            book.append(record)
    assert where.nodes[PATH].data.count(b"\n") < journal.RECORDS_MAX
    book.compact()
    assert where.nodes[PATH].data.count(b"\n") == 1
    assert journal.Journal(where, PATH).load() == book.memory


def test_a_full_disk_does_not_glue_two_records_together() -> None:
    where, book = opened()
    book.append(STORY[0])
    where.full = True
    with pytest.raises(OSError):
        book.append(STORY[1])
    where.nodes[PATH] = Node("file", where.nodes[PATH].data + b"half a li", 0o600)
    where.full = False
    book.append(STORY[6])
    assert journal.Journal(where, PATH).load().committed == T


def test_budgets_are_of_one_attempt_at_one_target() -> None:
    intent = journal.intent({"do": "StartContainer"})
    in_idle = journal.fold([intent, intent])
    assert in_idle.steps_in_target == 0
    applying = [journal.booted("b1"), journal.entered(states.Applying(T)), intent, intent]
    assert journal.fold(applying).steps_in_target == 2
    verifying = [*applying, journal.entered(states.Verifying(T)), intent, journal.booted("b2")]
    assert journal.fold(verifying).steps_in_target == 3
    assert journal.fold(verifying).boots_without_commit == 1
    for end in (
        journal.commit(T, ""),
        journal.refuse(T, WHY),
        journal.entered(states.Fetching(T, 1)),
        journal.entered(states.Applying(U)),
    ):
        memory = journal.fold([*verifying, end])
        assert (memory.steps_in_target, memory.boots_without_commit) == (0, 0)


def test_only_so_many_refusals_are_kept() -> None:
    targets = [Target(str(n), f"h{n}") for n in range(journal.REFUSALS_MAX + 5)]
    memory = journal.fold(journal.refuse(t, WHY) for t in targets)
    assert len(memory.refusals) == journal.REFUSALS_MAX
    assert memory.refusal_of(targets[-1]) is not None
    assert memory.refusal_of(targets[0]) is None


def test_a_line_is_checksum_and_json() -> None:
    checksum, text = journal.line({"kind": "boot", "bootID": "x"}).split(b" ", 1)
    assert len(checksum) == 8
    assert json.loads(text) == {"kind": "boot", "bootID": "x"}


def test_reboots_that_repair_are_counted_until_the_committed_system_runs_again() -> None:
    reboot = journal.intent({"do": "Reboot", "image": "os:1"})
    settled = [journal.commit(T, "today"), reboot, journal.intent({"do": "WriteFile"}), reboot]
    memory = journal.fold(settled)
    assert memory.repair_reboots == 2
    assert journal.decode(journal.encode(memory)) == memory
    assert journal.fold([*settled, journal.mended()]).repair_reboots == 0
    assert journal.fold([*settled, journal.commit(U, "today")]).repair_reboots == 0
    # A reboot of an update is no repair.
    updating = [journal.entered(states.Rebooting(U, "boot-1")), reboot]
    assert journal.fold(updating).repair_reboots == 0


def test_an_older_agent_reads_what_a_newer_one_has_written() -> None:
    record = journal.entered(states.Rebooting(T, "boot-1", "os:2"))
    record["state"]["invented later"] = 7
    assert journal.fold([record]).state == states.Rebooting(T, "boot-1", "os:2")


def test_going_back_that_was_given_up_is_remembered_until_the_device_is_whole() -> None:
    left = journal.fold([journal.commit(T, "today"), journal.refuse(U, WHY, is_behind=True)])
    assert left.is_behind
    assert journal.decode(journal.encode(left)) == left
    assert not journal.step(left, journal.whole()).is_behind
    assert not journal.step(left, journal.commit(U, "today")).is_behind
    # Where the update was not to blame it is given up without a refusal.
    again = journal.entered(states.Fetching(U), is_behind=True)
    blameless = journal.fold(
        [journal.commit(T, "today"), again, journal.entered(states.Staging(U))]
    )
    assert blameless.is_behind
    # What an older agent has written says nothing of it.
    assert not journal.fold([journal.refuse(U, WHY)]).is_behind
