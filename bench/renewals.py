"""Devices that renew their certificates at once, over mutual TLS, as agents do it.

One renewal is the request, the certificate in its answer, and a first request on a new connection
with it: until then an agent keeps the old one. Each identity has a key of its own. The same driver
is what a contract test puts beside real agents while the authority is rotated.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from dataclasses import dataclass

from bench.wire import Load, Site, load
from tests.fakes.agent_client import Agent, Answer, Connection


@dataclass(slots=True)
class Identity:
    """A device and the certificate that it has."""

    agent: Agent
    connection: Connection
    certificate: str = ""
    # What the service gave along with it.
    authorities: bytes = b""

    async def renew(self) -> None:
        """Fails with the answer of whoever refuses."""
        body = self.agent.renewal_body()
        body["metadata"]["name"] = f"{self.agent.name}-{secrets.token_hex(4)}"
        answer = await self.connection.send("POST", "/certificatesigningrequests", json=body)
        assert answer.code == 201, answer
        status = answer.json["status"]
        assert "certificate" in status, status
        certificate = base64.b64decode(status["certificate"]).decode()
        authorities = base64.b64decode(status["caBundle"])
        self.agent.ca_pem = authorities
        fresh = await self.agent.connection(certificate).__aenter__()
        try:
            proof = await self.agent.poll(fresh)
            assert proof.code == 200, proof
        except BaseException:
            await fresh.__aexit__(None, None, None)
            raise
        old, self.connection = self.connection, fresh
        self.certificate, self.authorities = certificate, authorities
        await old.__aexit__(None, None, None)

    async def poll(self, known: str | None = None) -> Answer:
        return await self.agent.poll(self.connection, known)


def identities(site: Site) -> list[Identity]:
    """All that were enrolled, whose connections are open."""
    return [Identity(agent, connection) for agent, connection in site.agents]


async def at_once(site: Site, devices: list[Identity], rounds: int = 1) -> Load:
    """All of them, none waiting for another."""
    return await load(
        site,
        lambda n: devices[n % len(devices)].renew(),
        len(devices) * rounds,
        clients=len(devices),
    )


async def close(devices: list[Identity]) -> None:
    await asyncio.gather(*(each.connection.__aexit__(None, None, None) for each in devices))
