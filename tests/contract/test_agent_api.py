"""The agent API from outside: a listening server, real mutual TLS, a client written from the
contract (behaviour.md 7.3, 8 and 15.3). Nothing here knows how the service does it."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from apiserver.agentapi.settings import AgentApiSettings
from apiserver.pki import signers
from apiserver.pki.extensions import identity_of
from tests.fakes import agent_client
from tests.fakes.agent_client import Agent, Answer, Connection, device_status, version_of
from tests.fakes.agent_service import HELD, AgentService, serving, utc_now
from tests.fakes.waiting import PATIENCE_S

CONFIG = [{"name": "motd", "inline": [{"path": "/etc/motd", "content": "hi"}]}]
ZERO = UUID(int=0)


@pytest.fixture
async def service(tmp_path: Path, database_url: str) -> AsyncIterator[AgentService]:
    settings = AgentApiSettings(
        hold_s=0.4, presence_flush_s=0.2, presence_urgent_s=0.02, sweep_grace_s=3600
    )
    async with serving(tmp_path, settings, database=database_url) as running:
        yield running


@pytest.fixture
async def patient(tmp_path: Path, database_url: str) -> AsyncIterator[AgentService]:
    async with serving(tmp_path, HELD, database=database_url) as running:
        yield running


def assert_status(answer: Answer, code: int, reason: str, text: str) -> None:
    assert answer.code == code, answer
    body = answer.json
    assert set(body) == {"apiVersion", "kind", "status", "code", "reason", "message"}
    assert (body["apiVersion"], body["kind"]) == ("flightctl.io/v1beta1", "Status")
    assert (body["status"], body["code"], body["reason"]) == ("Failure", code, reason)
    assert text in body["message"], body


# --- enrolment ------------------------------------------------------------------------------


async def test_a_device_enrols_is_approved_and_fetches_its_specification(
    service: AgentService,
) -> None:
    agent = service.agent()
    async with service.connection() as factory:
        created = await agent.enrol(factory)
        assert created.code == 201
        assert created.json["status"]["conditions"] == []
        assert created.json["apiVersion"] == "flightctl.io/v1beta1"
        pending = await factory.send("GET", f"/enrollmentrequests/{agent.name}")
        assert pending.json["status"] == {"conditions": []}

        approval = await service.approve(agent.name, labels={"site": "b"})
        assert approval is not None
        assert approval["labels"] == {"alias": "h", "site": "b"}
        certificate = await agent.wait_for_certificate(factory)

    async with agent.connection(certificate) as managed:
        device = (await agent.poll(managed)).json
        assert device["kind"] == "Device"
        assert device["metadata"]["labels"] == {"alias": "h", "site": "b"}
        assert version_of(device) == "1"
        assert device["spec"] == {"applications": [], "config": [], "consoles": []}
        assert device["status"]["lifecycle"]["status"] == "Enrolled"
        assert device["status"]["integrity"]["status"] == "Unsupported"
        assert device["status"]["systemInfo"]["hostname"] == "h"


async def test_the_certificate_is_one_leaf_as_the_contract_describes(service: AgentService) -> None:
    agent = service.agent()
    async with service.connection() as factory:
        await agent.enrol(factory)
        await service.approve(agent.name)
        pem = await agent.wait_for_certificate(factory)
    assert pem.count("BEGIN CERTIFICATE") == 1
    leaf = x509.load_pem_x509_certificate(pem.encode())
    found = identity_of(leaf.public_bytes(serialization.Encoding.DER))
    assert found.signer == "flightctl.io/device-enrollment"
    assert found.common_name == found.fingerprint == f"device:{agent.name}"
    assert found.organization == ZERO
    issuer = leaf.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value
    assert issuer == "flightctl-client-signer-ca"
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc <= timedelta(days=365, seconds=1)


async def test_a_second_post_of_a_name_is_409_never_200(service: AgentService) -> None:
    agent = service.agent()
    async with service.connection() as factory:
        await agent.enrol(factory)
        assert_status(await agent.enrol(factory), 409, "Conflict", "already exists")


async def test_a_request_of_nobody_is_404_but_not_the_text_that_wipes_a_device(
    service: AgentService,
) -> None:
    async with service.connection() as factory:
        answer = await factory.send("GET", "/enrollmentrequests/nobody-nobody-nobody")
        text = 'EnrollmentRequest of name "nobody-nobody-nobody" not found'
        assert_status(answer, 404, "Not Found", text)
        assert b"Device of name" not in answer.body


async def test_what_an_agent_reports_beyond_the_schema_survives(service: AgentService) -> None:
    agent = service.agent()
    status = device_status(future={"a": [1]}, conditions=[])
    async with service.connection() as factory:
        answer = await agent.enrol(factory, deviceStatus=status, future="field")
        assert answer.code == 201, answer
        stored = (await factory.send("GET", f"/enrollmentrequests/{agent.name}")).json
    assert stored["spec"]["deviceStatus"] == status
    assert stored["spec"]["future"] == "field"


async def test_a_device_of_a_lost_service_starts_above_the_version_that_it_runs(
    service: AgentService,
) -> None:
    agent = service.agent()
    async with await service.admitted(agent, knownRenderedVersion="41") as managed:
        assert version_of((await agent.poll(managed)).json) == "42"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        pytest.param({"name": "short"}, "16 characters", id="short name"),
        pytest.param({"name": "a" * 52}, "common name", id="a name that is not the CSR's"),
        pytest.param({"csr": "x"}, "csr", id="no PEM"),
        pytest.param({"csr": 7}, "csr", id="a number for a CSR"),
        pytest.param({"csr": None}, "csr", id="no CSR"),
        pytest.param({"labels": {"a b": "c"}}, "labels", id="bad label"),
        pytest.param({"apiVersion": "v2"}, "apiVersion", id="unknown apiVersion"),
        pytest.param({"deviceStatus": 5}, "deviceStatus", id="a number for a status"),
        pytest.param(
            {"deviceStatus": {"conditions": "x"}}, "conditions", id="a text for conditions"
        ),
    ],
)
async def test_a_wrong_request_is_400_and_says_where(
    service: AgentService, change: dict[str, Any], text: str
) -> None:
    agent = service.agent()
    body = agent.request_body()
    for key, value in change.items():
        part = {"name": body["metadata"], "apiVersion": body}.get(key, body["spec"])
        part[key] = value
    async with service.connection() as factory:
        answer = await factory.send("POST", "/enrollmentrequests", json=body)
    assert_status(answer, 400, "Bad Request", text)


@pytest.mark.parametrize("prefix", ["", "device:"])
async def test_the_name_must_be_the_fingerprint_of_the_key(
    service: AgentService, prefix: str
) -> None:
    agent = service.agent()
    stranger = ec.generate_private_key(ec.SECP256R1())
    wrong = agent_client.signing_request(stranger, prefix + agent.name)
    right = agent_client.signing_request(agent.key, prefix + agent.name)
    async with service.connection() as factory:
        assert_status(await agent.enrol(factory, csr=wrong), 400, "Bad Request", "fingerprint")
        assert (await agent.enrol(factory, csr=right)).code == 201


async def test_a_name_in_hex_is_as_good(service: AgentService) -> None:
    """Its common name is longer than X.509 likes."""
    agent = service.agent()
    digest = base64.b32hexdecode(agent.name.upper() + "====")
    agent.name = digest.hex()
    async with await service.admitted(agent) as managed:
        assert (await agent.poll(managed)).code == 200


async def test_a_denied_request_ends_the_agents_waiting(service: AgentService) -> None:
    agent = service.agent()
    async with service.connection() as factory:
        await agent.enrol(factory)
        assert await service.approve(agent.name, approved=False) is None
        found = (await factory.send("GET", f"/enrollmentrequests/{agent.name}")).json
        assert [c["type"] for c in found["status"]["conditions"]] == ["Denied"]
        await service.approve(agent.name)
        assert await agent.wait_for_certificate(factory)


async def test_an_organisation_in_a_devices_own_request_does_not_get_into_its_certificate(
    service: AgentService,
) -> None:
    agent = service.agent()
    masters = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "system:masters")
    csr = agent_client.signing_request(agent.key, agent.name, masters)
    async with service.connection() as factory:
        await agent.enrol(factory, csr=csr)
        await service.approve(agent.name)
        pem = await agent.wait_for_certificate(factory)
    leaf = x509.load_pem_x509_certificate(pem.encode())
    assert not leaf.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)


# --- who may enter --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["none", "own", "root"])
async def test_without_a_certificate_of_the_client_signer_the_handshake_fails(
    service: AgentService, kind: str
) -> None:
    certificate: Path | None = None
    if kind != "none":
        certificate = service.directory / "foreign.pem"
        pair = service.authority.issue_server(["x"])
        if kind == "own":
            pair = (
                type(service.authority)
                .load_or_create(service.directory / "foreign", now=utc_now)
                .issue_server(["x"])
            )
        certificate.write_bytes(b"".join(pair))
    stranger = Connection(service.url, service.authority.server_ca_pem, certificate)
    async with stranger as connection:
        with pytest.raises((aiohttp.ClientError, ssl.SSLError)):
            await connection.send("GET", "/enrollmentrequests/x")


async def test_an_enrolment_certificate_opens_enrolment_only(service: AgentService) -> None:
    agent = service.agent()
    async with service.connection() as factory:
        for method, path in (
            ("GET", f"/devices/{agent.name}/rendered"),
            ("PUT", f"/devices/{agent.name}/status"),
            ("PATCH", f"/devices/{agent.name}/status"),
            ("POST", "/certificatesigningrequests"),
            ("GET", "/certificatesigningrequests/x"),
        ):
            answer = await factory.send(method, path, json={})
            assert_status(answer, 401, "Unauthorized", "certificate")
            assert "Flightctl-API-Version" not in answer.headers


async def test_a_device_certificate_does_not_open_enrolment_nor_other_devices(
    service: AgentService,
) -> None:
    one, other = service.agent(), service.agent()
    await service.admitted(other)
    async with await service.admitted(one) as managed:
        assert_status(await one.enrol(managed), 401, "Unauthorized", "certificate")
        assert_status(await other.poll(managed), 401, "Unauthorized", "another device")
        answer = await other.report(managed, device_status())
        assert_status(answer, 401, "Unauthorized", "another device")


@pytest.mark.parametrize(
    ("grant", "code"),
    [
        pytest.param({"signer": signers.SVC_CLIENT}, 401, id="a service certificate"),
        pytest.param({"signer": ""}, 401, id="an administrator's certificate"),
        pytest.param({"fingerprint": "device:other"}, 401, id="a fingerprint that is not the CN's"),
        pytest.param({"organization": None}, 400, id="no organisation"),
        pytest.param({"organization": UUID(int=7)}, 403, id="an unknown organisation"),
    ],
)
async def test_a_certificate_that_is_not_quite_a_devices_is_refused(
    service: AgentService, grant: dict[str, Any], code: int
) -> None:
    agent = service.agent()
    wanted = {"signer": signers.DEVICE_ENROLLMENT, "fingerprint": f"device:{agent.name}"} | grant
    async with service.connection(f"device:{agent.name}", **wanted) as connection:
        answer = await agent.poll(connection)
        assert answer.code == code, answer
        assert b"Device of name" not in answer.body


async def test_the_organisation_comes_from_the_certificate_alone(service: AgentService) -> None:
    agent = service.agent()
    await service.admitted(agent)
    elsewhere = await service.add_organization("elsewhere")
    own = {
        "signer": signers.RENEWAL,
        "fingerprint": f"device:{agent.name}",
        "organization": elsewhere,
    }
    async with service.connection(f"device:{agent.name}", **own) as connection:
        assert (await agent.poll(connection)).code == 404


# --- the specification ----------------------------------------------------------------------


async def test_a_poll_that_knows_the_version_is_held_and_ends_empty(service: AgentService) -> None:
    agent = service.agent()
    async with await service.admitted(agent) as managed:
        before = time.monotonic()
        answer = await agent.poll(managed, "1")
        assert time.monotonic() - before >= 0.35
    assert (answer.code, answer.body) == (204, b"")
    assert "Content-Type" not in answer.headers


@pytest.mark.parametrize("known", ["0", "", "7", "01"])
async def test_a_poll_that_knows_another_version_is_answered_at_once(
    patient: AgentService, known: str
) -> None:
    agent = patient.agent()
    async with await patient.admitted(agent) as managed:
        async with asyncio.timeout(PATIENCE_S):
            answer = await agent.poll(managed, known)
    assert version_of(answer.json) == "1"


async def test_a_change_ends_the_poll_of_its_device_and_of_no_other(patient: AgentService) -> None:
    one, other = patient.agent(), patient.agent()
    async with await patient.admitted(one) as first, await patient.admitted(other) as second:
        waiting = asyncio.create_task(one.poll(first, "1"))
        bystander = asyncio.create_task(other.poll(second, "1"))
        await asyncio.sleep(0.2)
        await patient.change(one.name, spec={"config": CONFIG})
        async with asyncio.timeout(PATIENCE_S):
            device = (await waiting).json
        await asyncio.sleep(0.2)
        assert not bystander.done()
        bystander.cancel()
    assert version_of(device) == "2"
    file = {"path": "/etc/motd", "content": "aGk=", "contentEncoding": "base64"}
    assert device["spec"]["config"] == [
        {"name": "", "inline": [file | {"mode": 420, "user": "root"}]}
    ]


async def test_a_change_that_renders_the_same_does_not_end_the_poll(patient: AgentService) -> None:
    agent = patient.agent()
    async with await patient.admitted(agent) as managed:
        waiting = asyncio.create_task(agent.poll(managed, "1"))
        await asyncio.sleep(0.1)
        await agent.report(managed, device_status("1"))
        await asyncio.sleep(0.3)
        assert not waiting.done()
        waiting.cancel()


async def test_every_change_is_found_however_polls_and_changes_interleave(
    patient: AgentService,
) -> None:
    agent = patient.agent()
    async with await patient.admitted(agent) as managed:

        async def follow() -> None:
            known = "0"
            while known != "21":
                known = version_of((await agent.poll(managed, known)).json)

        async with asyncio.timeout(PATIENCE_S):
            following = asyncio.create_task(follow())
            for number in range(20):
                content = [{"path": "/etc/n", "content": str(number)}]
                await patient.change(
                    agent.name, spec={"config": [{"name": "n", "inline": content}]}
                )
                await asyncio.sleep(0.003 * (number % 4))
            await following


async def test_a_deletion_ends_the_poll_with_the_text_that_agents_know(
    patient: AgentService,
) -> None:
    agent = patient.agent()
    text = f'Device of name "{agent.name}" not found'
    async with await patient.admitted(agent) as managed:
        waiting = asyncio.create_task(agent.poll(managed, "1"))
        await asyncio.sleep(0.1)
        await patient.delete(agent.name)
        async with asyncio.timeout(PATIENCE_S):
            assert_status(await waiting, 404, "Not Found", text)
            assert_status(await agent.poll(managed), 404, "Not Found", text)
            assert_status(await agent.poll(managed, "1"), 404, "Not Found", text)
            answer = await agent.report(managed, device_status())
            assert_status(answer, 404, "Not Found", text)


async def test_a_deleted_device_may_enrol_again(service: AgentService) -> None:
    agent = service.agent()
    await service.admitted(agent)
    await service.delete(agent.name)
    async with await service.admitted(agent) as managed:
        assert version_of((await agent.poll(managed)).json) == "1"


async def test_what_is_read_right_after_a_change_is_the_change(service: AgentService) -> None:
    agent = service.agent()
    async with await service.admitted(agent) as managed:
        for number in range(2, 12):
            content = [{"path": "/etc/n", "content": str(number)}]
            await service.change(agent.name, spec={"config": [{"name": "n", "inline": content}]})
            assert version_of((await agent.poll(managed)).json) == str(number)


async def test_a_newer_poll_takes_the_place_of_one_whose_connection_was_lost(
    patient: AgentService,
) -> None:
    agent = patient.agent()
    async with await patient.admitted(agent) as managed:
        # On connections that are there already: polls arrive in the order in which they are sent.
        await asyncio.gather(*(agent.poll(managed) for _ in range(3)))
        polls = []
        for _ in range(3):
            polls.append(asyncio.create_task(agent.poll(managed, "1")))
            await asyncio.sleep(0.1)
        async with asyncio.timeout(PATIENCE_S):
            assert (await polls[0]).code == 204
        assert not polls[1].done()
        for poll in polls[1:]:
            poll.cancel()


async def test_a_drain_ends_polls_with_204(tmp_path: Path) -> None:
    async with serving(tmp_path, HELD) as service:
        agent = service.agent()
        managed = await (await service.admitted(agent)).__aenter__()
        # On a connection that is there already, for no new one is let in while it drains.
        await agent.poll(managed)
        waiting = asyncio.create_task(agent.poll(managed, "1"))
        await asyncio.sleep(0.2)
    assert (await waiting).code == 204
    await managed.__aexit__(None, None, None)


# --- reports --------------------------------------------------------------------------------


async def test_a_report_makes_the_device_online_and_up_to_date(service: AgentService) -> None:
    agent = service.agent()
    async with await service.admitted(agent) as managed:
        answer = await agent.report(managed, device_status("1"))
    assert answer.code == 200
    status = answer.json["status"]
    assert status["summary"]["status"] == "Online"
    assert status["updated"]["status"] == "UpToDate"
    assert status["applicationsSummary"]["status"] == "NoApplications"
    assert status["integrity"]["status"] == "Unsupported", "Unknown keeps what is stored"
    assert status["lifecycle"]["status"] == "Enrolled"


async def test_a_report_that_wants_no_echo_gets_none(service: AgentService) -> None:
    """A device that pays by the byte has just said all of it itself."""
    agent = service.agent()
    body = {"metadata": {"name": agent.name}, "status": device_status("1")}
    async with await service.admitted(agent) as managed:
        path, headers = f"/devices/{agent.name}/status", {"Prefer": "return=minimal"}
        answer = await managed.send("PUT", path, json=body, headers=headers)
        assert (answer.code, answer.body) == (204, b"")
        headers = {"Prefer": "return=representation"}
        assert (await managed.send("PUT", path, json=body, headers=headers)).code == 200
    assert (await service.device(agent.name))["status"]["summary"]["status"] == "Online"


async def test_no_session_is_given_out_that_nobody_resumes(service: AgentService) -> None:
    """Tickets hold the client's certificate: with them a connection costs 2 KB more."""
    agent = service.agent()
    async with await service.admitted(agent):
        context = ssl.create_default_context(cadata=service.authority.server_ca_pem.decode())
        context.load_cert_chain(
            service.directory / f"{agent.name}.crt", service.directory / f"{agent.name}.key"
        )
        port = int(service.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        writer.write(b"GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        await reader.read()
        made = writer.get_extra_info("ssl_object")
        assert made.version() == "TLSv1.3"
        assert not made.session.has_ticket
        writer.close()


async def test_an_error_counts_for_the_version_that_was_delivered(service: AgentService) -> None:
    agent = service.agent()
    failed = {
        "type": "Updating",
        "status": "False",
        "reason": "Error",
        "message": "Failed to update to renderedVersion: 1: no such image",
        "lastTransitionTime": "2026-11-23T00:00:00Z",
    }
    async with await service.admitted(agent) as managed:
        await agent.poll(managed)
        answer = await agent.report(managed, device_status("0", conditions=[failed]))
    updated = answer.json["status"]["updated"]
    assert updated["status"] == "OutOfDate"
    assert "no such image" in updated["info"]


async def test_a_report_replaces_the_agents_part_and_keeps_what_we_dont_know(
    service: AgentService,
) -> None:
    agent = service.agent()
    mode = {"osMode": "package"}
    async with await service.admitted(agent) as managed:
        await agent.report(managed, device_status("1", capabilities=mode, future={"x": [1, None]}))
        device = await service.device(agent.name)
        assert device["status"]["future"] == {"x": [1, None]}
        assert device["status"]["capabilities"] == mode
        await agent.report(managed, device_status("1"))
        device = await service.device(agent.name)
    assert not {"future", "capabilities"} & device["status"].keys()


async def test_a_heartbeat_alone_brings_a_device_online(service: AgentService) -> None:
    agent = service.agent()
    async with await service.admitted(agent) as managed:
        await agent.poll(managed)
        async with asyncio.timeout(PATIENCE_S):
            while (await service.device(agent.name))["status"]["summary"]["status"] != "Online":
                await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        pytest.param(b"{", "decode", id="not JSON"),
        pytest.param(b"[]", "object", id="not an object"),
        pytest.param(b'{"metadata":{"name":"NAME"}}', "status is required", id="no status"),
        pytest.param(b'{"metadata":{"name":"x"},"status":{}}', "name", id="another name"),
        pytest.param(b'{"metadata":{"name":"NAME"},"status":[]}', "status", id="a list"),
        pytest.param(
            b'{"metadata":{"name":"NAME"},"status":{"os":{"image":1}}}', "os.image", id="a number"
        ),
        pytest.param(b'{"metadata":{"name":"NAME"},"status":{"x":"\\u0000"}}', "Unicode", id="NUL"),
        pytest.param(
            b'{"metadata":{"name":"NAME"},"status":{"x":' + b"[" * 500 + b"]" * 500 + b"}}",
            "decode",
            id="too deep",
        ),
    ],
)
async def test_a_report_that_cannot_be_kept_is_400(
    service: AgentService, body: bytes, text: str
) -> None:
    agent = service.agent()
    headers = {"Content-Type": "application/json"}
    async with await service.admitted(agent) as managed:
        path = f"/devices/{agent.name}/status"
        data = body.replace(b"NAME", agent.name.encode())
        answer = await managed.send("PUT", path, data=data, headers=headers)
        assert_status(answer, 400, "Bad Request", text)
        answer = await managed.send("PUT", path, data=b"{}", headers={"Content-Type": "text/x"})
        assert_status(answer, 400, "Bad Request", 'unexpected value "text/x"')


async def test_a_report_above_a_mebibyte_is_413(service: AgentService) -> None:
    agent = service.agent()
    async with await service.admitted(agent) as managed:
        large = io.BytesIO(json.dumps({"x": "y" * 1024 * 1024}).encode())
        headers = {"Content-Type": "application/json"}
        path = f"/devices/{agent.name}/status"
        answer = await managed.send("PUT", path, data=large, headers=headers)
        assert answer.code == 413
        assert answer.json["kind"] == "Status"


async def test_a_json_patch_changes_the_status_and_nothing_else(service: AgentService) -> None:
    agent = service.agent()
    headers = {"Content-Type": "application/json-patch+json"}
    path = f"/devices/{agent.name}/status"
    async with await service.admitted(agent) as managed:
        await agent.report(managed, device_status("1"))

        async def patch(*operations: Any) -> Answer:
            return await managed.send("PATCH", path, json=list(operations), headers=headers)

        changed = await patch(
            {"op": "replace", "path": "/status/resources/cpu", "value": "Critical"}
        )
        assert changed.code == 200
        assert changed.json["status"]["summary"]["status"] == "Error"
        refused = (
            {"op": "replace", "path": "/metadata/labels", "value": {"a": "b"}},
            {"op": "add", "path": "/spec/os", "value": {"image": "x"}},
            {"op": "test", "path": "/status/resources/cpu", "value": "Healthy"},
            {"op": "remove", "path": "/status/nowhere"},
            {"op": "move", "from": "/status/os", "path": "/status/x"},
            {"op": "add", "path": "/status/x", "value": 1, "extra": 2},
        )
        for operation in refused:
            assert (await patch(operation)).code == 400, operation
        assert (await service.device(agent.name))["metadata"]["labels"] == {"alias": "h"}


async def test_what_a_patch_leaves_alone_is_not_taken_for_the_agents_word(
    service: AgentService,
) -> None:
    agent = service.agent()
    headers = {"Content-Type": "application/json-patch+json"}
    said = {"status": "Healthy"}
    apps = [{"name": "a", "status": "Running", "ready": "1/1", "restarts": 0}]
    rebooting = {
        "type": "Updating",
        "status": "True",
        "reason": "Rebooting",
        "message": "",
        "lastTransitionTime": "2026-11-23T00:00:00Z",
    }
    status = device_status("1", applications=apps, applicationsSummary=said, conditions=[rebooting])
    async with await service.admitted(agent) as managed:
        answer = await agent.report(managed, status)
        assert answer.json["status"]["applicationsSummary"]["status"] == "Degraded"
        patch = [{"op": "replace", "path": "/status/conditions", "value": []}]
        path = f"/devices/{agent.name}/status"
        answer = await managed.send("PATCH", path, json=patch, headers=headers)
    assert answer.json["status"]["applicationsSummary"]["status"] == "Healthy"


# --- renewal --------------------------------------------------------------------------------


async def test_a_device_renews_its_certificate_and_uses_the_new_one(service: AgentService) -> None:
    agent = service.agent()
    fresh = ec.generate_private_key(ec.SECP256R1())
    body = agent.renewal_body(fresh, expirationSeconds=3600)
    name = body["metadata"]["name"]
    async with await service.admitted(agent) as managed:
        created = await managed.send("POST", "/certificatesigningrequests", json=body)
        assert created.code == 201, created
        found = (await managed.send("GET", f"/certificatesigningrequests/{name}")).json
        again = await managed.send("POST", "/certificatesigningrequests", json=body)
        assert_status(again, 409, "Conflict", "already exists")
    assert found["metadata"]["owner"] == f"Device/{agent.name}"
    assert [(c["type"], c["status"]) for c in found["status"]["conditions"]] == [
        ("Approved", "True")
    ]
    pem = base64.b64decode(found["status"]["certificate"]).decode()
    leaf = x509.load_pem_x509_certificate(pem.encode())
    assert leaf.not_valid_after_utc - leaf.not_valid_before_utc == timedelta(seconds=3601)
    renewed = Agent(service.url, agent.ca_pem, agent.directory, key=fresh, name=agent.name)
    async with renewed.connection(pem) as managed:
        assert (await renewed.poll(managed)).code == 200


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        pytest.param({"signerName": "flightctl.io/enrollment"}, "reserved", id="enrolment signer"),
        pytest.param({"signerName": "flightctl.io/device-enrollment"}, "Enrollment", id="er"),
        pytest.param({"signerName": "flightctl.io/server-svc"}, "server", id="server signer"),
        pytest.param({"signerName": "nobody"}, "nobody", id="unknown signer"),
        pytest.param({"usages": ["clientAuth"]}, "CA:false", id="usages"),
        pytest.param({"request": "AAAA"}, "request", id="no request"),
    ],
)
async def test_a_wrong_signing_request_is_400(
    service: AgentService, spec: dict[str, Any], text: str
) -> None:
    agent = service.agent()
    body = agent.renewal_body(**spec)
    async with await service.admitted(agent) as managed:
        answer = await managed.send("POST", "/certificatesigningrequests", json=body)
    assert_status(answer, 400, "Bad Request", text)


async def test_a_device_can_neither_renew_nor_read_for_another(service: AgentService) -> None:
    one, other = service.agent(), service.agent()
    async with await service.admitted(one) as first, await service.admitted(other) as second:
        body = one.renewal_body()
        answer = await second.send("POST", "/certificatesigningrequests", json=body)
        assert_status(answer, 400, "Bad Request", "own")
        assert (await first.send("POST", "/certificatesigningrequests", json=body)).code == 201
        path = f"/certificatesigningrequests/{body['metadata']['name']}"
        assert_status(await second.send("GET", path), 401, "Unauthorized", "own")


async def test_a_certificate_of_a_deleted_device_is_not_renewed(service: AgentService) -> None:
    agent = service.agent()
    async with await service.admitted(agent) as managed:
        await service.delete(agent.name)
        body = agent.renewal_body()
        answer = await managed.send("POST", "/certificatesigningrequests", json=body)
    assert_status(answer, 401, "Unauthorized", "does not exist")
    assert b"Device of name" not in answer.body


async def test_a_decommissioned_device_gets_no_certificate(service: AgentService) -> None:
    agent = service.agent()
    gone = {
        "type": "DeviceDecommissioning",
        "status": "True",
        "reason": "Started",
        "message": "",
        "lastTransitionTime": "2026-11-23T00:00:00Z",
    }
    async with await service.admitted(agent) as managed:
        await agent.report(managed, device_status("1", conditions=[gone]))
        body = agent.renewal_body()
        answer = await managed.send("POST", "/certificatesigningrequests", json=body)
    assert_status(answer, 401, "Unauthorized", "decommissioned")


# --- the wire -------------------------------------------------------------------------------


async def test_versions_are_negotiated(service: AgentService) -> None:
    agent = service.agent()
    async with await service.admitted(agent) as managed:
        path = f"/devices/{agent.name}/rendered"
        for headers in ({}, {"Flightctl-API-Version": "v1beta1"}):
            answer = await managed.send("GET", path, headers=headers)
            assert answer.headers["Flightctl-API-Version"] == "v1beta1"
            assert answer.headers["Vary"] == "Flightctl-API-Version"
        answer = await managed.send("GET", path, headers={"Flightctl-API-Version": "v9"})
    assert answer.code == 406
    assert answer.headers["Flightctl-API-Versions-Supported"] == "v1beta1"
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    body = answer.json
    assert body.pop("message")
    assert body == {"apiVersion": "", "kind": "", "status": "", "reason": "", "code": 406}


async def test_request_ids_are_echoed_or_made(service: AgentService) -> None:
    async with service.connection() as factory:
        path = "/enrollmentrequests/x"
        answer = await factory.send("GET", path, headers={"X-Request-Id": "abc-1"})
        assert {k.lower(): v for k, v in answer.headers.items()}["x-request-id"] == "abc-1"
        answer = await factory.send("GET", path)
        assert {k.lower(): v for k, v in answer.headers.items()}["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "text"),
    [
        ("GET", "/nothing", "no matching operation was found"),
        ("DELETE", "/enrollmentrequests/x", "method not allowed"),
        ("HEAD", "/enrollmentrequests/x", ""),
    ],
)
async def test_unknown_routes_and_methods_are_404_and_never_wipe_a_device(
    service: AgentService, method: str, path: str, text: str
) -> None:
    async with service.connection() as factory:
        answer = await factory.send(method, path)
    assert answer.code == 404
    assert text in answer.body.decode()
    assert b"Device of name" not in answer.body


async def test_outside_the_api_there_is_plain_text(service: AgentService) -> None:
    async with service.connection() as factory:
        factory.base = service.url
        answer = await factory.send("GET", "/healthz")
    assert (answer.code, answer.body) == (404, b"404 page not found\n")


async def test_too_many_requests_of_one_device_are_429_with_a_time_to_wait(
    tmp_path: Path,
) -> None:
    settings = replace(HELD, requests_per_device=2)
    async with serving(tmp_path, settings) as service:
        agent = service.agent()
        async with await service.admitted(agent) as managed:
            polls = [asyncio.create_task(agent.poll(managed, "1")) for _ in range(3)]
            (refused,), held = await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
            answer = refused.result()
            assert_status(answer, 429, "Too Many Requests", "2 requests")
            assert int(answer.headers["Retry-After"]) > 0
            for poll in held:
                poll.cancel()


async def test_a_device_that_asks_too_often_is_429_and_the_others_are_not(tmp_path: Path) -> None:
    settings = AgentApiSettings(hold_s=0.1, requests_per_s_device=0.01)
    async with serving(tmp_path, settings) as service:
        one, other = service.agent(), service.agent()
        async with await service.admitted(one) as busy, await service.admitted(other) as calm:
            answers = [await one.poll(busy, "1") for _ in range(3)]
            assert_status(answers[-1], 429, "Too Many Requests", "0.01 requests a second")
            assert int(answers[-1].headers["Retry-After"]) > 0
            assert (await other.poll(calm, "1")).code != 429
