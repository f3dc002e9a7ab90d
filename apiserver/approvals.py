"""What a certificate is given for: approving enrolments, and signing certificate requests.

The invariant: whatever says "approved" is committed together with what follows from it. A device
and the approval of its request are one transaction, so no crash leaves one without the other.
Signing happens before the transaction, on a snapshot; the transaction refuses if the request is no
longer the one that was signed. A certificate that was made for nothing is thrown away unseen.

Where the signer is outside there is no certificate yet: the request says that it waits, and what
`order_of` makes of it is all that the signer will be asked.
"""

from __future__ import annotations

import base64
import dataclasses
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar
from uuid import UUID

from apiserver import attesting, bindings, errors, returning, showing
from apiserver.auditing import APPROVED, DENIED, FAILED, ISSUED, Act, note, noted
from apiserver.auth.identity import Caller
from apiserver.builtins import telling
from apiserver.operations import Operations, WriteOptions, Written
from apiserver.pki import revocations, signers, tpmbundle, waiting
from apiserver.pki.extensions import PeerIdentity
from apiserver.pki.issuing import Issuing
from apiserver.pki.orders import Order
from apiserver.pki.requests import Refused, SigningRequest
from apiserver.pki.signers import Grant
from apiserver.pki.tpmroots import Roots
from apiserver.store import Snapshot, Transaction
from resources import conditions, enrollment, registry
from resources.errors import Invalid
from resources.kind import Json

T = TypeVar("T")
# Called in the transaction of an approval with the request as it is there; raises if it is not to
# be, and writes what must be true together with it.
Grounds = Callable[[Transaction, Json], None]

ENROLLMENT_REQUEST = registry.by_kind("EnrollmentRequest")
SIGNING_REQUEST = registry.by_kind("CertificateSigningRequest")
DEVICE = registry.by_kind("Device")
ORGANIZATION = registry.by_kind("Organization")

# The role under which operations let a Device be born with a status.
APPROVAL = "approval"

_NOT_ASKED = "Approved; its signer is outside and will be asked."
_UNREPORTED_VERSIONS = (None, "", "0")


# --- enrolment ------------------------------------------------------------------------------


def verify_enrollment(document: Json, *, is_agent: bool) -> None:
    """Raise BadRequest unless the request proves its key and has the right name."""
    name = str(document["metadata"].get("name") or "")
    try:
        request = tpmbundle.signing_request(_text(document["spec"].get("csr")))
        signers.verify_enrollment(request, name, is_agent=is_agent)
    except Refused as refused:
        raise errors.BadRequest(
            f"spec.csr: {refused}", kind=ENROLLMENT_REQUEST, name=name
        ) from refused


async def create_enrollment(
    operations: Operations,
    makers: Roots,
    caller: Caller,
    namespace: str,
    document: Json,
    options: WriteOptions,
) -> Written:
    """Store a person's request. Raises BadRequest."""
    said = {key: value for key, value in document.items() if key != "status"}
    document, warnings = operations.decode(ENROLLMENT_REQUEST, said, options)
    verify_enrollment(document, is_agent=False)
    verdict = attesting.judge(document["spec"]["csr"], makers)

    def create(tx: Transaction) -> Written:
        stored = operations.insert_in(tx, caller, ENROLLMENT_REQUEST, document, namespace, options)
        made = attesting.judged(operations, tx, caller, stored, verdict)
        return showing.answered(tx, ENROLLMENT_REQUEST, made, None, options, warnings)

    act = Act(caller, "create", ENROLLMENT_REQUEST, namespace)
    return await operations.store.write(noted(act, create), dry_run=options.dry_run)


async def approve_enrollment(
    operations: Operations,
    issuing: Issuing,
    caller: Caller,
    namespace: str,
    name: str,
    approval: Json,
    policy: Grounds | None = None,
) -> Json | None:
    """Decide on a request: the approval as it is stored, None where there is none. `policy` are the
    grounds on which no person decides.

    `approved: false` leaves a Denied condition, which ends the agent's waiting; a later approval
    takes it away again. 400 when it is already approved, or can't be signed.
    """
    complaints = enrollment.check_approval(approval)
    if complaints:
        raise errors.unprocessable(ENROLLMENT_REQUEST, name, Invalid(complaints))
    act = Act(caller, "update", ENROLLMENT_REQUEST, namespace, name, "approval")
    request, organization = await operations.store.read(
        lambda s: (_pending(s, namespace, name), organization_of(s, namespace))
    )
    if not approval["approved"]:
        return await operations.store.write(lambda tx: _deny(tx, act))
    try:
        certificate = _sign_enrollment(issuing, request, organization)

        def approve(tx: Transaction) -> Json:
            current = _still_the_one(tx, request)
            if policy is not None:
                policy(tx, current)
            given = _given(approval, current, caller, tx.timestamp)
            approver = dataclasses.replace(caller, role=APPROVAL)
            kept = returning.kept(tx, current, approval)
            if kept is None:
                device = _device(current, given["labels"])
                operations.insert_in(tx, approver, DEVICE, device, namespace)
            else:
                given["labels"] = kept[1]["metadata"]["labels"]
                operations.update_in(tx, approver, DEVICE, *kept)
            reason = "ManuallyApproved" if policy is None else "ApprovedByPolicy"
            status = _approved_status(current, given, certificate, reason, tx.timestamp)
            ready = current | {"status": status}
            stored = operations.update_in(tx, caller, ENROLLMENT_REQUEST, current, ready)
            note(tx, act, stored, reason=APPROVED if certificate is None else ISSUED)
            said = f"Approved by {given['approvedBy']}."
            telling.tell(operations, tx, caller, stored, "EnrollmentRequestApproved", said)
            return given

        return await operations.store.write(approve)
    except (AlreadyDecided, Withdrawn):
        raise
    except (errors.BadRequest, errors.Conflict) as refused:
        await _tell_failed(operations, caller, request, refused.message)
        raise


class AlreadyDecided(errors.BadRequest):
    """Somebody was faster, or comes back."""


class Withdrawn(errors.Conflict):
    """The grounds for an approval hold no longer."""


async def _tell_failed(operations: Operations, caller: Caller, request: Json, why: str) -> None:
    reason, message = "EnrollmentRequestApprovalFailed", f"{caller.name or 'unknown'}: {why}"

    def tell(tx: Transaction) -> None:
        telling.tell(operations, tx, caller, request, reason, message, is_warning=True)

    with suppress(errors.NotFound):  # its namespace is gone, and with it all who could read this
        await operations.store.write(tell)


def _still_the_one(tx: Transaction, request: Json) -> Json:
    """The request that was read and signed, if it may still become a device."""
    namespace, name = request["metadata"]["namespace"], request["metadata"]["name"]
    current = _pending(tx, namespace, name)
    if _key_of(current) != _key_of(request):
        raise errors.conflict(ENROLLMENT_REQUEST, name, "it was replaced meanwhile")
    if revocations.is_barred(tx, namespace, name, tx.now.timestamp()):
        why = "the device's certificates are revoked: delete the CertificateRevocation, if it may"
        raise errors.conflict(ENROLLMENT_REQUEST, name, f"{why} come back")
    return current


def _pending(snapshot: Snapshot, namespace: str, name: str) -> Json:
    request = snapshot.get(ENROLLMENT_REQUEST, namespace, name)
    if request is None:
        raise errors.not_found(ENROLLMENT_REQUEST, name)
    approval = (request.get("status") or {}).get("approval") or {}
    if approval.get("approved"):
        raise AlreadyDecided(
            "the enrollment request is already approved", kind=ENROLLMENT_REQUEST, name=name
        )
    return request


def _key_of(request: Json) -> tuple[str, str]:
    return request["metadata"]["uid"], request["spec"]["csr"]


def _deny(tx: Transaction, act: Act) -> None:
    request = _pending(tx, act.namespace, act.name)
    status = dict(request.get("status") or {})
    message = f"Denied by {act.caller.name}."
    status["conditions"] = conditions.set_condition(
        status.get("conditions"), "Denied", conditions.TRUE, "Denied", message, tx.timestamp
    )
    stored = tx.update(ENROLLMENT_REQUEST, request, request | {"status": status})
    note(tx, act, stored, reason=DENIED)


def _sign_enrollment(issuing: Issuing, request: Json, organization: UUID) -> bytes | None:
    """None: its signer is outside. Raises BadRequest."""
    name = request["metadata"]["name"]
    try:
        parsed, granted = _granted_enrollment(request, organization)
    except Refused as refused:
        raise errors.BadRequest(
            f"the request can't be signed: {refused}", kind=ENROLLMENT_REQUEST, name=name
        ) from refused
    return issuing.issue(parsed, granted)


def _granted_enrollment(request: Json, organization: UUID) -> tuple[SigningRequest, Grant]:
    name = request["metadata"]["name"]
    parsed = tpmbundle.signing_request(request["spec"]["csr"])
    signers.verify_enrollment(parsed, name, is_agent=False)
    granted = signers.grant(
        signers.DEVICE_ENROLLMENT, parsed, name=name, organization=organization, peer=None
    )
    return parsed, granted


def _given(approval: Json, request: Json, caller: Caller, now: str) -> Json:
    """The approval as it is stored: labels merged, the approver's before the agent's."""
    replaces = bool(approval.get("replaceLabels"))
    proposed = {} if replaces else request["spec"].get("labels") or {}
    return {
        "approved": True,
        "labels": {**proposed, **(approval.get("labels") or {})},
        "replaceLabels": replaces,
        "approvedBy": caller.name or "unknown",
        "approvedAt": now,
    }


def _approved_status(
    request: Json, given: Json, certificate: bytes | None, reason: str, now: str
) -> Json:
    status = dict(request.get("status") or {})
    pending = [c for c in status.get("conditions") or () if c.get("type") != "Denied"]
    message = f"Approved by {given['approvedBy']}."
    status["conditions"] = conditions.set_condition(
        pending, "Approved", conditions.TRUE, reason, message, now
    )
    status["approval"] = given
    if certificate is None:
        return waiting.started(status, request["metadata"]["generation"], _NOT_ASKED, now)
    return status | {"certificate": certificate.decode()}


def _device(request: Json, labels: Json) -> Json:
    """The device as it is born: what it said of its system, and what its TPM has shown."""
    spec = request["spec"]
    said = spec.get("deviceStatus") or {}
    status = bindings.empty_status()
    if isinstance(said.get("systemInfo"), dict):
        status["systemInfo"] = status["systemInfo"] | said["systemInfo"]
    status["integrity"] = attesting.integrity_of(request)
    status["lifecycle"] = {"status": "Enrolled"}
    mode = spec.get("osMode") or (said.get("capabilities") or {}).get("osMode")
    if mode:
        status["capabilities"] = {"osMode": mode}
    if spec.get("knownRenderedVersion") not in _UNREPORTED_VERSIONS:
        # The first version that is rendered will be above the one that the device runs.
        status["config"] = {"renderedVersion": spec["knownRenderedVersion"]}
    metadata = {"name": request["metadata"]["name"], "labels": labels}
    return {"metadata": metadata, "spec": {}, "status": status}


# --- certificate signing requests -----------------------------------------------------------


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
    request = _verified(document, peer)
    text = tpmbundle.text_of(document["spec"]["request"])
    organization, verdict = await operations.store.read(
        lambda s: (
            organization_of(s, namespace),
            attesting.judge_again(s, namespace, device, text),
        )
    )
    is_trusted = verdict is None or verdict.status == conditions.TRUE
    # A TPM that shows the wrong thing is for a person to judge.
    outcome = _sign_csr(issuing, document, request, organization, peer) if is_trusted else None

    def create(tx: Transaction) -> Written:
        if peer is not None:
            _check_device(tx, namespace, device)
        spec = document["spec"] | {"username": caller.name}
        body = document | {"spec": spec}
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
            peer = _asker(request)
            parsed = _verified(request, peer)
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
        status["conditions"] = conditions.set_condition(
            status.get("conditions"),
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


def _verified(document: Json, peer: PeerIdentity | None) -> SigningRequest:
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


def _asker(document: Json) -> PeerIdentity | None:
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
) -> _Outcome:
    try:
        granted = _granted_csr(document, request, organization, peer)
        return _Outcome(certificate=issuing.issue(request, granted))
    except Refused as refused:
        return _Outcome(failure=str(refused))


def _granted_csr(
    document: Json, request: SigningRequest, organization: UUID, peer: PeerIdentity | None
) -> Grant:
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
    if outcome.certificate is None:
        return waiting.started(status | {"conditions": said}, generation, _NOT_ASKED, now)
    kept = [c for c in said or () if c.get("type") not in ("Failed", waiting.CONDITION)]
    return status | {
        "conditions": kept,
        "certificate": base64.b64encode(outcome.certificate).decode(),
    }


def _check_device(snapshot: Snapshot, namespace: str, name: str) -> None:
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


# --- both -----------------------------------------------------------------------------------


def organization_of(snapshot: Snapshot, namespace: str) -> UUID:
    """The organisation that a namespace is paired with."""
    found = snapshot.get(ORGANIZATION, "", namespace)
    if found is None:
        raise errors.NotFound(f'namespaces "{namespace}" not found', name=namespace)
    return UUID(found["metadata"]["uid"])


def order_of(snapshot: Snapshot, document: Json, now: float) -> Order:
    """What a signer outside is asked for a request that is approved and waits. Judged again, as
    when it was approved. Raises Refused."""
    metadata, spec = document["metadata"], document["spec"]
    namespace = metadata["namespace"]
    if not waiting.is_as_approved(document):
        raise Refused("it was changed after it was approved")
    organization = organization_of(snapshot, namespace)
    if document["kind"] == ENROLLMENT_REQUEST.kind:
        device = metadata["name"]
        parsed, granted = _granted_enrollment(document, organization)
        requester = document["status"].get("approval", {}).get("approvedBy")
    else:
        peer = _asker(document)
        device = "" if peer is None else signers.device_of(peer)
        try:
            parsed = _verified(document, peer)
            if device:
                _check_device(snapshot, namespace, device)
        except errors.StatusError as refused:
            raise Refused(refused.message) from refused
        granted = _granted_csr(document, parsed, organization, peer)
        requester = spec.get("username")
    if device and revocations.is_barred(snapshot, namespace, device, now):
        raise Refused("the device's certificates are revoked")
    return Order(
        uid=metadata["uid"],
        kind=document["kind"],
        namespace=namespace,
        name=metadata["name"],
        request=parsed,
        granted=granted,
        requester=_text(requester),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
