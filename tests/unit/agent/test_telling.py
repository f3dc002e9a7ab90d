"""Words for the service: failure messages, conditions, application states, the mailbox."""

from __future__ import annotations

import re
import threading
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import errors, states, telling, workloads
from agent.mailbox import Mailbox
from agent.planner import Container, Observed
from agent.specs import Application, Spec
from agent.states import Target

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
AT = "2026-11-23 12:00:00"
FRAME = re.compile(
    r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] While \w+: [\w ]+ failed(?: for .+?)?: .+$", re.S
)


def failure(**changes: str) -> errors.Failure:
    fields = {
        "phase": errors.APPLYING,
        "component": errors.APPLICATIONS,
        "element": "web",
        "cause": errors.ABORTED,
        "detail": "health check failed: no database",
        "at": AT,
    }
    return errors.Failure(**{**fields, **changes})


def test_a_failure_reads_as_existing_tools_expect_and_then_says_more() -> None:
    assert failure().message("7") == (
        "[2026-11-23 12:00:00] While ApplyingUpdate: applications failed for web: operation was "
        "aborted: health check failed: no database (renderedVersion: 7)"
    )
    assert failure(element="", detail="").message("7") == (
        "[2026-11-23 12:00:00] While ApplyingUpdate: applications failed: operation was aborted"
        " (renderedVersion: 7)"
    )


@given(st.text(min_size=1), st.text(), st.sampled_from(sorted(errors.TEXTS)), st.integers(0, 10**9))
def test_however_long_a_message_fits_and_names_its_version(
    element: str, detail: str, cause: str, version: int
) -> None:
    words = failure(element=element, detail=detail * 9, cause=cause).message(str(version))
    assert len(words) <= errors.MESSAGE_CHARS_MAX
    assert words.endswith(f" (renderedVersion: {version})")
    assert FRAME.match(words)


def test_a_long_element_keeps_its_end() -> None:
    words = failure(element="/etc/" + "x" * 100 + "/end").message("7")
    assert "for ..." + "x" * 60 + "/end:" in words


def test_output_of_tools_cannot_forge_lines_of_a_message() -> None:
    assert errors.one_line("a\nb\x1b[31mc\r\t d\u2028e") == "a b [31mc d e"


def test_a_condition_moves_its_time_only_with_its_status() -> None:
    mailbox = Mailbox()
    teller = telling.Teller(mailbox)
    times = []
    for minute, (status, reason) in enumerate(
        [("True", "Preparing"), ("True", "ApplyingUpdate"), ("False", "Updated")]
    ):
        teller.updating(status, reason, "words", NOW + timedelta(minutes=minute))
        (condition,) = mailbox.status()["conditions"]
        times.append(condition["lastTransitionTime"])
    assert times == ["2026-11-23T12:00:00Z", "2026-11-23T12:00:00Z", "2026-11-23T12:02:00Z"]


@pytest.mark.parametrize(
    ("state", "status", "reason", "words"),
    [
        (
            states.Fetching(Target("7")),
            "True",
            "Preparing",
            "Device is preparing an update to renderedVersion: 7",
        ),
        (
            states.Staged(Target("7")),
            "True",
            "ReadyToUpdate",
            "Device is ready to apply update to renderedVersion: 7",
        ),
        (
            states.Applying(Target("7")),
            "True",
            "ApplyingUpdate",
            "Device is applying renderedVersion: 7",
        ),
        (
            states.Rebooting(Target("7"), "boot", "q.io/os:2"),
            "True",
            "Rebooting",
            "Device is rebooting into OS image: q.io/os:2",
        ),
        (
            states.Rebooting(Target("7"), "boot", "q.io/os:1", failure=failure()),
            "True",
            "Rebooting",
            "Device is rebooting into rollback OS: q.io/os:1",
        ),
        (
            states.RollingBack(Target("7"), failure()),
            "True",
            "RollingBack",
            "Device is rolling back to the previous renderedVersion: 6",
        ),
        (states.Idle(), "False", "Updated", "Updated to desired renderedVersion: 6"),
        (states.Refused(Target("7"), failure()), "False", "Error", failure().message("7")),
    ],
)
def test_conditions_have_the_words_that_are_known(
    state: states.State, status: str, reason: str, words: str
) -> None:
    mailbox = Mailbox()
    telling.Teller(mailbox).state(state, NOW, current=Target("6"))
    (condition,) = mailbox.status()["conditions"]
    assert (condition["status"], condition["reason"], condition["message"]) == (
        status,
        reason,
        words,
    )


@pytest.mark.parametrize(
    ("complete", "pending", "trouble", "words"),
    [
        (0, (), "", "No images to prefetch"),
        (3, (), "", "All 3 images ready"),
        (1, ("a", "b"), "", "1/3 images complete, pending: a, b"),
        (0, tuple("abcde"), "", "0/5 images complete, pending: a, b, c and 2 more"),
        (
            0,
            tuple("abcde"),
            "no route",
            "0/5 images complete, retrying: a, b, c, and 2 more pending (no route)",
        ),
        (0, ("a",), "no route", "0/1 images complete, retrying: a (no route)"),
    ],
)
def test_progress_of_downloads(
    complete: int, pending: tuple[str, ...], trouble: str, words: str
) -> None:
    mailbox = Mailbox()
    telling.Teller(mailbox).fetching(complete, pending, NOW, trouble=trouble)
    assert mailbox.status()["conditions"][0]["message"] == words


WEB = Application("web", "container", "i")
BOX = Container("1", "web-365508-app", "web-365508", "d", "running")


@pytest.mark.parametrize(
    ("changes", "stopped", "status", "summary", "ready"),
    [
        ({}, False, "Running", "Healthy", "1/1"),
        ({"has_healthcheck": True, "health": "healthy"}, False, "Running", "Healthy", "1/1"),
        ({"has_healthcheck": True, "health": "unhealthy"}, False, "Running", "Degraded", "0/1"),
        ({"has_healthcheck": True, "health": "starting"}, False, "Preparing", "Degraded", "0/1"),
        ({"state": "created"}, False, "Preparing", "Degraded", "0/1"),
        ({"state": "exited"}, False, "Completed", "Healthy", "0/1"),
        ({"state": "exited", "exit_code": 3}, False, "Error", "Error", "0/1"),
        ({"state": "stopping"}, False, "Error", "Error", "0/1"),
        ({"state": "paused"}, False, "Running", "Degraded", "0/1"),
        ({"is_ours": False}, False, "Unknown", "Degraded", "0/0"),
        ({"state": "exited", "exit_code": 137}, True, "Stopped", "Healthy", "0/1"),
        ({"is_ours": False}, True, "Stopped", "Healthy", "0/0"),
        ({}, True, "Stopping", "Degraded", "1/1"),
    ],
)
def test_states_of_an_application(
    changes: dict[str, object], stopped: bool, status: str, summary: str, ready: str
) -> None:
    fields = {name: getattr(BOX, name) for name in BOX.__match_args__}
    box = Container(**{**fields, **changes})
    app = Application("web", "container", "i", is_stopped=stopped)
    listed, found = workloads.applications(
        Spec(Target("1"), applications=(app,)), Observed(containers=(box,))
    )
    assert (listed[0]["status"], listed[0]["ready"]) == (status, ready)
    assert found["status"] == summary
    required = {"name", "appType", "status", "ready", "restarts", "embedded"}
    assert required <= set(listed[0])


def test_a_device_without_applications_says_so() -> None:
    assert workloads.applications(Spec(Target("1")), Observed()) == (
        [],
        {"status": "NoApplications"},
    )


def test_a_sick_application_and_a_trouble_both_show_in_the_summary() -> None:
    mailbox = Mailbox()
    teller = telling.Teller(mailbox)
    spec = Spec(Target("1"), applications=(WEB,))
    teller.applications(spec, Observed())
    teller.trouble("sync", "/etc/x is a directory")
    assert mailbox.status()["summary"] == {
        "status": "Degraded",
        "info": "Not started: web; /etc/x is a directory",
    }
    teller.applications(spec, Observed(containers=(BOX,)))
    teller.trouble("sync", "")
    assert mailbox.status()["summary"] == {"status": "Online"}


def test_the_newest_offer_replaces_the_others_and_wakes_the_loop() -> None:
    mailbox = Mailbox()
    woken: list[int] = []
    mailbox.on_offer = lambda: woken.append(1)
    mailbox.offer_spec({"n": 1})
    mailbox.offer_spec({"n": 2})
    assert mailbox.take_spec() == {"n": 2}
    assert mailbox.take_spec() is None
    assert woken == [1, 1]


def test_a_section_that_changes_is_news_once() -> None:
    mailbox = Mailbox()
    assert not mailbox.wait_for_status_change(0)
    mailbox.set_section("os", {"image": ""})
    mailbox.set_section("os", {"image": ""})
    assert mailbox.wait_for_status_change(0)
    assert not mailbox.wait_for_status_change(0)
    mailbox.set_section("os", {"image": ""})
    assert not mailbox.wait_for_status_change(0)
    mailbox.set_section("os", None)
    mailbox.set_section("os", None)
    assert mailbox.wait_for_status_change(0)
    assert mailbox.status() == {}


def test_a_waiting_reporter_is_woken_by_news() -> None:
    mailbox = Mailbox()
    threading.Timer(0.05, lambda: mailbox.set_section("a", 1)).start()
    assert mailbox.wait_for_status_change(10)


def test_the_last_words_wait_until_the_service_has_taken_them() -> None:
    mailbox = Mailbox()
    mailbox.set_section("conditions", [{"type": "DeviceDecommissioning"}])
    assert not mailbox.wait_for_push(0)
    mailbox.pushed({"conditions": []})
    assert not mailbox.wait_for_push(0)
    threading.Timer(0.05, lambda: mailbox.pushed(mailbox.status())).start()
    assert mailbox.wait_for_push(10)


def test_the_known_version_is_what_was_set() -> None:
    mailbox = Mailbox()
    assert mailbox.known_version() == ""
    mailbox.set_known_version("7")
    assert mailbox.known_version() == "7"
