"""Approving enrolments: what is decided of a request is committed together with what follows.

A device and the approval of its request are one transaction, so no crash leaves one without the
other. Signing happens before the transaction, on a snapshot; the transaction refuses if the request
is no longer the one that was signed. A certificate that was made for nothing is thrown away unseen.

Where the signer is outside there is no certificate yet: the request says that it waits, and what
`ordering` makes of it is all that the signer will be asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from uuid import UUID

from apiserver import attesting, bindings, errors, returning, showing
from apiserver.auditing import APPROVED, DENIED, ISSUED, Act, note, noted
from apiserver.auth.identity import Caller
from apiserver.builtins import telling
from apiserver.operations import Operations, WriteOptions, Written
from apiserver.pki import revocations, signers, tpmbundle, waiting
from apiserver.pki.issuing import Issuing
from apiserver.pki.requests import Refused, SigningRequest
from apiserver.pki.signers import Grant
from apiserver.pki.tpmroots import Roots
from apiserver.store import Snapshot, Transaction, newsworthy
from apiserver.storing import organization_of
from resources import conditions, enrollment, registry
from resources.errors import Invalid
from resources.kind import Json
from resources.news import News

# Called in the transaction of an approval with the request as it is there; raises if it is not to
# be, and writes what must be true together with it.
Grounds = Callable[[Transaction, Json], None]

ENROLLMENT_REQUEST = registry.by_kind("EnrollmentRequest")
DEVICE = registry.by_kind("Device")

# The role under which operations let a Device be born with a status.
APPROVAL = "approval"

_UNREPORTED_VERSIONS = (None, "", "0")


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


@dataclasses.dataclass(frozen=True, slots=True)
class Requests:
    """The judge of people's requests that come by another verb: as `create_enrollment` has it. What
    was found of one TPM is no word about another, so each CSR is judged anew."""

    operations: Operations
    makers: Roots

    def asked(self, caller: Caller, old: Json | None, document: Json) -> Json:
        return document

    def judged(
        self, tx: Transaction, caller: Caller, old: Json | None, stored: Json, options: WriteOptions
    ) -> Json:
        verify_enrollment(stored, is_agent=False)
        verdict = attesting.judge(stored["spec"]["csr"], self.makers)
        return attesting.judged(self.operations, tx, caller, stored, verdict)


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
            tx.announce(
                newsworthy.about(stored), [News("EnrollmentRequestApproved", said, same_by="none")]
            )
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
        if tx.has_namespace(request["metadata"]["namespace"]):
            telling.tell(tx, request, reason, message)

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
        parsed, grant = granted(request, organization)
    except Refused as refused:
        raise errors.BadRequest(
            f"the request can't be signed: {refused}", kind=ENROLLMENT_REQUEST, name=name
        ) from refused
    return issuing.issue(parsed, grant)


def granted(request: Json, organization: UUID) -> tuple[SigningRequest, Grant]:
    """What its device asks to have signed, and what it would get. Raises Refused."""
    name = request["metadata"]["name"]
    parsed = tpmbundle.signing_request(request["spec"]["csr"])
    signers.verify_enrollment(parsed, name, is_agent=False)
    grant = signers.grant(
        signers.DEVICE_ENROLLMENT, parsed, name=name, organization=organization, peer=None
    )
    return parsed, grant


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
        return waiting.started(status, request["metadata"]["generation"], waiting.NOT_ASKED, now)
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


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
