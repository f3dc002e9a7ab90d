"""Whether a key lives in a TPM: the one writer of the condition TPMVerified.

A bundle is judged when it comes; what it can't show by itself, that its two keys are of one TPM, is
shown by a challenge. That is one exchange on one connection: the secret is made for it, kept in
memory and nowhere else, and is gone with it, whatever its end. So nothing can be replayed, and a
server that dies takes no answer with it: the device begins anew, at any server.

The condition says which generation of the request it judged. What it says of another is void, here
and at the approval: who changes the CSR of a request does not inherit its proof.

Whoever holds an enrolment certificate may begin a challenge for any request that waits, as the
contract has it, and can only fail it: that leaves `TPMChallengeFailed` until the device itself has
answered, and never takes a proof away.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization

from apiserver import errors
from apiserver.auditing import Act, note
from apiserver.auth.identity import Caller
from apiserver.operations import Operations
from apiserver.pki import signers, tpmbundle, tpmcredential, tpmroots
from apiserver.pki.requests import Refused
from apiserver.pki.tpmroots import Roots, Unproven
from apiserver.pki.tpmtypes import Malformed
from apiserver.store import Snapshot, Transaction
from resources import conditions, registry
from resources.kind import Json

CONDITION = "TPMVerified"
VERIFICATION_FAILED = "TPMVerificationFailed"
CHALLENGE_REQUIRED = "TPMChallengeRequired"
CHALLENGE_FAILED = "TPMChallengeFailed"
CHALLENGE_SUCCEEDED = "TPMChallengeSucceeded"
VERIFICATION_SUCCEEDED = "TPMVerificationSucceeded"

_NO_TPM = "the device did not prove its identity by a TPM"
_REQUIRED = "The TPM has not answered its challenge yet."
_SUCCEEDED = "The TPM answered its challenge: the key cannot leave it."
_FAILED = "The challenge was answered with another secret: the keys are not of one TPM."
_SAME_TPM = "The TPM that the device enrolled with has certified this key too."
_ANOTHER_KEY = (
    "The key is not the one in the TPM that the device enrolled with, and no TPM has certified it."
)
_OUTDATED = "the TPM was not asked about the request as it is now"

ENROLLMENT_REQUEST = registry.by_kind("EnrollmentRequest")


class NotNow(Exception):
    """There is nothing to challenge: no TPM, or all is said already. The text is for people."""


@dataclass(frozen=True, slots=True)
class Verdict:
    status: str
    reason: str
    message: str

    def on(self, status: Json, generation: int, now: str) -> Json:
        """The status with the condition in it."""
        said = conditions.set_condition(
            status.get("conditions"),
            CONDITION,
            self.status,
            self.reason,
            self.message,
            now,
            generation,
        )
        return status | {"conditions": said}


@dataclass(frozen=True, slots=True)
class Challenge:
    """One that was put to the TPM of a request, as the request was then."""

    namespace: str
    name: str
    uid: str
    generation: int
    credential: tpmcredential.Credential


def judge(csr: str, makers: Roots) -> Verdict | None:
    """What a bundle shows by itself; None for an ordinary request. It can be read: that was asked
    before."""
    if not tpmbundle.is_bundle(csr):
        return None
    try:
        tpmbundle.check(tpmbundle.read(csr), makers)
    except (Unproven, Refused) as failed:
        return Verdict(conditions.FALSE, VERIFICATION_FAILED, f"{failed}.")
    return Verdict(conditions.FALSE, CHALLENGE_REQUIRED, _REQUIRED)


def judge_again(enrolled: Json | None, signer: str, csr: str) -> Verdict | None:
    """What an enrolled device's request shows, given the one that it enrolled by: that the TPM
    which answered the challenge then holds this key too. None where nothing is to be shown.

    With a bundle the TPM says so itself. Without one the key must be the very one of the enrolment
    if the certificate is to say who the device is: or whoever read a certificate's key that lies in
    a file could go on as the device from anywhere, for as long as it renews.
    """
    is_proven = enrolled is not None and _is_proven(enrolled)
    if not tpmbundle.is_bundle(csr):
        if enrolled is None or not is_proven or signer not in signers.MANAGEMENT:
            return None
        is_same = _key_of(csr) == _key_of(enrolled["spec"]["csr"])
        return None if is_same else Verdict(conditions.FALSE, VERIFICATION_FAILED, _ANOTHER_KEY)
    try:
        if enrolled is None or not is_proven:
            raise Unproven("the device did not enrol by a TPM that was verified")
        known = tpmbundle.read(enrolled["spec"]["csr"]).lak
        bundle = tpmbundle.read(csr)
        if bundle.lak != known:
            raise Unproven("the attestation key is another one than at enrolment")
        tpmbundle.check_key(bundle)
    except (Unproven, Refused) as failed:
        return Verdict(conditions.FALSE, VERIFICATION_FAILED, f"{failed}.")
    return Verdict(conditions.TRUE, VERIFICATION_SUCCEEDED, _SAME_TPM)


def judged(
    operations: Operations, tx: Transaction, caller: Caller, stored: Json, verdict: Verdict | None
) -> Json:
    """The request that was just stored, with what was found of its TPM: where it has none, without
    what was found of an earlier CSR's."""
    status = stored.get("status") or {}
    if verdict is not None:
        status = verdict.on(status, stored["metadata"]["generation"], tx.timestamp)
    elif conditions.get(status.get("conditions"), CONDITION) is None:
        return stored
    else:
        kept = [c for c in status["conditions"] if c.get("type") != CONDITION]
        status = status | {"conditions": kept}
    ready = stored | {"status": status}
    return operations.update_in(tx, caller, ENROLLMENT_REQUEST, stored, ready)


def integrity_of(request: Json) -> Json:
    """`status.integrity` of the device that is born from a request."""
    if not tpmbundle.is_bundle(request["spec"]["csr"]):
        outcome, info = "Unsupported", _NO_TPM
    else:
        found = _condition(request)
        if found is None:
            outcome, info = "Failed", _OUTDATED
        else:
            is_verified = found["status"] == conditions.TRUE
            outcome, info = "Verified" if is_verified else "Failed", found["message"]
    part = {"status": outcome}
    return part | {"info": info, "tpm": dict(part), "deviceIdentity": dict(part)}


def endorsement_of(request: Json) -> str:
    """SHA-256 in hexadecimal of the endorsement key of the TPM that was shown to have the key of
    the request (of its DER, as `tpm2_readpublic -f der` writes it); empty where none was."""
    if not _is_proven(request):
        return ""
    bundle = tpmbundle.read(request["spec"]["csr"])
    key = tpmroots.certificate_in(bundle.ek_certificate).public_key()
    der = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(der).hexdigest()


def _is_proven(request: Json) -> bool:
    found = _condition(request)
    return found is not None and found["status"] == conditions.TRUE


def _key_of(csr: str) -> bytes:
    """Both forms were read before they were stored, or came here."""
    return tpmbundle.signing_request(csr).public_key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _condition(request: Json) -> Json | None:
    """What is said of the request as it is now."""
    found = conditions.get((request.get("status") or {}).get("conditions"), CONDITION)
    if found is None or found.get("observedGeneration") != request["metadata"]["generation"]:
        return None
    return found


class Attesting:
    """Challenges, for the servers of one database."""

    def __init__(
        self,
        operations: Operations,
        makers: Roots,
        *,
        make: Callable[..., tpmcredential.Credential] = tpmcredential.make,
    ) -> None:
        self._operations = operations
        self._makers = makers
        self._make = make

    async def begin(self, namespace: str, name: str) -> Challenge:
        """A challenge for the TPM of a request. Raises NotFound, NotNow."""
        request = await self._operations.store.read(lambda s: _waiting(s, namespace, name))
        csr = request["spec"]["csr"]
        try:
            claim = tpmbundle.check(tpmbundle.read(csr), self._makers)
            credential = self._make(claim.endorsement.public_key(), claim.lak.name)
        except (Unproven, Refused, Malformed) as failed:
            raise NotNow(str(failed)) from failed
        metadata = request["metadata"]
        return Challenge(namespace, name, metadata["uid"], metadata["generation"], credential)

    async def conclude(self, caller: Caller, challenge: Challenge, secret: bytes) -> Verdict:
        """What the answer shows; it is committed. Raises NotFound, NotNow."""
        verdict = Verdict(conditions.FALSE, CHALLENGE_FAILED, _FAILED)
        if secrets.compare_digest(secret, challenge.credential.secret):
            verdict = Verdict(conditions.TRUE, CHALLENGE_SUCCEEDED, _SUCCEEDED)

        def write(tx: Transaction) -> Verdict:
            request = _waiting(tx, challenge.namespace, challenge.name)
            metadata = request["metadata"]
            if (metadata["uid"], metadata["generation"]) != (challenge.uid, challenge.generation):
                raise NotNow("the request was changed meanwhile")
            said = judged(self._operations, tx, caller, request, verdict)
            place = (ENROLLMENT_REQUEST, challenge.namespace, challenge.name)
            note(tx, Act(caller, "update", *place, "challenge"), said, reason=verdict.reason)
            return verdict

        return await self._operations.store.write(write)


def _waiting(snapshot: Snapshot, namespace: str, name: str) -> Json:
    """A request of which a challenge may change what is said. The bundle is judged again by
    whoever challenges, so that makers who are trusted since then count."""
    request = snapshot.get(ENROLLMENT_REQUEST, namespace, name)
    if request is None:
        raise errors.not_found(ENROLLMENT_REQUEST, name)
    status = request.get("status") or {}
    if not tpmbundle.is_bundle(request["spec"]["csr"]):
        raise NotNow("the request has no TPM-based CSR")
    if (status.get("approval") or {}).get("approved"):
        raise NotNow("the request is already approved")
    found = _condition(request)
    if found is not None and found["status"] == conditions.TRUE:
        raise NotNow("the TPM was verified already")
    return request
