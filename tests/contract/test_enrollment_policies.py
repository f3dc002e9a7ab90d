"""Machines that a policy lets in, over the real agent API and on both stores; on PostgreSQL by two
processes' loops at once."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from apiserver import admitting, approvals
from apiserver.admitting import Admitting
from apiserver.builtins.events import STORED as EVENT
from apiserver.operations import ListOptions, Operations, WriteOptions
from apiserver.store import Store
from resources import conditions
from resources.registry import CERTIFICATE_REVOCATION, DEVICE, ENROLLMENT_POLICY, ENROLLMENT_REQUEST
from tests.fakes.agent_client import Agent, device_status
from tests.fakes.agent_service import PERSON, AgentService
from tests.fakes.waiting import until

Json = dict[str, Any]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admitting, "GAP_S", 0.02)


@asynccontextmanager
async def policies_at_work(service: AgentService, *others: Operations) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        loops = [
            group.create_task(Admitting(operations, service.issuing).run())
            for operations in (service.operations, *others)
        ]
        yield
        for each in loops:
            each.cancel()


async def apply(service: AgentService, name: str, **spec: Any) -> None:
    document = {"metadata": {"name": name}, "spec": spec}
    await service.operations.update(
        PERSON, ENROLLMENT_POLICY, "default", name, document, WriteOptions(), create_missing=True
    )


async def get(service: AgentService, name: str) -> Json:
    return await service.operations.get(PERSON, ENROLLMENT_REQUEST, "default", name)


async def admitted_by(service: AgentService, name: str) -> int:
    found = await service.operations.get(PERSON, ENROLLMENT_POLICY, "default", name)
    return int((found.get("status") or {}).get("admitted") or 0)


def is_approved(request: Json) -> bool:
    return bool((request["status"].get("approval") or {}).get("approved"))


async def asked(service: AgentService, **info: Any) -> Agent:
    """A machine that has asked, and says that of itself."""
    agent = service.agent()
    status = device_status()
    status["systemInfo"] |= info
    async with service.connection() as factory:
        assert (await agent.enrol(factory, deviceStatus=status)).code == 201
    return agent


async def test_a_request_that_came_before_its_policy_is_let_in_and_it_is_told_by_which(
    anywhere: AgentService,
) -> None:
    early = await asked(anywhere, productSerial="S1")
    stranger = await asked(anywhere, productSerial="S9")
    async with policies_at_work(anywhere):
        await apply(anywhere, "line-4", serialNumbers=["S1", "S2"], labels={"site": "x"})
        async with anywhere.connection() as factory:
            certificate = await early.wait_for_certificate(factory)
        async with early.connection(certificate) as managed:
            device = (await early.poll(managed)).json
        assert device["metadata"]["labels"] == {"alias": "h", "site": "x"}
        late = await asked(anywhere, productSerial="S2")
        await until(lambda: is_let_in(anywhere, late))
        assert not await is_let_in(anywhere, stranger)

    request = await get(anywhere, early.name)
    assert request["status"]["approval"]["approvedBy"] == "EnrollmentPolicy/line-4"
    condition = conditions.get(request["status"]["conditions"], "Approved") or {}
    assert condition["reason"] == "ApprovedByPolicy"
    assert condition["message"] == "Approved by EnrollmentPolicy/line-4."
    events = (await anywhere.operations.list(PERSON, EVENT, "default", ListOptions())).items
    told = {
        (e["spec"]["involvedObject"]["name"], e["spec"]["reason"], e["spec"]["message"])
        for e in events
        if e["spec"]["involvedObject"]["kind"] == "EnrollmentRequest"
        and e["spec"]["reason"] != "ResourceCreated"
    }
    why = ("EnrollmentRequestApproved", "Approved by EnrollmentPolicy/line-4.")
    assert told == {(early.name, *why), (late.name, *why)}
    policy = await anywhere.operations.get(PERSON, ENROLLMENT_POLICY, "default", "line-4")
    assert policy["status"]["admitted"] == 2
    assert policy["status"]["lastAdmitted"] == late.name


async def is_let_in(service: AgentService, agent: Agent) -> bool:
    return is_approved(await get(service, agent.name))


async def test_by_the_certificate_that_it_came_with(service: AgentService) -> None:
    mine, other = service.agent(), service.agent()
    connection = service.connection("client-enrollment-line-4")
    pem = (service.directory / "some.crt").read_text()
    der = ssl.PEM_cert_to_DER_cert(pem[: pem.index("-----BEGIN", 1)])
    async with connection as factory:
        await mine.enrol(factory)
    async with service.connection() as factory:
        # It can say what it likes of itself.
        forged = {"enrollmentCertificate": {"commonName": "client-enrollment-line-4"}}
        body = other.request_body() | {"status": forged}
        assert (await factory.send("POST", "/enrollmentrequests", json=body)).code == 201
        seen = await factory.send("GET", f"/enrollmentrequests/{mine.name}")
        assert "enrollmentCertificate" not in seen.json["status"]
    async with policies_at_work(service):
        await apply(
            service,
            "line",
            certificateRequests=["line-4"],
            certificateFingerprints=[hashlib.sha256(der).hexdigest()],
            certificateAuthorities=[
                (await get(service, mine.name))["status"]["enrollmentCertificate"]["authority"]
            ],
        )
        await until(lambda: is_let_in(service, mine))
        await apply(service, "nobody", certificateRequests=["line-5"])
        await asyncio.sleep(0.3)
        assert not await is_let_in(service, other)


async def test_a_limit_holds_though_many_come_at_once_and_more_come_when_it_is_raised(
    anywhere: AgentService, database_url: str, tmp_path: Path
) -> None:
    agents = [anywhere.agent() for _ in range(12)]
    async with anywhere.connection() as factory:
        for agent in agents:
            assert (await agent.enrol(factory)).code == 201

    async def count() -> int:
        return await anywhere.store.read(lambda s: s.count(DEVICE, "default"))

    async with AsyncExitStack() as stack:
        others = []
        if database_url:
            # Another process, and one that thinks it has the lease: the transaction decides.
            store = await Store.open(database_url, data_dir=tmp_path / "other")
            stack.push_async_callback(store.close)
            others.append(Operations(store))

            async def always(name: str, for_s: float) -> bool:
                return True

            store.lease = always  # type: ignore[method-assign]
        async with policies_at_work(anywhere, *others):
            await apply(anywhere, "five", selector={}, limit=5)
            await until(lambda: is_count(count, 5))
            await asyncio.sleep(0.3)
            assert await count() == await admitted_by(anywhere, "five") == 5
            await apply(anywhere, "five", selector={}, limit=8)
            await until(lambda: is_count(count, 8))
            await asyncio.sleep(0.3)
            assert await count() == await admitted_by(anywhere, "five") == 8


async def is_count(count: Callable[[], Any], wanted: int) -> bool:
    return int(await count()) >= wanted


async def test_a_person_is_not_overruled(service: AgentService) -> None:
    agent = await asked(service)
    await approvals.approve_enrollment(
        service.operations, service.issuing, PERSON, "default", agent.name, {"approved": False}
    )
    async with policies_at_work(service):
        await apply(service, "all", selector={})
        other = await asked(service)
        await until(lambda: is_let_in(service, other))
        await asyncio.sleep(0.2)
        assert not await is_let_in(service, agent)


async def test_what_cannot_be_let_in_is_told_once_and_does_not_hold_up_the_others(
    service: AgentService,
) -> None:
    barred = await asked(service)
    revocation = {"metadata": {"name": "r"}, "spec": {"device": barred.name}}
    await service.operations.create(
        PERSON, CERTIFICATE_REVOCATION, "default", revocation, WriteOptions()
    )
    async with policies_at_work(service):
        await apply(service, "all", selector={})
        for _ in range(3):
            other = await asked(service)
            await until(lambda other=other: is_let_in(service, other))  # type: ignore[misc]
        assert not await is_let_in(service, barred)
    events = (await service.operations.list(PERSON, EVENT, "default", ListOptions())).items
    failed = [e["spec"] for e in events if e["spec"]["type"] == "Warning"]
    assert [e["involvedObject"]["name"] for e in failed] == [barred.name]
    assert "EnrollmentPolicy/all" in failed[0]["message"]


async def test_another_organisations_policy_is_nothing_to_it(service: AgentService) -> None:
    await service.add_organization("others")
    document = {"metadata": {"name": "all"}, "spec": {"selector": {}}}
    await service.operations.create(PERSON, ENROLLMENT_POLICY, "others", document, WriteOptions())
    agent = await asked(service)
    async with policies_at_work(service):
        await asyncio.sleep(0.5)
        assert not await is_let_in(service, agent)
