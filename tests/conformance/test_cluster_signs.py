"""Kubernetes as the one who signs: the certificates API of a real kube-apiserver. The test plays
the approver and the signing controller, which a cluster has of its own, over the same API."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from apiserver.approvals import ENROLLMENT_REQUEST
from apiserver.pki import pacing
from resources import conditions
from tests.fakes import agent_service, kubernetes
from tests.fakes.agent_client import Agent, Connection
from tests.fakes.agent_service import PERSON, AgentService
from tests.fakes.http_signer import HttpSigner
from tests.fakes.kubernetes import Kubernetes
from tests.fakes.waiting import PATIENCE_S, until

pytestmark = [
    pytest.mark.skipif(
        not kubernetes.is_built(), reason="no kube-apiserver: run tests/setup/kubernetes.sh"
    ),
    pytest.mark.timeout(180),
]

Json = dict[str, Any]

RBAC = "/apis/rbac.authorization.k8s.io/v1"
CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
ACCOUNTS = "/api/v1/namespaces/default/serviceaccounts"
SIGNER = "example.com/devices"
# What docs/how-to/signers.md says, and no more.
RULE = {
    "apiGroups": ["certificates.k8s.io"],
    "resources": ["certificatesigningrequests"],
    "verbs": ["create", "get", "delete"],
}


@dataclass
class Cluster:
    """A cluster with a signer, from its administrator's side."""

    kubernetes: Kubernetes
    signer: HttpSigner
    is_permitted: bool = False

    def permit(self) -> None:
        """Homeport's account gets its rights."""
        if self.is_permitted:
            return
        self.is_permitted = True
        account = {"kind": "ServiceAccount", "name": "homeport", "namespace": "default"}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "homeport"}
        made = {"metadata": {"name": "homeport"}}
        self.kubernetes.make(f"{RBAC}/clusterroles", made | {"rules": [RULE]})
        binding = made | {"roleRef": role, "subjects": [account]}
        self.kubernetes.make(f"{RBAC}/clusterrolebindings", binding)

    def forbid(self) -> None:
        self.is_permitted = False
        for plural in ("clusterrolebindings", "clusterroles"):
            assert self.kubernetes.ask("DELETE", f"{RBAC}/{plural}/homeport")[0] == 200

    def objects(self) -> list[Json]:
        found: list[Json] = json.loads(self.kubernetes.ask("GET", CSRS)[1])["items"]
        return found

    def of(self, agent: Agent) -> Json:
        key = "homeport.dev/name"
        made = [o for o in self.objects() if o["metadata"]["annotations"].get(key) == agent.name]
        assert len(made) <= 1, "made twice"
        return made[0] if made else {}

    def decide(self, found: Json, decision: str, message: str = "") -> None:
        said = {"type": decision, "status": "True", "reason": "Test", "message": message}
        part = "status" if decision == "Failed" else "approval"
        self._put(found, part, {"conditions": [said]})

    def sign(self, found: Json, *, is_bare: bool = False) -> None:
        said = found["metadata"]["annotations"]
        prefix = "homeport.dev/extension."
        wanted = [
            {
                "oid": key.removeprefix(prefix),
                "der": (bytes([0x13, len(text)]) + text.encode()).hex(),
            }
            for key, text in said.items()
            if key.startswith(prefix) and not is_bare
        ]
        order = {
            "uid": found["metadata"]["uid"],
            "request": base64.b64decode(found["spec"]["request"]).decode(),
            "commonName": said["homeport.dev/common-name"],
            "expirationSeconds": found["spec"]["expirationSeconds"],
            "extensions": wanted,
        }
        pem = self.signer.sign(order).encode()
        self._put(found, "status", {"certificate": base64.b64encode(pem).decode()})

    def forget(self, found: Json) -> None:
        assert self.kubernetes.ask("DELETE", f"{CSRS}/{found['metadata']['name']}")[0] == 200

    def _put(self, found: Json, part: str, status: Json) -> None:
        path = f"{CSRS}/{found['metadata']['name']}/{part}"
        now = json.loads(self.kubernetes.ask("GET", path.rpartition("/")[0])[1])
        body = now | {"status": now.get("status", {}) | status}
        code, text = self.kubernetes.ask("PUT", path, json.dumps(body).encode())
        assert code == 200, text


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("signing")
    with kubernetes.running(folder / "kubernetes") as running:
        running.make(ACCOUNTS, {"metadata": {"name": "homeport"}})
        signer = HttpSigner(folder)
        signer.configuration()
        yield Cluster(running, signer)


@pytest.fixture
async def service(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AgentService]:
    monkeypatch.setattr(pacing, "FIRST_S", 0.05)
    monkeypatch.setattr(pacing, "PENDING_S_MAX", 0.2)
    monkeypatch.setattr(pacing, "UNAVAILABLE_S_MAX", 0.2)
    monkeypatch.setattr(pacing, "UNUSABLE_S_MAX", 0.2)
    token = cluster.kubernetes.make(f"{ACCOUNTS}/homeport/token", {"spec": {}})["status"]["token"]
    (tmp_path / "token").write_text(token)
    management = {
        "type": "kubernetes",
        "url": cluster.kubernetes.url,
        "signerName": SIGNER,
        "trustFile": str(cluster.signer.directory / "outside-ca.pem"),
        "caFile": str(cluster.signer.directory / "kubernetes" / "certs" / "apiserver.crt"),
        "tokenFile": str(tmp_path / "token"),
        "expirationSeconds": 3600,
    }
    file = tmp_path / "signers.yaml"
    file.write_text(yaml.safe_dump({"management": management}))
    async with agent_service.serving(tmp_path / "data", signers_file=file) as running:
        yield running


async def object_of(cluster: Cluster, agent: Agent) -> Json:
    found: Json = await until(lambda: asyncio.to_thread(cluster.of, agent))
    return found


async def says(service: AgentService, agent: Agent, words: str, kind: str = "Issued") -> None:
    async def look() -> bool:
        found = await service.operations.get(PERSON, ENROLLMENT_REQUEST, "default", agent.name)
        said = conditions.get(found["status"]["conditions"], kind) or {}
        return words in said.get("message", "")

    await until(look)


async def approved(service: AgentService, factory: Connection) -> Agent:
    agent = service.agent()
    assert (await agent.enrol(factory)).code == 201
    await service.approve(agent.name)
    return agent


async def test_an_account_without_rights_is_told_which(
    service: AgentService, cluster: Cluster
) -> None:
    if cluster.is_permitted:
        cluster.forbid()
    async with service.connection() as factory:
        agent = await approved(service, factory)
        await says(service, agent, 'User "system:serviceaccount:default:homeport" cannot')
        await asyncio.to_thread(cluster.permit)
        await object_of(cluster, agent)


async def test_a_cluster_signs_what_it_approved(service: AgentService, cluster: Cluster) -> None:
    cluster.permit()
    async with service.connection() as factory:
        agent = await approved(service, factory)
        found = await object_of(cluster, agent)
        assert found["spec"]["signerName"] == SIGNER
        assert found["spec"]["expirationSeconds"] == 3600
        assert found["spec"]["username"] == "system:serviceaccount:default:homeport"
        await says(service, agent, "not approved in the cluster yet")
        await asyncio.to_thread(cluster.decide, found, "Approved")
        await says(service, agent, "approved in the cluster, not signed yet")
        await asyncio.to_thread(cluster.sign, found)
        async with asyncio.timeout(PATIENCE_S):
            pem = await agent.wait_for_certificate(factory)
    async with agent.connection(pem) as managed:
        assert (await agent.poll(managed)).code == 200


@pytest.mark.parametrize("decision", ["Denied", "Failed"])
async def test_a_clusters_refusal_is_final_and_its_object_goes(
    service: AgentService, cluster: Cluster, decision: str
) -> None:
    cluster.permit()
    async with service.connection() as factory:
        agent = await approved(service, factory)
        found = await object_of(cluster, agent)
        await asyncio.to_thread(cluster.decide, found, decision, "not one of our machines")
        said = f"{decision.lower()} in the cluster: not one of our machines"
        await says(service, agent, said, "Failed")

        async def is_gone() -> bool:
            return not await asyncio.to_thread(cluster.of, agent)

        await until(is_gone)


async def test_a_certificate_that_is_no_good_is_made_anew_when_its_object_is_deleted(
    service: AgentService, cluster: Cluster
) -> None:
    """Kubernetes lets nobody replace it, and forgets it by itself within the hour."""
    cluster.permit()
    async with service.connection() as factory:
        agent = await approved(service, factory)
        found = await object_of(cluster, agent)
        await asyncio.to_thread(cluster.decide, found, "Approved")
        await asyncio.to_thread(lambda: cluster.sign(found, is_bare=True))
        await says(service, agent, "extension 1.3.6.1.4.1.99999.1.1 must be")
        await asyncio.to_thread(cluster.forget, found)

        async def again() -> Json:
            new = await asyncio.to_thread(cluster.of, agent)
            return new if new and new["metadata"]["uid"] != found["metadata"]["uid"] else {}

        new = await until(again)
        assert new["metadata"]["name"] == found["metadata"]["name"]
        await asyncio.to_thread(cluster.decide, new, "Approved")
        await asyncio.to_thread(cluster.sign, new)
        async with asyncio.timeout(PATIENCE_S):
            await agent.wait_for_certificate(factory)
