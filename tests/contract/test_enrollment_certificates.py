"""One enrolment certificate for many devices, and what such a certificate does not open.

Which routes there are is read from the routers of both faces: a new one is asked too.
"""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from agent import transport
from apiserver import app as apiserver_app
from apiserver.agentapi.app import create_agent_app
from apiserver.auth.certificates import by_certificate
from apiserver.operations import WriteOptions
from apiserver.pki.extensions import identity_of
from apiserver.pki.revocations import Revocations
from resources.registry import CERTIFICATE_REVOCATION
from tests.contract.test_authorization import ANYBODY, ROUTES
from tests.fakes.agent_client import Agent, Answer, Connection
from tests.fakes.agent_service import PERSON, AgentService, serving
from tests.fakes.waiting import PATIENCE_S, until

OPEN = {"POST /enrollmentrequests", "GET /enrollmentrequests/{name}"}
PREFIX = "/api/v1"


async def test_twenty_devices_enrol_at_once_with_one_certificate(anywhere: AgentService) -> None:
    shared = anywhere.connection()

    async def enrolled() -> Agent:
        agent = anywhere.agent()
        # Each with connections of its own, as twenty machines have them.
        async with elsewhere(shared) as factory:
            answer = await agent.enrol(factory)
            assert answer.code == 201, answer
            await anywhere.approve(agent.name, labels={"site": agent.name[:8]})
            certificate = await agent.wait_for_certificate(factory)
        async with agent.connection(certificate) as managed:
            answer = await agent.poll(managed)
            assert answer.code == 200, answer
            assert answer.json["metadata"]["name"] == agent.name
            assert answer.json["metadata"]["labels"]["site"] == agent.name[:8]
        return agent

    agents = await asyncio.gather(*(enrolled() for _ in range(20)))
    assert len({agent.name for agent in agents}) == 20


def elsewhere(shared: Connection) -> Connection:
    """Another machine with the same certificate."""
    other = Connection.__new__(Connection)
    other.base, other.tls, other._session = shared.base, shared.tls, None
    return other


async def test_it_opens_no_other_route_of_agents(service: AgentService) -> None:
    async with service.connection() as factory:
        agent = service.agent()
        assert (await agent.enrol(factory)).code == 201
        await service.approve(agent.name)
        asked = 0
        app = create_agent_app(service.operations, service.issuing, Revocations(service.store))
        for route in app.router.routes():
            assert route.resource is not None
            path = route.resource.canonical.removeprefix(PREFIX)
            if f"{route.method} {path}" in OPEN or route.method == "HEAD":
                continue
            answer = await factory.send(route.method, path.replace("{name}", agent.name), json={})
            assert answer.code == 401, f"{route.method} {path}: {answer}"
            assert "needs a certificate that was issued to a device" in answer.json["message"]
            asked += 1
        assert asked >= 5


async def test_it_opens_no_route_of_users(service: AgentService) -> None:
    face = apiserver_app.create_face(
        service.operations, service.issuing, by_certificate(identity_of, lambda _: None)
    )
    files = service.authority.server_files("user-server", ["127.0.0.1"])
    context = apiserver_app.user_context(*files, service.authority.client_ca_pem)
    runner = web.AppRunner(apiserver_app.create_user_app(face))
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
        url = f"https://127.0.0.1:{runner.addresses[0][1]}"
        async with service.connection() as factory:
            factory.base = url
            for route, who in ROUTES.items():
                if who == ANYBODY:
                    continue
                method, path = route.replace("* ", "GET ").split()
                for name, value in {
                    "{rest}": "namespaces/default/enrollmentrequests",
                    "{group}": "flightctl.io",
                    "{version}": "v1beta1",
                }.items():
                    path = path.replace(name, value)
                answer = await factory.send(method, path)
                assert answer.code == 401, f"{route}: {answer}"
                assert "this client certificate is not one for users" in answer.json["message"]
    finally:
        await runner.cleanup()


async def test_an_expired_one_is_refused_with_the_reason(service: AgentService) -> None:
    agent = service.agent()
    shared = service.connection(lifetime=timedelta(seconds=5))
    async with shared as factory:
        assert (await agent.enrol(factory)).code == 201

        async def refused() -> Answer | None:
            answer = await agent.enrol(factory)
            return answer if answer.code == 401 else None

        # On a connection that is older than that.
        answer = await until(refused)
        assert "the client certificate has expired" in answer.json["message"]
    async with elsewhere(shared) as factory:
        answer = await agent.enrol(factory)
        assert answer.code == 401
        assert "the client certificate has expired" in answer.json["message"]


async def test_our_agent_says_so_too(service: AgentService) -> None:
    service.connection(lifetime=timedelta(seconds=0))
    pem = (service.directory / "some.crt").read_bytes()
    shown = transport.Credentials(service.authority.server_ca_pem, pem, pem)
    client = transport.Client(service.url, lambda: shown)

    def ask() -> None:
        try:
            client.get("/enrollmentrequests/aaaaaaaaaaaaaaaaaaaa")
        finally:
            client.close()

    with pytest.raises(transport.Rejected, match="401: the client certificate has expired"):
        await asyncio.to_thread(ask)


async def test_a_revoked_one_is_refused_within_seconds_and_the_others_go_on(
    service: AgentService,
) -> None:
    lost = service.connection()
    serial = identity_of(pem_to_der((service.directory / "some.crt").read_text())).serial
    async with lost as factory, service.connection() as other:
        agent = service.agent()
        assert (await agent.enrol(factory)).code == 201
        document = {"metadata": {"name": "lost-image"}, "spec": {"serial": f"{serial:x}"}}
        await service.operations.create(
            PERSON, CERTIFICATE_REVOCATION, "default", document, WriteOptions()
        )
        async with asyncio.timeout(PATIENCE_S):
            while (answer := await agent.enrol(factory)).code != 401:
                await asyncio.sleep(0.1)
        assert "was revoked" in answer.json["message"]
        assert (await agent.enrol(other)).code == 409


def pem_to_der(pem: str) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pem[: pem.index("-----BEGIN", 1)])


async def test_one_of_another_authority_does_not_even_connect(
    service: AgentService, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    async with serving(other) as foreign:
        stranger = foreign.connection()
        stranger.base = service.url + PREFIX
        stranger.tls.check_hostname, stranger.tls.verify_mode = False, ssl.CERT_NONE
        async with stranger as factory:
            with pytest.raises(aiohttp.ClientError):
                await service.agent().enrol(factory)
