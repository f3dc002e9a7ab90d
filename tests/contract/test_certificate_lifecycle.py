"""The life of certificates in a fleet: three real agents, 197 identities of the load driver, and
one server process. All renew at once while the authority is rotated under them; then the old
generation is ended, a device is revoked, and one comes back whose certificate expired while it was
off.

A year does not pass here: the expired certificate was signed with the server's own key, for a
second, and put where the year would have left it.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from apiserver.pki import requests, signers
from apiserver.pki.authority import Authority
from bench import renewals, wire
from bench.renewals import Identity
from tests.fakes import agent_client, real_agents
from tests.fakes.real_agents import RealAgent

REAL, DRIVEN = 3, 197
SOON = ("--renew-within", "0")
# A second or two, on a machine that does nothing else.
OUT_S = 30.0
PATIENCE_S = 180.0
SIGNER_NAME = x509.ObjectIdentifier("1.3.6.1.4.1.99999.1.1")
HOMEPORT = "/apis/homeport.dev/v1alpha1/namespaces/default"


def key_id(certificate: x509.Certificate) -> str:
    found = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    return (found.value.key_identifier or b"").hex()


def authority(site: wire.Site) -> Authority:
    return Authority.load_or_create(site.server.data / "pki", now=lambda: datetime.now(UTC))


async def command(site: wire.Site, *words: str) -> str:
    """`python -m apiserver ca`, beside the server."""
    arguments = [sys.executable, "-m", "apiserver", "ca", "--data", str(site.server.data), *words]
    done = await asyncio.to_thread(
        subprocess.run, arguments, capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    return done.stdout + done.stderr


async def person(site: wire.Site, method: str, path: str, body: Any = None) -> Any:
    headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
    url = f"{site.server.url}{path}"
    async with site.user.request(method, url, json=body, headers=headers) as answer:
        assert answer.status in (200, 201), await answer.text()
        return await answer.json()


async def until(what: Callable[[], Awaitable[bool]], said: Callable[[], str] = str) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await what():
                await asyncio.sleep(0.2)
    except TimeoutError:
        raise AssertionError(said()) from None


async def approve(site: wire.Site, agent: RealAgent) -> None:
    path = f"{wire.BASE}/enrollmentrequests/"

    async def has_asked() -> bool:
        if not agent.name:
            return False
        async with site.user.get(f"{site.server.url}{path}{agent.name}") as answer:
            found = await answer.json() if answer.status == 200 else {}
        return bool(found) and not (found.get("status") or {}).get("certificate")

    await until(has_asked, agent.words)
    await person(site, "PUT", f"{path}{agent.name}/approval", {"approved": True})


async def told(site: wire.Site, agent: RealAgent, text: str) -> None:
    """The device gets a file, which ends the poll that it holds, and reports that it has it."""
    config = [{"name": "x", "inline": [{"path": "/etc/x", "content": text}]}]
    path = f"{wire.BASE}/devices/{agent.name}"
    await person(site, "PATCH", path, {"spec": {"config": config}})
    file = agent.root / "etc/x"

    async def is_there() -> bool:
        return file.exists() and file.read_text() == text

    await until(is_there, agent.words)


async def has_further(agent: RealAgent) -> None:
    """What `certs.yaml` names is asked for once the device is in."""

    async def is_there() -> bool:
        return agent.further_certificate is not None

    await until(is_there, agent.words)
    found = agent.further_certificate
    assert found is not None
    assert found.subject.rfc4514_string() == f"CN=svc-otel-{agent.name}"
    signer = found.extensions.get_extension_for_oid(SIGNER_NAME).value
    assert isinstance(signer, x509.UnrecognizedExtension)
    assert signers.SVC_CLIENT.encode() in signer.value


async def rotated_under(site: wire.Site, devices: list[Identity], agents: list[RealAgent]) -> None:
    rotation = asyncio.create_task(command(site, "--rotate", "--overlap", "0", *SOON))
    rounds = 0
    while not rotation.done():
        # All of them together, again and again until another authority signs; the command that
        # calls for it needs the processor too.
        await renewals.at_once(site, devices)
        rounds += 1
        await asyncio.sleep(0.3)
    assert "signs" in await rotation
    last = await renewals.at_once(site, devices)
    print(
        f"{len(devices)} identities renewed {rounds + 1} times; the last round: {last.rate:.0f}/s,"
        f" {last.cpu_ms:.1f} ms CPU each, p99 {last.p99_ms:.0f} ms"
    )
    now = authority(site)
    assert now.signing.number == 2
    for device in devices:
        found = x509.load_pem_x509_certificate(device.certificate.encode())
        assert key_id(found) == now.signing.client_signer.key_id
        assert device.authorities == now.server_ca_pem
    await asyncio.gather(*(has_renewed(site, now, agent) for agent in agents))


async def has_renewed(site: wire.Site, now: Authority, agent: RealAgent) -> None:
    """It hears of it when its poll ends, at the latest after two minutes; a change ends it now."""
    await told(site, agent, "one")

    async def has_new() -> bool:
        found = agent.certificate
        is_new = found is not None and key_id(found) == now.signing.client_signer.key_id
        return is_new and (agent.certs / "authorities.json").exists()

    await until(has_new, agent.words)
    learned = (agent.certs / "authorities.json").read_text()
    assert now.server_ca_pem.decode().splitlines()[1] in learned
    assert learned.count("BEGIN") == 1


async def revoked(site: wire.Site, device: Identity, agent: RealAgent) -> None:
    held = asyncio.create_task(device.poll("1"))
    await asyncio.sleep(0.3)
    heard = asyncio.create_task(agent.until("revoked"))
    began = time.monotonic()
    for name in (device.agent.name, agent.name):
        body = {
            "apiVersion": "homeport.dev/v1alpha1",
            "kind": "CertificateRevocation",
            "metadata": {"generateName": "r-"},
            "spec": {"device": name, "reason": "stolen"},
        }
        await person(site, "POST", f"{HOMEPORT}/certificaterevocations", body)
    async with asyncio.timeout(OUT_S):
        assert (await held).code == 401
        took_s = time.monotonic() - began
        await heard
    print(f"a poll that was held ended {took_s:.1f} s after the revocation")


async def expired(site: wire.Site, agent: RealAgent) -> None:
    """Off, past its end, and back: refused, asks again, approved again, the device that it was."""
    path = f"{wire.BASE}/devices/{agent.name}"
    before = await person(site, "GET", path)
    await asyncio.to_thread(agent.stop)
    pem = of_a_second(site, agent)
    (agent.certs / "agent.crt").write_bytes(pem)
    request = f"{wire.BASE}/enrollmentrequests/{agent.name}/status"
    await person(site, "PATCH", request, {"status": {"certificate": pem.decode()}})
    # Its enrolment certificate was of the generation that was ended.
    agent.configure()
    await asyncio.sleep(2)
    agent.start()
    await agent.until("expired")
    await approve(site, agent)
    await told(site, agent, "three")
    after = await person(site, "GET", path)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["metadata"].get("labels") == before["metadata"].get("labels")


def of_a_second(site: wire.Site, agent: RealAgent) -> bytes:
    raw = (agent.certs / "agent.key").read_bytes()
    key = serialization.load_pem_private_key(raw, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    csr = agent_client.signing_request(key, agent.name)
    return authority(site).issue_client(
        requests.parse(csr.encode()),
        common_name=f"device:{agent.name}",
        signer=signers.RENEWAL,
        organization=UUID(int=0),
        fingerprint=f"device:{agent.name}",
        lifetime=timedelta(seconds=1),
    )


@pytest.mark.timeout(600)
async def test_nobody_is_lost_when_the_authority_is_rotated(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        site = await wire.open_site(tmp_path, stack)
        config = site.server.data / "enrollment" / "config.yaml"
        agents = stack.enter_context(real_agents.running(tmp_path, config, REAL))
        await wire.enrol(site, DRIVEN)
        for _, connection in site.agents:
            await connection.__aenter__()
        devices = renewals.identities(site)
        stack.push_async_callback(renewals.close, devices)
        await asyncio.gather(*(approve(site, agent) for agent in agents))
        await asyncio.gather(*(told(site, agent, "zero") for agent in agents))
        await asyncio.gather(*(has_further(agent) for agent in agents))
        old = site.agents[0][0]
        first = Path(old.directory / f"{old.name}.crt").read_text()

        await rotated_under(site, devices, agents)

        # The administrator's certificate is of the old generation too, and was written anew.
        site.user = await wire.administrator(site.server, stack)
        await command(site, "--end", "1")
        await refused(old, first)
        answers = await asyncio.gather(*(device.poll() for device in devices))
        assert {answer.code for answer in answers} == {200}, "nobody is lost"
        revoking, returning, staying = agents
        await asyncio.gather(
            revoked(site, devices[0], revoking),
            expired(site, returning),
            told(site, staying, "four"),
        )


async def refused(old: agent_client.Agent, pem: str) -> None:
    """A certificate of the generation that was ended opens nothing more."""
    async with old.connection(pem) as connection:
        answer = await old.poll(connection)
    assert answer.code == 401
    assert "trusted no more" in answer.json["message"]
