"""`PUT` and `PATCH /devices/{name}/status`: what a device says of itself, kept as it came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import orjson
from aiohttp import web

from apiserver import errors
from apiserver.agentapi import answers, bodies
from apiserver.agentapi.deliveries import DEVICE
from apiserver.agentapi.peers import Peer
from apiserver.agentapi.presence import Presence
from apiserver.store import Store, Transaction, devices, reports
from apiserver.store.gathering import Gathering
from apiserver.store.reports import Report
from apiserver.store.settling import Settling
from apiserver.wire import patch
from resources.kind import Json

# A set takes some 50 ms, which others wait for; all that may wait is written in some five seconds.
CHUNK = 256
WAITING_MAX = 16_384
# While thousands are told: agents wait for an answer longer than that.
HEARD_AFTER_S = 2.0
_PATCH_VERBS: Final = frozenset({"add", "replace", "remove", "test"})
_PATCH_MEMBERS: Final = frozenset({"op", "path", "value"})
# Parts of a status that the service concludes; a patch sees them, and what it leaves alone is not
# thereby something that the agent said.
_CONCLUDED: Final = ("summary", "updated", "applicationsSummary", "lifecycle")
_OWN_CONDITIONS: Final = frozenset({"SpecValid", "MultipleOwners"})


class Reporting:
    def __init__(self, store: Store, presence: Presence, tellings: Settling) -> None:
        self._store = store
        self._presence = presence
        self._tellings = tellings
        self._reports = Gathering(self._put_all, chunk=CHUNK, limit=WAITING_MAX)

    async def write_reports(self) -> None:
        await self._reports.run()

    async def put(self, request: web.Request, peer: Peer) -> web.StreamResponse:
        await self._tellings.settled(HEARD_AFTER_S)
        body = await bodies.read_object(request)
        if bodies.object_at(body, "metadata").get("name") != peer.device:
            raise errors.BadRequest("metadata.name and the name in the path differ")
        if body.get("status") is None:
            raise errors.BadRequest("device status is required")
        status = bodies.object_at(body, "status")
        bodies.check_status(status, "status")
        report = Report(peer.namespace, peer.device, status)
        return self._answer(request, peer, await self._reports.put(report))

    async def patch(self, request: web.Request, peer: Peer) -> web.StreamResponse:
        operations = await bodies.read(request, patch.JSON_PATCH)
        _check_operations(operations)
        change = patch.json_patch(operations)

        def apply(tx: Transaction) -> Json | None:
            row = devices.row_by_name(tx.connection, peer.namespace, peer.device)
            before = tx.get(DEVICE, peer.namespace, peer.device)
            if row is None or before is None:
                return None
            after = change(before)
            status = _said(before, after, orjson.loads(row["agent_status"]))
            return self._put(tx, [Report(peer.namespace, peer.device, status)])[0]

        return self._answer(request, peer, await self._store.write(apply))

    async def _put_all(self, said: Sequence[Report]) -> list[Json | None]:
        return await self._store.write(lambda tx: self._put(tx, said))

    def _put(self, tx: Transaction, said: Sequence[Report]) -> list[Json | None]:
        stored = reports.put_all(tx, said)
        uids = [device["metadata"]["uid"] for device in stored if device is not None]
        self._presence.record_first(tx, uids)
        return stored

    def _answer(self, request: web.Request, peer: Peer, stored: Json | None) -> web.StreamResponse:
        if stored is None:
            raise errors.not_found(DEVICE, peer.device)
        uid = stored["metadata"]["uid"]
        self._presence.recorded(uid)
        # The report itself has set it connected.
        self._presence.saw(uid, is_connected=True)
        if request.headers.get("Prefer", "").strip().lower() == "return=minimal":
            return answers.nothing_new()
        return answers.document(stored)


def _check_operations(operations: Any) -> None:
    """The reference's subset of RFC 6902: four verbs, no other members."""
    if not isinstance(operations, list):
        raise errors.BadRequest("API Error: request body has an error: a JSON patch is a list")
    for index, operation in enumerate(operations):
        verb = operation.get("op") if isinstance(operation, dict) else None
        if not isinstance(verb, str) or verb not in _PATCH_VERBS:
            raise errors.BadRequest(f"operation {index}: op must be add, remove, replace or test")
        if not operation.keys() <= _PATCH_MEMBERS:
            raise errors.BadRequest(f"operation {index}: members must be op, path and value")


def _said(before: Json, after: Json, stored: Json) -> Json:
    """The agent's part of the patched status. Raises BadRequest if more than the status changed."""
    rest = (before.keys() | after.keys()) - {"status"}
    changed = sorted(key for key in rest if not patch.same(before.get(key), after.get(key)))
    if changed:
        raise errors.BadRequest(f"{', '.join(changed)}: only status may be patched here")
    status = after.get("status")
    if not isinstance(status, dict):
        raise errors.BadRequest("device status is required")
    bodies.check_status(status, "status")
    said = dict(status)
    for part in _CONCLUDED:
        if patch.same(said.get(part), before["status"].get(part)):
            said.pop(part, None)
            if part in stored:
                said[part] = stored[part]
    conditions = said.get("conditions") or []
    said["conditions"] = [c for c in conditions if c.get("type") not in _OWN_CONDITIONS]
    return said
