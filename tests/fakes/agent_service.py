"""Our API server's agent side, really listening, over a store of its own: what the contract tests
of the agent API and its bench talk to. No controllers, no user face: a person is played by calls
of the operations."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
from cryptography.hazmat.primitives.asymmetric import ec

from apiserver import approvals, signing
from apiserver.agentapi.app import create_agent_app, listen, server_context
from apiserver.agentapi.settings import AgentApiSettings
from apiserver.app import create_operations
from apiserver.auth.identity import ADMIN, Caller
from apiserver.operations import Operations, WriteOptions
from apiserver.pki import requests, signerfile, signers
from apiserver.pki.authority import Authority
from apiserver.pki.issuing import Issuing, issuing_of
from apiserver.pki.revocations import Revocations
from apiserver.pki.tpmroots import NO_MAKERS, Roots
from apiserver.refusals import Refusals
from apiserver.store import Store
from resources import registry
from tests.fakes import agent_client
from tests.fakes.agent_client import Agent, Connection

Json = dict[str, Any]

DEVICE = registry.by_kind("Device")
DEFAULTS = AgentApiSettings()
PERSON = Caller(name="ada", role=ADMIN)
# Polls that are held so long do not end by themselves while a test runs: who is answered was woken.
HELD = AgentApiSettings(hold_s=600)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class AgentService:
    operations: Operations
    authority: Authority
    url: str
    directory: Path
    issuing: Issuing
    refusals: Refusals

    @property
    def store(self) -> Store:
        return self.operations.store

    def agent(self) -> Agent:
        return Agent(self.url, self.authority.server_ca_pem, self.directory)

    def connection(
        self, common_name: str = "client-enrollment-factory", **grant: Any
    ) -> Connection:
        """A connection under a certificate that is signed as told; by default one for enrolment."""
        certificate = self.directory / "some.crt"
        certificate.write_bytes(self.certificate_pem(common_name, **grant))
        return Connection(self.url, self.authority.server_ca_pem, certificate)

    def certificate_pem(
        self, common_name: str = "client-enrollment-factory", **grant: Any
    ) -> bytes:
        """Such a certificate, and its key behind it."""
        key = ec.generate_private_key(ec.SECP256R1())
        wanted: dict[str, Any] = {
            "common_name": common_name,
            "signer": signers.ENROLLMENT,
            "organization": UUID(int=0),
            "fingerprint": None,
            "lifetime": timedelta(days=1),
        }
        csr = requests.parse(agent_client.signing_request(key, common_name).encode())
        issued = self.authority.issue_client(csr, **(wanted | grant))
        return issued + agent_client.key_pem(key)

    async def approve(self, name: str, **approval: Any) -> Json | None:
        body = {"approved": True, "labels": {}} | approval
        return await approvals.approve_enrollment(
            self.operations, self.issuing, PERSON, "default", name, body
        )

    async def admitted(self, agent: Agent, **spec: Any) -> Connection:
        """A connection of a device that was enrolled and approved."""
        async with self.connection() as factory:
            answer = await agent.enrol(factory, **spec)
            assert answer.code == 201, answer
            await self.approve(agent.name)
            return agent.connection(await agent.wait_for_certificate(factory))

    async def device(self, name: str) -> Json:
        return await self.operations.get(PERSON, DEVICE, "default", name)

    async def change(self, name: str, **members: Any) -> Json:
        """Change a device as a person would: `spec=...`."""
        written = await self.operations.patch(
            PERSON, DEVICE, "default", name, lambda old: old | members, WriteOptions()
        )
        return written.document

    async def add_organization(self, name: str) -> UUID:
        kind = registry.by_kind("Organization")
        document = {"metadata": {"name": name}}
        written = await self.operations.create(PERSON, kind, "", document, WriteOptions())
        return UUID(written.document["metadata"]["uid"])

    async def delete(self, name: str) -> None:
        await self.operations.delete(PERSON, DEVICE, "default", name)


@asynccontextmanager
async def serving(
    directory: Path,
    settings: AgentApiSettings = DEFAULTS,
    *,
    database: str = "",
    signers_file: Path | None = None,
    makers: Roots = NO_MAKERS,
) -> AsyncIterator[AgentService]:
    async with AsyncExitStack() as stack:
        store = await Store.open(database, data_dir=directory)
        stack.push_async_callback(store.close)
        operations = create_operations(store)
        await operations.prepare()
        authority = Authority.load_or_create(directory / "pki", now=utc_now)
        issuing = Issuing(authority)
        if signers_file is not None:
            session = await stack.enter_async_context(aiohttp.ClientSession())
            issuing = issuing_of(authority, signerfile.read(signers_file), session)
            stack.push_async_callback(_ended, _signing(operations, issuing))
        files = authority.server_files("agent-server", ["127.0.0.1", "localhost"])
        context = server_context(*files, issuing.client_ca_pem)
        revocations = Revocations(store)
        await stack.enter_async_context(revocations.followed())
        refusals = Refusals(store)
        app = create_agent_app(
            operations, issuing, revocations, settings, refusals=refusals, makers=makers
        )
        runner, port = await listen(app, "127.0.0.1", 0, context, settings)
        stack.push_async_callback(runner.cleanup)
        url = f"https://127.0.0.1:{port}"
        yield AgentService(operations, authority, url, directory, issuing, refusals)


def _signing(operations: Operations, issuing: Issuing) -> asyncio.Task[None]:
    work = signing.Signing(operations, issuing, now=utc_now, monotonic=time.monotonic)
    return asyncio.get_running_loop().create_task(work.keep())


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
