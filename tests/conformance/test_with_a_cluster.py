"""Kubernetes as the one who says who may do what: a real kube-apiserver beside the service."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from apiserver.auth import clusterroles, verdicts
from cli import sessions
from tests.conformance.conftest import binaries, fleet
from tests.e2e import processes
from tests.fakes import apiserver_process, kubernetes, people
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
    role = clusterroles.NAMES["flightctl-installer"]
    assert set(told) == {
        f"{plural}.{group}{slash}{subresource}"
        for group, resource, verb in clusterroles.served()
        for plural, slash, subresource in [resource.partition("/")]
        if group == "flightctl.io" and clusterroles.allowed(role, resource, verb)
    }, done.stdout + done.stderr
    assert "[patch update]" in told["enrollmentrequests.flightctl.io/approval"]


@pytest.fixture(scope="module")
def server(
    cluster: Kubernetes, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[apiserver_process.Process]:
    """The service, which asks the cluster as a ServiceAccount that may do that and no more."""
    home = tmp_path_factory.mktemp("service")
    cluster.make("/api/v1/namespaces", {"metadata": {"name": RBAC_NS}})
    rules = [
        {
            "apiGroups": ["authentication.k8s.io"],
            "resources": ["tokenreviews"],
            "verbs": ["create"],
        },
        {"apiGroups": [_GROUP["apiGroup"]], "resources": ["rolebindings"], "verbs": ["list"]},
    ]
    cluster.make(f"{RBAC}/clusterroles", {"metadata": {"name": "asks"}, "rules": rules})
    cluster.make(f"{RBAC}/clusterrolebindings", {
        "metadata": {"name": "asks"},
        "roleRef": _GROUP | {"kind": "ClusterRole", "name": "asks"},
        "subjects": [{"kind": "ServiceAccount", "name": "homeport", "namespace": RBAC_NS}],
    })  # fmt: skip
    token, authority = home / "token", home / "ca.crt"
    token.write_text(service_account(cluster, "homeport"))
    authority.write_text(cluster.authority)
    file = home / "providers.yaml"
    file.write_text(yaml.safe_dump({
        "apiVersion": "flightctl.io/v1beta1", "kind": "AuthProvider", "metadata": {"name": "k8s"},
        "spec": {
            "providerType": "k8s", "apiUrl": cluster.url, "rbacNs": RBAC_NS, "roleSuffix": "here",
            "tokenFile": str(token), "caFile": str(authority),
        },
    }))  # fmt: skip
    with apiserver_process.running(home / "data", "--auth-providers", str(file)) as server:
        yield server


RBAC_NS = "homeport-system"


def service_account(
    cluster: Kubernetes, name: str, *, audience: str = "", lasts_s: int = 3600
) -> str:
    """A token of that ServiceAccount, which is made if it is not there."""
    path = f"/api/v1/namespaces/{RBAC_NS}/serviceaccounts"
    if cluster.ask("GET", f"{path}/{name}")[0] == 404:
        cluster.make(path, {"metadata": {"name": name}})
    spec: dict[str, object] = {"expirationSeconds": lasts_s}
    if audience:
        spec["audiences"] = [audience]
    token: str = cluster.make(f"{path}/{name}/token", {"spec": spec})["status"]["token"]
    return token


def give(cluster: Kubernetes, account: str, role: str) -> None:
    subject = {"kind": "ServiceAccount", "name": account, "namespace": RBAC_NS}
    bind(cluster, RBAC_NS, role, subject)


def test_a_service_account_has_the_roles_of_its_bindings(
    cluster: Kubernetes, server: apiserver_process.Process, tmp_path: Path
) -> None:
    deployer = people.Person(tmp_path, server, "deployer")
    token = service_account(cluster, "deployer")
    said = people.Person.end(deployer.begin("--token", token))
    assert f"logged in as system:serviceaccount:{RBAC_NS}:deployer" in said
    people.refused(deployer.kubectl("get", "fleets"), "forbidden")

    # As the chart calls them: with what tells this installation from others.
    give(cluster, "deployer", "flightctl-operator-here")
    until(lambda: deployer.kubectl("get", "fleets").returncode == 0)
    assert deployer.kubectl("apply", "-f", "-", stdin=fleet("web")).returncode == 0
    people.refused(deployer.kubectl("create", "ns", "theirs"), "forbidden")
    other = tmp_path / "other"
    other.mkdir()
    token = service_account(cluster, "other")
    people.Person.end(people.Person(other, server, "other").begin("--token", token))
    people.refused(people.Person(other, server, "other").kubectl("get", "fleets"), "forbidden")

    cluster.ask("DELETE", f"{RBAC}/namespaces/{RBAC_NS}/rolebindings")
    until(lambda: "forbidden" in deployer.kubectl("get", "fleets").stderr)
    cluster.ask("DELETE", f"/api/v1/namespaces/{RBAC_NS}/serviceaccounts/deployer")
    until(lambda: "You must be logged in" in deployer.kubectl("get", "fleets").stderr)


def until(claim: Callable[[], bool]) -> None:
    """Within seconds: the cluster's own caches, and ours."""
    processes.until(claim, "it counts", timeout_s=verdicts.GOOD_S + 15)


def test_tokens_that_the_cluster_does_not_take(
    cluster: Kubernetes, server: apiserver_process.Process, tmp_path: Path
) -> None:
    nobody = people.Person(tmp_path, server, "nobody")
    elsewhere = service_account(cluster, "nobody", audience="vault")
    token = service_account(cluster, "nobody")
    head, body, _ = token.split(".")
    _, _, signature = elsewhere.split(".")
    for wrong in (elsewhere, f"{head}.{body}.{signature}", "opaque"):
        assert "the cluster does not take the token" in nobody.refused_with(wrong)


def test_a_cluster_has_no_login(server: apiserver_process.Process, tmp_path: Path) -> None:
    nobody = people.Person(tmp_path, server, "nobody")
    for how in ("--no-browser", "--device"):
        _, errors = nobody.begin(how).communicate(timeout=60)
        assert "kubectl create token" in errors
    status, config = sessions.Service(server.url, nobody.authority().read_text()).ask("config")
    assert status == 200
    (spec,) = [each["spec"] for each in config["providers"]]
    assert "tokenFile" not in spec, "it is of the service's machine"


_GROUP = {"apiGroup": "rbac.authorization.k8s.io"}


def kubectl(cluster: Kubernetes, *argv: str) -> subprocess.CompletedProcess[str]:
    server = ("--server", cluster.url, "--token", kubernetes.TOKEN, "--insecure-skip-tls-verify")
    return subprocess.run(
        [str(binaries()[-1]), *server, *argv], capture_output=True, text=True, timeout=60
    )
