"""Enrolment against a service on loopback."""

from __future__ import annotations

import base64
import errno
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent import config, configfiles, enrolling, identity, reporting
from tests.fakes import agent_rig, service
from tests.fakes.clocked_world import START


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[agent_rig.Rig]:
    with agent_rig.rigged(tmp_path) as made:
        made.world.offset_s = (datetime.now(UTC) - START).total_seconds()
        yield made


def enrolment(
    rig: agent_rig.Rig, known: str = "", **changes: Any
) -> tuple[enrolling.Enrolling, identity.Identity]:
    settings = rig.settings(**changes)
    who = rig.identity(settings)
    facts = reporting.neutral(rig.world.now())
    facts["systemInfo"]["hostname"] = "pump-1"
    subject = enrolling.Enrolling(
        rig.world, settings, who, facts=lambda: facts, known_version=lambda: known
    )
    return subject, who


def pauses(*steps: Callable[[], object]) -> tuple[Callable[[float], bool], list[float]]:
    """A pause that does one step each time, and says stop when there are no more."""
    taken: list[float] = []
    left = list(steps)

    def pause(seconds: float) -> bool:
        taken.append(seconds)
        if not left:
            return True
        left.pop(0)()
        return False

    return pause, taken


def test_a_device_asks_waits_and_is_let_in(rig: agent_rig.Rig) -> None:
    subject, who = enrolment(
        rig, "", **{"default-labels": {"site": "x"}, "status-update-interval": "9s"}
    )
    pause, taken = pauses(lambda: None, lambda: rig.service.approve(who.name))
    assert subject.run(pause)
    assert taken == [10, 15]
    assert who.is_enrolled
    (posted,) = rig.service.seen("POST", "/enrollmentrequests")
    assert posted.peer == service.ENROLLMENT_CN
    assert posted.body["apiVersion"] == "v1beta1"
    assert posted.body["kind"] == "EnrollmentRequest"
    assert posted.body["metadata"] == {"name": who.name}
    spec = posted.body["spec"]
    assert spec["csr"].startswith("-----BEGIN CERTIFICATE REQUEST-----")
    assert spec["labels"] == {"alias": "pump-1", "site": "x"}
    assert spec["osMode"] == "package"
    assert "knownRenderedVersion" not in spec
    assert spec["deviceStatus"]["systemInfo"]["hostname"] == "pump-1"


def test_what_the_device_already_runs_is_told(rig: agent_rig.Rig) -> None:
    subject, _ = enrolment(rig, "12")
    subject.round()
    (posted,) = rig.service.seen("POST", "/enrollmentrequests")
    assert posted.body["spec"]["knownRenderedVersion"] == "12"


def test_a_request_that_is_there_already_is_as_good_as_a_new_one(rig: agent_rig.Rig) -> None:
    enrolment(rig)[0].round()
    subject, who = enrolment(rig)
    rig.service.approve(who.name)
    assert subject.round() is None
    assert who.is_enrolled


def test_waiting_never_ends_and_never_asks_more_often_than_the_settings_say(
    rig: agent_rig.Rig,
) -> None:
    subject, who = enrolment(rig)
    pause, taken = pauses(*[lambda: None] * 12)
    assert not subject.run(pause)
    assert taken[:6] == [10, 15, 22.5, 33.75, 50.625, 60]
    assert set(taken[6:]) == {60}
    assert len(rig.service.seen("POST", "/enrollmentrequests")) == 1
    assert not who.is_enrolled


def test_a_service_that_is_away_is_waited_for(rig: agent_rig.Rig) -> None:
    subject, who = enrolment(rig)
    rig.service.script("/enrollmentrequests", 500, "oops")
    rig.service.script("/enrollmentrequests", 503, "busy", {"Retry-After": "200"})
    pause, taken = pauses(lambda: None, lambda: None, lambda: rig.service.approve(who.name))
    assert subject.run(pause)
    assert taken == [10, 200, 22.5]


def test_a_full_disk_is_waited_for(rig: agent_rig.Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    subject, who = enrolment(rig)

    def full(path: str, *_: Any, **how: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    with monkeypatch.context() as patch:
        patch.setattr(rig.world, "write", full)
        verdict = subject.round()
    assert isinstance(verdict, enrolling.Pending)
    assert verdict.why.endswith("agent.csr: No space left on device")
    assert not rig.service.seen("POST", "/enrollmentrequests")
    subject.round()
    assert rig.service.seen("POST", "/enrollmentrequests")
    assert not who.is_enrolled


def test_a_request_that_was_deleted_is_made_again(rig: agent_rig.Rig) -> None:
    subject, who = enrolment(rig)
    assert subject.round() is not None
    rig.service.enrollments.clear()
    assert subject.round() is not None
    assert subject.round() is not None
    assert who.name in rig.service.enrollments


@pytest.mark.parametrize("kind", ["Denied", "Failed"])
def test_a_denial_ends_it_with_the_reason(rig: agent_rig.Rig, kind: str) -> None:
    subject, who = enrolment(rig)
    subject.round()
    condition = {"type": kind, "status": "False", "reason": "No", "message": "stolen"}
    rig.service.enrollments[who.name]["status"]["conditions"] = [condition]
    with pytest.raises(enrolling.Refused, match="stolen"):
        subject.run(lambda _: True)


def test_a_grant_that_cannot_be_used_is_explained_and_waited_out(rig: agent_rig.Rig) -> None:
    """After the device expired, the old request still carries the old certificate."""
    subject, who = enrolment(rig)
    subject.round()
    rig.service.lifetime = timedelta(hours=1)
    rig.service.approve(who.name, start=datetime.now(UTC) - timedelta(days=2))
    verdict = subject.round()
    assert verdict is not None
    assert "expired" in verdict.why
    assert who.name in verdict.why
    rig.service.lifetime = timedelta(days=1)
    rig.service.approve(who.name)
    assert subject.round() is None


def test_credentials_that_come_late_are_found(rig: agent_rig.Rig) -> None:
    """Late binding: cloud-init may write them after the agent started."""
    section = rig.document["enrollment-service"]
    shown = section.pop("authentication")
    subject, who = enrolment(rig)
    verdict = subject.round()
    assert verdict is not None
    assert "client-enrollment.crt" in verdict.why
    certs = "/var/lib/flightctl/certs/client-enrollment"
    rig.world.put(f"{certs}.crt", base64.b64decode(shown["client-certificate-data"]))
    rig.world.put(f"{certs}.key", base64.b64decode(shown["client-key-data"]))
    subject.round()
    assert who.name in rig.service.enrollments


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (None, enrolling.Pending),
        ({}, enrolling.Pending),
        ({"conditions": None}, enrolling.Pending),
        ({"conditions": [], "certificate": "PEM"}, enrolling.Pending),
        ({"conditions": [{"type": "Approved", "status": "True"}]}, enrolling.Pending),
        ({"conditions": [{"type": "Approved"}], "certificate": ""}, enrolling.Pending),
        ({"conditions": [{"type": "Approved"}], "certificate": "PEM"}, enrolling.Granted),
        (
            {"conditions": [{"type": "Approved", "status": "False"}], "certificate": "PEM"},
            enrolling.Granted,
        ),
    ],
)
def test_a_request_is_read_as_existing_agents_read_it(status: Any, verdict: type) -> None:
    assert isinstance(enrolling.judged({"status": status}), verdict)


def test_the_settings_decide_the_pace(rig: agent_rig.Rig) -> None:
    subject, _ = enrolment(
        rig, "", **{"enrollment-verify-interval": "2s", "enrollment-verify-cap": "4s"}
    )
    pause, taken = pauses(*[lambda: None] * 3)
    subject.run(pause)
    assert taken == [2, 3, 4, 4]
    assert isinstance(configfiles.load(rig.world), config.Settings)


def test_a_missing_authority_is_not_replaced_by_the_systems(rig: agent_rig.Rig) -> None:
    service_section = rig.document["enrollment-service"]["service"]
    del service_section["certificate-authority-data"]
    service_section["certificate-authority"] = "ca.crt"
    subject, who = enrolment(rig)
    verdict = subject.round()
    assert verdict is not None
    assert "/etc/flightctl/ca.crt is missing" in verdict.why
    rig.world.put("/etc/flightctl/ca.crt", rig.service.authority.pem)
    subject.round()
    assert who.name in rig.service.enrollments
