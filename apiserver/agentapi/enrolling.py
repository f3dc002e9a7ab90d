"""`POST /enrollmentrequests` and `GET /enrollmentrequests/{name}`: becoming a device.

A POST never answers 200: 201 and 409 are what agents take for success. A device whose certificate
expired asks anew (`returning`). What an agent sends is kept
whole; what is judged is the form of the rest, the signature, and that the name is the key's.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from apiserver import approvals, attesting, errors, returning
from apiserver.agentapi import answers, bodies, peers
from apiserver.agentapi.peers import Peer
from apiserver.approvals import ENROLLMENT_REQUEST
from apiserver.auditing import Act, note
from apiserver.auth.identity import Caller
from apiserver.operations import Operations
from apiserver.pki.authority import Authority
from apiserver.pki.tpmroots import Roots
from apiserver.store import Transaction
from resources import readiness, validation
from resources.errors import Invalid
from resources.kind import Json

_API_VERSIONS: Final = frozenset({"", answers.VERSION, answers.API_VERSION})


class Enrolling:
    """`makers` are those of TPMs, for requests that come from one."""

    def __init__(self, operations: Operations, authority: Authority, makers: Roots) -> None:
        self._operations = operations
        self._authority = authority
        self._makers = makers

    async def create(self, request: web.Request, peer: Peer) -> web.StreamResponse:
        document = _own_parts(await bodies.read_object(request))
        _check(document)
        # What policies go by, and no agent can say for itself.
        document["status"] = {"enrollmentCertificate": peers.shown(request, peer)}
        approvals.verify_enrollment(document, is_agent=True)
        verdict = attesting.judge(document["spec"]["csr"], self._makers)
        caller = peer.caller_from(request)

        def ask(tx: Transaction) -> Json:
            asked = self._ask(tx, peer, caller, document)
            return attesting.judged(self._operations, tx, caller, asked, verdict)

        stored = await self._operations.store.write(ask)
        return answers.document(_shown(stored), status=201)

    def _ask(self, tx: Transaction, peer: Peer, caller: Caller, document: Json) -> Json:
        name = str(document["metadata"].get("name") or "")
        old = tx.get(ENROLLMENT_REQUEST, peer.namespace, name)
        is_returning = old is not None and returning.is_over(old, tx.now)
        if old is not None and is_returning:
            # Made anew, with a uid of its own: a signer outside answers an old one as it did.
            tx.delete(ENROLLMENT_REQUEST, old)
        operations = self._operations
        made = operations.insert_in(tx, caller, ENROLLMENT_REQUEST, document, peer.namespace)
        note(tx, Act(caller, "create", ENROLLMENT_REQUEST, peer.namespace), made, 201)
        if not is_returning:
            return made
        told = made | {"status": (made.get("status") or {}) | returning.status(tx.timestamp)}
        return operations.update_in(tx, caller, ENROLLMENT_REQUEST, made, told)

    async def get(self, request: web.Request, peer: Peer) -> web.StreamResponse:
        name = request.match_info["name"]
        found = await self._operations.get(peer.caller, ENROLLMENT_REQUEST, peer.namespace, name)
        return answers.document(
            answers.with_authorities(_shown(found), self._authority.server_ca_pem)
        )


def _own_parts(body: Json) -> Json:
    """What a client may write of a request; the rest is the service's."""
    if body.get("apiVersion") not in _API_VERSIONS:
        raise errors.BadRequest(
            "API Error: request body has an error: doesn't match schema: apiVersion must be "
            f"{answers.API_VERSION}"
        )
    metadata = bodies.object_at(body, "metadata")
    kept = {key: metadata[key] for key in ("name", "labels") if metadata.get(key) is not None}
    return {
        "apiVersion": answers.API_VERSION,
        "kind": ENROLLMENT_REQUEST.kind,
        "metadata": kept,
        "spec": bodies.object_at(body, "spec"),
    }


def _check(document: Json) -> None:
    """Judge all but the device's own report, of which only what hurts others is refused."""
    spec = document["spec"]
    if spec.get("deviceStatus") is not None:
        bodies.check_status(bodies.object_at(spec, "deviceStatus"), "spec.deviceStatus")
    judged = {key: value for key, value in spec.items() if key != "deviceStatus"}
    known = validation.prune(ENROLLMENT_REQUEST, document | {"spec": judged})
    complaints = validation.validate(ENROLLMENT_REQUEST, known)
    if complaints:
        raise Invalid(complaints)


def _shown(document: Json) -> Json:
    """An agent that finds no `status.conditions` gives up for ever (contract 15.3). By whose
    certificate a machine came is nothing for the others who have one."""
    status = document.get("status") or {}
    # Its list of them is closed.
    status = status | {"conditions": readiness.own(status.get("conditions"))}
    status.pop("enrollmentCertificate", None)
    metadata = {"labels": {}, "annotations": {}, **document["metadata"]}
    return document | {"metadata": metadata, "status": status}
