"""The audit log: flightctl's lines, in its order, bounded, and never in the way."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from agent import audit, specs, version
from agent.states import Target
from tests.fakes.clocked_world import ClockedWorld
from tests.fakes.sim_device import document

DATA, OWN = "/var/lib/flightctl", "/var/lib/flightctl/homeport"


@pytest.fixture
def disk(tmp_path: Path) -> ClockedWorld:
    where = ClockedWorld(tmp_path)
    where.mkdir(OWN)
    return where


def files(where: ClockedWorld) -> specs.SpecFiles:
    return specs.SpecFiles(where, DATA, OWN, audit.Audit(where, "lamp"))


def lines(where: ClockedWorld) -> list[dict[str, Any]]:
    raw = where.read(audit.PATH) or b""
    return [json.loads(line) for line in raw.splitlines()]


def story(where: ClockedWorld) -> list[tuple[str, str, str, str]]:
    return [
        (one["type"], one["reason"], one["old_version"], one["new_version"]) for one in lines(where)
    ]


def test_a_first_start_an_update_and_a_refusal_are_told_in_flightctls_words(
    disk: ClockedWorld,
) -> None:
    kept = files(disk)
    kept.load(None, None)
    assert story(disk) == [
        ("current", "bootstrap", "", "0"),
        ("desired", "bootstrap", "", "0"),
        ("rollback", "bootstrap", "", ""),
    ]
    kept.want(document(1, [], []))
    kept.committed()
    kept.want(document(2, [], []))
    kept.abandoned()
    assert story(disk)[3:] == [
        ("desired", "sync", "0", "1"),
        ("current", "upgrade", "0", "1"),
        ("rollback", "initialization", "0", ""),
        ("desired", "sync", "1", "2"),
        ("desired", "rollback", "2", "1"),
    ]


def test_a_line_has_every_field_of_the_reference(disk: ClockedWorld) -> None:
    device = document(5, [], [])
    device["metadata"]["annotations"][audit.TEMPLATE_VERSION] = "2026-11-26"
    kept = files(disk)
    kept.load(None, None)
    kept.want(device)
    assert lines(disk)[-1] == {
        "ts": "2026-11-23T12:00:00Z",
        "device": "lamp",
        "old_version": "0",
        "new_version": "5",
        "result": "success",
        "reason": "sync",
        "type": "desired",
        "fleet_template_version": "2026-11-26",
        "agent_version": version.VERSION,
    }
    assert disk.stat(audit.PATH).mode == 0o600  # type: ignore[union-attr]


def test_a_reboot_is_announced_by_the_file_to_roll_back_to_once(disk: ClockedWorld) -> None:
    kept = files(disk)
    kept.load(None, None)
    kept.want(document(1, [], []))
    before = len(lines(disk))
    kept.note_rollback("os:1")
    kept.note_rollback("os:1")
    assert story(disk)[before:] == [("rollback", "initialization", "", "0")]


def test_a_damaged_file_is_a_recovery_and_an_ordinary_start_is_nothing(disk: ClockedWorld) -> None:
    kept = files(disk)
    kept.load(None, None)
    kept.want(document(1, [], []))
    kept.committed()
    before = len(lines(disk))
    files(disk).load(Target("1", "hash-1"), None)
    assert story(disk)[before:] == []
    disk.put(f"{DATA}/current.json", "{", mode=0o600)
    files(disk).load(Target("1", "hash-1"), None)
    assert story(disk)[before:] == [("current", "recovery", "", "1")]


def test_without_a_name_nothing_is_written(disk: ClockedWorld) -> None:
    specs.SpecFiles(disk, DATA, OWN).load(None, None)
    assert disk.read(audit.PATH) is None


def test_a_log_that_cannot_be_written_stops_nothing_and_is_said_once(
    disk: ClockedWorld, caplog: pytest.LogCaptureFixture
) -> None:
    disk.put("/var/log", "a file in the way")
    kept = files(disk)
    kept.load(None, None)
    kept.want(document(1, [], []))
    assert specs.target_of(kept.desired).version == "1"
    assert [r.message for r in caplog.records if "audit log not written" in r.message] == [
        caplog.records[0].message
    ]


def test_a_line_torn_by_a_power_cut_spoils_no_other(disk: ClockedWorld) -> None:
    disk.put(audit.PATH, '{"ts":"2026-11-', mode=0o600)
    files(disk).load(None, None)
    first, *others = (disk.read(audit.PATH) or b"").splitlines()
    assert first == b'{"ts":"2026-11-'
    assert [json.loads(line)["reason"] for line in others] == ["bootstrap"] * 3


def test_it_is_packed_away_when_it_is_full_and_the_newest_are_kept(
    disk: ClockedWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "BYTES_MAX", 1000)
    book = audit.Audit(disk, "lamp")
    for number in range(40):
        disk.sleep(1)
        book.moved(audit.DESIRED, audit.SYNC, before=str(number), after=str(number + 1))
    folder = disk.path("/var/log/flightctl")
    packed = sorted(folder.glob("audit-*.log.gz"))
    assert len(packed) == audit.PACKED_MAX
    assert (folder / "audit.log").stat().st_size <= 1000
    texts = [gzip.decompress(p.read_bytes()) for p in packed] + [
        (folder / "audit.log").read_bytes()
    ]
    versions = [json.loads(line)["new_version"] for text in texts for line in text.splitlines()]
    # The newest ones, none twice and none missing.
    assert versions == [str(n) for n in range(41 - len(versions), 41)]
