"""`homeport-agent status` and the bulletin it reads: how a device stands, without a network."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import (
    bulletin,
    config,
    configfiles,
    errors,
    holding,
    journal,
    specs,
    standing,
    states,
    world,
)
from agent.states import Target
from tests.fakes.clocked_world import START, ClockedWorld
from tests.fakes.sim_device import application, document, file

OWN = "/var/lib/flightctl/homeport"
FAILURE = errors.Failure(
    "ApplyingUpdate", "applications", "web", errors.UNAVAILABLE, "no such image", "then"
)
SEVEN, EIGHT = Target("7", "hash-7"), Target("8", "hash-8")
BOOTC = {
    "apiVersion": "org.containers.bootc/v1",
    "kind": "BootcHost",
    "spec": {"image": None, "bootOrder": "default"},
    "status": {
        "booted": {"image": {"image": {"image": "r/os:7"}, "imageDigest": "sha256:" + "7" * 64}},
        "staged": {"image": {"image": {"image": "r/os:8"}, "imageDigest": "sha256:" + "8" * 64}},
        "rollback": None,
        "rollbackQueued": False,
        "type": "bootcHost",
    },
}


class Desk:
    def __init__(self, root: Path) -> None:
        self.world = ClockedWorld(root)
        self.said = {
            "systemctl": "UnitFileState=enabled\nActiveState=active\nNRestarts=0\n"
            "ActiveEnterTimestamp=Thu 2026-11-26 12:00:00 UTC\nStatusText=Connected\n"
        }
        self.world.answer = self._answer
        self.world.mkdir(OWN)
        self.world.put(config.CONFIG_FILE, "enrollment-service: {service: {server: https://s:1}}")

    def _answer(self, argv: tuple[str, ...]) -> world.Completed:
        if argv[0] not in self.said:
            return world.Completed(argv, world.NOT_STARTED, "", "no such file")
        return world.Completed(argv, 0, self.said[argv[0]], "")

    def journaled(self, *records: dict[str, Any]) -> None:
        raw = b"".join(journal.line(record) for record in records)
        self.world.put(f"{OWN}/journal.jsonl", raw, mode=0o600)

    def files(self, current: dict[str, Any], desired: dict[str, Any] | None = None) -> None:
        for name, one in ((specs.CURRENT, current), (specs.DESIRED, desired or current)):
            self.world.put(f"/var/lib/flightctl/{name}", json.dumps(one), mode=0o600)

    def gathered(self) -> dict[str, Any]:
        return standing.gather(self.world, configfiles.load(self.world))

    def text(self) -> list[str]:
        return list(standing.lines(self.gathered(), self.world.now()))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def device(version: int) -> dict[str, Any]:
    made = document(version, [file("/etc/a", "x")], [application("web", "r/web:1")])
    made["metadata"]["annotations"]["fleet-controller/renderedTemplateVersion"] = "tv-1"
    return made


def test_a_new_device_says_that_it_knows_nothing_yet(desk: Desk) -> None:
    text = desk.text()
    assert text[0] == "device       not known yet: it has no specification"
    assert "runs         no specification yet" in text
    assert "does         waits to be told" in text
    assert "service      https://s:1, not known: no agent that runs has said" in text


def test_a_device_at_rest_says_what_runs_and_since_when(desk: Desk) -> None:
    desk.files(device(7))
    desk.journaled(journal.commit(SEVEN, "2026-11-20 10:00:00"))
    text = desk.text()
    assert "device       d1" in text
    (runs,) = [line for line in text if line.startswith("runs")]
    assert runs == (
        "runs         version 7, template tv-1, since 2026-11-20 10:00:00, 1 file, applications web"
    )
    assert "does         keeps the device as version 7 says" in text
    assert not [line for line in text if line.startswith("wants")]


def test_an_update_that_was_refused_says_why(desk: Desk) -> None:
    desk.files(device(7))
    desk.journaled(journal.commit(SEVEN, "then"), journal.refuse(EIGHT, FAILURE))
    text = desk.text()
    assert "does         keeps the device as version 7 says; version 8 was refused" in text
    (refused,) = [line for line in text if line.startswith("refused")]
    assert "While ApplyingUpdate: applications failed for web" in refused
    assert "no such image" in refused


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (states.Fetching(EIGHT, attempt=2), "downloads what version 8 needs, attempt 3"),
        (states.Staging(EIGHT), "checks whether version 8 can work here"),
        (states.Staged(EIGHT), "is ready for version 8 and waits for its time"),
        (states.Applying(EIGHT, stumbles=3), "changes the device to version 8, tried 3 times"),
        (states.Rebooting(EIGHT, "b", "r/os:8"), "reboots into r/os:8, for version 8"),
        (states.Verifying(EIGHT), "watches whether version 8 stays well"),
        (states.RollingBack(EIGHT, FAILURE), "goes back to version 7: [then] While"),
        (states.Decommissioning(EIGHT), "leaves its service for good"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_state_has_its_sentence(desk: Desk, state: states.State, words: str) -> None:
    desk.files(device(7), device(8))
    desk.journaled(journal.commit(SEVEN, "then"), journal.entered(state))
    text = desk.text()
    (does,) = [line for line in text if line.startswith("does")]
    assert words in does
    (wants,) = [line for line in text if line.startswith("wants")]
    assert "version 8" in wants


def test_who_holds_updates_up_is_told_and_a_hold_that_is_none(desk: Desk) -> None:
    holds = holding.Holds(desk.world)
    holds.put("press", "batch 7 of 9", 1800)
    desk.world.put("/run/flightctl/hold.d/oven", "now!")
    held = [line for line in desk.text() if line.startswith("held")]
    assert held[0] == ("held         by press until 2026-11-23T12:30:00Z (in 30 min): batch 7 of 9")
    assert "/run/flightctl/hold.d/oven holds nothing" in held[1]
    desk.world.sleep(1801)
    assert len([line for line in desk.text() if line.startswith("held")]) == 1


def bulletin_of(desk: Desk) -> bulletin.Bulletin:
    return bulletin.Bulletin(desk.world, {"agentVersion": "1", "server": "https://s:1"})


STATUS = {
    "applications": [{"name": "web", "status": "Running", "ready": "1/1", "restarts": 2}],
    "conditions": [{"type": "Updating", "reason": "Updated", "message": "Updated to 7"}],
    "summary": {"status": "Degraded", "info": "disk"},
}
FACTS = {"device": "d1", "certificateUntil": "2027-01-01T00:00:00Z"}


def test_what_the_running_agent_says_is_shown_with_its_age(desk: Desk) -> None:
    board = bulletin_of(desk)
    board.answered(5)
    board.tell(STATUS, FACTS)
    desk.world.sleep(45)
    text = desk.text()
    assert text[0] == "device       d1, certificate until 2027-01-01T00:00:00Z"
    assert "service      https://s:1, connected, last answer 45 s ago" in text
    assert "application  web: Running, 1/1 ready, restarted 2 times" in text
    assert "condition    Updating Updated: Updated to 7" in text
    assert "summary      Degraded: disk" in text


def test_a_service_out_of_reach_is_told_with_the_reason_and_the_next_try(desk: Desk) -> None:
    board = bulletin_of(desk)
    board.answered(5)
    desk.world.sleep(7200)
    board.failed("no route to host", 240)
    board.tell(STATUS, FACTS)
    (service,) = [line for line in desk.text() if line.startswith("service")]
    assert service == (
        "service      https://s:1, OUT OF REACH: no route to host, last answer 2 hours ago,"
        " tries again in 4 min"
    )


def test_waiting_for_a_person_is_told(desk: Desk) -> None:
    board = bulletin_of(desk)
    board.waiting("not approved yet", 10)
    board.tell(STATUS, FACTS)
    (service,) = [line for line in desk.text() if line.startswith("service")]
    assert "not enrolled: not approved yet, tries again in 10 s" in service


def test_what_a_dead_agent_said_is_not_shown_as_news(desk: Desk) -> None:
    bulletin_of(desk).tell(STATUS, FACTS)
    desk.said["systemctl"] = "UnitFileState=enabled\nActiveState=failed\nResult=exit-code\n"
    text = desk.text()
    (agent,) = [line for line in text if line.startswith("agent")]
    assert "NOT RUNNING: failed, last result exit-code" in agent
    assert not [line for line in text if line.startswith("application")]
    assert text[0].startswith("device       d1")


def test_an_image_based_device_names_its_systems(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ClockedWorld, "is_whole_machine", lambda self: True)
    desk.said["bootc"] = json.dumps(BOOTC)
    text = desk.text()
    assert "system       bootc, r/os:7 booted, r/os:8 at the next boot" in text


def test_a_damaged_specification_is_said_and_a_damaged_bulletin_is_none(desk: Desk) -> None:
    desk.world.put("/var/lib/flightctl/current.json", "{", mode=0o600)
    desk.world.put(bulletin.PATH, "[1]")
    assert any("current.json is damaged" in line for line in desk.text())


def test_looking_changes_nothing(desk: Desk) -> None:
    desk.files(device(7))
    desk.world.put(f"{OWN}/journal.jsonl", "00000000 {}\n", mode=0o600)

    def everything() -> dict[str, tuple[bytes, float]]:
        top = desk.world.path("/")
        return {str(p): (p.read_bytes(), p.stat().st_mtime) for p in top.rglob("*") if p.is_file()}

    before = everything()
    desk.gathered()
    assert everything() == before


def test_a_bulletin_is_written_when_something_changes_and_not_otherwise(desk: Desk) -> None:
    board = bulletin_of(desk)
    board.tell(STATUS, FACTS)
    first = bulletin.read(desk.world)
    assert first["at"] == "2026-11-23T12:00:00Z"
    desk.world.sleep(60)
    board.tell(STATUS, FACTS)
    assert bulletin.read(desk.world) == first
    board.failed("gone", 10)
    board.tell(STATUS, FACTS)
    found = bulletin.read(desk.world)
    assert found["at"] == "2026-11-23T12:01:00Z"
    assert found["contact"] == {
        "state": "failing",
        "why": "gone",
        "nextAt": "2026-11-23T12:01:10Z",
    }
    assert desk.world.stat(bulletin.PATH).mode == 0o600  # type: ignore[union-attr]


def test_a_bulletin_that_cannot_be_written_is_said_once(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    desk.world.put("/run", "in the way")
    board = bulletin_of(desk)
    board.tell(STATUS, FACTS)
    board.tell(STATUS, FACTS)
    assert caplog.text.count("bulletin not written") == 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s ago"),
        (-119, "119 s ago"),
        (-120, "2 min ago"),
        (7300, "in 2 hours"),
        (-172_800, "2 days ago"),
        (30, "in 30 s"),
    ],
)
def test_times_are_told_from_now(seconds: int, words: str) -> None:
    moment = (START + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert standing._ago(moment, datetime(2026, 11, 23, 12, tzinfo=UTC)) == words
