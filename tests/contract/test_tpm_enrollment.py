"""Enrolment by a TPM from outside: the agent API with a TPM of software keys, which can lie, and
gRPC's own client. [simulated] The real software TPM and real agents are in `test_tpm_agents`."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import serialization

from apiserver import admitting, approvals, certifying
from apiserver.agentapi import grpc as ours
from apiserver.agentapi.settings import AgentApiSettings
from apiserver.operations import WriteOptions
from apiserver.pki import signers
from apiserver.pki.tpmroots import Roots
from apiserver.store import auditlog
from resources import registry
from tests.fakes import agent_client, software_tpm
from tests.fakes.agent_service import PERSON, AgentService, serving
from tests.fakes.software_tpm import Maker, SoftwareTpm
from tests.fakes.waiting import PATIENCE_S

Json = dict[str, Any]
Answer = Callable[[bytes, bytes], bytes]

MAKER = Maker()
MAKERS = Roots([MAKER.certificate])
REQUEST = registry.by_kind("EnrollmentRequest")
PATH = "/flightctl.v1.Enrollment/TPMChallenge"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[AgentService]:
    async with serving(tmp_path, makers=MAKERS) as running:
        yield running


@pytest.fixture
async def anywhere(tmp_path: Path, database_url: str) -> AsyncIterator[AgentService]:
    """On both stores."""
    async with serving(tmp_path, database=database_url, makers=MAKERS) as running:
        yield running


@pytest.fixture
def tpm() -> SoftwareTpm:
    return SoftwareTpm(MAKER)


async def enrol(service: AgentService, tpm: SoftwareTpm, csr: str = "") -> Json:
    agent = service.agent()
    agent.key, agent.name = tpm.key, tpm.name
    async with service.connection() as factory:
        answer = await agent.enrol(factory, csr=csr or tpm.bundle())
        assert answer.code == 201, answer
        return answer.json


async def request(service: AgentService, name: str) -> Json:
    return await service.operations.get(PERSON, REQUEST, "default", name)


def verified(document: Json) -> tuple[str, str]:
    found = [c for c in document["status"]["conditions"] if c["type"] == "TPMVerified"]
    return (found[0]["status"], found[0]["reason"]) if found else ("", "")


# --- gRPC's own client ---------------------------------------------------------------------------


def field(number: int, payload: bytes) -> bytes:
    assert len(payload) < 1 << 14
    low, high = len(payload) & 0x7F | 0x80, len(payload) >> 7
    return bytes([number << 3 | 2, low, high]) + payload


def parts(raw: bytes) -> dict[int, bytes]:
    """The fields of a message, none of which is larger than 16 KB."""
    found, at = {}, 0
    while at < len(raw):
        number, size, at = raw[at] >> 3, raw[at + 1] & 0x7F, at + 2
        if raw[at - 1] & 0x80:
            size, at = size | raw[at] << 7, at + 1
        found[number], at = raw[at : at + size], at + size
    return found


@asynccontextmanager
async def call(service: AgentService, **grant: Any) -> AsyncIterator[Any]:
    """A stream under a certificate for enrolment, unless another is granted."""
    pem = service.certificate_pem(**grant)
    key, leaf = pem[pem.index(b"-----BEGIN PRIVATE") :], pem[: pem.index(b"-----BEGIN PRIVATE")]
    credentials = grpc.ssl_channel_credentials(service.authority.server_ca_pem, key, leaf)
    address = service.url.removeprefix("https://")
    async with grpc.aio.secure_channel(address, credentials) as channel:
        yield channel.stream_stream(PATH)()


async def challenge(service: AgentService, name: str, answer: Answer, **grant: Any) -> str:
    """The verdict: "success", "error", or the name of a gRPC status."""
    async with call(service, **grant) as stream:
        try:
            await stream.write(field(1, field(1, name.encode())))
            said = await stream.read()
            if said is grpc.aio.EOF:
                return str((await stream.code()).name)
            credential = parts(parts(said)[1])
            await stream.write(field(2, field(1, answer(credential[1], credential[2]))))
            verdict = parts(await stream.read())
            assert parts(next(iter(verdict.values())))[1], "it says why"
            return {2: "success", 3: "error"}[next(iter(verdict))]
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)


async def admitted(service: AgentService, tpm: SoftwareTpm) -> tuple[agent_client.Agent, str]:
    """A device that has proved its TPM and was approved, and its certificate."""
    agent = service.agent()
    agent.key, agent.name = tpm.key, tpm.name
    async with service.connection() as factory:
        assert (await agent.enrol(factory, csr=tpm.bundle())).code == 201
        assert await challenge(service, tpm.name, tpm.activate) == "success"
        await service.approve(agent.name)
        certificate = await agent.wait_for_certificate(factory)
    return agent, certificate


# --- the four cases ------------------------------------------------------------------------------


async def test_a_tpm_of_a_trusted_maker_is_verified_by_its_challenge(
    anywhere: AgentService, tpm: SoftwareTpm
) -> None:
    assert verified(await enrol(anywhere, tpm)) == ("False", "TPMChallengeRequired")
    assert await challenge(anywhere, tpm.name, tpm.activate) == "success"
    found = await request(anywhere, tpm.name)
    assert verified(found) == ("True", "TPMChallengeSucceeded")
    await anywhere.approve(tpm.name)
    device = await anywhere.device(tpm.name)
    integrity = device["status"]["integrity"]
    assert integrity["status"] == "Verified"
    assert integrity["tpm"] == integrity["deviceIdentity"] == {"status": "Verified"}


async def test_one_of_another_maker_is_not_and_cannot_be_challenged(service: AgentService) -> None:
    tpm = SoftwareTpm(Maker())
    document = await enrol(service, tpm)
    assert verified(document) == ("False", "TPMVerificationFailed")
    assert "not trusted" in document["status"]["conditions"][0]["message"]
    assert await challenge(service, tpm.name, tpm.activate) == "FAILED_PRECONDITION"
    await service.approve(tpm.name)
    integrity = (await service.device(tpm.name))["status"]["integrity"]
    assert integrity["status"] == integrity["deviceIdentity"]["status"] == "Failed"
    assert "not trusted" in integrity["info"]


async def test_a_swapped_key_is_seen(service: AgentService, tpm: SoftwareTpm) -> None:
    """A bundle of a real device, around the request of a thief's key."""
    thief = SoftwareTpm(MAKER)
    bundle = tpm.bundle(request_key=thief.key, signing_key=thief.key)
    document = await enrol(service, thief, bundle)
    assert verified(document) == ("False", "TPMVerificationFailed")
    assert await challenge(service, thief.name, tpm.activate) == "FAILED_PRECONDITION"


async def test_an_answer_to_an_earlier_challenge_is_none_to_a_later(
    service: AgentService, tpm: SoftwareTpm
) -> None:
    await enrol(service, tpm)
    earlier: list[bytes] = []

    def lose(blob: bytes, encrypted: bytes) -> bytes:
        earlier.append(tpm.activate(blob, encrypted))
        raise ConnectionResetError

    with suppress(ConnectionResetError):
        await challenge(service, tpm.name, lose)
    assert len(earlier) == 1
    assert await challenge(service, tpm.name, lambda *_: earlier[0]) == "error"
    assert verified(await request(service, tpm.name)) == ("False", "TPMChallengeFailed")
    # The device itself is not harmed by it.
    assert await challenge(service, tpm.name, tpm.activate) == "success"
    assert verified(await request(service, tpm.name)) == ("True", "TPMChallengeSucceeded")


async def test_keys_of_two_tpms_do_not_pass(service: AgentService, tpm: SoftwareTpm) -> None:
    """The endorsement certificate of a real TPM before keys of a program."""
    liar = SoftwareTpm(MAKER)
    certificate = MAKER.endorse(tpm.endorsement.public_key())
    document = await enrol(service, liar, liar.bundle(ek_certificate=certificate))
    assert verified(document) == ("False", "TPMChallengeRequired")

    def guess(blob: bytes, encrypted: bytes) -> bytes:
        with pytest.raises(AssertionError, match="integrity"):
            tpm.activate(blob, encrypted)
        return bytes(32)

    assert await challenge(service, liar.name, guess) == "error"
    await service.approve(liar.name)
    integrity = (await service.device(liar.name))["status"]["integrity"]
    assert integrity["status"] == "Failed"


# --- who is let in without a person --------------------------------------------------------------


async def test_a_policy_lets_in_whose_tpm_has_answered_and_no_other(
    service: AgentService, tpm: SoftwareTpm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admitting, "GAP_S", 0.02)
    other, silent = SoftwareTpm(MAKER), SoftwareTpm(MAKER)
    der = tpm.endorsement.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    listed = {"tpmKeys": [hashlib.sha256(der).hexdigest()], "tpmVerified": True}
    for name, spec in (("listed", listed), ("rest", {"selector": {}, "limit": 1})):
        document = {"metadata": {"name": name}, "spec": spec}
        await service.operations.create(
            PERSON, registry.ENROLLMENT_POLICY, "default", document, WriteOptions()
        )
    at_work = asyncio.create_task(admitting.Admitting(service.operations, service.issuing).run())
    try:
        for each in (tpm, other, silent):
            await enrol(service, each)
        await asyncio.sleep(0.3)
        assert "approval" not in (await request(service, tpm.name))["status"], "not yet"
        for each in (tpm, other):
            assert await challenge(service, each.name, each.activate) == "success"
        async with asyncio.timeout(PATIENCE_S):
            while "approval" not in (await request(service, tpm.name))["status"]:
                await asyncio.sleep(0.02)
            while "approval" not in (await request(service, other.name))["status"]:
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
    finally:
        at_work.cancel()
    by = {
        each.name: (await request(service, each.name))["status"]
        .get("approval", {})
        .get("approvedBy")
        for each in (tpm, other, silent)
    }
    assert by == {
        tpm.name: "EnrollmentPolicy/listed",
        other.name: "EnrollmentPolicy/rest",
        silent.name: None,
    }


# --- what a challenge is not ---------------------------------------------------------------------


async def test_a_proof_is_not_taken_away_by_who_answers_wrongly(
    service: AgentService, tpm: SoftwareTpm
) -> None:
    await enrol(service, tpm)
    assert await challenge(service, tpm.name, tpm.activate) == "success"
    assert await challenge(service, tpm.name, lambda *_: bytes(32)) == "FAILED_PRECONDITION"
    assert verified(await request(service, tpm.name)) == ("True", "TPMChallengeSucceeded")


async def test_two_challenges_at_once_are_two(anywhere: AgentService, tpm: SoftwareTpm) -> None:
    """Whoever ends second finds it done."""
    await enrol(anywhere, tpm)
    answers = await asyncio.gather(*(challenge(anywhere, tpm.name, tpm.activate) for _ in range(4)))
    assert "success" in answers
    assert set(answers) <= {"success", "FAILED_PRECONDITION"}
    assert verified(await request(anywhere, tpm.name)) == ("True", "TPMChallengeSucceeded")


async def test_a_proof_is_of_the_csr_that_was_proven(
    anywhere: AgentService, tpm: SoftwareTpm
) -> None:
    await enrol(anywhere, tpm)
    assert await challenge(anywhere, tpm.name, tpm.activate) == "success"
    liar = SoftwareTpm(MAKER, key=tpm.key)
    operations = anywhere.operations
    await operations.patch(
        PERSON,
        REQUEST,
        "default",
        tpm.name,
        lambda old: old | {"spec": old["spec"] | {"csr": liar.bundle()}},
        WriteOptions(),
    )
    await anywhere.approve(tpm.name)
    integrity = (await anywhere.device(tpm.name))["status"]["integrity"]
    assert integrity["status"] == "Failed"
    assert "as it is now" in integrity["info"]


@pytest.mark.parametrize(
    ("bundle", "outcome"),
    [
        pytest.param(lambda tpm: tpm.bundle(ek_certificate=b""), "True", id="the same TPM"),
        pytest.param(
            lambda tpm: SoftwareTpm(MAKER, key=tpm.key).bundle(), "False", id="another TPM's LAK"
        ),
        pytest.param(
            lambda tpm: tpm.bundle(signing_key=software_tpm.new_key()), "False", id="not signed"
        ),
    ],
)
@pytest.mark.parametrize("form", ["bytes", "text"])
async def test_an_enrolled_device_asks_with_its_tpm_again(
    service: AgentService,
    tpm: SoftwareTpm,
    bundle: Callable[[SoftwareTpm], str],
    outcome: str,
    form: str,
) -> None:
    agent, certificate = await admitted(service, tpm)
    text = bundle(tpm)
    request = text if form == "bytes" else base64.b64encode(text.encode()).decode()
    body = agent.renewal_body(request=request)
    async with agent.connection(certificate) as connection:
        answer = await connection.send("POST", "/certificatesigningrequests", json=body)
    assert answer.code == 201, answer
    status = answer.json["status"]
    found = {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}
    is_good = outcome == "True"
    reason = "TPMVerificationSucceeded" if is_good else "TPMVerificationFailed"
    assert found["TPMVerified"] == (outcome, reason)
    assert ("Approved" in found) is bool(status.get("certificate")) is is_good


async def told(service: AgentService) -> list[tuple[int, str, str, str]]:
    """What the audit has of challenges."""
    await service.refusals.flush()
    rows = await service.store.read(lambda s: auditlog.page(s, auditlog.Wanted(), 0, 100))
    said = [row.spec for row in rows if row.spec["object"].get("subresource") == "challenge"]
    assert {spec["sourceAddress"] for spec in said} <= {"127.0.0.1"}
    assert {spec["object"]["kind"] for spec in said} <= {"EnrollmentRequest"}
    return [
        (each["code"], each["reason"], each.get("user", ""), each["object"].get("name", ""))
        for each in said
    ]


async def test_challenges_are_in_the_audit_and_so_is_who_was_refused(
    anywhere: AgentService, tpm: SoftwareTpm
) -> None:
    service, who = anywhere, "client-enrollment-factory"
    stranger = {"common_name": "svc", "signer": signers.SERVER_SVC}
    async with call(service, **stranger) as stream:
        assert (await stream.code()).name == "UNAUTHENTICATED"
    assert await challenge(service, "nobody", lambda *_: b"") == "NOT_FOUND"
    expected = [(401, "Unauthorized", "", ""), (404, "NotFound", who, "nobody")]
    assert await told(service) == expected
    await enrol(service, tpm)
    assert await challenge(service, tpm.name, lambda *_: b"wrong") == "error"
    assert await challenge(service, tpm.name, tpm.activate) == "success"
    expected += [
        (200, "TPMChallengeFailed", who, tpm.name),
        (200, "TPMChallengeSucceeded", who, tpm.name),
    ]
    assert await told(service) == expected
    # As a device does that waits for its approval.
    for _ in range(3):
        assert await challenge(service, tpm.name, tpm.activate) == "FAILED_PRECONDITION"
    assert await told(service) == [*expected, (409, "Conflict", who, tpm.name)]


async def test_who_enrolled_by_a_tpm_renews_with_the_key_in_it_and_no_other(
    service: AgentService, tpm: SoftwareTpm
) -> None:
    agent, certificate = await admitted(service, tpm)
    async with agent.connection(certificate) as connection:
        for key, is_signed in ((software_tpm.new_key(), False), (tpm.key, True)):
            body = agent.renewal_body(key)
            body["metadata"]["name"] += str(is_signed).lower()
            answer = await connection.send("POST", "/certificatesigningrequests", json=body)
            assert answer.code == 201, answer
            status = answer.json["status"]
            assert bool(status.get("certificate")) is is_signed
            said = {c["type"]: c["reason"] for c in status["conditions"]}
            refused = {"TPMVerified": "TPMVerificationFailed"}
            assert said == ({"Approved": "Approved"} if is_signed else refused)
        # It waits, and a person may decide.
        name = f"{agent.name}-0123abcdfalse"
        decision = {"status": {"conditions": [{"type": "Approved", "status": "True"}]}}
        approved = await certifying.sign_csr(
            service.operations, service.issuing, PERSON, "default", name, decision
        )
        assert approved["status"]["certificate"]


async def test_a_device_does_not_vouch_for_itself(service: AgentService, tpm: SoftwareTpm) -> None:
    agent = service.agent()
    agent.key, agent.name = tpm.key, tpm.name
    liar = SoftwareTpm(Maker(), key=tpm.key)
    async with await service.admitted(agent, csr=liar.bundle()) as connection:
        claim = {"status": "Verified", "deviceIdentity": {"status": "Verified"}}
        status = agent_client.device_status("0", integrity=claim)
        assert (await agent.report(connection, status)).code == 200
    found = (await service.device(agent.name))["status"]
    assert found["integrity"]["status"] == found["integrity"]["tpm"]["status"] == "Failed"
    assert found["systemInfo"]["hostname"] == "h", "the rest of the report is there"


async def test_an_ordinary_request_has_no_such_condition(service: AgentService) -> None:
    agent = service.agent()
    async with service.connection() as factory:
        answer = await agent.enrol(factory)
    assert answer.code == 201
    assert verified(answer.json) == ("", "")
    assert await challenge(service, agent.name, lambda *_: b"") == "FAILED_PRECONDITION"
    await service.approve(agent.name)
    integrity = (await service.device(agent.name))["status"]["integrity"]
    assert integrity["status"] == "Unsupported"


async def test_a_persons_request_is_judged_too(service: AgentService, tpm: SoftwareTpm) -> None:
    document = {"metadata": {"name": tpm.name}, "spec": {"csr": tpm.bundle()}}
    written = await approvals.create_enrollment(
        service.operations, MAKERS, PERSON, "default", document, WriteOptions()
    )
    assert verified(written.document) == ("False", "TPMChallengeRequired")


@pytest.mark.parametrize(
    ("csr", "words"),
    [
        pytest.param("AQABAAAA", "announced", id="cut off"),
        pytest.param("AQABAP////8AAAAA", "announced", id="too much announced"),
        pytest.param("AQACAAAA", "PEM", id="of another version"),
    ],
)
async def test_a_form_that_is_not_known_is_400(
    service: AgentService, tpm: SoftwareTpm, csr: str, words: str
) -> None:
    agent = service.agent()
    agent.key, agent.name = tpm.key, tpm.name
    async with service.connection() as factory:
        answer = await agent.enrol(factory, csr=csr)
    assert answer.code in (400, 422), answer
    assert words in answer.json["message"]


@pytest.mark.parametrize(
    ("grant", "code"),
    [
        pytest.param({"common_name": "device:x", "signer": signers.RENEWAL}, "UNAUTHENTICATED"),
        pytest.param({"common_name": "svc", "signer": signers.SERVER_SVC}, "UNAUTHENTICATED"),
        pytest.param({"organization": None}, "INVALID_ARGUMENT"),
    ],
    ids=["a device's", "another signer's", "of no organisation"],
)
async def test_other_certificates_are_refused(
    service: AgentService, grant: Json, code: str
) -> None:
    async with call(service, **grant) as stream:
        assert (await stream.code()).name == code


async def test_a_request_that_there_is_not_is_not_found(service: AgentService) -> None:
    assert await challenge(service, "nobody-knows-this-one", lambda *_: b"") == "NOT_FOUND"


async def test_requests_of_another_organisation_are_not_found(
    service: AgentService, tpm: SoftwareTpm
) -> None:
    await enrol(service, tpm)
    other = await service.add_organization("other")
    answer = await challenge(service, tpm.name, tpm.activate, organization=other)
    assert answer == "NOT_FOUND"


async def test_who_says_nothing_is_not_waited_for(tmp_path: Path, tpm: SoftwareTpm) -> None:
    settings = AgentApiSettings(challenge_s=1)
    async with serving(tmp_path, settings, makers=MAKERS) as service:
        await enrol(service, tpm)
        async with call(service) as stream:
            await stream.write(field(1, field(1, tpm.name.encode())))
            await stream.read()
            async with asyncio.timeout(PATIENCE_S):
                assert await stream.code() is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("message", "code"),
    [
        pytest.param(b"\xff", grpc.StatusCode.INVALID_ARGUMENT, id="no message"),
        pytest.param(b"", grpc.StatusCode.INVALID_ARGUMENT, id="an empty one"),
        pytest.param(field(2, b""), grpc.StatusCode.INVALID_ARGUMENT, id="an answer first"),
        pytest.param(bytes(100_000), grpc.StatusCode.RESOURCE_EXHAUSTED, id="too large"),
    ],
)
async def test_bad_messages_are_refused(
    service: AgentService, message: bytes, code: grpc.StatusCode
) -> None:
    async with call(service) as stream:
        await stream.write(message)
        assert await stream.code() is code


async def test_other_calls_are_not_known(service: AgentService) -> None:
    pem = service.certificate_pem()
    at = pem.index(b"-----BEGIN PRIVATE")
    credentials = grpc.ssl_channel_credentials(service.authority.server_ca_pem, pem[at:], pem[:at])
    address = service.url.removeprefix("https://")
    async with grpc.aio.secure_channel(address, credentials) as channel:
        calls = [channel.stream_stream("/a.b/C")() for _ in range(2 * ours.CALLS_MAX)]
        for each in calls:
            assert await each.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_rest_stays_http_1(service: AgentService) -> None:
    """A client that could do both, as reference agents can, is given HTTP/1.1."""
    async with service.connection() as factory:
        factory.tls.set_alpn_protocols(["h2", "http/1.1"])
        answer = await factory.send("GET", "/enrollmentrequests/nobody-knows-this-one")
    assert answer.code == 404
