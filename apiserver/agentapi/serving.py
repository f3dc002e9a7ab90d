"""`GET /devices/{name}/rendered`: what the device should run, at once or when it changes.

The hot path (a poll that finds nothing new) touches no database: the certificate and the version
are remembered, and what follows is a future and a timer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from aiohttp import web

from apiserver import errors
from apiserver.agentapi import answers, reconnecting
from apiserver.agentapi.deliveries import DEVICE, Deliveries, Found, Gone, Key, Waiter
from apiserver.agentapi.peers import Peer
from apiserver.agentapi.presence import Presence
from apiserver.operations import Operations
from apiserver.pki import validity
from apiserver.pki.revocations import Revocations

KNOWN = "knownRenderedVersion"


class Serving:
    def __init__(
        self,
        operations: Operations,
        deliveries: Deliveries,
        presence: Presence,
        revocations: Revocations,
        *,
        hold_s: float,
        now: Callable[[], float],
    ) -> None:
        self._operations = operations
        self._deliveries = deliveries
        self._presence = presence
        self._revocations = revocations
        self._hold_s = hold_s
        self._now = now

    async def rendered(self, request: web.Request, peer: Peer) -> web.StreamResponse:
        key = peer.namespace, peer.device
        known = request.query.get(KNOWN) if request.query_string else None
        if known is None:
            found, is_back = await self._look(key, None)
            if not found.delivery.rendered_version:
                raise errors.Conflict("no rendered version for device")
            return await self._answer(key, found, is_back=is_back)
        is_out = partial(self._revocations.is_revoked, peer.namespace, peer.identity)
        waiter = self._deliveries.enter(key, known, is_out)
        try:
            # After `enter`: a change from here on finds the waiter.
            found, is_back = await self._look(key, known)
            if is_back and found.delivery.rendered_version:
                return await self._answer(key, found, is_back=True)
            if not found.is_news(known):
                left_s = peer.identity.expires_at - self._now()
                news = await self._wait(waiter, min(self._hold_s, left_s))
                validity.check(peer.identity, self._now())
                self._revocations.check(peer.namespace, peer.identity)
                if news is None:
                    return answers.nothing_new()
                if isinstance(news, Gone):
                    raise errors.not_found(DEVICE, peer.device)
                found = news
            return await self._answer(key, found)
        finally:
            self._deliveries.leave(key, waiter)

    async def _answer(self, key: Key, found: Found, *, is_back: bool = False) -> web.Response:
        body = await self._deliveries.body(key, found)
        return answers.encoded(reconnecting.asking_for_a_report(body) if is_back else body)

    async def _look(self, key: Key, known: str | None) -> tuple[Found, bool]:
        """What there is for a device that lives, and has said where it stands; and whether this is
        its first call after a restore, and it may go on."""
        is_back = False
        found = await self._deliveries.look(key, known)
        if found.delivery.is_to_settle(known):
            is_back = await reconnecting.settle(self._operations, *key, known)
            found = await self._deliveries.look_again(key, known)
        self._presence.saw(found.delivery.uid, is_connected=found.delivery.connected)
        return found, is_back

    async def _wait(self, waiter: Waiter, at_most_s: float) -> Found | Gone | None:
        # A timer that ends the wait costs less than a task or a cancellation.
        timer = asyncio.get_running_loop().call_later(at_most_s, waiter.tell, None)
        try:
            return await waiter.news
        finally:
            timer.cancel()
