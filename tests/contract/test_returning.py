"""A device whose certificate expired comes back: same key, same name, approved again, kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from apiserver import errors
from apiserver.approvals import ENROLLMENT_REQUEST
from apiserver.pki import requests, signers
from tests.fakes import agent_client
from tests.fakes.agent_client import Agent
from tests.fakes.agent_service import PERSON, AgentService, serving


@pytest.fixture
async def service(tmp_path: Path, database_url: str) -> AsyncIterator[AgentService]:
    async with serving(tmp_path, database=database_url) as running:
        yield running


async def give(service: AgentService, agent: Agent, lifetime: timedelta) -> None:
    """The certificate in its request becomes one of this lifetime, as if time had passed."""
    csr = requests.parse(agent_client.signing_request(agent.key, agent.name).encode())
    pem = service.authority.issue_client(
        csr,
        common_name=f"device:{agent.name}",
        signer=signers.DEVICE_ENROLLMENT,
        organization=UUID(int=0),
        fingerprint=f"device:{agent.name}",
        lifetime=lifetime,
    )
    kind = ENROLLMENT_REQUEST
    old = await service.operations.get(PERSON, kind, "default", agent.name)
    new = old | {"status": old["status"] | {"certificate": pem.decode()}}
    await service.store.write(lambda tx: tx.update(kind, old, new))


async def test_it_asks_again_is_approved_again_and_is_the_device_that_it_was(
    service: AgentService,
) -> None:
    agent = service.agent()
    async with await service.admitted(agent):
        pass
    await service.change(agent.name, spec={"config": []})
    before = await service.device(agent.name)
    await give(service, agent, timedelta(seconds=1))
    await asyncio.sleep(2)
    async with service.connection() as factory:
        assert (await agent.enrol(factory, labels={"site": "mars"})).code == 201
        shown = (await factory.send("GET", f"/enrollmentrequests/{agent.name}")).json["status"]
        assert "certificate" not in shown
        assert [c["type"] for c in shown["conditions"]] == ["CertificateExpired"]
        assert (await agent.enrol(factory)).code == 409, "asked once, it waits"
        given = await service.approve(agent.name, labels={"room": "7"})
        assert given is not None
        assert given["labels"] == {"alias": "h", "room": "7"}
        pem = await agent.wait_for_certificate(factory)
        assert (await agent.enrol(factory)).code == 409, "a repeated request opens nothing"
    async with agent.connection(pem) as managed:
        assert (await agent.poll(managed)).code == 200
    after = await service.device(agent.name)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"] == before["spec"]
    assert after["metadata"]["labels"] == {"alias": "h", "room": "7"}


async def test_it_can_be_denied_and_the_device_stays(service: AgentService) -> None:
    agent = service.agent()
    async with await service.admitted(agent):
        pass
    await give(service, agent, timedelta(seconds=1))
    await asyncio.sleep(2)
    async with service.connection() as factory:
        assert (await agent.enrol(factory)).code == 201
        await service.approve(agent.name, approved=False)
        shown = (await factory.send("GET", f"/enrollmentrequests/{agent.name}")).json["status"]
        assert "Denied" in {condition["type"] for condition in shown["conditions"]}
        assert (await agent.enrol(factory)).code == 409
    assert await service.device(agent.name)


async def test_a_certificate_that_is_valid_opens_nothing(service: AgentService) -> None:
    agent = service.agent()
    async with await service.admitted(agent):
        pass
    await give(service, agent, timedelta(hours=1))
    async with service.connection() as factory:
        assert (await agent.enrol(factory)).code == 409
    with pytest.raises(errors.BadRequest, match="already approved"):
        await service.approve(agent.name)
