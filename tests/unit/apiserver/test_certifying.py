"""Certificate requests by another verb than POST: what they may ask is the same, and what was
decided is of what was asked then."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from apiserver import approvals, attesting, certifying, errors
from apiserver.auth.identity import ADMIN, OPERATOR, Caller
from apiserver.certifying import SIGNING_REQUEST
from apiserver.operations import ListOptions, Operations, WriteOptions, Written
from apiserver.pki import issued, signers
from apiserver.pki.authority import Authority
from apiserver.pki.extensions import PeerIdentity
from apiserver.pki.issuing import Issuing, Outsider
from apiserver.pki.tpmroots import NO_MAKERS
from apiserver.store import Store
from apiserver.trail import Trail
from resources import conditions
from resources.registry import AUDIT_EVENT, DEVICE, ENROLLMENT_REQUEST
from tests.fakes.agent_client import fingerprint, signing_request
from tests.fakes.software_tpm import Maker, SoftwareTpm
from tests.unit.apiserver.test_signing import Told

Json = dict[str, Any]

ADA = Caller(name="ada", role=ADMIN, source="token")
BOB = Caller(name="bob", role=OPERATOR, source="token")
KEY = ec.derive_private_key(42, ec.SECP256R1())
OTHER_KEY = ec.derive_private_key(43, ec.SECP256R1())
APPLYING = WriteOptions(field_manager="a")


class Office:
    def __init__(self, store: Store, authority: Authority) -> None:
        self.operations = Operations(store)
        self.authority = authority
        self.signed_by(Issuing(authority))

    def signed_by(self, issuing: Issuing) -> None:
        self.issuing = issuing
        for kind, judge in (
            (SIGNING_REQUEST, certifying.Requests(self.operations, issuing)),
            (ENROLLMENT_REQUEST, approvals.Requests(self.operations, NO_MAKERS)),
        ):
            self.operations.judge_by(kind, judge)

    def sign_outside(self) -> None:
        trust = issued.trust_of(self.authority.client_ca_pem)
        outsider = Outsider(Told(self.authority), frozenset({signers.ENROLLMENT}), trust)
        self.signed_by(Issuing(self.authority, (outsider,)))

    async def put(self, document: Json, caller: Caller = ADA, **options: Any) -> Written:
        return await self.operations.update(
            caller,
            SIGNING_REQUEST,
            "default",
            document["metadata"]["name"],
            document,
            WriteOptions(**options),
            create_missing=True,
        )

    async def apply(self, document: Json, caller: Caller = ADA, **options: Any) -> Written:
        return await self.operations.apply(
            caller,
            SIGNING_REQUEST,
            "default",
            document["metadata"]["name"],
            document,
            replace(APPLYING, **options),
        )

    async def post(self, document: Json, caller: Caller = ADA, **options: Any) -> Written:
        return await certifying.create_csr(
            self.operations, self.issuing, caller, "default", document, WriteOptions(**options)
        )

    async def decide(self, decision: str, name: str = "mine") -> Json:
        said = {"status": {"conditions": [{"type": decision, "status": "True"}]}}
        return await certifying.sign_csr(self.operations, self.issuing, ADA, "default", name, said)

    async def read(self, name: str = "mine") -> Json:
        return await self.operations.get(ADA, SIGNING_REQUEST, "default", name)

    async def audit(self) -> list[tuple[str, str, str]]:
        page = await Trail(self.operations.store).list_as(
            ADA, AUDIT_EVENT, "default", ListOptions(), lambda page: page
        )
        said = [each["spec"] for each in page.items]
        return [(e["verb"], e["object"].get("subresource", ""), e.get("reason", "")) for e in said]


Verb = Callable[..., Awaitable[Written]]
ALL_VERBS: tuple[Verb, ...] = (Office.post, Office.put, Office.apply)
VERBS = pytest.mark.parametrize("verb", ALL_VERBS)


@pytest.fixture
async def office(tmp_path: Path) -> AsyncIterator[Office]:
    store = await Store.open(data_dir=tmp_path)
    authority = Authority.load_or_create(tmp_path / "pki", now=lambda: datetime.now(UTC))
    office = Office(store, authority)
    await office.operations.prepare()
    yield office
    await store.close()


def request(name: str = "mine", key: Any = KEY, common_name: str = "", **spec: Any) -> Json:
    pem = signing_request(key, common_name or name)
    wanted = {
        "request": base64.b64encode(pem.encode()).decode(),
        "signerName": "enrollment",
        "usages": ["clientAuth", "CA:false"],
    }
    return {"metadata": {"name": name}, "spec": wanted | spec}


def types(document: Json) -> list[str]:
    return [c["type"] for c in document["status"]["conditions"] if c["status"] == "True"]


def key_of(document: Json) -> Any:
    pem = base64.b64decode(document["status"]["certificate"])
    return x509.load_pem_x509_certificate(pem).public_key()


@VERBS
async def test_whatever_verb_makes_one_it_is_approved_and_signed_at_once(
    office: Office, verb: Verb
) -> None:
    made = (await verb(office, request(username="eve", uid="7", extra={"a": ["b"]}))).document
    assert types(made) == ["Approved"]
    assert key_of(made) == KEY.public_key()
    assert made["spec"]["signerName"] == signers.ENROLLMENT
    # Who asked is not for who asks to say.
    assert made["spec"]["username"] == "ada"
    assert not {"uid", "extra"} & made["spec"].keys()
    assert await office.read() == made
    assert "Issued" in [reason for _, _, reason in await office.audit()]


@pytest.mark.parametrize(
    ("document", "words"),
    [
        pytest.param(request(signerName=signers.RENEWAL), "only a device", id="a device's signer"),
        pytest.param(request(common_name="device:x"), "reserved for devices", id="a device's name"),
        pytest.param(
            request(request=base64.b64encode(b"nothing").decode()),
            "PEM",
            id="no request",
        ),
    ],
)
async def test_whatever_verb_asks_for_what_may_not_be_asked_is_refused(
    office: Office, document: Json, words: str
) -> None:
    for verb in ALL_VERBS:
        with pytest.raises((errors.BadRequest, errors.Unprocessable), match=words):
            await verb(office, document)
    with pytest.raises(errors.NotFound):
        await office.read()


async def test_a_rehearsal_gives_nobody_a_certificate(office: Office) -> None:
    """It leaves no trace, in the audit neither; a certificate would be good all the same."""
    for verb in ALL_VERBS:
        made = (await verb(office, request(), dry_run=True)).document
        assert types(made) == ["Approved"]
        assert "certificate" not in made["status"]
        with pytest.raises(errors.NotFound):
            await office.read()


@pytest.mark.parametrize("verb", [Office.put, Office.apply])
async def test_what_failed_says_why_and_may_be_corrected(office: Office, verb: Verb) -> None:
    failed = (await verb(office, request(common_name="another"))).document
    assert types(failed) == ["Approved", "Failed"]
    assert "certificate" not in failed["status"]
    corrected = (await verb(office, request(), BOB)).document
    assert types(corrected) == ["Approved"]
    assert corrected["spec"]["username"] == "bob", "whose request it is now"
    assert key_of(corrected) == KEY.public_key()


async def test_a_patch_is_verified_too(office: Office) -> None:
    await office.put(request(common_name="another"))

    async def patched(**spec: Any) -> Json:
        written = await office.operations.patch(
            ADA,
            SIGNING_REQUEST,
            "default",
            "mine",
            lambda old: old | {"spec": old["spec"] | spec},
            WriteOptions(),
        )
        return written.document

    with pytest.raises(errors.BadRequest, match="only a device"):
        await patched(signerName=signers.RENEWAL)
    fixed = await patched(request=request()["spec"]["request"])
    assert key_of(fixed) == KEY.public_key()


async def denied(office: Office) -> None:
    await office.put(request(common_name="another"))
    await office.decide("Denied")


async def given(office: Office) -> None:
    await office.put(request())


async def waiting(office: Office) -> None:
    office.sign_outside()
    await office.put(request())


async def of_a_device(office: Office) -> None:
    device = {"metadata": {"name": "d"}, "spec": {}}
    await office.operations.create(ADA, DEVICE, "default", device, WriteOptions())
    peer = PeerIdentity(signers.DEVICE_ENROLLMENT, None, "device:d", "device:d", 0)
    document = request(signerName=signers.RENEWAL, common_name="d")
    await certifying.create_csr(
        office.operations, office.issuing, ADA, "default", document, WriteOptions(), peer=peer
    )


@pytest.mark.parametrize(
    ("prepared", "words"),
    [
        (denied, "it was denied"),
        (given, "was issued"),
        (waiting, "its signer has been asked"),
        (of_a_device, "Device/d asked for it"),
    ],
)
async def test_what_was_decided_is_not_asked_anew(
    office: Office, prepared: Callable[[Office], Awaitable[None]], words: str
) -> None:
    await prepared(office)
    before = await office.read()
    for verb in (Office.put, Office.apply):
        with pytest.raises(errors.Conflict, match=words):
            await verb(office, request(key=OTHER_KEY), force=True)
        unchanged = await office.read()
        assert (unchanged["spec"], unchanged["status"]) == (before["spec"], before["status"])
        # The same once more, with other labels, is no question; nor who sends it.
        labels = {"by": verb.__name__}
        same = {"metadata": {"name": "mine", "labels": labels}, "spec": before["spec"]}
        after = (await verb(office, same, BOB, force=True)).document
        assert after["metadata"]["labels"] == labels
        assert (after["spec"], after["status"]) == (before["spec"], before["status"])


# --- approved or denied ---------------------------------------------------------------------


@pytest.mark.parametrize("prepared", [waiting, None], ids=["its signer waits", "it failed"])
async def test_of_approved_and_denied_one_holds(office: Office, prepared: Any) -> None:
    """Denied after it was approved, and before it was signed."""
    await (prepared(office) if prepared else office.put(request(common_name="another")))
    assert "Approved" in types(await office.read())
    decided = await office.decide("Denied")
    assert [c["type"] for c in decided["status"]["conditions"]] == ["Denied"]
    with pytest.raises(errors.Conflict, match="already denied"):
        await office.decide("Approved")
    assert ("update", "approval", "Denied") in await office.audit()


# --- enrolment by other verbs ---------------------------------------------------------------


def enrollment(csr: str, name: str) -> Json:
    return {"metadata": {"name": name}, "spec": {"csr": csr}}


async def test_an_enrolment_that_is_put_or_applied_is_judged_too(office: Office) -> None:
    operations, name = office.operations, fingerprint(KEY)
    verbs = (
        lambda document: operations.update(
            ADA, ENROLLMENT_REQUEST, "default", name, document, APPLYING, create_missing=True
        ),
        lambda document: operations.apply(
            ADA, ENROLLMENT_REQUEST, "default", name, document, replace(APPLYING, force=True)
        ),
    )
    tpm = SoftwareTpm(Maker(), key=KEY)
    for verb in verbs:
        wrong = enrollment(signing_request(OTHER_KEY, "somebody-else-altogether"), name)
        with pytest.raises(errors.BadRequest, match="common name"):
            await verb(wrong)
        made = (await verb(enrollment(tpm.bundle(), name))).document
        found = conditions.get(made["status"]["conditions"], attesting.CONDITION)
        assert found is not None
        assert found["reason"] == attesting.VERIFICATION_FAILED, "no maker is trusted here"
        # What was found of that TPM is no word about another key.
        made = (await verb(enrollment(signing_request(KEY, name), name))).document
        assert conditions.get(made["status"].get("conditions"), attesting.CONDITION) is None
        await operations.delete(ADA, ENROLLMENT_REQUEST, "default", name)
