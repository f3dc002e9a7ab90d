"""Enrol, poll, renew, enrol again: the thread that talks to the service."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agent import config, contact, enrolling, identity, polling, reporting
from tests.fakes import agent_rig, service
from tests.fakes.waiting import PATIENCE_S

Json = dict[str, Any]
ENROLLED_SETTINGS = {"spec-fetch-error-base-delay": "2s"}


class Offers:
    def __init__(self) -> None:
        self.devices: list[Json] = []

    def offer_spec(self, device: Json) -> None:
        self.devices.append(device)

    @property
    def versions(self) -> list[str]:
        return [polling.annotations_of(d)[polling.RENDERED_VERSION] for d in self.devices]


class Subject:
    def __init__(self, rig: agent_rig.Rig, who: identity.Identity, settings: config.Settings):
        self.rig, self.who, self.offers = rig, who, Offers()
        self.known = ""
        self.enrolment = enrolling.Enrolling(
            rig.world,
            settings,
            who,
            facts=lambda: reporting.neutral(rig.world.now()),
            known_version=lambda: self.known,
        )
        self.contact = contact.Contact(
            rig.world, settings, who, self.enrolment, self.offers, lambda: self.known
        )
        self.events: list[str] = []
        self.contact.on_enrolled = lambda: self.events.append("enrolled")
        self.contact.on_conflict = lambda: self.events.append("conflict")
        self.contact.on_connected = lambda: self.events.append("connected")
        self.pauses: list[float] = []

    def run(self, *steps: Callable[[], object]) -> None:
        """Each pause does one step; after the last the agent stops."""
        left = list(steps)

        def pause(seconds: float) -> bool:
            self.pauses.append(seconds)
            self.rig.world.elapsed_s += seconds
            if not left:
                return True
            left.pop(0)()
            return False

        try:
            self.contact.run(pause)
        finally:
            self.contact.client.close()
            self.enrolment.client.close()


@pytest.fixture
def admitted(rig: agent_rig.Rig) -> Subject:
    settings = rig.settings(**ENROLLED_SETTINGS)
    return Subject(rig, rig.admitted(settings), settings)


def test_specifications_reach_the_loop_and_the_known_version_the_service(
    admitted: Subject, rig: agent_rig.Rig
) -> None:
    name = admitted.who.name
    admitted.run(lambda: None, lambda: rig.service.render(name, 2), lambda: None)
    assert admitted.offers.versions == ["1", "2"]
    known = [seen.query.get("knownRenderedVersion") for seen in rig.service.requests]
    assert known == [None, ["1"], ["1"], ["2"]]
    assert admitted.events == ["enrolled", "connected"]
    assert rig.service.seen("POST", "/enrollmentrequests") == []


def test_what_the_device_runs_already_is_not_asked_for(
    admitted: Subject, rig: agent_rig.Rig
) -> None:
    admitted.known = "1"
    admitted.run()
    assert admitted.offers.devices == []
    assert rig.service.requests[0].query == {"knownRenderedVersion": ["1"]}


def test_a_new_device_enrols_and_then_polls_with_its_own_certificate(rig: agent_rig.Rig) -> None:
    settings = rig.settings()
    who = rig.identity(settings)
    subject = Subject(rig, who, settings)
    subject.run(lambda: rig.service.approve(who.name), lambda: None)
    assert subject.offers.versions == ["1"]
    peers = {seen.peer for seen in rig.service.seen("GET", "/devices/")}
    assert peers == {f"device:{who.name}"}


def test_an_enrolled_device_lives_without_its_enrolment_credentials(rig: agent_rig.Rig) -> None:
    """The shared certificate is used once; then it may be deleted, from the configuration too."""
    settings = rig.settings()
    who = rig.identity(settings)
    subject = Subject(rig, who, settings)
    subject.run(lambda: rig.service.approve(who.name), lambda: None)
    shown_before = len([s for s in rig.service.requests if s.peer == service.ENROLLMENT_CN])

    del rig.document["enrollment-service"]["authentication"]
    later = rig.settings()
    assert later.enrollment.key.load(rig.world) == b""
    again = Subject(rig, rig.identity(later), later)
    again.known = "1"
    rig.service.render(who.name, 5)
    again.run(lambda: None)
    assert again.offers.versions == ["5"]
    shown = len([s for s in rig.service.requests if s.peer == service.ENROLLMENT_CN])
    assert shown == shown_before


def with_credentials_in_files(rig: agent_rig.Rig, **more: Any) -> tuple[str, str]:
    """As a provisioning system lays them down; their paths."""
    shown = rig.document["enrollment-service"]["authentication"]
    paths = {}
    for what in ("client-certificate", "client-key"):
        paths[what] = f"/var/lib/flightctl/certs/{what}.pem"
        rig.world.put(paths[what], base64.b64decode(shown.pop(f"{what}-data")), mode=0o600)
    shown |= paths | more
    return paths["client-certificate"], paths["client-key"]


def test_credentials_in_files_go_when_the_devices_own_certificate_was_answered(
    rig: agent_rig.Rig,
) -> None:
    paths = with_credentials_in_files(rig, **{"remove-after-enrollment": True})
    settings = rig.settings()
    who = rig.identity(settings)
    subject = Subject(rig, who, settings)
    there: list[bool] = []

    def look() -> None:
        there.append(all(rig.world.path(path).exists() for path in paths))

    def approve() -> None:
        look()
        rig.service.approve(who.name)
        # Enrolled, and then its first poll is refused: the credentials may be needed again.
        rig.service.script(f"/devices/{who.name}/rendered", 503)

    subject.run(approve, look, lambda: None)
    assert there == [True, True]
    assert [rig.world.path(path).exists() for path in paths] == [False, False]
    # And so it lives on.
    again = Subject(rig, rig.identity(rig.settings()), rig.settings())
    again.run(lambda: None)
    assert again.offers.versions == ["1"]
    rig.world.elapsed_s += 300 * 86400.0
    again.run(lambda: None, lambda: None)
    assert rig.service.seen("POST", "/certificatesigningrequests"), "it renews"


def test_what_a_crash_left_of_them_goes_at_the_next_start(rig: agent_rig.Rig) -> None:
    certificate, key = with_credentials_in_files(rig, **{"remove-after-enrollment": True})
    rig.world.remove(key)
    settings = rig.settings(**ENROLLED_SETTINGS)
    Subject(rig, rig.admitted(settings), settings).run(lambda: None)
    assert not rig.world.path(certificate).exists()


def test_credentials_stay_unless_the_configuration_says_otherwise(rig: agent_rig.Rig) -> None:
    paths = with_credentials_in_files(rig)
    settings = rig.settings(**ENROLLED_SETTINGS)
    Subject(rig, rig.admitted(settings), settings).run(lambda: None)
    assert [rig.world.path(path).exists() for path in paths] == [True, True]


def test_a_conflict_after_a_restore_asks_for_the_whole_status(
    admitted: Subject, rig: agent_rig.Rig
) -> None:
    device = rig.service.devices[admitted.who.name]
    device["metadata"]["annotations"][polling.CONFLICT_PAUSED] = "true"
    admitted.run()
    assert "conflict" in admitted.events
    assert admitted.offers.versions == ["1"]


def test_failures_back_off_and_the_connection_is_announced_once_it_is_back(
    admitted: Subject, rig: agent_rig.Rig
) -> None:
    path = f"/devices/{admitted.who.name}/rendered"
    for _ in range(3):
        rig.service.script(path, 500, "oops")
    admitted.run(*[lambda: None] * 3)
    assert admitted.pauses[:3] == [5, 5, 8]
    assert admitted.events == ["enrolled", "connected"]


def test_a_proxy_that_closes_idle_polls_keeps_nothing_from_the_device(
    admitted: Subject, rig: agent_rig.Rig
) -> None:
    """As HAProxy with a time limit below the time for which the service holds a poll."""
    name = admitted.who.name

    def idle() -> None:
        rig.world.elapsed_s += 60.0

    rig.service.on_idle = idle
    admitted.known = "1"
    steps = [lambda: None] * 6
    admitted.run(*steps, lambda: rig.service.render(name, 2), lambda: None)
    assert max(admitted.pauses[:7]) <= 2.0, "it does not get slower"
    assert admitted.offers.versions == ["2"]
    assert admitted.events == ["enrolled", "connected"], "a cut is no answer"


def test_a_device_that_is_gone_twice_enrols_again_under_its_old_name(
    admitted: Subject, rig: agent_rig.Rig
) -> None:
    name = admitted.who.name
    rig.service.devices.clear()
    admitted.run(lambda: None, lambda: rig.service.approve(name), lambda: None)
    assert admitted.pauses[0] == polling.GONE_PAUSE_S
    (posted,) = rig.service.seen("POST", "/enrollmentrequests")
    assert posted.body["metadata"]["name"] == name
    assert admitted.events.count("enrolled") == 2
    assert admitted.offers.versions == ["1"]


def test_a_device_that_is_gone_once_keeps_its_certificate(
    admitted: Subject, rig: agent_rig.Rig
) -> None:
    name = admitted.who.name
    rig.service.script(f"/devices/{name}/rendered", 404, service.not_found(name))
    admitted.run(lambda: None)
    assert admitted.who.is_enrolled
    assert rig.service.seen("POST", "/enrollmentrequests") == []


def test_an_expired_certificate_is_renewed_through_enrolment_with_the_same_key(
    rig: agent_rig.Rig,
) -> None:
    settings = rig.settings()
    who = rig.admitted(settings, lifetime=timedelta(days=1))
    key = who.credentials().key
    # The service will refuse it: expired by the real clock, on both sides.
    _age(rig, who)
    subject = Subject(rig, who, settings)
    subject.run(lambda: rig.service.approve(who.name), lambda: None)
    assert not who.is_expired()
    assert who.credentials().key == key
    assert subject.offers.versions == ["1"]
    (posted,) = rig.service.seen("POST", "/enrollmentrequests")
    assert posted.body["metadata"]["name"] == who.name


def _age(rig: agent_rig.Rig, who: identity.Identity) -> None:
    old = rig.service.authority.sign(
        who.request().encode(),
        f"device:{who.name}",
        start=datetime.now(UTC) - timedelta(days=9),
        lifetime=timedelta(days=1),
    )
    rig.world.put("/var/lib/flightctl/certs/agent.crt", old)
    who.open()
    assert who.is_expired()


def test_a_clock_that_is_wrong_costs_nothing(rig: agent_rig.Rig) -> None:
    """By our clock expired, by the service's not: the polls succeed, and nobody enrols."""
    settings = rig.settings()
    who = rig.admitted(settings, lifetime=timedelta(days=1))
    rig.world.offset_s += timedelta(days=30).total_seconds()
    assert who.is_expired()
    subject = Subject(rig, who, settings)
    subject.run(lambda: None)
    assert subject.offers.versions == ["1"]
    assert rig.service.seen("POST", "/enrollmentrequests") == []


def test_a_due_certificate_is_renewed_between_two_polls(rig: agent_rig.Rig) -> None:
    settings = rig.settings()
    who = rig.admitted(settings, lifetime=timedelta(days=30))
    assert who.certificate is not None
    before = who.certificate.serial
    rig.world.elapsed_s = 25 * 86400.0
    subject = Subject(rig, who, settings)
    subject.run(lambda: None, lambda: None)
    assert who.certificate.serial != before
    assert len(rig.service.seen("POST", "/certificatesigningrequests")) == 1


def test_a_denial_ends_the_thread(rig: agent_rig.Rig) -> None:
    settings = rig.settings()
    who = rig.identity(settings)
    subject = Subject(rig, who, settings)

    def deny() -> None:
        rig.service.enrollments[who.name]["status"]["conditions"] = [
            {"type": "Denied", "status": "True", "message": "not ours"}
        ]

    with pytest.raises(enrolling.Refused, match="not ours"):
        subject.run(deny)


def test_a_long_poll_ends_at_once_when_the_agent_stops(
    admitted: Subject, rig: agent_rig.Rig
) -> None:
    rig.service.hold_s = 600
    admitted.known = "1"
    stop = threading.Event()
    thread = threading.Thread(target=admitted.contact.run, args=(stop.wait,))
    thread.start()
    while not rig.service.requests:
        stop.wait(0.01)
    stop.set()
    admitted.contact.abort()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    admitted.contact.client.close()
    rig.service.render(admitted.who.name, 9)


def test_the_probe_says_whether_the_service_can_be_reached(
    admitted: Subject, rig: agent_rig.Rig
) -> None:
    probe = contact.Probe(admitted.who)
    path = f"/devices/{admitted.who.name}/rendered"
    assert probe()
    for status, expected in [(409, True), (404, True), (429, True), (500, None), (503, None)]:
        rig.service.script(path, status, {"message": "x"})
        assert probe() is expected, status
    admitted.who.drop_certificate()
    assert probe() is None


def test_the_probe_fails_where_nobody_listens(rig: agent_rig.Rig) -> None:
    settings = rig.settings(
        **{"management-service": {"service": {"server": "https://127.0.0.1:1"}}}
    )
    who = rig.admitted(settings)
    assert contact.Probe(who)() is False
