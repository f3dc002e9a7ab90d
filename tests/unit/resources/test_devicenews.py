"""What a device's change of state is told as (contract 11.2), transition by transition."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources import devicenews, event
from resources.devicenews import State

WELL = State(("Online", "on"), ("UpToDate", "has it"), ("Healthy", "2/2"))
GONE = State(("Unknown", "silent"), ("Unknown", "silent"), ("Unknown", "silent"))
NEW = replace(GONE, updated=("UpToDate", ""))


def state(of: State, **parts: Any) -> State:
    words = ("summary", "updated", "applications", "spec_valid")
    return replace(
        of, **{key: (value, "why") if key in words else value for key, value in parts.items()}
    )


def monitors(**said: str) -> State:
    return replace(WELL, monitors=said)


FAILED = state(WELL, updated="OutOfDate", failure="no such image")

TRANSITIONS: dict[str, tuple[State, State, list[str]]] = {
    "nothing": (WELL, WELL, []),
    "other words only": (WELL, replace(WELL, updated=("UpToDate", "still")), []),
    "falls silent": (WELL, GONE, ["DeviceDisconnected"]),
    "falls silent while something else happens": (
        monitors(cpu="Healthy"),
        replace(GONE, monitors={"cpu": "Critical"}, image="b"),
        ["DeviceDisconnected"],
    ),
    "stays silent": (GONE, GONE, []),
    "calls for the first time": (NEW, WELL, ["DeviceConnected", "DeviceApplicationHealthy"]),
    "calls for the first time, has no applications": (
        NEW,
        state(WELL, applications="NoApplications"),
        ["DeviceConnected"],
    ),
    "comes back": (GONE, WELL, ["DeviceConnected", "DeviceApplicationHealthy"]),
    "comes back behind": (
        GONE,
        state(WELL, updated="OutOfDate", applications="NoApplications"),
        ["DeviceConnected", "DeviceContentOutOfDate"],
    ),
    "comes back with a problem": (
        GONE,
        state(WELL, summary="Degraded", applications="Error"),
        ["DeviceConnected", "DeviceApplicationError"],
    ),
    "recovers": (state(WELL, summary="Error"), WELL, ["DeviceConnected"]),
    "gets worse": (WELL, state(WELL, summary="Error"), []),
    "reboots": (
        WELL,
        state(WELL, summary="Rebooting", applications="Degraded"),
        ["DeviceIsRebooting", "DeviceApplicationDegraded"],
    ),
    "is back from a reboot": (state(WELL, summary="Rebooting"), WELL, ["DeviceConnected"]),
    "is paused": (WELL, state(WELL, summary="ConflictPaused"), []),
    "has something to do": (
        WELL,
        state(WELL, updated="OutOfDate"),
        ["DeviceContentOutOfDate"],
    ),
    "does it": (
        state(WELL, updated="OutOfDate"),
        state(WELL, updated="Updating"),
        ["DeviceContentUpdating"],
    ),
    "has done it": (state(WELL, updated="Updating"), WELL, ["DeviceContentUpToDate"]),
    "could not do it": (state(WELL, updated="Updating"), FAILED, ["DeviceUpdateFailed"]),
    "could not do it, and was behind": (
        state(WELL, updated="OutOfDate"),
        FAILED,
        ["DeviceUpdateFailed"],
    ),
    "still could not do it": (FAILED, FAILED, []),
    "is to do something else": (FAILED, state(WELL, updated="OutOfDate"), []),
    "application degrades": (
        WELL,
        state(WELL, applications="Degraded"),
        ["DeviceApplicationDegraded"],
    ),
    "application breaks": (WELL, state(WELL, applications="Error"), ["DeviceApplicationError"]),
    "application is mended": (
        state(WELL, applications="Error"),
        WELL,
        ["DeviceApplicationHealthy"],
    ),
    "broken application is taken away": (
        state(WELL, applications="Error"),
        state(WELL, applications="NoApplications"),
        ["DeviceApplicationHealthy"],
    ),
    "well application is taken away": (WELL, state(WELL, applications="NoApplications"), []),
    "does not know its applications": (WELL, state(WELL, applications="Unknown"), []),
    "knows them": (
        state(WELL, applications="Unknown"),
        WELL,
        ["DeviceApplicationHealthy"],
    ),
    "runs hot": (monitors(cpu="Healthy"), monitors(cpu="Warning"), ["DeviceCPUWarning"]),
    "runs hotter": (monitors(cpu="Warning"), monitors(cpu="Critical"), ["DeviceCPUCritical"]),
    "cools down": (monitors(cpu="Critical"), monitors(cpu="Healthy"), ["DeviceCPUNormal"]),
    "is full from the start": (
        monitors(),
        monitors(memory="Critical", disk="Warning"),
        ["DeviceMemoryCritical", "DeviceDiskWarning"],
    ),
    "begins to measure": (monitors(disk="Unknown"), monitors(disk="Healthy"), []),
    "stops measuring": (monitors(disk="Critical"), monitors(disk="Unknown"), []),
    "runs another image": (
        replace(WELL, image="sha256:a"),
        replace(WELL, image="sha256:b"),
        ["DeviceOSImageChanged"],
    ),
    "says which image it runs": (WELL, replace(WELL, image="sha256:b"), []),
    "cannot be rendered": (
        state(WELL, spec_valid="True"),
        state(WELL, spec_valid="False"),
        ["DeviceSpecInvalid"],
    ),
    "cannot be rendered, and is away": (
        GONE,
        state(GONE, spec_valid="False"),
        ["DeviceSpecInvalid"],
    ),
    "can be rendered again": (
        state(WELL, spec_valid="False"),
        state(WELL, spec_valid="True"),
        ["DeviceSpecValid"],
    ),
    "was rendered for the first time": (WELL, state(WELL, spec_valid="True"), []),
}


@pytest.mark.parametrize(("old", "new", "reasons"), TRANSITIONS.values(), ids=TRANSITIONS)
def test_a_transition_is_told_as(old: State, new: State, reasons: list[str]) -> None:
    assert [news.reason for news in devicenews.of(old, new)] == reasons


WARNINGS = {
    "DeviceDisconnected",
    "DeviceUpdateFailed",
    "DeviceSpecInvalid",
    "DeviceApplicationDegraded",
    "DeviceApplicationError",
}


def any_state() -> st.SearchStrategy[State]:
    def words(*values: str) -> st.SearchStrategy[tuple[str, str]]:
        return st.tuples(st.sampled_from(values), st.just(""))

    level = st.sampled_from(["Healthy", "Warning", "Critical", "Error", "Unknown", 7, None])
    return st.builds(
        State,
        words("Online", "Degraded", "Error", "Unknown", "Rebooting", "ConflictPaused"),
        words("UpToDate", "OutOfDate", "Updating", "Unknown"),
        words("Healthy", "Degraded", "Error", "Unknown", "NoApplications", "Odd"),
        st.sampled_from(["", "broken"]),
        words("", "True", "False", "Unknown"),
        st.none() | st.fixed_dictionaries({"cpu": level, "memory": level, "disk": level}),
        st.sampled_from(["", "a", "b"]),
    )


@given(any_state(), any_state())
def test_whatever_is_told_is_in_the_vocabulary_has_words_and_ends_with_the_transition(
    old: State, new: State
) -> None:
    told = devicenews.of(old, new)
    for news in told:
        assert news.reason in event.REASONS
        is_alarm = news.reason in WARNINGS or news.reason.endswith(("Warning", "Critical"))
        assert (news.reason in event.WARNINGS) == is_alarm
    assert len({news.reason for news in told}) == len(told)
    assert devicenews.of(new, new) == []


@pytest.mark.parametrize(
    "status",
    [{}, {"resources": None, "os": []}, {"resources": [1], "os": {"imageDigest": 3}}],
)
def test_a_status_in_another_shape_says_nothing(status: dict[str, Any]) -> None:
    assert devicenews.said_by(status) == ({}, "")
