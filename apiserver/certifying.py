"""Certificate requests: who may ask for what, and what comes of it.

Whatever says "approved" is committed together with what follows from it. Signing happens before the
transaction, on a snapshot; the transaction refuses if the request is no longer the one that was
signed. A certificate that was made for nothing is thrown away unseen.

Where the signer is outside there is no certificate yet: the request says that it waits, and what
`ordering` makes of it is all that the signer will be asked.
"""

from __future__ import annotations

import base64
import dataclasses
from uuid import UUID

from apiserver import attesting, errors, showing
from apiserver.auditing import DENIED, FAILED, ISSUED, Act, note
from apiserver.auth.identity import Caller
from apiserver.operations import Operations, WriteOptions, Written
from apiserver.pki import signers, tpmbundle, waiting
from apiserver.pki.extensions import PeerIdentity
from apiserver.pki.issuing import Issuing
from apiserver.pki.requests import Refused, SigningRequest
from apiserver.pki.signers import Grant
from apiserver.store import Snapshot, Transaction
from apiserver.storing import organization_of
from resources import conditions, registry
from resources.kind import Json

SIGNING_REQUEST = registry.by_kind("CertificateSigningRequest")
DEVICE = registry.by_kind("Device")
_OVER_WHEN_DENIED = ("Approved", "Failed", waiting.CONDITION)
# Of the specification: who asked is not for who asks to say.
_SERVICES = ("username", "uid", "extra")


async def create_csr(
    operations: Operations,
    issuing: Issuing,
    caller: Caller,
    namespace: str,
    document: Json,
    options: WriteOptions,
    *,
    peer: PeerIdentity | None = None,
) -> Written:
    """Store a request; approve and sign it at once where its signer needs nobody's consent.

    `peer` is the certificate of a device that asks for itself, None for users. What may not be
    asked is 400; what may be asked but can't be signed is stored, with a Failed condition.
    """
    document, warnings = operations.decode(SIGNING_REQUEST, _qualified(document), options)
    device = "" if peer is None else signers.device_of(peer)
    name = str(document["metadata"].get("name") or "")
    request = verified(document, peer)
    text = tpmbundle.text_of(document["spec"]["request"])
    organization, verdict = await operations.store.read(
        lambda s: (
            organization_of(s, namespace),
            attesting.judge_again(
                s.get(attesting.ENROLLMENT_REQUEST, namespace, device) if device else None,
                document["spec"]["signerName"],
                text,
            ),
        )
    )
    is_trusted = verdict is None or verdict.status == conditions.TRUE
    # A TPM that shows the wrong thing is for a person to judge.
    outcome = None
    if is_trusted:
        outcome = _sign_csr(
            issuing, document, request, organization, peer, rehearses=options.dry_run
        )

    def create(tx: Transaction) -> Written:
        if peer is not None:
            check_device(tx, namespace, device)
        spec = {k: v for k, v in document["spec"].items() if k not in _SERVICES}
        body = document | {"spec": spec | {"username": caller.name}}
        stored = operations.insert_in(tx, caller, SIGNING_REQUEST, body, namespace)
        metadata = stored["metadata"] | ({"owner": f"Device/{device}"} if device else {})
        generation, now = stored["metadata"]["generation"], tx.timestamp
        status = {} if verdict is None else verdict.on({}, generation, now)
        if outcome is not None:
            status = _csr_status(status, outcome, generation, now)
        ready = stored | {"metadata": metadata, "status": status}
        made = operations.update_in(tx, caller, SIGNING_REQUEST, stored, ready)
        note(tx, Act(caller, "create", SIGNING_REQUEST, namespace), made, 201, _came_of(made))
        return showing.answered(tx, SIGNING_REQUEST, made, None, options, warnings)

    assert name or document["metadata"].get("generateName"), "validated above"
    return await operations.store.write(create, dry_run=options.dry_run)


@dataclasses.dataclass(frozen=True, slots=True)
class Requests:
    """The judge of people's requests, by whatever verb they come: as `create_csr` has it.

    Signed in the transaction, since what a patch leaves is known no sooner; people's requests are
    few. What was decided is never asked anew: a certificate is of the request that it stands
    beside, and an order outside goes by the uid of its request, so it can't become another's.
    """

    operations: Operations
    issuing: Issuing

    def asked(self, caller: Caller, old: Json | None, document: Json) -> Json:
        spec = {k: v for k, v in _qualified(document)["spec"].items() if k not in _SERVICES}
        if old is not None and _is_the_same(spec, old["spec"]):
            return document | {"spec": old["spec"]}
        if old is not None:
            _check_changeable(old)
        return document | {"spec": spec | {"username": caller.name}}

    def judged(
        self, tx: Transaction, caller: Caller, old: Json | None, stored: Json, options: WriteOptions
    ) -> Json:
        metadata = stored["metadata"]
        namespace, name = metadata["namespace"], metadata["name"]
        request = verified(stored, None)
        organization = organization_of(tx, namespace)
        outcome = _sign_csr(
            self.issuing, stored, request, organization, None, rehearses=options.dry_run
        )
        status = _csr_status({}, outcome, metadata["generation"], tx.timestamp)
        ready = stored | {"status": status}
        made = self.operations.update_in(tx, caller, SIGNING_REQUEST, stored, ready)
        act = Act(caller, "update", SIGNING_REQUEST, namespace, name, "approval")
        note(tx, act, made, reason=_came_of(made))
        return made


def _is_the_same(spec: Json, old: Json) -> bool:
    return spec == {key: value for key, value in old.items() if key not in _SERVICES}


def _check_changeable(old: Json) -> None:
    """Raises Conflict where what is asked may change no more."""
    metadata, status = old["metadata"], old.get("status") or {}
    if asker(old) is not None:
        why = f"{metadata['owner']} asked for it, and what it asked stays"
    elif conditions.is_true(status.get("conditions"), "Denied"):
        why = "it was denied; make another request"
    elif status.get("certificate"):
        why = "its certificate was issued for what it asks now; make another request"
    elif waiting.is_waiting(old):
        why = "its signer has been asked for what it asks now; make another request"
    else:
        return
    raise errors.conflict(SIGNING_REQUEST, metadata["name"], why)


async def sign_csr(
    operations: Operations,
    issuing: Issuing,
    caller: Caller,
    namespace: str,
    name: str,
    document: Json,
) -> Json:
    """A person's decision: `document` is the whole request whose status.conditions say Approved or
    Denied. 409 once it was denied or issued; a request that can't be signed says so in Failed."""
    decision = _decision(document, name)
    request, organization = await operations.store.read(
        lambda s: (_undecided(s, namespace, name), organization_of(s, namespace))
    )
    outcome: _Outcome | None = None
    if decision["type"] == "Approved":
        try:
            peer = asker(request)
            parsed = verified(request, peer)
            outcome = _sign_csr(issuing, request, parsed, organization, peer)
        except errors.BadRequest as refused:
            outcome = _Outcome(failure=refused.message)

    def decide(tx: Transaction) -> Json:
        current = _undecided(tx, namespace, name)
        if current["metadata"]["uid"] != request["metadata"]["uid"]:
            raise errors.conflict(SIGNING_REQUEST, name, "it was replaced meanwhile")
        if current["spec"] != request["spec"]:
            raise errors.conflict(SIGNING_REQUEST, name, "it was changed meanwhile")
        status = dict(current.get("status") or {})
        said = status.get("conditions") or ()
        if decision["type"] == "Denied":
            # Of the two one holds; and it waits for no signer, nor is it one's failure, any more.
            said = [c for c in said if c.get("type") not in _OVER_WHEN_DENIED]
        status["conditions"] = conditions.set_condition(
            said,
            decision["type"],
            conditions.TRUE,
            str(decision.get("reason") or decision["type"]),
            str(decision.get("message") or ""),
            tx.timestamp,
        )
        if outcome is not None:
            generation = current["metadata"]["generation"]
            status = _csr_status(status, outcome, generation, tx.timestamp)
        ready = current | {"status": status}
        made = operations.update_in(tx, caller, SIGNING_REQUEST, current, ready)
        act = Act(caller, "update", SIGNING_REQUEST, namespace, name, "approval")
        note(tx, act, made, reason=_came_of(made))
        return made

    return await operations.store.write(decide)


@dataclasses.dataclass(frozen=True, slots=True)
class _Outcome:
    """What signing gave: a certificate (PEM), why not, or neither where the signer is outside."""

    certificate: bytes | None = None
    failure: str = ""
    is_rehearsed: bool = False


def _came_of(request: Json) -> str:
    """In one word, for the audit."""
    status = request.get("status") or {}
    if status.get("certificate"):
        return ISSUED
    said = status.get("conditions")
    return next((type_ for type_ in (DENIED, FAILED) if conditions.is_true(said, type_)), "")


def _qualified(document: Json) -> Json:
    spec = document.get("spec")
    if isinstance(spec, dict) and spec.get("signerName") == signers.ENROLLMENT_ALIAS:
        return document | {"spec": spec | {"signerName": signers.ENROLLMENT}}
    return document


def verified(document: Json, peer: PeerIdentity | None) -> SigningRequest:
    """What this peer (None: a person) may ask for in this way. Raises BadRequest."""
    spec = document["spec"]
    try:
        text = tpmbundle.text_of(_text(spec.get("request")))
        if peer is None and tpmbundle.is_bundle(text):
            raise Refused("a TCG-CSR-IDevID is a device's")
        request = tpmbundle.signing_request(text)
        signers.verify_usages(spec.get("usages") or ())
        signers.verify(spec["signerName"], request, peer)
    except (Refused, ValueError) as refused:
        name = str(document["metadata"].get("name") or "")
        raise errors.BadRequest(
            f"spec.request: {refused}", kind=SIGNING_REQUEST, name=name
        ) from refused
    return request


def asker(document: Json) -> PeerIdentity | None:
    """The device that made a request that is stored; None for a person. The service alone writes
    owners."""
    kind, _, device = str(document["metadata"].get("owner") or "").partition("/")
    if kind != DEVICE.kind or not device:
        return None
    name = signers.DEVICE_PREFIX + device
    return PeerIdentity(signers.DEVICE_ENROLLMENT, None, name, name, 0)


def _sign_csr(
    issuing: Issuing,
    document: Json,
    request: SigningRequest,
    organization: UUID,
    peer: PeerIdentity | None,
    *,
    rehearses: bool = False,
) -> _Outcome:
    try:
        grant = granted(document, request, organization, peer)
        if rehearses:
            # A certificate that nothing tells of would be out in the world.
            return _Outcome(is_rehearsed=True)
        return _Outcome(certificate=issuing.issue(request, grant))
    except Refused as refused:
        return _Outcome(failure=str(refused))


def granted(
    document: Json, request: SigningRequest, organization: UUID, peer: PeerIdentity | None
) -> Grant:
    """What a request would get. Raises Refused."""
    spec = document["spec"]
    return signers.grant(
        spec["signerName"],
        request,
        name=str(document["metadata"].get("name") or request.common_name),
        organization=organization,
        peer=peer,
        expiration_s=spec.get("expirationSeconds"),
    )


def _csr_status(status: Json, outcome: _Outcome, generation: int, now: str) -> Json:
    said = status.get("conditions")
    if not conditions.is_true(said, "Approved"):
        message = "Approved automatically: its signer asks nobody."
        said = conditions.set_condition(said, "Approved", conditions.TRUE, "Approved", message, now)
    if outcome.failure:
        said = conditions.set_condition(
            said, "Failed", conditions.TRUE, "SigningFailed", outcome.failure, now
        )
        return status | {"conditions": said}
    if outcome.is_rehearsed:
        return status | {"conditions": said}
    if outcome.certificate is None:
        return waiting.started(status | {"conditions": said}, generation, waiting.NOT_ASKED, now)
    kept = [c for c in said or () if c.get("type") not in ("Failed", waiting.CONDITION)]
    return status | {
        "conditions": kept,
        "certificate": base64.b64encode(outcome.certificate).decode(),
    }


def check_device(snapshot: Snapshot, namespace: str, name: str) -> None:
    """A certificate is no proof that the device is still one of ours."""
    device = snapshot.get(DEVICE, namespace, name)
    if device is None:
        raise errors.Unauthorized("the device of this certificate does not exist")
    if conditions.get(device["status"].get("conditions"), "DeviceDecommissioning") is not None:
        raise errors.Unauthorized("the device of this certificate was decommissioned")


def _decision(document: Json, name: str) -> Json:
    # A patch may have left anything in the place of a request.
    status = document.get("status") if isinstance(document, dict) else None
    said = status.get("conditions") if isinstance(status, dict) else None
    decisions = [
        each
        for each in (said if isinstance(said, list) else ())
        if isinstance(each, dict) and each.get("type") in ("Approved", "Denied")
    ]
    if len(decisions) != 1 or decisions[0].get("status") != conditions.TRUE:
        raise errors.BadRequest(
            "status.conditions must hold either Approved or Denied, with status True",
            kind=SIGNING_REQUEST,
            name=name,
        )
    return decisions[0]


def _undecided(snapshot: Snapshot, namespace: str, name: str) -> Json:
    request = snapshot.get(SIGNING_REQUEST, namespace, name)
    if request is None:
        raise errors.not_found(SIGNING_REQUEST, name)
    status = request.get("status") or {}
    if conditions.is_true(status.get("conditions"), "Denied"):
        raise errors.conflict(SIGNING_REQUEST, name, "it was already denied")
    if status.get("certificate"):
        raise errors.conflict(SIGNING_REQUEST, name, "its certificate was already issued")
    return request


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
