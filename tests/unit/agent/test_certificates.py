"""Renewal of the management certificate."""

from __future__ import annotations

import base64
import errno
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent import certificates, identity
from tests.fakes import agent_rig
from tests.fakes.clocked_world import START
from tests.fakes.service import Authority

DAY_S = 86400.0


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[agent_rig.Rig]:
    with agent_rig.rigged(tmp_path) as made:
        made.world.offset_s = (datetime.now(UTC) - START).total_seconds()
        yield made


class Renewal:
    def __init__(self, rig: agent_rig.Rig, lifetime: timedelta = timedelta(days=365)) -> None:
        self.rig = rig
        settings = rig.settings()
        self.who: identity.Identity = rig.admitted(settings, lifetime=lifetime)
        self.client = self.who.caller()
        self.subject = certificates.Renewing(rig.world, self.who, self.client)

    @property
    def serial(self) -> str:
        assert self.who.certificate is not None
        return self.who.certificate.serial

    def asked(self) -> int:
        return len(self.rig.service.seen("POST", "/certificatesigningrequests"))


@pytest.fixture
def renewal(rig: agent_rig.Rig) -> Iterator[Renewal]:
    made = Renewal(rig)
    yield made
    made.client.close()


def test_nothing_happens_before_two_thirds_of_the_life(renewal: Renewal) -> None:
    renewal.rig.world.elapsed_s = 240 * DAY_S
    assert not renewal.subject.step()
    assert renewal.rig.service.requests == []


def test_a_due_certificate_is_replaced_in_place(renewal: Renewal) -> None:
    before, key = renewal.serial, renewal.who.credentials().key
    renewal.rig.world.elapsed_s = 245 * DAY_S
    renewal.rig.service.lifetime = timedelta(days=2 * 365)
    assert renewal.subject.step()
    assert renewal.serial != before
    assert renewal.who.credentials().key == key
    (asked,) = renewal.rig.service.seen("POST", "/certificatesigningrequests")
    assert asked.peer == f"device:{renewal.who.name}"
    name = asked.body["metadata"]["name"]
    assert name.startswith(f"{renewal.who.name}-")
    assert len(name) == len(renewal.who.name) + 9
    assert asked.body["spec"]["signerName"] == "flightctl.io/device-management-renewal"
    assert asked.body["spec"]["usages"] == ["clientAuth", "CA:false"]
    stored = renewal.rig.world.read("/var/lib/flightctl/certs/agent.crt")
    assert stored == renewal.who.credentials().certificate
    assert not renewal.subject.step()


def test_it_is_renewed_again_and_an_outage_in_between_only_delays_it(renewal: Renewal) -> None:
    renewal.rig.service.lifetime = timedelta(days=2 * 365)
    renewal.rig.world.elapsed_s = 245 * DAY_S
    assert renewal.subject.step()
    second = renewal.serial
    renewal.rig.service.lifetime = timedelta(days=4 * 365)
    renewal.rig.world.elapsed_s = 490 * DAY_S
    path = "/certificatesigningrequests"
    for _ in range(3):
        renewal.rig.service.script(path, 503, "away")
        assert not renewal.subject.step()
        assert renewal.serial == second, "the one that works stays"
        renewal.rig.world.elapsed_s += certificates.RETRY_S_MAX * 1.2
    assert renewal.subject.step()
    assert renewal.serial != second


@pytest.mark.parametrize(("chance", "days"), [(0.0, 219), (0.5, 243.33), (1.0, 267.67)])
def test_a_fleet_does_not_renew_in_one_hour(rig: agent_rig.Rig, chance: float, days: float) -> None:
    rig.world.chance = chance
    made = Renewal(rig)
    certificate = made.who.certificate
    assert certificate is not None
    due_days = (made.subject.due_at(certificate) - certificate.not_before) / DAY_S
    assert due_days == pytest.approx(days, abs=0.01)


def test_a_signature_that_takes_time_is_asked_for_again_and_not_anew(renewal: Renewal) -> None:
    renewal.rig.world.elapsed_s = 245 * DAY_S
    renewal.rig.service.signs_at_once = False
    assert not renewal.subject.step()
    requests = len(renewal.rig.service.requests)
    assert not renewal.subject.step()
    assert len(renewal.rig.service.requests) == requests, "no second look before the pause is over"
    renewal.rig.world.elapsed_s += certificates.RETRY_S * 1.2
    assert not renewal.subject.step()
    assert renewal.asked() == 1
    assert len(renewal.rig.service.requests) > requests


def test_a_service_that_is_busy_is_asked_again_later(renewal: Renewal) -> None:
    renewal.rig.world.elapsed_s = 245 * DAY_S
    renewal.rig.service.lifetime = timedelta(days=730)
    renewal.rig.service.script("/certificatesigningrequests", 503, "busy")
    assert not renewal.subject.step()
    renewal.rig.world.elapsed_s += certificates.RETRY_S * 1.2
    assert renewal.subject.step()
    assert renewal.asked() == 2


def test_a_denial_changes_nothing_and_is_tried_again_in_an_hour(renewal: Renewal) -> None:
    before = renewal.serial
    renewal.rig.world.elapsed_s = 245 * DAY_S
    denied = {"conditions": [{"type": "Denied", "status": "True", "message": "no"}]}
    renewal.rig.service.script("/certificatesigningrequests", 201, {"status": denied})
    assert not renewal.subject.step()
    renewal.rig.world.elapsed_s += certificates.REFUSED_S - 10
    assert not renewal.subject.step()
    assert renewal.asked() == 1
    renewal.rig.world.elapsed_s += 20
    renewal.rig.service.lifetime = timedelta(days=730)
    assert renewal.subject.step()
    assert renewal.serial != before


def test_a_certificate_of_another_key_is_not_taken(renewal: Renewal) -> None:
    before = renewal.serial
    renewal.rig.world.elapsed_s = 245 * DAY_S
    pem, _ = renewal.rig.service.authority.pair("device:other")
    status = {
        "conditions": [{"type": "Approved", "status": "True"}],
        "certificate": base64.b64encode(pem).decode(),
    }
    renewal.rig.service.script("/certificatesigningrequests", 201, {"status": status})
    assert not renewal.subject.step()
    assert renewal.serial == before


def test_a_certificate_that_the_service_refuses_is_not_used(renewal: Renewal) -> None:
    before = renewal.serial
    renewal.rig.world.elapsed_s = 245 * DAY_S
    renewal.rig.service.script(f"/devices/{renewal.who.name}/rendered", 401, "not this one")
    assert not renewal.subject.step()
    assert renewal.serial == before
    stored = renewal.rig.world.read("/var/lib/flightctl/certs/agent.crt")
    assert stored == renewal.who.credentials().certificate
    renewal.rig.world.elapsed_s += certificates.REFUSED_S + 10
    renewal.rig.service.lifetime = timedelta(days=730)
    assert renewal.subject.step()
    assert renewal.serial != before


def test_the_old_certificate_stays_until_a_request_with_the_new_one_was_answered(
    renewal: Renewal,
) -> None:
    before = renewal.serial
    renewal.rig.world.elapsed_s = 245 * DAY_S
    renewal.rig.service.lifetime = timedelta(days=730)
    renewal.rig.service.script(f"/devices/{renewal.who.name}/rendered", 503, "restarting")
    assert not renewal.subject.step()
    assert renewal.serial == before
    renewal.rig.world.elapsed_s += certificates.RETRY_S * 1.2
    assert renewal.subject.step()
    assert renewal.serial != before
    assert renewal.asked() == 1, "the one that was signed is proved again"


def test_a_certificate_for_which_there_is_no_room_is_fetched_again(
    renewal: Renewal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The agent does not end over it, for that would leave nobody to look after the device."""
    before = renewal.serial
    renewal.rig.world.elapsed_s = 245 * DAY_S
    renewal.rig.service.lifetime = timedelta(days=730)

    def full(path: str, *_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    with monkeypatch.context() as patched:
        patched.setattr(renewal.rig.world, "write", full)
        assert not renewal.subject.step()
    assert renewal.serial == before
    renewal.rig.world.elapsed_s += certificates.RETRY_S * 1.2
    assert renewal.subject.step()
    assert renewal.serial != before
    assert renewal.asked() == 1, "it was signed already"


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 0.0), (0.5, 1800.0)])
def test_a_service_whose_authority_changed_is_heard_within_its_time(
    rig: agent_rig.Rig, chance: float, seconds: float
) -> None:
    rig.world.chance = chance
    made = Renewal(rig)
    before = made.serial
    made.subject.hurry(3600.0)
    if seconds:
        assert not made.subject.step()
        rig.world.elapsed_s += seconds - 1
        made.subject.hurry(3600.0)
        assert not made.subject.step()
        rig.world.elapsed_s += 1
    assert made.subject.step()
    assert made.serial != before
    assert not made.subject.step(), "once"
    made.subject.hurry(3600.0)
    made.subject.hurry(None)
    rig.world.elapsed_s += 3600
    assert not made.subject.step()
    made.client.close()


# --- authorities of the service ---------------------------------------------------------------


def renewed(renewal: Renewal, bundle: bytes) -> None:
    renewal.rig.service.bundle = bundle
    renewal.rig.service.lifetime = timedelta(days=730)
    renewal.subject.hurry(0.0)
    assert renewal.subject.step()


def test_authorities_that_come_with_a_certificate_are_trusted_from_then_on(
    renewal: Renewal,
) -> None:
    service = renewal.rig.service
    bundle = service.authority.pem + Authority("next").pem
    renewed(renewal, bundle)
    assert renewal.who.credentials().authority == bundle
    again = renewal.rig.identity(renewal.rig.settings())
    assert again.credentials().authority == bundle, "after a restart too"
    enrolment = renewal.rig.settings().enrollment
    shown = again.shown_to(enrolment, b"", b"")
    assert shown.authority == bundle, "and where it would enrol again"


@pytest.mark.parametrize("bundle", [Authority("stranger").pem, b"not PEM", b"\xff"])
def test_authorities_under_which_the_service_can_not_be_reached_are_not_taken(
    renewal: Renewal, bundle: bytes
) -> None:
    trusted, before = renewal.who.credentials().authority, renewal.serial
    renewed(renewal, bundle)
    assert renewal.serial != before, "the certificate is good all the same"
    assert renewal.who.credentials().authority == trusted
    assert renewal.rig.identity(renewal.rig.settings()).credentials().authority == trusted


def test_another_authority_in_the_configuration_counts_at_once(renewal: Renewal) -> None:
    renewed(renewal, renewal.rig.service.authority.pem + Authority("next").pem)
    other = Authority("another service").pem
    service = renewal.rig.document["enrollment-service"]["service"]
    service["certificate-authority-data"] = base64.b64encode(other).decode()
    assert renewal.rig.identity(renewal.rig.settings()).credentials().authority == other
    del service["certificate-authority-data"]
    assert renewal.rig.identity(renewal.rig.settings()).credentials().authority == b""


def test_a_file_of_authorities_that_is_damaged_is_passed_over(renewal: Renewal) -> None:
    trusted = renewal.who.credentials().authority
    for damaged in (b"", b"{", b"[]", b'{"insteadOf": 1, "pem": 2}', b"\xff"):
        renewal.rig.world.put("/var/lib/flightctl/certs/authorities.json", damaged)
        assert renewal.rig.identity(renewal.rig.settings()).credentials().authority == trusted


def test_a_short_life_has_short_pauses(rig: agent_rig.Rig) -> None:
    made = Renewal(rig, timedelta(minutes=10))
    rig.world.elapsed_s = 500
    rig.service.script("/certificatesigningrequests", 503, "busy")
    assert not made.subject.step()
    rig.world.elapsed_s += 15
    assert made.subject.step()
    made.client.close()


@pytest.mark.parametrize(
    "status",
    [
        None,
        {},
        {"conditions": []},
        {"conditions": [{"type": "Approved", "status": "True"}]},
        {"conditions": [{"type": "Approved", "status": "False"}], "certificate": "UEVN"},
        {"conditions": [{"type": "Denied", "status": "False"}]},
    ],
)
def test_a_request_without_a_decision_is_pending(status: object) -> None:
    assert certificates.judged({"status": status}) is None


def test_a_certificate_that_is_no_base64_is_unusable() -> None:
    status = {"conditions": [{"type": "Approved", "status": "True"}], "certificate": "%"}
    with pytest.raises(identity.Unusable):
        certificates.judged({"status": status})
