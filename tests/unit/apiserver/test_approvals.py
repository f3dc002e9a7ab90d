"""Approving and signing, as people do it: what is decided is committed whole or not at all."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from apiserver import approvals, certifying, errors
from apiserver.app import create_operations
from apiserver.auth.identity import ADMIN, Caller
from apiserver.builtins.events import STORED
from apiserver.operations import ListOptions, Operations, WriteOptions
from apiserver.pki import signers
from apiserver.pki.authority import Authority
from apiserver.pki.extensions import identity_of
from apiserver.pki.issuing import Issuing
from apiserver.store import Store
from resources import readiness, registry
from tests.fakes.agent_client import device_status, fingerprint, signing_request

Json = dict[str, Any]

PERSON = Caller(name="ada", role=ADMIN)
KEY = ec.derive_private_key(42, ec.SECP256R1())
NAME = fingerprint(KEY)
DEVICE = registry.by_kind("Device")


class Office:
    def __init__(self, operations: Operations, authority: Authority) -> None:
        self.operations = operations
        self.issuing = Issuing(authority)

    async def ask(self, **spec: Any) -> None:
        """An EnrollmentRequest as it is in the store."""
        document = {
            "metadata": {"name": NAME},
            "spec": {"csr": signing_request(KEY, NAME)} | spec,
        }
        await self.operations.create(
            PERSON, approvals.ENROLLMENT_REQUEST, "default", document, WriteOptions()
        )

    async def approve(self, **approval: Any) -> Json | None:
        return await approvals.approve_enrollment(
            self.operations,
            self.issuing,
            PERSON,
            "default",
            NAME,
            {"approved": True} | approval,
        )

    async def request(self) -> Json:
        kind = approvals.ENROLLMENT_REQUEST
        return await self.operations.get(PERSON, kind, "default", NAME)

    async def events(self, reason: str) -> list[Json]:
        page = await self.operations.list(PERSON, STORED, "default", ListOptions())
        return [event["spec"] for event in page.items if event["spec"]["reason"] == reason]

    async def device(self) -> Json:
        return await self.operations.get(PERSON, DEVICE, "default", NAME)

    async def create_csr(self, name: str = "mine", **spec: Any) -> Json:
        pem = signing_request(KEY, spec.pop("common_name", name))
        document = {
            "metadata": {"name": name},
            "spec": {
                "request": base64.b64encode(pem.encode()).decode(),
                "signerName": "enrollment",
                "usages": ["clientAuth", "CA:false"],
            }
            | spec,
        }
        written = await certifying.create_csr(
            self.operations, self.issuing, PERSON, "default", document, WriteOptions()
        )
        return written.document

    async def decide(self, name: str, *decisions: str) -> Json:
        said = [{"type": decision, "status": "True"} for decision in decisions]
        return await certifying.sign_csr(
            self.operations,
            self.issuing,
            PERSON,
            "default",
            name,
            {"status": {"conditions": said}},
        )


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    store = await Store.open(data_dir=tmp_path)
    operations = create_operations(store)
    await operations.prepare()
    authority = Authority.load_or_create(tmp_path / "pki", now=lambda: datetime.now(UTC))
    yield Office(operations, authority)
    await store.close()


def types(document: Json) -> list[tuple[str, str]]:
    """Without those that are drawn for programs that wait."""
    return [(c["type"], c["status"]) for c in readiness.own(document["status"]["conditions"])]


# --- enrolment ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("approval", "labels"),
    [
        ({}, {"alias": "h", "site": "a"}),
        ({"labels": {}}, {"alias": "h", "site": "a"}),
        ({"labels": {"site": "b", "x": "1"}}, {"alias": "h", "site": "b", "x": "1"}),
        ({"labels": {"site": "b"}, "replaceLabels": True}, {"site": "b"}),
        ({"replaceLabels": True}, {}),
    ],
)
async def test_the_approvers_labels_win_over_the_agents(
    office: Office, approval: Json, labels: Json
) -> None:
    await office.ask(labels={"alias": "h", "site": "a"})
    given = await office.approve(**approval)
    assert given is not None
    assert given["labels"] == labels
    assert (await office.device())["metadata"]["labels"] == labels
    assert given["approvedBy"] == "ada"
    request = await office.request()
    assert request["status"]["approval"] == given
    assert types(request) == [("Approved", "True")]
    assert request["status"]["conditions"][0]["reason"] == "ManuallyApproved"


async def test_the_device_and_its_approval_are_one_transaction(office: Office) -> None:
    await office.ask()
    before = office.operations.store.hub.version
    await office.approve()
    rows = await office.operations.store.read(
        lambda s: [
            *s.changes(DEVICE, "default", before, 10),
            *s.changes(approvals.ENROLLMENT_REQUEST, "default", before, 10),
        ]
    )
    assert {row.kind for row in rows} == {"Device", "EnrollmentRequest"}


async def test_a_device_that_exists_already_leaves_the_request_as_it_was(office: Office) -> None:
    await office.ask()
    await office.operations.create(
        PERSON, DEVICE, "default", {"metadata": {"name": NAME}, "spec": {}}, WriteOptions()
    )
    before = await office.request()
    with pytest.raises(errors.Conflict, match="already exists"):
        await office.approve()
    assert await office.request() == before
    (failed,) = await office.events("EnrollmentRequestApprovalFailed")
    assert failed["type"] == "Warning"
    assert "already exists" in failed["message"]


async def test_nobody_is_approved_twice(office: Office) -> None:
    await office.ask()
    await office.approve()
    with pytest.raises(errors.BadRequest, match="already approved"):
        await office.approve()
    with pytest.raises(errors.BadRequest, match="already approved"):
        await office.approve(approved=False)
    # The second is no failure of the first.
    (told,) = await office.events("EnrollmentRequestApproved")
    assert told["type"] == "Normal"
    assert told["message"] == "Approved by ada."
    assert told["involvedObject"]["name"] == NAME


async def test_the_request_of_a_device_is_its_record(office: Office) -> None:
    """It goes with the device, and not before; nor does another take its place."""
    kind, operations = approvals.ENROLLMENT_REQUEST, office.operations
    await office.ask()
    await office.approve()
    with pytest.raises(errors.Conflict, match="its device exists"):
        await operations.delete(PERSON, kind, "default", NAME)
    with pytest.raises(errors.Conflict, match="its device exists"):
        await operations.delete_collection(PERSON, kind, "default")
    request = await office.request()
    changed = request | {"spec": request["spec"] | {"labels": {"site": "z"}}}
    with pytest.raises(errors.BadRequest, match="a resource with this name already exists"):
        await operations.update(PERSON, kind, "default", NAME, changed, WriteOptions())
    request["metadata"]["labels"] = {"note": "kept"}
    await operations.update(PERSON, kind, "default", NAME, request, WriteOptions())

    await operations.delete(PERSON, DEVICE, "default", NAME)
    with pytest.raises(errors.NotFound):
        await office.request()
    await office.ask()
    await operations.delete(PERSON, kind, "default", NAME)


async def test_a_denied_request_may_be_deleted_or_let_in_after_all(office: Office) -> None:
    await office.ask()
    assert await office.approve(approved=False) is None
    assert types(await office.request()) == [("Denied", "True")]
    assert await office.approve() is not None
    assert types(await office.request()) == [("Approved", "True")]


async def test_who_did_not_ask_is_not_found(office: Office) -> None:
    with pytest.raises(errors.NotFound):
        await office.approve()


@pytest.mark.parametrize(
    "approval",
    [
        pytest.param({"approved": "yes"}, id="a text"),
        pytest.param({"labels": {"a b": "c"}}, id="a bad label"),
        pytest.param({"surprise": 1}, id="an unknown field"),
    ],
)
async def test_a_wrong_approval_changes_nothing(office: Office, approval: Json) -> None:
    await office.ask()
    with pytest.raises(errors.Unprocessable):
        await office.approve(**approval)
    assert "approval" not in (await office.request()).get("status", {})


async def test_a_request_of_another_key_is_refused_when_it_is_signed(office: Office) -> None:
    await office.ask(csr=signing_request(KEY, "somebody-else-altogether"))
    with pytest.raises(errors.BadRequest, match="common name"):
        await office.approve()


async def test_the_device_is_born_with_what_it_said_of_its_system(office: Office) -> None:
    status = device_status("7", summary={"status": "Error"})
    await office.ask(deviceStatus=status, osMode="package", knownRenderedVersion="12")
    await office.approve()
    born = (await office.device())["status"]
    assert born["systemInfo"] == status["systemInfo"]
    assert born["capabilities"] == {"osMode": "package"}
    assert born["config"] == {"renderedVersion": "12"}
    assert born["lifecycle"]["status"] == "Enrolled"
    assert born["summary"]["status"] == "AwaitingReconnect", "it runs what another has rendered"
    assert born["integrity"]["status"] == "Unsupported"


@pytest.mark.parametrize("is_agent", [True, False])
def test_a_user_may_choose_any_long_name_an_agent_may_not(is_agent: bool) -> None:
    name = "a-name-that-is-no-fingerprint"
    document = {"metadata": {"name": name}, "spec": {"csr": signing_request(KEY, name)}}
    if not is_agent:
        approvals.verify_enrollment(document, is_agent=False)
        return
    with pytest.raises(errors.BadRequest, match="fingerprint"):
        approvals.verify_enrollment(document, is_agent=True)


# --- certificate signing requests -----------------------------------------------------------


async def test_an_enrolment_certificate_is_given_at_once(office: Office) -> None:
    stored = await office.create_csr()
    assert stored["spec"]["signerName"] == "flightctl.io/enrollment"
    assert stored["spec"]["username"] == "ada"
    assert types(stored) == [("Approved", "True")]
    pem = base64.b64decode(stored["status"]["certificate"])
    der = x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)
    found = identity_of(der)
    assert (found.common_name, found.signer) == ("client-enrollment-mine", signers.ENROLLMENT)
    assert found.organization is not None
    assert found.organization.int == 0


async def test_what_verifies_but_cannot_be_signed_is_stored_and_says_why(office: Office) -> None:
    stored = await office.create_csr(common_name="another")
    assert types(stored) == [("Approved", "True"), ("Failed", "True")]
    assert stored["status"]["conditions"][1]["reason"] == "SigningFailed"
    assert "certificate" not in stored["status"]


async def test_a_user_cannot_ask_for_a_devices_certificate(office: Office) -> None:
    with pytest.raises(errors.BadRequest, match="only a device"):
        await office.create_csr(signerName=signers.RENEWAL, common_name=f"device:{NAME}")


async def test_what_failed_may_be_approved_by_hand_and_fails_again(office: Office) -> None:
    await office.create_csr(common_name="another")
    decided = await office.decide("mine", "Approved")
    assert types(decided) == [("Approved", "True"), ("Failed", "True")]


async def test_what_is_denied_stays_denied(office: Office) -> None:
    await office.create_csr(common_name="another")
    decided = await office.decide("mine", "Denied")
    assert ("Denied", "True") in types(decided)
    with pytest.raises(errors.Conflict, match="denied"):
        await office.decide("mine", "Approved")


async def test_what_is_issued_is_not_decided_again(office: Office) -> None:
    await office.create_csr()
    with pytest.raises(errors.Conflict, match="issued"):
        await office.decide("mine", "Denied")


@pytest.mark.parametrize("decisions", [(), ("Approved", "Denied"), ("Failed",)])
async def test_a_decision_is_one_of_two(office: Office, decisions: tuple[str, ...]) -> None:
    await office.create_csr(common_name="another")
    with pytest.raises(errors.BadRequest, match="either"):
        await office.decide("mine", *decisions)


@pytest.mark.parametrize(
    "document",
    [
        "a",
        [],
        {},
        {"status": "a"},
        {"status": {"conditions": "a"}},
        {"status": {"conditions": [3]}},
    ],
)
async def test_what_is_no_request_is_no_decision(office: Office, document: Any) -> None:
    """A patch can leave anything in the place of one."""
    await office.create_csr(common_name="another")
    with pytest.raises(errors.BadRequest, match="either"):
        await certifying.sign_csr(
            office.operations, office.issuing, PERSON, "default", "mine", document
        )
