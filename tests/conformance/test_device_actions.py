"""What is asked of devices beside their specification, by kubectl; and waiting for them."""

from __future__ import annotations

import json

from tests.conformance.conftest import Kubectl

DEVICE = """
apiVersion: flightctl.io/v1beta1
kind: Device
metadata: {name: gate, labels: {site: gate}}
spec:
  applications:
  - {name: web, appType: container, image: "quay.io/acme/web:1"}
"""
GROUP = "/apis/flightctl.io/v1beta1/namespaces"


def place_of(kubectl: Kubectl) -> str:
    found = kubectl("get", "device", "gate", "-o", "jsonpath={.metadata.namespace}")
    return f"{GROUP}/{found}"


def test_an_application_is_stopped_and_the_device_waited_for(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEVICE)
    for wanted in ("condition=SpecValid", "jsonpath={.status.updated.status}=OutOfDate"):
        assert "condition met" in kubectl("wait", "device/gate", f"--for={wanted}", "--timeout=40s")
    path = f"{place_of(kubectl)}/devices/gate/lifecycle"
    body = json.dumps({"application": "web", "action": "stop"})
    answer = json.loads(kubectl("create", "--raw", path, "-f", "-", stdin=body))
    assert answer["kind"] == "Device"
    shown = json.loads(kubectl("get", "--raw", f"{place_of(kubectl)}/devices/gate/rendered"))
    assert shown["spec"]["applications"][0]["desiredState"] == "stopped"
    assert shown["metadata"]["annotations"]["device-controller/renderedVersion"] == "2"
    # Applying the manifest again is no change, and takes nothing of that back.
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=DEVICE)
    wrong = json.dumps({"application": "log", "action": "stop"})
    told = kubectl.refused("create", "--raw", path, "-f", "-", stdin=wrong)
    assert 'Application of name "log" not found' in told
    kubectl("delete", "device", "gate")


def test_resume_answers_how_many(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=DEVICE)
    place = place_of(kubectl).replace("flightctl.io/v1beta1", "homeport.dev/v1alpha1")
    path = f"{place}/backlogs/devices/resume"
    body = json.dumps({"labelSelector": "site=gate"})
    answer = json.loads(kubectl("create", "--raw", path, "-f", "-", stdin=body))
    assert answer == {"resumedDevices": 0}
    told = kubectl.refused("create", "--raw", path, "-f", "-", stdin='{"labelSelector": "a in"}')
    assert "labelSelector" in told
    kubectl("delete", "device", "gate")
