"""Manifests of real users, unchanged, through kubectl; what `get` and `explain` say about them."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.fakes import apiserver_process

INPUTS = Path(__file__).parents[3] / "shared" / "inputs"
SERVED = ("Device", "Fleet", "EnrollmentRequest", "CertificateSigningRequest")


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


def manifests() -> list[Path]:
    """The files all of whose documents are of kinds that are served at this stage."""
    found = []
    for path in sorted(INPUTS.glob("*.yaml")):
        documents = [d for d in yaml.safe_load_all(path.read_text()) if d]
        if documents and all(d["kind"] in SERVED for d in documents):
            found.append(path)
    return found


@pytest.mark.skipif(
    not INPUTS.is_dir(), reason="the manifests of real users are not beside this clone"
)
def test_manifests_of_real_users_are_accepted_unchanged(
    server: apiserver_process.Process,
) -> None:
    paths = manifests()
    assert len(paths) >= 6
    for path in paths:
        done = kubectl(server, "apply", "-f", str(path))
        assert done.returncode == 0, f"{path.name}: {done.stderr}"
        print(path.name, done.stdout.strip())
        document = next(iter(yaml.safe_load_all(path.read_text())))
        kind, name = document["kind"].lower(), document["metadata"]["name"].strip()
        resource = f"{kind}s.flightctl.io"
        shown = kubectl(server, "get", resource, name)
        assert shown.returncode == 0, shown.stderr
        header, row = shown.stdout.splitlines()
        assert "NAME" in header
        assert len(header.split()) >= 3, "columns say more than the name"
        assert name in row


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
