"""Manifests of real users, unchanged, through kubectl; what `get` and `explain` say about them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from resources import conditions, registry
from tests.e2e import processes
from tests.e2e.service import Service
from tests.fakes import apiserver_process

INPUTS = Path(__file__).parents[3] / "shared" / "inputs"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[apiserver_process.Process]:
    with apiserver_process.running(tmp_path_factory.mktemp("real") / "data") as process:
        yield process


def kubectl(server: apiserver_process.Process, *arguments: str) -> subprocess.CompletedProcess[str]:
    found = shutil.which("kubectl")
    assert found is not None, "make setup brings a kubectl"
    cache = server.data.parent / "cache"
    command = [found, "--kubeconfig", str(server.kubeconfig), "--cache-dir", str(cache), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


has_inputs = pytest.mark.skipif(
    not INPUTS.is_dir(), reason="the manifests of real users are not beside this clone"
)


@has_inputs
def test_manifests_of_real_users_are_accepted_unchanged(
    server: apiserver_process.Process,
) -> None:
    paths = sorted(INPUTS.glob("*.yaml"))
    assert len(paths) >= 13
    for path in paths:
        done = kubectl(server, "apply", "-f", str(path))
        assert done.returncode == 0, f"{path.name}: {done.stderr}"
        print(path.name, done.stdout.strip())
        document = next(iter(yaml.safe_load_all(path.read_text())))
        name = document["metadata"]["name"].strip()
        resource = f"{registry.by_kind(document['kind']).plural}.flightctl.io"
        shown = kubectl(server, "get", resource, name)
        assert shown.returncode == 0, shown.stderr
        header, row = shown.stdout.splitlines()
        assert "NAME" in header
        assert len(header.split()) >= 3, "columns say more than the name"
        assert name in row


@has_inputs
def test_repositories_that_cannot_be_reached_say_so_and_what_to_do(tmp_path: Path) -> None:
    """With a way out of this machine, those that are public can be read, and say nothing."""
    service = Service(tmp_path / "data")
    service.start()
    try:
        for path in (*INPUTS.glob("repository-*.yaml"), INPUTS / "resourcesync.yaml"):
            service.kubectl("apply", "-f", str(path))

        def told() -> dict[str, str]:
            found = {}
            repositories = service.get("repositories")["items"]
            for document in [*repositories, *service.get("resourcesyncs")["items"]]:
                status = document.get("status") or {}
                condition = conditions.get(status.get("conditions"), "Accessible")
                if condition is None:
                    return {}
                if condition["status"] == "False":
                    found[document["metadata"]["name"]] = condition["message"]
            return found

        said = processes.until(told, "all were tried", timeout_s=90)
        shown = service.kubectl("get", "repositories", "-o", "wide")
    finally:
        service.stop()
    print(shown)
    assert "my-server.com" in said["flightctl-http"]
    # Known without asking anybody.
    assert said["flightctl-ssh"].startswith("spec.sshConfig.sshPrivateKey: is not a whole private")
    hosts = ("github.com", "my-server.com", "quay.io", "spec.sshConfig")
    for message in said.values():
        assert any(host in message for host in hosts), message
        assert "mypassword" not in message
        assert "testpassphrase" not in message


def test_explain_explains(server: apiserver_process.Process) -> None:
    done = kubectl(server, "explain", "fleet.spec.template.spec.applications")
    assert done.returncode == 0, done.stderr
    assert "appType" in done.stdout
    described = [line for line in done.stdout.splitlines() if line.startswith("    ")]
    assert len(described) > 10, "fields have descriptions"
    print(done.stdout[:1500])


def test_the_namespace_default_is_there(server: apiserver_process.Process) -> None:
    done = kubectl(server, "get", "namespaces", "-o", "name")
    assert done.stdout.split() == ["namespace/default"]
