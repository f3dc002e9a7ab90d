"""Status reports: complete, whole bursts at once, and never silenced by one broken part."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agent import collectors, identity, monitors, pace, reporting, sources, world
from tests.fakes import agent_rig
from tests.fakes.clocked_world import START
from tests.fakes.waiting import PATIENCE_S

Json = dict[str, Any]
CONTRACT_REQUIRED = {
    "conditions",
    "systemInfo",
    "applications",
    "applicationsSummary",
    "resources",
    "integrity",
    "config",
    "os",
    "updated",
    "summary",
    "lifecycle",
}


class Sections:
    """A mailbox whose waiting runs the test's steps."""

    def __init__(self) -> None:
        self.sections: Json = {}
        self.taken: list[Json] = []
        self.waits: list[float] = []
        self.steps: list[Callable[[], bool]] = []
        self.is_awaited = False
        self.on_wait: Callable[[float], None] = lambda seconds: None

    def status(self) -> Json:
        return dict(self.sections)

    def pushed(self, status: Mapping[str, Any]) -> None:
        self.taken.append(dict(status))

    def is_push_awaited(self) -> bool:
        return self.is_awaited

    def wait_for_status_change(self, timeout_s: float) -> bool:
        self.waits.append(timeout_s)
        self.on_wait(timeout_s)
        return self.steps.pop(0)() if self.steps else False


class Subject:
    def __init__(self, rig: agent_rig.Rig, **settings: Any) -> None:
        self.rig = rig
        made = rig.settings(**{"status-update-jitter": 0, **settings})
        self.who: identity.Identity = rig.admitted(made)
        machine = sources.Machine(rig.world, real=lambda path: None, address_of=lambda name: "")
        self.info = collectors.SystemInfo(rig.world, machine)
        self.info.configure(made)
        self.disk: float | None = 10.0
        resources = monitors.Monitors(machine, disk_usage=lambda path: self.disk)
        self.facts = reporting.Facts(
            rig.world, made.data_dir, self.info, resources, is_image_mode=False
        )
        self.sections = Sections()
        self.report = reporting.Reporting(rig.world, made, self.who, self.sections, self.facts)
        self.sections.on_wait = rig.world.sleep
        self.is_over = False
        self.pauses: list[float] = []

    def run(self, *steps: Callable[[], bool]) -> list[Json]:
        """Each wait does one step (True = something changed); the status bodies that were put."""

        def end() -> bool:
            self.is_over = True
            return False

        def pause(seconds: float) -> bool:
            self.pauses.append(seconds)
            self.rig.world.sleep(seconds)
            return self.is_over

        self.sections.steps = [*steps, end]
        try:
            self.report.run(lambda: self.is_over, pause)
        finally:
            self.report.client.close()
        return [body["status"] for body in self.rig.service.statuses]

    def change(self, **sections: Any) -> Callable[[], bool]:
        def step() -> bool:
            self.sections.sections.update(sections)
            return True

        return step


def nothing() -> bool:
    return False


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[agent_rig.Rig]:
    with agent_rig.rigged(tmp_path) as made:
        made.world.offset_s = (datetime.now(UTC) - START).total_seconds()
        yield made


@pytest.fixture
def subject(rig: agent_rig.Rig) -> Subject:
    return Subject(rig)


def test_the_first_report_has_every_member_of_the_contract(
    subject: Subject, rig: agent_rig.Rig
) -> None:
    (status,) = subject.run()
    (body,) = rig.service.statuses
    assert body["apiVersion"] == "v1beta1"
    assert body["kind"] == "Device"
    assert body["metadata"] == {"name": subject.who.name}
    assert "spec" not in body
    assert set(status) >= CONTRACT_REQUIRED
    (condition,) = status["conditions"]
    assert condition["type"] == "Updating"
    assert condition["status"] == "Unknown"
    assert condition["lastTransitionTime"].endswith("Z")
    for key in ("architecture", "bootID", "operatingSystem", "agentVersion"):
        assert isinstance(status["systemInfo"][key], str)
        assert status["systemInfo"][key]
    for key in ("integrity", "updated", "lifecycle"):
        assert status[key] == {"status": "Unknown"}
    assert status["os"] == {"image": "", "imageDigest": ""}
    assert status["capabilities"] == {"osMode": "package"}
    assert "lastSeen" not in status


def test_what_has_not_changed_is_not_said_again(subject: Subject) -> None:
    assert len(subject.run(*[nothing] * 200)) == 1


def test_a_change_is_reported_at_once_and_a_burst_once(subject: Subject) -> None:
    burst = subject.change(config={"renderedVersion": "3"})

    def two() -> bool:
        burst()
        subject.sections.sections["applications"] = [{"name": "a"}]
        return True

    statuses = subject.run(two, nothing)
    assert len(statuses) == 2
    assert statuses[1]["config"] == {"renderedVersion": "3"}
    assert statuses[1]["applications"] == [{"name": "a"}]
    assert subject.pauses == [pace.GATHER_S]


def stage(reason: str, message: str = "") -> Json:
    return {
        "conditions": [{"type": "Updating", "status": "True", "reason": reason, "message": message}]
    }


@pytest.fixture
def metered(rig: agent_rig.Rig) -> Subject:
    return Subject(rig, **{"network-profile": "metered"})


def test_on_a_metered_network_only_the_stages_of_an_update_are_news_and_are_gathered(
    metered: Subject, rig: agent_rig.Rig
) -> None:
    began = rig.world.elapsed_s
    steps = [
        metered.change(systemInfo={"a": 1}),
        metered.change(**stage("Preparing", "1/3")),
        metered.change(**stage("Preparing", "2/3")),
        metered.change(**stage("Updated")),
        *[nothing] * 150,
    ]
    statuses = metered.run(*steps)
    assert [one["conditions"][0]["reason"] for one in statuses] == ["", "Updated"]
    metered.is_over = False
    statuses = metered.run(metered.change(config={"renderedVersion": "2"}), *[nothing] * 150)
    assert statuses[-1]["config"] == {"renderedVersion": "2"}
    assert rig.world.elapsed_s - began > pace.METERED_GATHER_S


def test_on_a_metered_network_words_alone_wait_for_the_next_contact(
    metered: Subject, rig: agent_rig.Rig
) -> None:
    steps = [metered.change(**stage("Preparing", f"{n}/9")) for n in range(9)]
    metered.run(metered.change(**stage("Preparing")), *[nothing] * 150, *steps, *[nothing] * 150)
    assert len(rig.service.statuses) == 2
    other = metered.who.caller()
    metered.report.tell_by(other)
    metered.report.tell_by(other)
    other.close()
    assert len(rig.service.statuses) == 3
    assert rig.service.statuses[-1]["status"]["conditions"][0]["message"] == "8/9"


def test_who_waits_to_be_heard_is_heard_at_once_on_a_metered_network_too(
    metered: Subject, rig: agent_rig.Rig
) -> None:
    metered.sections.is_awaited = True
    metered.run(metered.change(**stage("Updated", "last words")), nothing)
    assert len(rig.service.statuses) == 2
    assert rig.world.elapsed_s < 60


def test_facts_are_measured_anew_every_interval(subject: Subject, rig: agent_rig.Rig) -> None:
    def rename() -> bool:
        rig.world.put("/proc/sys/kernel/hostname", "renamed\n")
        return False

    statuses = subject.run(rename, *[nothing] * 25)
    assert [s["systemInfo"]["hostname"] for s in statuses] == ["", "renamed"]
    assert max(subject.sections.waits) <= reporting.NAP_S
    assert rig.world.elapsed_s >= 60


def test_a_failed_report_is_tried_again_with_what_is_true_then(
    subject: Subject, rig: agent_rig.Rig
) -> None:
    path = f"/devices/{subject.who.name}/status"
    rig.service.script(path, 500, "oops")
    rig.service.script(path, 503, "busy", {"Retry-After": "20"})
    statuses = subject.run(
        subject.change(config={"renderedVersion": "1"}),
        subject.change(config={"renderedVersion": "2"}),
        *[nothing] * 30,
    )
    assert [s["config"] for s in statuses] == [{"renderedVersion": "2"}]
    assert subject.sections.taken == statuses
    puts = rig.service.seen("PUT", "/status")
    assert len(puts) == 3


def test_retries_of_a_service_that_stays_away_grow_apart(
    subject: Subject, rig: agent_rig.Rig
) -> None:
    path = f"/devices/{subject.who.name}/status"
    for _ in range(1000):
        rig.service.script(path, 500, "oops")
    subject.run(*[nothing] * 400)
    assert rig.world.elapsed_s > 1000
    assert 15 <= len(rig.service.seen("PUT", "/status")) <= 30


def test_a_service_that_forgot_gets_everything_again(subject: Subject) -> None:
    def forget() -> bool:
        subject.report.forget()
        return False

    statuses = subject.run(forget, nothing, nothing)
    assert len(statuses) == 2
    assert statuses[0] == statuses[1]


def test_a_wish_that_fails_is_kept(subject: Subject, rig: agent_rig.Rig) -> None:
    def forget() -> bool:
        subject.report.forget()
        rig.service.script(f"/devices/{subject.who.name}/status", 500, "oops")
        return False

    assert len(subject.run(forget, *[nothing] * 5)) == 2


def test_a_device_without_a_certificate_reports_nothing(rig: agent_rig.Rig) -> None:
    subject = Subject(rig)
    subject.who.drop_certificate()
    assert subject.run(nothing) == []


def test_a_broken_collector_keeps_its_last_value_and_silences_nobody(
    subject: Subject, rig: agent_rig.Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_down() -> bool:
        def broken() -> Json:
            raise RuntimeError("a driver went mad")

        monkeypatch.setattr(subject.info, "collect", broken)
        return False

    statuses = subject.run(break_down, *[nothing] * 25, subject.change(config={"x": 1}), nothing)
    assert len(statuses) == 3
    assert statuses[2]["systemInfo"] == statuses[0]["systemInfo"]
    assert statuses[2]["summary"]["status"] == "Degraded"
    assert "systemInfo" in statuses[2]["summary"]["info"]


def test_a_collector_that_never_worked_leaves_the_neutral_section(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Json:
        raise OSError("no")

    monkeypatch.setattr(subject.info, "collect", broken)
    (status,) = subject.run()
    assert set(status["systemInfo"]) == {
        "architecture",
        "bootID",
        "operatingSystem",
        "agentVersion",
    }


def test_units_are_asked_for_only_where_the_specification_names_some(
    subject: Subject, rig: agent_rig.Rig
) -> None:
    def systemctl(argv: tuple[str, ...]) -> world.Completed:
        assert argv[-1] == "ssh*"
        return world.Completed(argv, 0, "Id=ssh.service\nLoadState=loaded\n", "")

    rig.world.answer = systemctl

    def name_some() -> bool:
        spec = {"systemd": {"matchPatterns": ["ssh*"]}}
        rig.world.put("/var/lib/flightctl/current.json", json.dumps({"spec": spec}))
        return False

    statuses = subject.run(name_some, *[nothing] * 25)
    assert statuses[0]["systemd"] == []
    assert [u["unit"] for u in statuses[1]["systemd"]] == ["ssh.service"]
    assert len(rig.world.commands) == 1


CURRENT = "/var/lib/flightctl/current.json"


def watching(sampling: str, duration: str = "0s") -> str:
    rule = {"severity": "Critical", "percentage": 50, "duration": duration, "description": ""}
    item = {"monitorType": "Disk", "samplingInterval": sampling, "alertRules": [rule]}
    return json.dumps({"spec": {"resources": [item]}})


def test_a_monitor_is_looked_at_as_often_as_it_asks_for(
    subject: Subject, rig: agent_rig.Rig
) -> None:
    """Though everything else is measured once a minute."""
    rig.world.put(CURRENT, watching("2s", "4s"))
    subject.disk = 60.0
    statuses = subject.run(*[nothing] * 4)
    assert [s["resources"]["disk"] for s in statuses] == ["Healthy", "Critical"]
    assert statuses[1]["summary"] == {"status": "Error", "info": "Critical resource alert: Disk"}
    assert rig.world.elapsed_s < 20


def test_what_a_new_specification_asks_for_is_measured_with_its_commit(
    subject: Subject, rig: agent_rig.Rig
) -> None:
    subject.disk = 60.0

    def commit() -> bool:
        rig.world.put(CURRENT, watching("1s"))
        return subject.change(config={"renderedVersion": "2"})()

    statuses = subject.run(nothing, commit, *[nothing] * 3)
    assert statuses[1]["config"] == {"renderedVersion": "2"}
    assert statuses[2]["resources"]["disk"] == "Critical"
    assert rig.world.elapsed_s < 20


@pytest.mark.parametrize("damaged", ["{", "[]", '{"spec": {"resources": 3, "systemd": [1]}}'])
def test_a_damaged_specification_silences_nobody(
    subject: Subject, rig: agent_rig.Rig, damaged: str
) -> None:
    rig.world.put(CURRENT, damaged)
    (status,) = subject.run(nothing)
    assert status["resources"]["disk"] == "Healthy"


def test_while_the_specification_cannot_be_read_the_last_one_counts(
    subject: Subject, rig: agent_rig.Rig
) -> None:
    rig.world.put(CURRENT, watching("1s"))
    subject.disk = 60.0

    def damage() -> bool:
        rig.world.put(CURRENT, "{")
        return False

    statuses = subject.run(nothing, damage, *[nothing] * 25)
    assert [s["resources"]["disk"] for s in statuses] == ["Healthy", "Critical"]


def test_warnings_of_the_configuration_degrade_the_summary(subject: Subject) -> None:
    subject.facts.warnings = ("drop-in skipped: " + "x" * 400,)
    (status,) = subject.run()
    assert status["summary"]["status"] == "Degraded"
    assert len(status["summary"]["info"]) <= 250


def test_the_worst_summary_speaks() -> None:
    assert reporting.worst([]) == {"status": "Unknown"}
    assert reporting.worst([{"status": "Online", "info": ""}, {"status": "Unknown"}]) == {
        "status": "Online"
    }
    both = [{"status": "Degraded", "info": "a"}, {"status": "Degraded", "info": "b"}]
    assert reporting.worst(both) == {"status": "Degraded", "info": "a; b"}
    loop = {"status": "Error", "info": "Failed"}
    assert reporting.worst([loop, *both]) == loop
    assert reporting.worst([{"status": "Rebooting"}, both[0]]) == {"status": "Rebooting"}


def test_sections_of_the_loop_win_and_summaries_are_merged() -> None:
    base = reporting.neutral(START)
    status = reporting.composed(
        base,
        {"summary": {"status": "Degraded", "info": "disk"}, "config": {"renderedVersion": "1"}},
        {"summary": {"status": "Online"}, "config": {"renderedVersion": "2"}, "os": None},
    )
    assert status["config"] == {"renderedVersion": "2"}
    assert status["os"] == base["os"]
    assert status["summary"] == {"status": "Degraded", "info": "disk"}


def test_facts_may_be_asked_for_by_two_threads(subject: Subject) -> None:
    results: list[Json] = []
    threads = [
        threading.Thread(target=lambda: results.append(subject.report.status())) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(results) == 4
    assert all(set(r) >= CONTRACT_REQUIRED for r in results)
