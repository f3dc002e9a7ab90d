"""Renewal of the management certificate."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent import certificates, identity, transport
from tests.fakes import agent_rig
from tests.fakes.clocked_world import START

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
        self.client = transport.Client(settings.management.server, self.who.credentials, environ={})
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
    import base64

    status = {
        "conditions": [{"type": "Approved", "status": "True"}],
        "certificate": base64.b64encode(pem).decode(),
    }
    renewal.rig.service.script("/certificatesigningrequests", 201, {"status": status})
    assert not renewal.subject.step()
    assert renewal.serial == before


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
