"""Kubernetes as the one who says who may do what: a real kube-apiserver beside the service."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
import yaml

from apiserver.auth import clusterroles
from tests.conformance.conftest import binaries
from tests.fakes import kubernetes
from tests.fakes.kubernetes import Kubernetes

pytestmark = [
    pytest.mark.skipif(
        not kubernetes.is_built(), reason="no kube-apiserver: run tests/setup/kubernetes.sh"
    ),
    pytest.mark.timeout(180),
]

RBAC = "/apis/rbac.authorization.k8s.io/v1"
OURS, THEIRS = "ours", "theirs"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubernetes]:
    with kubernetes.running(tmp_path_factory.mktemp("cluster") / "kubernetes") as cluster:
        for name in (OURS, THEIRS):
            cluster.make("/api/v1/namespaces", {"metadata": {"name": name}})
        for role in yaml.safe_load_all((kubernetes.ROOT / clusterroles.FILE).read_text()):
            cluster.make(f"{RBAC}/clusterroles", role)
        yield cluster


def bind(cluster: Kubernetes, namespace: str, role: str, subject: dict[str, str]) -> None:
    cluster.make(
        f"{RBAC}/namespaces/{namespace}/rolebindings",
        {
            "metadata": {"generateName": "test-"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role,
            },
            "subjects": [subject],
        },
    )  # fmt: skip


def may(cluster: Kubernetes, user: str, namespace: str, row: tuple[str, str, str]) -> bool:
    """What `kubectl auth can-i --as USER` asks."""
    group, resource, verb = row
    plural, _, subresource = resource.partition("/")
    attributes = {
        "group": group, "resource": plural, "subresource": subresource, "verb": verb,
        "namespace": namespace,
    }  # fmt: skip
    review = {"spec": {"resourceAttributes": attributes}}
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    code, text = cluster.ask("POST", path, json.dumps(review).encode(), user=user)
    assert code == 201, text
    found: bool = json.loads(text)["status"]["allowed"]
    return found


@pytest.mark.parametrize("name", clusterroles.NAMES)
def test_a_cluster_says_of_each_row_what_we_say(cluster: Kubernetes, name: str) -> None:
    role = clusterroles.NAMES[name]
    bind(cluster, OURS, name, {"kind": "User", "name": name, "apiGroup": RBAC.split("/")[2]})
    rows = list(clusterroles.served())
    wrong = [
        row
        for row in rows
        # In a cluster organizations are in no namespace; a RoleBinding does not reach them.
        if row[1] != "organizations"
        if may(cluster, name, OURS, row) is not clusterroles.allowed(role, row[1], row[2])
    ]
    assert wrong == []
    for row in rows[::10]:
        assert not may(cluster, name, THEIRS, row), row
    allowed = sum(clusterroles.allowed(role, row[1], row[2]) for row in rows)
    assert 0 < allowed < len(rows)
    print(f"{name}: {allowed} of {len(rows)}")


def test_kubectl_is_told_the_same(cluster: Kubernetes) -> None:
    bind(cluster, OURS, "flightctl-installer", {"kind": "User", "name": "olga"} | _GROUP)
    done = kubectl(cluster, "auth", "can-i", "--list", "-n", OURS, "--as", "olga")
    told = {line.split()[0]: line for line in done.stdout.splitlines() if ".flightctl.io" in line}
    assert set(told) == {
        "enrollmentrequests.flightctl.io",
        "enrollmentrequests.flightctl.io/approval",
        "certificatesigningrequests.flightctl.io",
        "organizations.flightctl.io",
    }, done.stdout + done.stderr
    assert "[patch update]" in told["enrollmentrequests.flightctl.io/approval"]


_GROUP = {"apiGroup": "rbac.authorization.k8s.io"}


def kubectl(cluster: Kubernetes, *argv: str) -> subprocess.CompletedProcess[str]:
    server = ("--server", cluster.url, "--token", kubernetes.TOKEN, "--insecure-skip-tls-verify")
    return subprocess.run(
        [str(binaries()[-1]), *server, *argv], capture_output=True, text=True, timeout=60
    )
