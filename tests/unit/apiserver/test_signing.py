"""Who is asked for what when, and what is written down: the loop's rounds by a clock of the test's,
over a real store, with a signer that does as it is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from apiserver import approvals, signing
from apiserver.approvals import ENROLLMENT_REQUEST
from apiserver.auth.identity import ADMIN, Caller
from apiserver.operations import Operations, WriteOptions
from apiserver.pki import issued, signers
from apiserver.pki.authority import Authority
from apiserver.pki.issuing import Issuing, Outsider
from apiserver.pki.orders import Answer, Declined, Issued, Order, Pending, Unavailable
from apiserver.signing import Signing
from apiserver.store import Store
from resources import conditions
from tests.fakes.agent_client import fingerprint, signing_request

Json = dict[str, Any]
PERSON = Caller(name="ada", role=ADMIN)
DOWN = Unavailable("no answer in 10 s")


@dataclass
class Told:
    """A signer that answers as it is told, by the name of the request; else it signs."""

    authority: Authority
    answers: dict[str, Answer] = field(default_factory=dict)
    always: Answer | None = None
    asked: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    title: str = "the signer"
    before: Callable[[], Any] | None = None

    async def ask(self, order: Order) -> Answer:
        self.asked.append(order.name)
        if self.before is not None:
            await self.before()
        answer = self.answers.get(order.name, self.always)
        if answer is not None:
            return answer
        return Issued(
            self.authority.issue_client(
                order.request,
                common_name=order.granted.common_name,
                signer=order.granted.signer,
                organization=order.granted.organization,
                fingerprint=order.granted.fingerprint,
                lifetime=order.granted.lifetime,
            )
        )

    async def forget(self, order: Order) -> None:
        self.forgotten.append(order.name)


@dataclass
class Desk:
    operations: Operations
    issuing: Issuing
    signer: Told
    work: Signing
    at: float = 0.0
    names: list[str] = field(default_factory=list)

    def now(self) -> datetime:
        return datetime(2026, 11, 26, tzinfo=UTC) + timedelta(seconds=self.at)

    def restart(self) -> None:
        self.work = Signing(
            self.operations,
            self.issuing,
            now=self.now,
            monotonic=lambda: self.at,
            chance=lambda: 0.5,
        )

    async def approve(self, number: int = 1) -> str:
        """So many more requests; the name of the last."""
        for _ in range(number):
            key = ec.derive_private_key(1000 + len(self.names), ec.SECP256R1())
            name = fingerprint(key)
            document = {"metadata": {"name": name}, "spec": {"csr": signing_request(key, name)}}
            await self.operations.create(
                PERSON, ENROLLMENT_REQUEST, "default", document, WriteOptions()
            )
            await approvals.approve_enrollment(
                self.operations, self.issuing, PERSON, "default", name, {"approved": True}
            )
            self.names.append(name)
        return self.names[-1]

    async def rounds(self, number: int, every_s: float = 1.0) -> None:
        for _ in range(number):
            await self.work.round()
            self.at += every_s

    async def request(self, name: str) -> Json:
        return await self.operations.get(PERSON, ENROLLMENT_REQUEST, "default", name)

    async def said(self, name: str, kind: str = "Issued") -> Json:
        found = await self.request(name)
        return conditions.get(found["status"]["conditions"], kind) or {}

    async def issued(self) -> int:
        return sum([bool((await self.request(n))["status"].get("certificate")) for n in self.names])


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    made: list[Desk] = []

    def clock() -> datetime:
        return made[0].now() if made else datetime.now(UTC)

    store = await Store.open(data_dir=tmp_path, clock=clock)
    operations = Operations(store)
    await operations.prepare()
    authority = Authority.load_or_create(tmp_path / "pki", now=lambda: datetime.now(UTC))
    signer = Told(authority)
    trust = issued.trust_of(authority.client_ca_pem)
    outsider = Outsider(signer, signers.MANAGEMENT, trust)
    desk = Desk(operations, Issuing(authority, (outsider,)), signer, None)  # type: ignore[arg-type]
    made.append(desk)
    # The authority's clock is the machine's; the test's must not be before it.
    desk.at = (datetime.now(UTC) - desk.now()).total_seconds()
    desk.restart()
    yield desk
    await store.close()


async def test_what_is_approved_is_asked_for_once_and_written_down(desk: Desk) -> None:
    name = await desk.approve()
    assert (await desk.said(name))["reason"] == "SigningPending"
    await desk.rounds(3)
    assert desk.signer.asked == [name]
    assert (await desk.said(name))["status"] == "True"


async def test_a_signer_that_is_down_is_tried_by_one_and_all_say_so(desk: Desk) -> None:
    await desk.approve(20)
    desk.signer.always = DOWN
    await desk.work.round()
    assert len(desk.signer.asked) <= signing.AT_ONCE
    since = {(await desk.said(name))["lastTransitionTime"] for name in desk.names}
    messages = {(await desk.said(name))["message"] for name in desk.names}
    assert len(since) == len(messages) == 1
    assert f"can't be asked since {since.pop()}: no answer in 10 s; next at 2" in messages.pop()

    desk.signer.asked.clear()
    await desk.rounds(120, every_s=10)
    # 1200 s at growing intervals, of 225 s in the end.
    assert 5 <= len(desk.signer.asked) <= 15
    desk.signer.always = None
    await desk.rounds(40, every_s=10)
    assert await desk.issued() == 20


async def test_since_when_it_is_down_survives_a_restart(desk: Desk) -> None:
    name = await desk.approve()
    desk.signer.always = DOWN
    await desk.work.round()
    since = (await desk.said(name))["lastTransitionTime"]
    desk.at += 3600
    desk.restart()
    await desk.work.round()
    said = await desk.said(name)
    assert said["lastTransitionTime"] == since
    assert f"since {since}:" in said["message"]


async def test_a_request_that_brings_the_signer_down_alone_keeps_nobody_waiting(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "AT_ONCE", 1)
    poison = await desk.approve()
    desk.signer.answers[poison] = DOWN
    await desk.approve(30)
    await desk.rounds(60)
    assert await desk.issued() == 30


async def test_an_answer_that_is_no_good_is_that_requests_own_trouble(desk: Desk) -> None:
    odd = await desk.approve()
    desk.signer.answers[odd] = Issued(b"-----BEGIN HOPE-----")
    await desk.approve(3)
    await desk.rounds(2)
    assert await desk.issued() == 3
    said = await desk.said(odd)
    assert (said["status"], said["reason"]) == ("False", "SignerAnswerUnusable")
    asked = desk.signer.asked.count(odd)
    await desk.rounds(60)
    assert asked < desk.signer.asked.count(odd) <= asked + 7, "at growing intervals"


async def test_a_refusal_is_forgotten_at_the_signer_and_asked_no_more(desk: Desk) -> None:
    name = await desk.approve()
    desk.signer.answers[name] = Declined("not ours")
    await desk.rounds(20)
    assert desk.signer.asked == desk.signer.forgotten == [name]
    assert (await desk.said(name, "Failed"))["message"] == "not ours"


async def test_a_wait_makes_one_version_however_long_it_is(desk: Desk) -> None:
    name = await desk.approve()
    desk.signer.always = Pending("a person decides")
    await desk.rounds(2)
    version = (await desk.request(name))["metadata"]["resourceVersion"]
    await desk.rounds(200, every_s=10)
    assert len(desk.signer.asked) > 20
    assert (await desk.request(name))["metadata"]["resourceVersion"] == version


async def test_more_than_are_kept_in_mind_are_served_too(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "KNOWN_MAX", 5)
    monkeypatch.setattr(signing, "PAGE", 3)
    await desk.approve(14)
    await desk.rounds(1)
    await desk.approve(3)
    await desk.rounds(8)
    assert await desk.issued() == 17
    assert len(desk.signer.asked) == 17


async def test_what_went_while_it_was_asked_for_gets_nothing(desk: Desk) -> None:
    name = await desk.approve()

    async def delete() -> None:
        await desk.operations.delete(PERSON, approvals.DEVICE, "default", name)
        desk.signer.before = None

    desk.signer.before = delete
    await desk.rounds(3)
    assert desk.signer.asked == [name]


async def test_what_was_made_again_meanwhile_does_not_get_the_others_certificate(
    desk: Desk,
) -> None:
    name = await desk.approve()

    async def replace() -> None:
        desk.signer.before = None
        old = await desk.request(name)
        await desk.operations.delete(PERSON, approvals.DEVICE, "default", name)
        document = {"metadata": {"name": name}, "spec": old["spec"]}
        await desk.operations.create(
            PERSON, ENROLLMENT_REQUEST, "default", document, WriteOptions()
        )
        await approvals.approve_enrollment(
            desk.operations, desk.issuing, PERSON, "default", name, {"approved": True}
        )

    desk.signer.before = replace
    await desk.work.round()
    assert not (await desk.request(name))["status"].get("certificate")
    await desk.rounds(2)
    assert desk.signer.asked == [name, name]
    assert await desk.issued() == 1


async def test_a_request_that_we_can_not_handle_keeps_nobody_waiting(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = await desk.approve()
    await desk.approve(2)
    really = desk.signer.ask

    async def ask(order: Order) -> Answer:
        if order.name == odd:
            raise ZeroDivisionError
        return await really(order)

    monkeypatch.setattr(desk.signer, "ask", ask)
    await desk.rounds(3)
    assert await desk.issued() == 2


async def test_a_device_that_is_revoked_meanwhile_gets_nothing(desk: Desk) -> None:
    name = await desk.approve()
    kind = next(k for k in approvals.registry.KINDS if k.kind == "CertificateRevocation")
    revocation = {"metadata": {"name": "stolen"}, "spec": {"device": name}}
    await desk.operations.create(PERSON, kind, "default", revocation, WriteOptions())
    await desk.rounds(2)
    assert "revoked" in (await desk.said(name, "Failed"))["message"]
    assert not desk.signer.asked
