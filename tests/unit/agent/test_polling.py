"""The long poll's rules, without a clock and without a socket."""

from __future__ import annotations

from typing import Any

import pytest

from agent import pace, polling, transport

METERED = pace.Pace(contact_s=3600, gather_s=300, is_metered=True)


def poll(known: str = "") -> polling.Poll:
    return polling.Poll(base_delay_s=5, max_delay_s=300, known=known)


def device(version: Any, **annotations: str) -> transport.Answer:
    notes = {polling.RENDERED_VERSION: version, **annotations}
    return transport.Answer(200, {"metadata": {"name": "d", "annotations": notes}, "spec": {}})


GONE = transport.Rejected(404, "m", '{"message":"Device of name \\"d\\" not found"}')


def test_a_device_is_offered_and_its_version_is_known_from_then_on() -> None:
    subject = poll("3")
    outcome = subject.answered(device("7"))
    assert isinstance(outcome, polling.Offered)
    assert subject.known == "7"


def test_the_known_version_only_moves_up() -> None:
    subject = poll("9")
    assert isinstance(subject.answered(device("10")), polling.Offered)
    assert isinstance(subject.answered(device("2")), polling.Offered)
    subject.learn("4")
    subject.learn("")
    assert subject.known == "10"


def test_a_device_that_knows_nothing_claims_nothing() -> None:
    assert poll().known == ""
    assert poll("0").known == "0"


def test_no_content_and_nothing_rendered_yet_mean_no_change() -> None:
    subject = poll("1")
    assert subject.answered(transport.Answer(204)) == polling.Unchanged()
    assert subject.failed(transport.Rejected(409, "no rendered version")) == polling.Unchanged()
    assert subject.pause_s(took_s=120, random=0.5) == 0


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"metadata": {"annotations": {polling.RENDERED_VERSION: "1"}}},
        {"metadata": {"annotations": {polling.RENDERED_VERSION: "x"}}, "spec": {}},
        {"metadata": {"annotations": None}, "spec": {}},
        {"metadata": {}, "spec": {}},
    ],
)
def test_what_is_no_device_is_a_failure_and_never_reaches_the_loop(document: Any) -> None:
    assert isinstance(poll().answered(transport.Answer(200, document)), polling.Failed)


def test_polls_start_at_least_five_seconds_apart_whatever_the_answer() -> None:
    subject = poll()
    subject.answered(device("1"))
    assert subject.pause_s(took_s=0.1, random=0.5) == pytest.approx(4.9)
    assert subject.pause_s(took_s=119, random=0.5) == 0


def test_failures_back_off_with_jitter_up_to_the_limit_and_any_answer_resets() -> None:
    subject = poll()
    delays = []
    for _ in range(9):
        subject.failed(transport.Unreachable("x"))
        delays.append(subject.pause_s(took_s=60, random=0.5))
    assert delays == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert subject.pause_s(took_s=60, random=0.0) == pytest.approx(240)
    assert subject.pause_s(took_s=60, random=1.0) == pytest.approx(360)
    subject.answered(transport.Answer(204))
    assert subject.pause_s(took_s=60, random=0.5) == 0


def test_the_service_may_ask_for_a_longer_pause() -> None:
    subject = poll()
    subject.failed(transport.Throttled(429, "busy", 77))
    assert subject.pause_s(took_s=0, random=0.5) == 77


def test_the_device_is_gone_when_the_service_says_so_twice_half_a_minute_apart() -> None:
    subject = poll()
    assert isinstance(subject.failed(GONE), polling.Failed)
    assert subject.pause_s(took_s=0, random=0.5) == polling.GONE_PAUSE_S
    assert subject.failed(GONE) == polling.Gone()


def test_anything_between_resets_the_suspicion() -> None:
    subject = poll()
    subject.failed(GONE)
    subject.answered(transport.Answer(204))
    assert isinstance(subject.failed(GONE), polling.Failed)
    subject.failed(transport.Rejected(404, "no such path", "404 page not found"))
    assert isinstance(subject.failed(GONE), polling.Failed)


@pytest.mark.parametrize(
    "error",
    [
        transport.Rejected(404, "x", "404 page not found"),
        transport.Rejected(410, "x", 'Device of name "d" not found'),
        transport.Rejected(404, "x", "Device of name d"),
    ],
)
def test_other_words_never_mean_gone(error: transport.Rejected) -> None:
    subject = poll()
    for _ in range(5):
        assert isinstance(subject.failed(error), polling.Failed)


def test_a_lost_connection_between_two_gones_does_not_clear_them() -> None:
    subject = poll()
    subject.failed(GONE)
    subject.failed(transport.Unreachable("x"))
    assert subject.failed(GONE) == polling.Gone()


@pytest.mark.parametrize(
    ("error", "is_refusal"),
    [
        (transport.Unreachable("reset"), True),
        (transport.Rejected(401, "x"), True),
        (transport.Rejected(500, "x"), False),
        (transport.Throttled(503, "x", 0), False),
    ],
)
def test_only_some_failures_can_be_the_certificates_fault(
    error: transport.ServiceError, is_refusal: bool
) -> None:
    outcome = poll().failed(error)
    assert isinstance(outcome, polling.Failed)
    assert outcome.is_refusal is is_refusal


def test_on_a_metered_network_contacts_are_far_apart_and_not_all_at_once() -> None:
    subject = polling.Poll(base_delay_s=5, max_delay_s=300, at_pace=METERED)
    subject.answered(transport.Answer(204))
    assert subject.pause_s(took_s=120, random=0.5) == 3600 - 120
    assert subject.pause_s(took_s=0, random=0.0) == pytest.approx(3240)
    assert subject.pause_s(took_s=0, random=0.999) == pytest.approx(3960, rel=1e-3)


@pytest.mark.parametrize(
    ("error", "most_s"),
    [
        (transport.Unreachable("no route"), 300),
        (transport.Rejected(403, "no"), 3600),
        (transport.Throttled(429, "later", 1), 3600),
        (transport.Untrusted("no"), 3600),
    ],
    ids=["away", "refused", "throttled", "untrusted"],
)
def test_on_a_metered_network_failures_that_cost_a_handshake_become_as_rare_as_contacts(
    error: transport.ServiceError, most_s: float
) -> None:
    subject = polling.Poll(base_delay_s=5, max_delay_s=300, at_pace=METERED)
    for _ in range(30):
        subject.failed(error)
    assert subject.pause_s(took_s=0, random=0.5) == most_s
    subject.answered(transport.Answer(204))
    subject.failed(error)
    assert subject.pause_s(took_s=0, random=0.5) == 5


@pytest.mark.parametrize(
    ("error", "took_s", "outcome"),
    [
        (transport.Cut("closed"), 20.0, polling.Cut),
        (transport.Cut("closed"), 19.0, polling.Failed),
        (transport.Rejected(504, "gateway"), 60.0, polling.Cut),
        (transport.Rejected(502, "gateway"), 60.0, polling.Cut),
        (transport.Rejected(500, "ill"), 60.0, polling.Failed),
        (transport.Unreachable("timed out"), 240.0, polling.Failed),
    ],
)
def test_a_poll_that_somebody_found_idle_has_not_failed(
    error: transport.ServiceError, took_s: float, outcome: type
) -> None:
    assert isinstance(poll().failed(error, took_s=took_s), outcome)


def test_after_idle_cuts_polls_go_on_at_once_but_not_all_devices_together() -> None:
    subject = poll()
    for _ in range(10):
        subject.failed(transport.Cut("closed"), took_s=60.0)
        pauses = [subject.pause_s(took_s=60.0, random=r) for r in (0.0, 0.5, 0.99)]
        assert pauses[0] == 0.0
        assert 0 < pauses[1] < pauses[2] <= 5.0
    subject.failed(transport.Unreachable("no route"))
    first = subject.pause_s(took_s=0.0, random=0.5)
    subject.failed(transport.Unreachable("no route"))
    assert subject.pause_s(took_s=0.0, random=0.5) == 2 * first
