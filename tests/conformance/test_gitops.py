"""Flux's apply library and Argo CD's engine keep our kinds as a repository has them.

The programs are in `flux/` and `argo/`; a test is left out where `tests/setup/gitops.sh` has not
built them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from tests.conformance.conftest import Kubectl, Service, namespace_manifest
from tests.fakes import gitops
from tests.fakes.apiserver_process import Replicas
from tests.fakes.gitops import Program

Json = dict[str, Any]

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "how-to" / "gitops.md"
WAIT_S = 90.0

# One of each kind that people write down; a Lease is the built-in kind that has a spec.
MANIFESTS = """
apiVersion: flightctl.io/v1beta1
kind: Repository
metadata: {name: site, labels: {tier: edge}}
spec: {type: git, url: "https://git.invalid/site.git"}
---
apiVersion: flightctl.io/v1beta1
kind: ResourceSync
metadata: {name: site}
spec: {repository: site, targetRevision: main, path: /fleets}
---
apiVersion: flightctl.io/v1beta1
kind: Fleet
metadata: {name: web, labels: {tier: edge}}
spec:
  selector: {matchLabels: {fleet: web}}
  template:
    spec:
      os: {image: "quay.io/acme/os:1"}
      config:
      - name: motd
        inline:
        - {path: /etc/motd, content: hello}
---
apiVersion: flightctl.io/v1beta1
kind: Device
metadata: {name: gate, labels: {site: gate}}
spec:
  config:
  - name: motd
    inline:
    - {path: /etc/motd, content: hello}
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: shift}
spec: {holderIdentity: ada, leaseDurationSeconds: 60}
"""


ALL = {"Namespace", "Repository", "ResourceSync", "Fleet", "Device", "Lease"}


def manifests(namespace: str, kinds: set[str]) -> str:
    """Those of these kinds, the namespace itself among them."""
    found = [json.loads(namespace_manifest(namespace)), *yaml.safe_load_all(MANIFESTS)]
    for document in found[1:]:
        document["metadata"]["namespace"] = namespace
    return yaml.safe_dump_all([d for d in found if d["kind"] in kinds])


class Tool(Protocol):
    """How one of the programs is asked, and what its answers come to. `kinds`: what it is given."""

    kinds: set[str]

    def sync(self, documents: str) -> Json: ...

    def drifted(self, documents: str) -> set[str]: ...


class Flux:
    """Drift is what a sync corrects: there is no other comparison."""

    def __init__(self, kubectl: Kubectl, inventory: Path) -> None:
        self.kinds = ALL
        self.namespace = kubectl.namespace
        self.program = Program("flux", kubectl.kubeconfig)
        self.inventory = inventory

    def sync(self, documents: str) -> Json:
        arguments = ("sync", self.namespace, "flux-system", self.inventory)
        said = self.program(*arguments, manifests=documents)
        return {subject.partition("/")[0]: action for subject, action in said.items()}

    def drifted(self, documents: str) -> set[str]:
        return {kind for kind, action in self.sync(documents).items() if action == "configured"}


class Argo:
    """`way`: as `kubectl apply` does, or with server-side apply."""

    def __init__(self, kubectl: Kubectl, way: str) -> None:
        # kubectl's apply patches Kubernetes' own kinds by strategic merge, which is not served.
        self.kinds = ALL if way == "server" else ALL - {"Namespace", "Lease"}
        self.namespace = kubectl.namespace
        self.program = Program("argo", kubectl.kubeconfig)
        self.way = way

    def ask(self, what: str, documents: str) -> Json:
        said = self.program(what, self.namespace, self.way, manifests=documents)
        return {subject.partition("/")[0]: found for subject, found in said.items()}

    def sync(self, documents: str) -> Json:
        said = self.ask("sync", documents)
        assert all(found.startswith(("Synced: ", "Pruned: ")) for found in said.values()), said
        return said

    def drifted(self, documents: str) -> set[str]:
        said = self.ask("diff", documents)
        return {kind for kind, found in said.items() if found == "OutOfSync"}


@pytest.fixture(params=["flux", "argo-client", "argo-server"])
def tool(request: pytest.FixtureRequest, kubectl: Kubectl, tmp_path: Path) -> Tool:
    name, _, way = request.param.partition("-")
    built(name)
    return Argo(kubectl, way) if way else Flux(kubectl, tmp_path / "inventory.json")


def built(name: str) -> None:
    if not gitops.binary(name).exists():
        pytest.skip(gitops.MISSING.format(name))


KINDS = ("repository", "resourcesync", "fleet", "device", "lease")


def stored(kubectl: Kubectl) -> dict[str, Json]:
    """Everything there is, by kind; with versions and owners of fields."""
    shown = kubectl("get", ",".join(KINDS), "--show-managed-fields", "-o", "json")
    found = {item["kind"]: item for item in json.loads(shown)["items"]}
    shown = kubectl("get", "namespace", kubectl.namespace, "--show-managed-fields", "-o", "json")
    return found | {"Namespace": json.loads(shown)}


def specs(documents: dict[str, Json]) -> Json:
    return {kind: document["spec"] for kind, document in documents.items()}


HOLDER = '{"spec":{"holderIdentity":"bob"}}'
IMAGE = '{"spec":{"template":{"spec":{"os":{"image":"quay.io/acme/os:2"}}}}}'


@pytest.mark.timeout(240)
def test_a_sync_creates_and_the_next_one_changes_nothing(tool: Tool, kubectl: Kubectl) -> None:
    documents = manifests(kubectl.namespace, tool.kinds)
    first = tool.sync(documents)
    assert first.keys() == tool.kinds
    if isinstance(tool, Flux):
        made = {kind for kind, action in first.items() if action == "created"}
        assert made == ALL - {"Namespace"}, "that was there before"
    before = stored(kubectl)
    assert before.keys() == tool.kinds | {"Namespace"}
    assert not tool.drifted(documents)
    # The times of owners have seconds.
    time.sleep(1)
    tool.sync(documents)
    assert stored(kubectl) == before


@pytest.mark.timeout(240)
def test_what_somebody_else_changes_is_seen_and_put_right(tool: Tool, kubectl: Kubectl) -> None:
    documents = manifests(kubectl.namespace, tool.kinds)
    tool.sync(documents)
    right = stored(kubectl)
    kubectl("patch", "fleet", "web", "--type=merge", "-p", IMAGE)
    kubectl("label", "device", "gate", "site=elsewhere", "--overwrite")
    changed = {"Fleet", "Device"}
    if "Lease" in tool.kinds:
        kubectl("patch", "lease", "shift", "--type=merge", "-p", HOLDER)
        changed.add("Lease")
    assert tool.drifted(documents) == changed
    tool.sync(documents)
    after = stored(kubectl)
    assert specs(after) == specs(right)
    assert after["Device"]["metadata"]["labels"] == right["Device"]["metadata"]["labels"]
    for kind in right.keys() - changed:
        assert after[kind] == right[kind]
    assert not tool.drifted(documents)


@pytest.mark.timeout(240)
def test_what_left_the_repository_is_deleted_and_nothing_else(tool: Tool, kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=MINE)
    tool.sync(manifests(kubectl.namespace, tool.kinds))
    before = stored(kubectl)
    tool.sync(manifests(kubectl.namespace, tool.kinds - {"ResourceSync", "Fleet"}))
    after = stored(kubectl)
    assert after.keys() == before.keys() - {"ResourceSync"}
    assert kubectl("get", "fleets", "-o", "name").split() == ["fleet.flightctl.io/mine"]
    assert after["Device"] == before["Device"]


MINE = """
apiVersion: flightctl.io/v1beta1
kind: Fleet
metadata: {name: mine}
spec: {template: {spec: {}}}
"""


def test_flux_takes_away_what_kubectl_added(kubectl: Kubectl, tmp_path: Path) -> None:
    built("flux")
    tool = Flux(kubectl, tmp_path / "inventory.json")
    documents = manifests(kubectl.namespace, tool.kinds)
    tool.sync(documents)
    kubectl("annotate", "fleet", "web", "acme.io/note=x")
    kubectl("label", "fleet", "web", "note=x")
    assert tool.drifted(documents) == {"Fleet"}
    metadata = stored(kubectl)["Fleet"]["metadata"]
    assert "annotations" not in metadata
    assert "note" not in metadata["labels"]
    assert {entry["manager"] for entry in metadata["managedFields"]} == {"kustomize-controller"}


# --- health --------------------------------------------------------------------------------------


@pytest.fixture
def controlled(request: pytest.FixtureRequest, kubectl: Kubectl) -> Iterator[Kubectl]:
    """With the controllers as a process of their own."""
    store = "replicas" if "postgresql" in request.node.name else "server"
    service: Service = request.getfixturevalue(store)
    data = service.data(0) if isinstance(service, Replicas) else service.data
    with controllers(data / "controllers.sock"):
        yield kubectl


@contextmanager
def controllers(socket: Path) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, "-m", "controllers", "--socket", str(socket)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)


def until(what: Callable[[], bool], why: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.3)


VERSION = "jsonpath={.metadata.annotations.device-controller/renderedVersion}"
ON_IT = "jsonpath={.metadata.annotations.fleet-controller/renderedTemplateVersion}"


def fleet_and_device(namespace: str, image: str) -> tuple[str, str]:
    fleet, device = (d for d in yaml.safe_load_all(MANIFESTS) if d["kind"] in ("Fleet", "Device"))
    for document in (fleet, device):
        document["metadata"]["namespace"] = namespace
    fleet["spec"]["template"]["spec"]["os"]["image"] = image
    device["metadata"]["labels"] = {"fleet": "web"}
    return yaml.safe_dump(fleet), yaml.safe_dump(device)


def report(kubectl: Kubectl, version: str) -> None:
    """What an agent says when it is done. Written by an administrator: no device takes part."""
    status = {"config": {"renderedVersion": version}, "updated": {"status": "UpToDate"}}
    patch = json.dumps({"status": status})
    kubectl("patch", "device", "gate", "--subresource=status", "--type=merge", "-p", patch)


def rolled_out(kubectl: Kubectl, template_version: str) -> None:
    """The device has the fleet's template and says so."""
    until(
        lambda: kubectl("get", "device", "gate", "-o", ON_IT) == template_version,
        f"the device was not given {template_version}",
    )
    report(kubectl, kubectl("get", "device", "gate", "-o", VERSION))


def health_check(kind: str) -> str:
    """The Lua that the guide tells people to put into Argo CD's settings."""
    blocks = GUIDE.read_text().split("```yaml\n")[1:]
    documents = [yaml.safe_load(block.partition("```")[0]) for block in blocks]
    (settings,) = (d for d in documents if d["kind"] == "ConfigMap")
    script: str = settings["data"][f"resource.customizations.health.flightctl.io_{kind}"]
    return script


@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", ["flux", "argo"])
def test_a_fleet_is_healthy_when_its_devices_run_it_and_not_before(
    name: str, controlled: Kubectl, tmp_path: Path
) -> None:
    built(name)
    kubectl, program = controlled, Program(name, controlled.kubeconfig)
    script = tmp_path / "health.lua"
    script.write_text(health_check("Fleet"))

    def health(fleet: str) -> str:
        question = ("status",) if name == "flux" else ("health", script)
        (found,) = program(*question, manifests=fleet).values()
        return str(found)

    busy, done, failed = (
        ("InProgress", "Current", "Failed")
        if name == "flux"
        else ("Progressing", "Healthy", "Degraded")
    )
    _, device = fleet_and_device(kubectl.namespace, "quay.io/acme/os:1")
    kubectl("apply", "-f", "-", stdin=device)
    for number, image in enumerate(("quay.io/acme/os:1", "quay.io/acme/os:2"), start=1):
        fleet, _ = fleet_and_device(kubectl.namespace, image)
        kubectl("apply", "-f", "-", stdin=fleet)
        # From the first moment on, though no controller may have looked yet.
        assert health(fleet) == busy
        if name == "flux":
            waited = program.run("wait", "3s", manifests=fleet)
            assert "timeout waiting for" in waited.stderr, waited
        rolled_out(kubectl, f"v{number}")
        if name == "flux":
            assert program.run("wait", f"{WAIT_S}s", manifests=fleet).returncode == 0
        until(lambda fleet=fleet: health(fleet) == done, "the fleet was never healthy")  # type: ignore[misc]

    # What would be another commit for each device is not fetched.
    source = {"repository": "none", "targetRevision": "{{ .metadata.name }}", "path": "/etc"}
    broken = {"spec": {"template": {"spec": {"config": [{"name": "git", "gitRef": source}]}}}}
    kubectl("patch", "-f", "-", "--type", "merge", "-p", json.dumps(broken), stdin=fleet)
    assert health(fleet) in (busy, failed)
    until(lambda: health(fleet) == failed, "a template that can't be used is no failure")
