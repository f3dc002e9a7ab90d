"""Several addresses of one service: in order, within one call, and back to the first."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import config, contact, enrolling, identity, reporting, routes, transport
from tests.fakes import agent_rig, service

PATH = "/devices/one/rendered"


@pytest.fixture
def second(tmp_path: Path, rig: agent_rig.Rig) -> Iterator[service.Service]:
    """Another address of the same service, under the same authority."""
    folder = tmp_path / "second"
    folder.mkdir()
    with service.running(folder, authority=rig.service.authority) as made:
        made.hold_s = 0.05
        yield made


def nobody() -> str:
    """An address where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"https://127.0.0.1:{listener.getsockname()[1]}"


def by_way_of(rig: agent_rig.Rig, *servers: str) -> config.Settings:
    section = rig.document["enrollment-service"]
    place = {**section["service"], "server": servers[0], "fallback-servers": list(servers[1:])}
    return rig.settings(**{"enrollment-service": {**section, "service": place}})


class Subject:
    def __init__(self, rig: agent_rig.Rig, *servers: str) -> None:
        self.rig = rig
        self.who: identity.Identity = rig.admitted(by_way_of(rig, *servers))
        self.caller = self.who.caller()

    def ask(self) -> int:
        try:
            return self.caller.get(f"/devices/{self.who.name}/rendered").status
        finally:
            self.caller.close()


def test_the_next_address_answers_within_the_same_call_and_is_asked_first_from_then_on(
    rig: agent_rig.Rig, second: service.Service
) -> None:
    subject = Subject(rig, nobody(), rig.service.url, second.url)
    assert subject.ask() == 200
    assert subject.who.routes.current.server == rig.service.url
    order = [one.server for one in subject.who.routes.order()]
    assert order[0] == rig.service.url
    assert not second.requests


def test_after_a_while_the_first_address_is_tried_again(
    rig: agent_rig.Rig, second: service.Service
) -> None:
    away = nobody()
    subject = Subject(rig, away, second.url)
    second.render(subject.who.name, 1)
    subject.ask()
    # In vain: then not again at each call.
    for elapsed_s, first in [(1.0, second.url), (routes.RETURN_S, away), (2.0, second.url)]:
        rig.world.elapsed_s += elapsed_s
        assert next(subject.who.routes.order()).server == first
        assert subject.ask() == 200
    assert subject.who.routes.current.server == second.url


def test_a_first_address_that_is_back_is_taken_again(
    rig: agent_rig.Rig, second: service.Service
) -> None:
    subject = Subject(rig, rig.service.url, second.url)
    subject.who.routes.answered(subject.who.routes.configured[1])
    rig.world.elapsed_s += routes.RETURN_S
    assert subject.ask() == 200
    assert subject.who.routes.current.server == rig.service.url


def test_an_answer_is_an_answer_whatever_it_says(
    rig: agent_rig.Rig, second: service.Service
) -> None:
    subject = Subject(rig, rig.service.url, second.url)
    rig.service.script(f"/devices/{subject.who.name}/rendered", 403, {"message": "no"})
    with pytest.raises(transport.Rejected):
        subject.ask()
    assert not second.requests


def test_where_nobody_answers_the_first_one_says_why(rig: agent_rig.Rig) -> None:
    subject = Subject(rig, nobody(), "https://127.0.0.1:1")
    with pytest.raises(transport.Unreachable, match="refused"):
        subject.ask()
    assert subject.who.routes.current.server != "https://127.0.0.1:1"


def test_enrolment_goes_by_the_address_that_answers(rig: agent_rig.Rig) -> None:
    settings = by_way_of(rig, nobody(), rig.service.url)
    who = rig.identity(settings)
    enrolment = enrolling.Enrolling(
        rig.world,
        settings,
        who,
        facts=lambda: reporting.neutral(rig.world.now()),
        known_version=lambda: "",
    )
    assert enrolment.round() is not None
    rig.service.approve(who.name)
    assert enrolment.round() is None
    assert who.is_enrolled


def test_the_probe_is_content_with_any_configured_address(rig: agent_rig.Rig) -> None:
    subject = Subject(rig, nobody(), rig.service.url)
    assert contact.Probe(subject.who)() is True
    assert contact.Probe(Subject(rig, nobody(), "https://127.0.0.1:1").who)() is False


def test_ending_ends_the_way_that_is_waited_for(
    rig: agent_rig.Rig, second: service.Service
) -> None:
    subject = Subject(rig, nobody(), rig.service.url)
    subject.caller.abort()
    with pytest.raises(transport.Unreachable):
        subject.ask()
    assert not rig.service.requests


@pytest.mark.parametrize("status", [401, 404, 503])
def test_what_a_remembered_service_refuses_counts_for_nothing(
    rig: agent_rig.Rig, second: service.Service, status: int
) -> None:
    """It may be one that this device was moved away from."""
    subject = Subject(rig, nobody())
    who = subject.who
    old = by_way_of(rig, second.url).management.each()[0]
    ways = routes.Routes(rig.world.monotonic, who.routes.configured[0], lambda: old)
    caller = routes.Caller(ways, who.credentials)
    path = f"/devices/{who.name}/rendered"
    second.script(path, status, {"message": f"Device of name {who.name} not found"})
    with pytest.raises(transport.Unreachable):
        caller.get(path)
    assert not ways.is_astray
    second.render(who.name, 1)
    assert caller.get(path).status == 200
    assert ways.is_astray
    caller.close()
