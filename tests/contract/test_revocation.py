"""Revoked certificates, from the side of those who have them: out within seconds, polls that are
held too, on every process; and nobody else is."""

from __future__ import annotations

import asyncio
import base64
import shutil
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from apiserver import errors, housekeeping
from apiserver.certifying import SIGNING_REQUEST
from apiserver.operations import WriteOptions
from apiserver.pki.revocations import REVOCATION
from tests.fakes.agent_client import Answer
from tests.fakes.agent_service import HELD, PERSON, AgentService, serving
from tests.fakes.waiting import PATIENCE_S


@pytest.fixture
async def service(tmp_path: Path, database_url: str) -> AsyncIterator[AgentService]:
    async with serving(tmp_path, HELD, database=database_url) as running:
        yield running


@pytest.fixture
def shared_url(new_database: Callable[[str], str]) -> str:
    """Here, since a database is made outside of any loop."""
    return new_database("postgresql")


async def revoke(service: AgentService, namespace: str = "default", **spec: Any) -> str:
    document = {"metadata": {"generateName": "r-"}, "spec": spec}
    written = await service.operations.create(
        PERSON, REVOCATION, namespace, document, WriteOptions()
    )
    return str(written.document["metadata"]["name"])


def serial_of(pem: str) -> str:
    """As openssl prints it."""
    return f"{x509.load_pem_x509_certificate(pem.encode()).serial_number:X}"


def assert_out(answer: Answer) -> None:
    assert answer.code == 401, answer
    assert "revoked" in answer.json["message"]


async def within(seconds: float, ask: Any, code: int) -> Answer:
    """The answer, once it has this code."""
    deadline = time.monotonic() + seconds
    while True:
        answer: Answer = await ask()
        if answer.code == code or time.monotonic() > deadline:
            assert answer.code == code, answer
            return answer
        await asyncio.sleep(0.05)


async def test_a_revoked_device_is_out_and_its_held_poll_ends(service: AgentService) -> None:
    one, other = service.agent(), service.agent()
    async with await service.admitted(one) as revoked, await service.admitted(other) as kept:
        held = asyncio.create_task(one.poll(revoked, "1"))
        others = asyncio.create_task(other.poll(kept, "1"))
        await asyncio.sleep(0.3)
        name = await revoke(service, device=one.name, reason="stolen")
        async with asyncio.timeout(PATIENCE_S):
            assert_out(await held)
        assert_out(await one.report(revoked, {}))
        assert_out(
            await revoked.send("POST", "/certificatesigningrequests", json=one.renewal_body())
        )
        assert not others.done(), "who was not meant goes on"
        others.cancel()
        await service.operations.delete(PERSON, REVOCATION, "default", name)
        await within(PATIENCE_S, lambda: one.poll(revoked), 200)


async def test_by_serial_number_one_certificate_is_out_and_its_successor_is_not(
    service: AgentService,
) -> None:
    agent = service.agent()
    async with await service.admitted(agent) as managed:
        answer = await managed.send(
            "POST", "/certificatesigningrequests", json=agent.renewal_body()
        )
        renewed = base64.b64decode(answer.json["status"]["certificate"]).decode()
        first = (agent.directory / f"{agent.name}.crt").read_text()
        held = asyncio.create_task(agent.poll(managed, "1"))
        await asyncio.sleep(0.3)
        await revoke(service, serial=serial_of(first))
        async with asyncio.timeout(PATIENCE_S):
            assert_out(await held)
    async with agent.connection(renewed) as managed:
        assert (await agent.poll(managed)).code == 200


async def test_an_enrolment_certificate_that_leaked_lets_nobody_ask(service: AgentService) -> None:
    async with service.connection() as factory:
        path = "/enrollmentrequests/aaaaaaaaaaaaaaaaaaaa"
        assert (await factory.send("GET", path)).code == 404
        pem = (service.directory / "some.crt").read_text()
        await revoke(service, serial=serial_of(pem))
        assert_out(await within(PATIENCE_S, lambda: factory.send("GET", path), 401))


async def test_another_organisation_can_not_revoke_ours(service: AgentService) -> None:
    await service.add_organization("theirs")
    agent = service.agent()
    async with await service.admitted(agent) as managed:
        pem = (agent.directory / f"{agent.name}.crt").read_text()
        await revoke(service, "theirs", device=agent.name)
        await revoke(service, "theirs", serial=serial_of(pem))
        mark = await revoke(service, device="somebody-else")
        assert mark
        await asyncio.sleep(2.5)
        assert (await agent.poll(managed)).code == 200


async def test_a_request_of_a_revoked_device_is_not_approved(service: AgentService) -> None:
    agent = service.agent()
    await revoke(service, device=agent.name)
    async with service.connection() as factory:
        assert (await agent.enrol(factory)).code == 201
    with pytest.raises(errors.Conflict, match="revoked"):
        await service.approve(agent.name)


async def test_what_would_have_expired_is_forgotten(service: AgentService) -> None:
    now = datetime.now(UTC)
    past = (now - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    await revoke(service, serial="AB:CD", until=past)
    kept = await revoke(service, serial="AB:CE")
    device = await revoke(service, device="gone")
    names = await left(service, now)
    assert names == {kept, device}
    assert await left(service, now + timedelta(days=365)) == {kept, device}
    assert await left(service, now + timedelta(days=367)) == {kept}
    assert await left(service, now + timedelta(days=3651)) == set()


async def left(service: AgentService, now: datetime) -> set[str]:
    await housekeeping.forget_revocations(service.operations, now)
    found = await service.store.read(lambda s: s.list(REVOCATION, None))
    return {document["metadata"]["name"] for document in found}


async def test_every_process_on_the_database_hears_of_it(tmp_path: Path, shared_url: str) -> None:
    async with serving(tmp_path / "a", HELD, database=shared_url) as first:
        shutil.copytree(tmp_path / "a" / "pki", tmp_path / "b" / "pki")
        async with serving(tmp_path / "b", HELD, database=shared_url) as second:
            agent = first.agent()
            async with await first.admitted(agent):
                pass
            pem = (agent.directory / f"{agent.name}.crt").read_text()
            agent.url = second.url
            async with agent.connection(pem) as managed:
                held = asyncio.create_task(agent.poll(managed, "1"))
                await asyncio.sleep(0.3)
                await revoke(first, device=agent.name)
                async with asyncio.timeout(PATIENCE_S):
                    assert_out(await held)
                assert_out(await agent.poll(managed))


async def test_requests_of_devices_are_forgotten_and_those_of_people_are_not(
    service: AgentService,
) -> None:
    agent = service.agent()
    body = agent.renewal_body()
    async with await service.admitted(agent) as managed:
        answer = await managed.send("POST", "/certificatesigningrequests", json=body)
        assert answer.code == 201
    people = body | {"metadata": {"name": "of-a-person"}}
    await service.store.write(
        lambda tx: service.operations.insert_in(tx, PERSON, SIGNING_REQUEST, people, "default")
    )
    now = datetime.now(UTC)
    assert await housekeeping.forget_renewals(service.operations, now - timedelta(hours=1)) == 0
    assert await housekeeping.forget_renewals(service.operations, now + timedelta(hours=1)) == 1
    found = await service.store.read(lambda s: s.list(SIGNING_REQUEST, None))
    assert [document["metadata"]["name"] for document in found] == ["of-a-person"]
