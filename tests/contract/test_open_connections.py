"""Connections that are open when the proof ends that they were opened with: what is held ends, and
what is asked next is refused, on the same connection too. Times are short, the clock is the real
one."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from apiserver.agentapi.settings import AgentApiSettings
from apiserver.auth.certificates import USER_SIGNER
from apiserver.auth.claims import SKEW_S
from apiserver.pki import requests, signers
from apiserver.pki.authority import Authority
from tests.fakes import agent_client, apiserver_process, issuer
from tests.fakes.agent_service import AgentService, serving
from tests.fakes.apiserver_process import Process
from tests.fakes.issuer import Issuer

Json = dict[str, Any]

# Enough to come with it before it ends.
LIFE_S = 8
# Where nothing ended it, for a machine that has other things to do.
PATIENCE_S = 60.0
FLEETS = "/apis/flightctl.io/v1beta1/namespaces/default/fleets"
pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def tokens() -> Iterator[Issuer]:
    with issuer.running() as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tokens: Issuer) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("open")
    spec = {
        "providerType": "oidc",
        "issuer": tokens.url,
        "clientId": issuer.CLIENT,
        "clientSecret": "s3cret",
        "organizationAssignment": {"type": "static", "organizationName": "default"},
        "roleAssignment": {"type": "static", "roles": ["flightctl-viewer"]},
    }
    file = folder / "providers.yaml"
    file.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "flightctl.io/v1beta1",
                "kind": "AuthProvider",
                "metadata": {"name": "tokens"},
                "spec": spec,
            }
        )
    )
    file.chmod(0o600)
    with apiserver_process.running(folder / "data", "--auth-providers", str(file)) as running:
        yield running


def authority(server: Process) -> Authority:
    return Authority.load_or_create(server.data / "pki", now=lambda: datetime.now(UTC))


def short_lived(server: Process, folder: Path) -> ssl.SSLContext:
    """TLS with an administrator's certificate that ends in a moment."""
    key = ec.generate_private_key(ec.SECP256R1())
    made = authority(server).issue_client(
        requests.parse(agent_client.signing_request(key, "ann").encode()),
        common_name="ann",
        signer=USER_SIGNER,
        organization=UUID(int=0),
        fingerprint=None,
        lifetime=timedelta(seconds=LIFE_S),
        groups=("system:masters",),
    )
    file = folder / "ann.pem"
    file.write_bytes(made + agent_client.key_pem(key))
    context = trusting(server)
    context.load_cert_chain(file)
    return context


def trusting(server: Process) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority(server).server_ca_pem.decode())


async def watched_to_its_end(session: aiohttp.ClientSession, server: Process) -> list[Json]:
    """The events of a stream that asks for ten minutes, and ends without an error."""
    began = time.monotonic()
    query = "?watch=true&timeoutSeconds=600&sendInitialEvents=true&allowWatchBookmarks=true"
    query += "&resourceVersionMatch=NotOlderThan"
    async with asyncio.timeout(PATIENCE_S), session.get(f"{server.url}{FLEETS}{query}") as stream:
        assert stream.status == 200, await stream.text()
        # To the end of the last chunk; a stream that is cut raises.
        text = (await stream.read()).decode()
    print(f"ended after {time.monotonic() - began:.1f} s")
    return [json.loads(line) for line in text.splitlines()]


async def refusal(session: aiohttp.ClientSession, server: Process) -> str:
    async with session.get(f"{server.url}{FLEETS}") as answer:
        assert answer.status == 401, await answer.text()
        return str((await answer.json())["message"])


def is_whole(events: list[Json]) -> bool:
    return [event["type"] for event in events] == ["BOOKMARK"]


async def test_a_watch_ends_when_its_token_does(server: Process, tokens: Issuer) -> None:
    ends = int(time.time() - SKEW_S) + LIFE_S
    headers = {"Authorization": f"Bearer {tokens.token(tokens.claims(exp=ends))}"}
    connector = aiohttp.TCPConnector(ssl=trusting(server))
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        assert is_whole(await watched_to_its_end(session, server))
        assert time.time() >= ends + SKEW_S
        assert "expired" in await refusal(session, server)


async def test_a_watch_ends_when_its_certificate_does(server: Process, tmp_path: Path) -> None:
    context = short_lived(server, tmp_path)
    # One connection, so that what is asked next goes where the handshake was long ago.
    connector = aiohttp.TCPConnector(ssl=context, limit=1)
    async with aiohttp.ClientSession(connector=connector) as session:
        assert is_whole(await watched_to_its_end(session, server))
        assert "the client certificate has expired" in await refusal(session, server)


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[AgentService]:
    async with serving(tmp_path, AgentApiSettings(hold_s=PATIENCE_S)) as running:
        yield running


async def test_a_held_poll_ends_when_the_devices_certificate_does(service: AgentService) -> None:
    agent = service.agent()
    async with await service.admitted(agent) as lasting:
        assert (await agent.poll(lasting)).code == 200
    name = f"{signers.DEVICE_PREFIX}{agent.name}"
    short: Json = {"signer": signers.DEVICE_ENROLLMENT, "fingerprint": name}
    short["lifetime"] = timedelta(seconds=LIFE_S)
    async with service.connection(name, **short) as ending:
        async with asyncio.timeout(PATIENCE_S / 2):
            answer = await agent.poll(ending, "1")
        assert (answer.code, answer.json["message"]) == (401, "the client certificate has expired")
        for later in (await agent.poll(ending), await agent.report(ending, {})):
            assert later.code == 401
            assert "has expired" in later.json["message"]
