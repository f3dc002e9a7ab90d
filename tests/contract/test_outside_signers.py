"""Certificates from a signer outside, over real TLS on both sides: the small HTTP signer behind the
service, agents in front of it, a process that is killed in between."""

from __future__ import annotations

import asyncio
import base64
import shutil
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import aiohttp
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from apiserver import app, certifying, config, signing
from apiserver.approvals import ENROLLMENT_REQUEST
from apiserver.builtins.events import STORED as EVENT
from apiserver.certifying import SIGNING_REQUEST
from apiserver.operations import ListOptions, WriteOptions
from apiserver.pki import pacing, requests, signers
from resources import conditions
from tests.fakes import agent_client, agent_service, apiserver_process, http_signer
from tests.fakes.agent_client import Agent, Connection
from tests.fakes.agent_service import PERSON, AgentService
from tests.fakes.http_signer import HttpSigner
from tests.fakes.waiting import PATIENCE_S, until

Json = dict[str, Any]
PURPOSES = ("enrollment", "management")
# Where the stores do not differ.
one_store = pytest.mark.parametrize("database_url", [""], ids=["sqlite"])


@pytest.fixture
async def signer(tmp_path: Path) -> AsyncIterator[HttpSigner]:
    async with http_signer.running(tmp_path / "outside") as running:
        yield running


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shape of the back-off is a unit test's; here nobody waits for it."""
    monkeypatch.setattr(pacing, "FIRST_S", 0.05)
    monkeypatch.setattr(pacing, "UNAVAILABLE_S_MAX", 0.2)
    monkeypatch.setattr(pacing, "UNUSABLE_S_MAX", 0.2)


def written(directory: Path, signer: HttpSigner, *purposes: str, **more: Any) -> Path:
    file = directory / "signers.yaml"
    each = signer.configuration(**more)
    file.write_text(yaml.safe_dump({purpose: each for purpose in purposes or PURPOSES}))
    return file


@asynccontextmanager
async def serving(directory: Path, file: Path, database: str = "") -> AsyncIterator[AgentService]:
    async with agent_service.serving(directory, database=database, signers_file=file) as service:
        yield service


@pytest.fixture
async def service(
    database_url: str, tmp_path: Path, signer: HttpSigner
) -> AsyncIterator[AgentService]:
    async with serving(tmp_path, written(tmp_path, signer), database_url) as running:
        yield running


async def request_of(service: AgentService, agent: Agent) -> Json:
    return await service.operations.get(PERSON, ENROLLMENT_REQUEST, "default", agent.name)


def condition(document: Json, kind: str = "Issued") -> Json:
    return conditions.get(document["status"]["conditions"], kind) or {}


async def reason_is(service: AgentService, agent: Agent, reason: str) -> Json:
    async def look() -> Json:
        found = await request_of(service, agent)
        return found if condition(found).get("reason") == reason else {}

    found: Json = await until(look)
    return found


async def events(service: AgentService) -> list[tuple[str, str]]:
    page = await service.operations.list(PERSON, EVENT, "default", ListOptions())
    return [(each["spec"]["reason"], each["spec"]["type"]) for each in page.items]


async def approved(service: AgentService, factory: Connection) -> Agent:
    agent = service.agent()
    assert (await agent.enrol(factory)).code == 201
    assert await service.approve(agent.name)
    return agent


async def test_a_device_gets_its_certificate_from_outside_and_comes_with_it(
    service: AgentService, signer: HttpSigner
) -> None:
    async with service.connection(signer=signers.ENROLLMENT) as factory:
        agent = await approved(service, factory)
        async with asyncio.timeout(PATIENCE_S):
            pem = await agent.wait_for_certificate(factory)
    leaf = x509.load_pem_x509_certificate(pem.encode())
    assert leaf.issuer == signer.authority.subject
    assert pem.count("BEGIN CERTIFICATE") == 1
    async with agent.connection(pem) as managed:
        assert (await agent.poll(managed)).code == 200
    order = signer.seen[0]
    assert order["requester"] == {
        "username": "ada",
        "kind": "EnrollmentRequest",
        "namespace": "default",
        "name": agent.name,
    }
    document = await request_of(service, agent)
    assert condition(document)["status"] == "True"
    assert condition(document, "Approved")["status"] == "True"
    assert ("CertificateIssued", "Normal") in await events(service)


async def test_a_device_renews_outside_and_an_enrolment_certificate_comes_from_there(
    service: AgentService, signer: HttpSigner
) -> None:
    async with service.connection() as factory:
        agent = await approved(service, factory)
        pem = await agent.wait_for_certificate(factory)
    async with agent.connection(pem) as managed:
        made = await managed.send("POST", "/certificatesigningrequests", json=agent.renewal_body())
        assert made.code == 201
        assert "certificate" not in made.json["status"]
        name = made.json["metadata"]["name"]

        async def look() -> Json:
            answer = await managed.send("GET", f"/certificatesigningrequests/{name}")
            return answer.json["status"].get("certificate") and answer.json

        renewed = await until(look)
    order = signer.seen[-1]
    assert order["signerName"] == signers.RENEWAL
    assert order["commonName"] == f"device:{agent.name}"
    async with agent.connection(base64.b64decode(renewed["status"]["certificate"]).decode()) as new:
        assert (await agent.poll(new)).code == 200

    key = ec.generate_private_key(ec.SECP256R1())
    await ask_for_enrollment(service, "line", key)

    async def issued() -> Json:
        found = await service.operations.get(PERSON, SIGNING_REQUEST, "default", "line")
        return found["status"].get("certificate") and found

    given = base64.b64decode((await until(issued))["status"]["certificate"])
    assert signer.seen[-1]["expirationSeconds"] == 86_400
    file = service.directory / "line.pem"
    file.write_bytes(given + agent_client.key_pem(key))
    async with Connection(service.url, service.authority.server_ca_pem, file) as factory:
        assert (await service.agent().enrol(factory)).code == 201


@one_store
async def test_a_signer_that_takes_its_time_is_asked_again(
    service: AgentService, signer: HttpSigner
) -> None:
    signer.mode = http_signer.SLOW
    async with service.connection() as factory:
        agent = await approved(service, factory)
        found = await reason_is(service, agent, "SigningPending")
        await until(lambda: len(signer.seen) >= 2)
        found = await request_of(service, agent)
        assert "a person looks at it" in condition(found)["message"]
        assert condition(found)["status"] == "False"
        version = found["metadata"]["resourceVersion"]
        asked = len(signer.seen)
        await until(lambda: len(signer.seen) > asked)
        again = await request_of(service, agent)
        assert again["metadata"]["resourceVersion"] == version, "the same wait makes no version"
        signer.mode = http_signer.ISSUE
        async with asyncio.timeout(PATIENCE_S):
            await agent.wait_for_certificate(factory)
    assert len({order["uid"] for order in signer.seen}) == 1


@one_store
async def test_a_refusal_is_final_and_in_the_signers_words(
    service: AgentService, signer: HttpSigner
) -> None:
    signer.mode = http_signer.REFUSE
    async with service.connection() as factory:
        agent = await approved(service, factory)

        async def failed() -> Json:
            found = await request_of(service, agent)
            return found if condition(found, "Failed") else {}

        found = await until(failed)
        assert condition(found, "Failed")["reason"] == "SigningFailed"
        assert condition(found, "Failed")["message"] == "not one of our machines"
        assert not condition(found)
        asked = len(signer.seen)
        await asyncio.sleep(0.5)
        assert len(signer.seen) == asked == 1
    assert ("SigningFailed", "Warning") in await events(service)


@one_store
@pytest.mark.parametrize("mode", [http_signer.DOWN, http_signer.FORBID])
async def test_a_signer_that_is_down_is_said_so_and_asked_again(
    service: AgentService, signer: HttpSigner, mode: str
) -> None:
    signer.mode, signer.retry_after = mode, "0"
    async with service.connection() as factory:
        first, second = await approved(service, factory), await approved(service, factory)
        for agent in (first, second):
            found = await reason_is(service, agent, "SignerUnavailable")
            said = condition(found)
            assert said["status"] == "Unknown"
            assert f"since {said['lastTransitionTime'][:10]}" in said["message"]
            assert "next at " in said["message"]
            assert not condition(found, "Failed")
        signer.mode = http_signer.ISSUE
        async with asyncio.timeout(PATIENCE_S):
            await first.wait_for_certificate(factory)
            await second.wait_for_certificate(factory)


async def test_a_signer_that_is_not_there_is_found_when_it_comes(
    tmp_path: Path, signer: HttpSigner
) -> None:
    async with http_signer.listening(signer) as port:
        file = written(tmp_path, signer)
    async with serving(tmp_path, file) as service, service.connection() as factory:
        agent = await approved(service, factory)
        found = await reason_is(service, agent, "SignerUnavailable")
        assert f"localhost:{port}" in condition(found)["message"]
        async with http_signer.listening(signer, port), asyncio.timeout(PATIENCE_S):
            await agent.wait_for_certificate(factory)


@pytest.mark.parametrize(
    ("mode", "why"),
    [
        (http_signer.GARBAGE, "the certificate can't be read"),
        (http_signer.WRONG_KEY, "another key"),
        (http_signer.EXPIRED, "expired"),
        (http_signer.BARE, "extension 1.3.6.1.4.1.99999.1.1 must be"),
    ],
)
async def test_an_answer_that_is_no_good_is_not_stored(
    tmp_path: Path, signer: HttpSigner, mode: str, why: str
) -> None:
    signer.mode = mode
    file = written(tmp_path, signer)
    async with serving(tmp_path, file) as service, service.connection() as factory:
        agent = await approved(service, factory)
        found = await reason_is(service, agent, "SignerAnswerUnusable")
        assert why in condition(found)["message"]
        assert "certificate" not in found["status"]
        # Repaired at the other end, nobody has to do anything here.
        signer.mode = http_signer.ISSUE
        signer.forget()
        async with asyncio.timeout(PATIENCE_S):
            await agent.wait_for_certificate(factory)


async def test_an_authority_outside_opens_only_the_doors_that_it_is_for(
    tmp_path: Path, signer: HttpSigner
) -> None:
    """Whoever has its key can write any extension: of management it may not make an enroller."""
    async with serving(tmp_path, written(tmp_path, signer, "management")) as service:
        wanted = {"uid": "1", "expirationSeconds": 3600, "commonName": "client-enrollment-x"}
        key = ec.generate_private_key(ec.SECP256R1())
        csr = agent_client.signing_request(key, "client-enrollment-x")
        good = service.authority.issue_client(
            requests.parse(csr.encode()),
            common_name="client-enrollment-x",
            signer=signers.ENROLLMENT,
            organization=UUID(int=0),
            fingerprint=None,
            lifetime=timedelta(days=1),
        )
        copied = [
            {"oid": each.oid.dotted_string, "der": each.value.value.hex()}
            for each in x509.load_pem_x509_certificate(good).extensions
            if isinstance(each.value, x509.UnrecognizedExtension)
        ]
        forged = signer.sign(wanted | {"request": csr, "extensions": copied}).encode()
        for pem, code in ((good, 201), (forged, 401)):
            file = tmp_path / "forged.pem"
            file.write_bytes(pem + agent_client.key_pem(key))
            async with Connection(service.url, service.authority.server_ca_pem, file) as factory:
                answer = await service.agent().enrol(factory)
                assert answer.code == code, answer
        assert "its issuer, 'CN=outside-ca', is not one for" in answer.json["message"]


async def test_what_is_changed_after_its_approval_is_not_signed(
    tmp_path: Path, signer: HttpSigner
) -> None:
    """Who may write requests, and may not approve them, puts a key of his own into one."""
    signer.mode, signer.retry_after = http_signer.DOWN, "0"
    async with serving(tmp_path, written(tmp_path, signer)) as service:
        await ask_for_enrollment(service, "line", ec.generate_private_key(ec.SECP256R1()))
        read = partial(service.operations.get, PERSON, SIGNING_REQUEST, "default", "line")
        await until(lambda: bool(signer.seen))
        thief = enrollment_request("line", ec.generate_private_key(ec.SECP256R1()))
        await service.operations.patch(
            PERSON, SIGNING_REQUEST, "default", "line", lambda old: old | thief, WriteOptions()
        )
        signer.mode = http_signer.ISSUE

        async def failed() -> Json:
            return condition(await read(), "Failed")

        assert "changed after it was approved" in (await until(failed))["message"]
        assert not signer.signed
        # Approved again, as it is now, it is signed.
        decision = {"status": {"conditions": [{"type": "Approved", "status": "True"}]}}
        await certifying.sign_csr(
            service.operations, service.issuing, PERSON, "default", "line", decision
        )

        async def issued() -> Json:
            found = await read()
            return found["status"].get("certificate") and found

        assert not condition(await until(issued), "Failed")


def enrollment_request(name: str, key: ec.EllipticCurvePrivateKey) -> Json:
    csr = agent_client.signing_request(key, f"client-enrollment-{name}")
    return {
        "spec": {
            "request": base64.b64encode(csr.encode()).decode(),
            "signerName": signers.ENROLLMENT,
            "usages": ["clientAuth", "CA:false"],
            "expirationSeconds": 86_400,
        }
    }


async def ask_for_enrollment(
    service: AgentService, name: str, key: ec.EllipticCurvePrivateKey
) -> None:
    document = {"metadata": {"name": name}} | enrollment_request(name, key)
    await certifying.create_csr(
        service.operations, service.issuing, PERSON, "default", document, WriteOptions()
    )


async def test_what_waits_is_signed_here_when_nobody_signs_outside_any_more(
    tmp_path: Path, signer: HttpSigner
) -> None:
    """Given up, the outside authority is trusted for as long as the file names it."""
    file = written(tmp_path, signer)
    async with serving(tmp_path, file) as service, service.connection() as factory:
        early = await approved(service, factory)
        theirs = await early.wait_for_certificate(factory)
        signer.mode = http_signer.SLOW
        late = await approved(service, factory)
        await reason_is(service, late, "SigningPending")
    trust = signer.configuration()["trustFile"]
    file.write_text(yaml.safe_dump({"management": {"type": "built-in", "trustFile": trust}}))
    async with serving(tmp_path, file) as service, service.connection() as factory:
        late.url = early.url = service.url
        async with asyncio.timeout(PATIENCE_S):
            ours = await late.wait_for_certificate(factory)
        for agent, pem in ((early, theirs), (late, ours)):
            async with agent.connection(pem) as managed:
                assert (await agent.poll(managed)).code == 200
    file.write_text("management: {type: built-in}")
    async with serving(tmp_path, file) as service:
        early.url = service.url
        async with early.connection(theirs) as managed:
            with pytest.raises((aiohttp.ClientError, OSError)):
                await early.poll(managed)


@pytest.mark.timeout(180)
async def test_a_server_killed_after_the_answer_and_before_writing_it_down_costs_no_certificate(
    tmp_path: Path, signer: HttpSigner
) -> None:
    """A real process and kill -9; the signer has signed and holds its answer back."""
    file = written(tmp_path, signer, timeoutSeconds=30)
    data = tmp_path / "data"
    signer.mode = http_signer.HOLD
    agent: Agent | None = None
    for _ in range(2):
        running = apiserver_process.running(data, "--signers", str(file))
        server = await asyncio.to_thread(running.__enter__)
        try:
            authority = (data / "pki" / "ca.crt").read_bytes()
            config = yaml.safe_load((data / "enrollment" / "config.yaml").read_text())
            shown = config["enrollment-service"]["authentication"]
            pair = tmp_path / "enrollment.pem"
            pair.write_bytes(
                base64.b64decode(shown["client-certificate-data"])
                + base64.b64decode(shown["client-key-data"])
            )
            async with Connection(server.agent_url, authority, pair) as factory:
                if agent is None:
                    agent = Agent(server.agent_url, authority, tmp_path)
                    assert (await agent.enrol(factory)).code == 201
                    assert await asyncio.to_thread(approve, server, agent.name) == 200
                    async with asyncio.timeout(PATIENCE_S):
                        await signer.held.wait()
                    signer.mode = http_signer.ISSUE
                    server.kill()
                else:
                    async with asyncio.timeout(PATIENCE_S):
                        await agent.wait_for_certificate(factory)
        finally:
            await asyncio.to_thread(running.__exit__, None, None, None)
    assert len(signer.seen) == 2
    assert len(signer.signed) == 1


def approve(server: apiserver_process.Process, name: str) -> int:
    tls = apiserver_process.administrator(server)
    path = f"/apis/flightctl.io/v1beta1/namespaces/default/enrollmentrequests/{name}/approval"
    return apiserver_process.ask(server.url, tls, "PUT", path, b'{"approved": true}')[0]


@pytest.fixture
def shared_database(new_database: Callable[[str], str]) -> str:
    return new_database("postgresql")


async def test_of_several_servers_one_asks_and_another_takes_over(
    shared_database: str,
    tmp_path: Path,
    signer: HttpSigner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Who has it asks for it again after a third of that, and may be held up in between.
    monkeypatch.setattr(signing, "LEASE_S", 6.0)
    monkeypatch.setattr(signing, "EVERY_S", 0.2)
    file, database = written(tmp_path, signer, timeoutSeconds=30), shared_database
    signer.mode = http_signer.SLOW
    directories = tmp_path / "one", tmp_path / "other"
    async with AsyncExitStack() as others:
        one = await others.enter_async_context(serving(directories[0], file, database))
        shutil.copytree(directories[0] / "pki", directories[1] / "pki")
        async with serving(directories[1], file, database) as other:
            async with one.connection() as factory:
                agent = await approved(one, factory)
                await until(lambda: len(signer.seen) >= 4)
                assert len(set(signer.lines)) == 1, "both asked"
            await others.aclose()
            signer.mode = http_signer.ISSUE
            async with other.connection() as factory, asyncio.timeout(PATIENCE_S):
                agent.url = other.url
                await agent.wait_for_certificate(factory)
    assert len(signer.signed) == 1


async def test_the_servers_certificate_comes_from_outside_too(
    tmp_path: Path, signer: HttpSigner
) -> None:
    """Of both listeners; until it is there the built-in authority's serves, and clients that go by
    the written files trust either."""
    settings = config.settings_of(
        data=tmp_path / "data",
        listen="127.0.0.1:0",
        agent_listen="127.0.0.1:0",
        signers=written(tmp_path, signer, "server"),
        with_controllers=False,
    )
    signer.mode, signer.retry_after = http_signer.DOWN, "0"
    server = await app.serve(settings)
    try:
        urls = server.url, server.agent_url
        assert [await issuer(settings.data, url) for url in urls] == ["flightctl-ca"] * 2
        signer.mode = http_signer.ISSUE
        for url in urls:

            async def is_theirs(url: str = url) -> bool:
                return await issuer(settings.data, url) == "outside-ca"

            await until(is_theirs)
    finally:
        await server.stop()
    signer.mode, asked = http_signer.DOWN, len(signer.seen)
    server = await app.serve(settings)
    try:
        urls = server.url, server.agent_url
        assert [await issuer(settings.data, url) for url in urls] == ["outside-ca"] * 2
    finally:
        await server.stop()
    assert len(signer.seen) == asked, "what is there and good is not ordered again"
    assert len(signer.signed) == 1


async def issuer(data: Path, url: str) -> str:
    """Who signed what the server at `url` shows, to a client that goes by the kubeconfig."""
    kubeconfig = yaml.safe_load((data / "admin.kubeconfig").read_text())
    pem = kubeconfig["clusters"][0]["cluster"]["certificate-authority-data"]
    tls = ssl.create_default_context(cadata=base64.b64decode(pem).decode())
    parts = urlsplit(url)
    _, writer = await asyncio.open_connection(parts.hostname, parts.port, ssl=tls)
    try:
        shown = writer.get_extra_info("peercert")["issuer"]
        return str(dict(pair[0] for pair in shown)["commonName"])
    finally:
        writer.transport.abort()
