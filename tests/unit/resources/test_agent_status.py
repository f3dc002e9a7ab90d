"""What agents report is judged mildly: odd is said, new is not odd."""

from __future__ import annotations

import pytest

from resources import device, enrollment
from resources.kind import Json

STATUS: Json = {
    "conditions": [
        {
            "type": "Updating",
            "status": "False",
            "reason": "Updated",
            "message": "",
            "lastTransitionTime": "2026-01-02T03:04:05.123456789Z",
        }
    ],
    "systemInfo": {
        "agentVersion": "v1.3.0",
        "architecture": "amd64",
        "bootID": "b",
        "operatingSystem": "linux",
        "hostname": "edge",
        "customInfo": {"site": "a"},
    },
    "applications": [
        {
            "name": "web",
            "ready": "1/1",
            "restarts": 0,
            "status": "Running",
            "embedded": False,
            "appType": "container",
        }
    ],
    "applicationsSummary": {"status": "Healthy"},
    "resources": {"cpu": "Healthy", "memory": "Healthy", "disk": "Unknown"},
    "integrity": {"status": "Unsupported"},
    "config": {"renderedVersion": "3"},
    "os": {"image": "quay.io/a/b:1", "imageDigest": "sha256:1"},
    "updated": {"status": "UpToDate"},
    "summary": {"status": "Online"},
    "lifecycle": {"status": "Enrolled"},
    "systemd": [
        {
            "unit": "chronyd.service",
            "description": "",
            "enableState": "",
            "loadState": "loaded",
            "activeState": "active",
            "subState": "running",
        }
    ],
}


def test_a_full_report_is_right() -> None:
    assert device.check_agent_status(STATUS) == []


def test_an_empty_report_is_right() -> None:
    assert device.check_agent_status({}) == []


def test_what_a_newer_agent_adds_is_not_odd() -> None:
    status = STATUS | {"mood": "good", "os": STATUS["os"] | {"slot": "B"}}
    assert device.check_agent_status(status) == []


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"summary": {"status": "Happy"}}, "status.summary.status"),
        ({"config": {"renderedVersion": 3}}, "status.config.renderedVersion"),
        ({"conditions": [{"type": "Updating"}]}, "status.conditions[0].status"),
        ({"applications": {}}, "status.applications"),
        ({"systemInfo": STATUS["systemInfo"] | {"memory": 7}}, "status.systemInfo.memory"),
    ],
)
def test_what_is_odd_is_named(change: Json, path: str) -> None:
    assert path in [error.path for error in device.check_agent_status(STATUS | change)]


class TestApproval:
    def test_labels_and_a_yes_are_right(self) -> None:
        approval = {"approved": True, "labels": {"site": "a"}, "replaceLabels": False}
        assert enrollment.check_approval(approval) == []

    @pytest.mark.parametrize(
        ("approval", "path"),
        [
            ({}, "approved"),
            ({"approved": "yes"}, "approved"),
            ({"approved": True, "labels": {"a": "b c"}}, "labels[a]"),
            ({"approved": True, "lables": {}}, "lables"),
        ],
    )
    def test_what_is_wrong_is_named(self, approval: Json, path: str) -> None:
        assert [error.path for error in enrollment.check_approval(approval)] == [path]
