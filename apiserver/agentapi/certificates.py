"""`POST` and `GET /certificatesigningrequests`: a device renews its certificate by itself.

A certificate that is still valid is no proof that the device still exists: the store is asked,
in the transaction that stores the request.
"""

from __future__ import annotations

from aiohttp import web

from apiserver import certifying, errors
from apiserver.agentapi import answers, bodies
from apiserver.agentapi.deliveries import Deliveries
from apiserver.agentapi.peers import Peer
from apiserver.agentapi.presence import Presence
from apiserver.certifying import SIGNING_REQUEST
from apiserver.operations import Operations, WriteOptions
from apiserver.pki.issuing import Issuing
from resources.kind import Json

# Fields that newer agents add to a request mean nothing to the signers that we have.
_LENIENT = WriteOptions(field_validation="Ignore")


class Certificates:
    def __init__(
        self,
        operations: Operations,
        issuing: Issuing,
        deliveries: Deliveries,
        presence: Presence,
    ) -> None:
        self._operations = operations
        self._issuing = issuing
        self._deliveries = deliveries
        self._presence = presence

    async def create(self, request: web.Request, peer: Peer) -> web.StreamResponse:
        body = await bodies.read_object(request)
        metadata = bodies.object_at(body, "metadata")
        document = {
            "metadata": {key: metadata[key] for key in ("name", "labels") if metadata.get(key)},
            "spec": bodies.object_at(body, "spec"),
        }
        await self._saw(peer)
        written = await certifying.create_csr(
            self._operations,
            self._issuing,
            peer.caller_from(request),
            peer.namespace,
            document,
            _LENIENT,
            peer=peer.identity,
        )
        return answers.document(self._shown(written.document), status=201)

    async def get(self, request: web.Request, peer: Peer) -> web.StreamResponse:
        await self._saw(peer)
        name = request.match_info["name"]
        found = await self._operations.get(peer.caller, SIGNING_REQUEST, peer.namespace, name)
        if found["metadata"].get("owner") != f"Device/{peer.device}":
            raise errors.Unauthorized("a device may read its own requests only")
        return answers.document(self._shown(found))

    def _shown(self, document: Json) -> Json:
        return answers.with_authorities(_shown(document), self._issuing.authority.server_ca_pem)

    async def _saw(self, peer: Peer) -> None:
        try:
            found = await self._deliveries.look((peer.namespace, peer.device), None)
        except errors.NotFound as gone:
            raise errors.Unauthorized("the device of this certificate does not exist") from gone
        self._presence.saw(found.delivery.uid, is_connected=found.delivery.connected)


def _shown(document: Json) -> Json:
    status = {"conditions": [], **(document.get("status") or {})}
    metadata = {"labels": {}, "annotations": {}, **document["metadata"]}
    return document | {"metadata": metadata, "status": status}
