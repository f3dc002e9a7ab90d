"""The contract's table of application states, and services of systemd read into it."""

from __future__ import annotations

import pytest

from agent import systemd, workloads
from agent.appplan import Workload
from agent.planner import Container

LETTERS = {
    "H": "running",
    "U": "unhealthy",
    "I": "starting",
    "E": "completed",
    "S": "failed",
    "C": "crashing",
    "P": "stopping",
}


@pytest.mark.parametrize(
    ("states", "is_stopped", "expected"),
    [
        ("", True, ("Stopped", "Healthy")),
        ("SE", True, ("Stopped", "Healthy")),
        ("SH", True, ("Stopping", "Degraded")),
        ("", False, ("Unknown", "Unknown")),
        ("IH", False, ("Starting", "Degraded")),
        ("IS", False, ("Preparing", "Unknown")),
        ("EE", False, ("Completed", "Healthy")),
        ("HH", False, ("Running", "Healthy")),
        ("HE", False, ("Running", "Healthy")),
        ("HU", False, ("Running", "Degraded")),
        ("US", False, ("Running", "Degraded")),
        ("HS", False, ("Running", "Degraded")),
        ("HC", False, ("Running", "Degraded")),
        ("SE", False, ("Error", "Error")),
        ("C", False, ("Error", "Error")),
        ("P", False, ("Error", "Error")),
    ],
)
def test_states_of_applications(states: str, is_stopped: bool, expected: tuple[str, str]) -> None:
    found = [Workload(str(i), LETTERS[letter]) for i, letter in enumerate(states)]
    assert workloads.status_of(found, is_stopped=is_stopped) == expected


SHOWN = """Id=a.service
LoadState=loaded
ActiveState={active}
SubState={sub}
Result={result}
ExecMainStatus={status}
ExecMainStartTimestampMonotonic={began}
NRestarts=2
"""
BOX = Container("1", "systemd-a", "a", "", "running", unit="a.service", has_healthcheck=True)


@pytest.mark.parametrize(
    ("active", "sub", "result", "status", "began", "state"),
    [
        ("active", "running", "success", 0, 9, "running"),
        ("activating", "start", "success", 0, 9, "starting"),
        ("activating", "auto-restart", "exit-code", 3, 9, "crashing"),
        ("deactivating", "stop-sigterm", "success", 0, 9, "stopping"),
        ("failed", "failed", "exit-code", 3, 9, "failed"),
        ("inactive", "dead", "success", 0, 9, "completed"),
        ("inactive", "dead", "success", 143, 9, "failed"),
        ("inactive", "dead", "success", 0, 0, None),
    ],
)
def test_services_of_systemd(
    active: str, sub: str, result: str, status: int, began: int, state: str | None
) -> None:
    text = SHOWN.format(active=active, sub=sub, result=result, status=status, began=began)
    found = workloads.of_unit(systemd.parse(text)["a.service"], None)
    assert (found.state if found else None) == state
    assert found is None or found.restarts == 2


def test_a_running_service_is_as_healthy_as_its_container() -> None:
    unit = systemd.parse(
        SHOWN.format(active="active", sub="running", result="success", status=0, began=9)
    )["a.service"]
    for health, state in (("healthy", "running"), ("starting", "starting"), ("x", "unhealthy")):
        fields = {name: getattr(BOX, name) for name in BOX.__match_args__}
        box = Container(**{**fields, "health": health})
        found = workloads.of_unit(unit, box)
        assert found is not None
        assert found.state == state


def test_the_last_words_are_the_workloads_own() -> None:
    journal = "starting\nconmon 0123456789abcdef <nwarn>: cgroup\n" + "0" * 64 + "\nno database\n"
    assert systemd.last_words(journal) == "starting\nno database"


def test_the_generators_first_objection_is_told_without_its_frame() -> None:
    said = """quadlet-generator[105]: Loading source unit file /tmp/u/a.container
quadlet-generator[105]: converting "a.container": unsupported key 'Nonsense'
converting "b.container": quadlet pod unit no.pod does not exist
"""
    assert systemd.generator_words(said) == "\"a.container\": unsupported key 'Nonsense'"
    assert systemd.generator_words("") == ""
