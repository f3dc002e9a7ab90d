"""Device summaries: the rules of contract 7.6 in their order, each with the case it decides."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources import summary
from resources.summary import DeviceFacts

HEALTHY: dict[str, Any] = {
    "resources": {"cpu": "Healthy", "memory": "Healthy", "disk": "Healthy"},
    "applications": [{"name": "a"}],
    "applicationsSummary": {"status": "Healthy", "info": "all fine"},
    "conditions": [{"type": "Updating", "status": "False", "reason": "Updated"}],
    "os": {"image": "os:1"},
}


def facts(**changed: Any) -> DeviceFacts:
    known: dict[str, Any] = {
        "status": HEALTHY,
        "connected": True,
        "seen": True,
        "managed": False,
        "rendered_version": 2,
        "reported_version": 2,
    }
    return DeviceFacts(**known | changed)


def reporting(**changed: Any) -> dict[str, Any]:
    return HEALTHY | changed


def updating(reason: str, message: str = "") -> list[dict[str, str]]:
    return [{"type": "Updating", "status": "True", "reason": reason, "message": message}]


REBOOTING = reporting(conditions=updating("Rebooting", "back soon"))


@pytest.mark.parametrize(
    ("known", "status", "info"),
    [
        pytest.param(facts(), "Online", "no problem", id="online"),
        pytest.param(
            facts(awaiting_reconnect=True, conflict_paused=True, connected=False),
            "AwaitingReconnect",
            "restored",
            id="awaiting before all",
        ),
        pytest.param(
            facts(conflict_paused=True, connected=False), "ConflictPaused", "", id="paused"
        ),
        pytest.param(
            facts(connected=False, status=REBOOTING), "Unknown", "last seen", id="disconnected"
        ),
        pytest.param(facts(connected=False, seen=False), "Unknown", "never", id="never seen"),
        pytest.param(facts(status=REBOOTING), "Rebooting", "back soon", id="rebooting"),
        pytest.param(
            facts(status=reporting(resources={"cpu": "Critical", "disk": "Warning"})),
            "Error",
            "cpu",
            id="critical before warning",
        ),
        pytest.param(
            facts(status=reporting(resources={"disk": "Warning", "cpu": "Warning"})),
            "Degraded",
            "cpu, disk",
            id="warnings are named",
        ),
        pytest.param(
            facts(status=reporting(resources={"cpu": "Error"})),
            "Online",
            "",
            id="error is no alert",
        ),
        pytest.param(facts(status={}), "Online", "", id="nothing reported"),
        pytest.param(facts(status={"resources": "?"}), "Online", "", id="strange resources"),
    ],
)
def test_summary(known: DeviceFacts, status: str, info: str) -> None:
    found = summary.derive(known)
    assert found.summary == status
    assert info in found.summary_info


@pytest.mark.parametrize(
    ("known", "status", "info"),
    [
        pytest.param(facts(), "UpToDate", "", id="unmanaged"),
        pytest.param(
            facts(connected=False, render_error="no"), "Unknown", "", id="disconnected first"
        ),
        pytest.param(
            facts(awaiting_reconnect=True, render_error="no"), "Unknown", "restored", id="awaited"
        ),
        pytest.param(facts(conflict_paused=True, reported_version=7), "OutOfDate", "", id="ahead"),
        pytest.param(
            facts(connected=False, seen=False, rendered_version=0), "UpToDate", "", id="new"
        ),
        pytest.param(
            facts(connected=False, seen=False), "UpToDate", "", id="never seen, but as it should be"
        ),
        pytest.param(
            facts(status=reporting(conditions=updating("ApplyingUpdate", "half done"))),
            "Updating",
            "half done",
            id="updating",
        ),
        pytest.param(
            facts(render_error="no label x"),
            "OutOfDate",
            "Device could not be updated to the fleet's latest device spec: no label x",
            id="cannot be rendered",
        ),
        pytest.param(facts(reported_version=1), "OutOfDate", "not yet", id="behind"),
        pytest.param(
            facts(reported_version=1, failed_reason="app a: unhealthy"),
            "OutOfDate",
            "app a: unhealthy",
            id="failed",
        ),
        pytest.param(facts(spec_valid=False), "OutOfDate", "", id="invalid spec"),
        pytest.param(facts(render_needed=True), "OutOfDate", "", id="not rendered yet"),
        pytest.param(facts(rendered_version=0, reported_version=0), "UpToDate", "", id="no spec"),
        pytest.param(
            facts(managed=True),
            "UpToDate",
            "",
            id="managed, at the fleet's",
        ),
        pytest.param(
            facts(managed=True, behind=True),
            "OutOfDate",
            "waits for its turn",
            id="managed, behind the fleet's",
        ),
        pytest.param(
            facts(managed=True, behind=True, reported_version=1, failed_reason="app a: unhealthy"),
            "OutOfDate",
            "app a: unhealthy",
            id="behind, and the one before failed",
        ),
        pytest.param(facts(behind=True), "UpToDate", "", id="of no fleet any more"),
        pytest.param(
            facts(spec_os_image="os:2", status=reporting(capabilities={"osMode": "image"})),
            "OutOfDate",
            "os:1",
            id="another OS",
        ),
        pytest.param(
            facts(spec_os_image="os:2", status=reporting(os="?", capabilities={"osMode": "image"})),
            "OutOfDate",
            "another OS image",
            id="an OS that is not told",
        ),
        pytest.param(
            facts(spec_os_image="os:1", status=reporting(capabilities={"osMode": "image"})),
            "UpToDate",
            "",
            id="the wanted OS",
        ),
        pytest.param(facts(spec_os_image="os:2"), "UpToDate", "", id="no OS mode reported"),
        pytest.param(
            facts(spec_os_image="os:2", status=reporting(capabilities={})),
            "UpToDate",
            "",
            id="capabilities without an OS mode",
        ),
    ],
)
def test_updated(known: DeviceFacts, status: str, info: str) -> None:
    found = summary.derive(known)
    assert found.updated == status
    assert info in found.updated_info


@pytest.mark.parametrize(
    ("known", "status", "info"),
    [
        pytest.param(facts(), "Healthy", "all fine", id="the agent's word"),
        pytest.param(facts(connected=False), "Unknown", "disconnected", id="disconnected"),
        pytest.param(facts(status=REBOOTING), "Degraded", "rebooting", id="rebooting"),
        pytest.param(
            facts(status=REBOOTING | {"applications": []}), "NoApplications", "", id="none"
        ),
        pytest.param(facts(status=reporting(applicationsSummary="?")), "Unknown", "", id="no word"),
    ],
)
def test_applications(known: DeviceFacts, status: str, info: str) -> None:
    found = summary.derive(known)
    assert found.applications == status
    assert info in found.applications_info


def decommission(reason: str, message: str = "") -> dict[str, Any]:
    said = {"type": "DeviceDecommissioning", "status": "True"}
    return reporting(conditions=[said | {"reason": reason, "message": message}])


@pytest.mark.parametrize(
    ("known", "status", "info"),
    [
        pytest.param(facts(), "Enrolled", "", id="enrolled"),
        pytest.param(facts(decommissioning=True), "Decommissioning", "", id="asked for"),
        pytest.param(facts(status=decommission("Started")), "Decommissioning", "", id="started"),
        pytest.param(facts(status=decommission("Completed")), "Decommissioned", "", id="completed"),
        pytest.param(
            facts(status=decommission("Error", "disk busy")),
            "Decommissioned",
            "disk busy",
            id="error",
        ),
        pytest.param(
            facts(status=decommission("Error")), "Decommissioned", "no reason", id="error unsaid"
        ),
    ],
)
def test_lifecycle(known: DeviceFacts, status: str, info: str) -> None:
    found = summary.derive(known)
    assert found.lifecycle == status
    assert info in found.lifecycle_info


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "status", "cpu", "image", "osMode", "reason"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
reported = st.dictionaries(
    st.sampled_from(["resources", "applications", "applicationsSummary", "os", "capabilities"]),
    anything,
)


@given(reported, st.lists(anything, max_size=3), st.booleans())
def test_whatever_an_agent_reports_there_is_an_answer(
    status: dict[str, Any], conditions: list[Any], connected: bool
) -> None:
    told = status | {"conditions": conditions}
    found = summary.derive(facts(status=told, connected=connected, spec_os_image="os:2"))
    assert found.summary in ("Online", "Degraded", "Error", "Rebooting", "Unknown")
    assert found.updated in ("UpToDate", "OutOfDate", "Updating", "Unknown")
    assert found.lifecycle == "Enrolled"
