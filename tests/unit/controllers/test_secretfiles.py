"""How the host cluster is found, and what its answers mean."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controllers.secretfiles import HostCluster
from controllers.sources import Unusable
from tests.fakes import host_cluster
from tests.fakes.host_cluster import Cluster

REFERENCE = {"name": "s", "namespace": "n", "mountPath": "/etc/s/"}


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with host_cluster.running(tmp_path) as found:
        yield found


async def why(host: HostCluster) -> Unusable:
    with pytest.raises(Unusable) as caught:
        await host.fetch(REFERENCE)
    return caught.value


async def test_each_key_is_a_file_below_the_mount_path(cluster: Cluster) -> None:
    revision = cluster.put("n", "s", b=b"\xff", a=b"")
    host = HostCluster(cluster.kubeconfig)
    found = await host.fetch(REFERENCE | {"user": "me", "group": "us"})
    assert (found.revision, found.is_secret) == (revision, True)
    assert [(c.path, c.blob, c.user, c.group, c.mode) for c in found.contents] == [
        ("/etc/s/a", b"", "me", "us", 0o644),
        ("/etc/s/b", b"\xff", "me", "us", 0o644),
    ]
    cluster.put("n", "s")
    assert (await host.fetch(REFERENCE)).contents == []


async def test_what_is_wrong_is_told_apart(cluster: Cluster, tmp_path: Path) -> None:
    host = HostCluster(cluster.kubeconfig)
    missing = await why(host)
    assert "Secret n/s does not exist" in missing.cause
    assert not missing.is_passing
    cluster.put("n", "s", **{"..": b"x"})
    assert "cannot be the name of a file" in (await why(host)).cause
    cluster.token = "another"
    assert "Role" in (await why(host)).cause
    away = await why(HostCluster(cluster.kubeconfig.with_name("none")))
    assert "kubernetes API is not available" in away.cause


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        pytest.param({}, "--host-kubeconfig", id="no cluster"),
        pytest.param({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, "no service account", id="no token"),
    ],
)
async def test_without_a_cluster_it_says_so(
    environment: dict[str, str], words: str, tmp_path: Path
) -> None:
    problem = await why(HostCluster(environment=environment, account=tmp_path))
    assert "kubernetes API is not available" in problem.cause
    assert words in problem.cause
    assert not problem.is_passing


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_cluster_that_does_not_answer_may_answer_later(tmp_path: Path, host: str) -> None:
    account = tmp_path / "account"
    account.mkdir()
    from tests.fakes.service import Authority

    (account / "ca.crt").write_bytes(Authority().pem)
    (account / "token").write_text("t")
    environment: dict[str, Any] = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": "1"}
    problem = await why(HostCluster(environment=environment, account=account))
    assert problem.is_passing
    assert "did not answer" in problem.cause
