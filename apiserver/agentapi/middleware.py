"""What every request passes: a request id, the version, and the one place that refuses.

Order: certificate, then version, then the handler. Refusals from before the negotiation carry no
version header, as the reference's don't.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Final

from aiohttp import web

from apiserver import origins
from apiserver.agentapi import answers
from apiserver.agentapi.peers import Peer
from apiserver.auditing import Act
from apiserver.auth.identity import Caller
from apiserver.refusals import Refusals
from resources.registry import CERTIFICATE_SIGNING_REQUEST, ENROLLMENT_REQUEST

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PeerHandler = Callable[[web.Request, Peer], Awaitable[web.StreamResponse]]

REQUEST_ID: Final = "X-Request-Id"
_REQUEST_ID_MAX = 128
_NEGOTIATED = web.RequestKey("negotiated", bool)
# Who was let in, of those whose refusals are told.
PEER: web.RequestKey[Peer] = web.RequestKey("peer", Peer)
REFUSALS: web.AppKey[Refusals | None] = web.AppKey("REFUSALS")
_ASKED_FOR: Final = {
    kind.plural: kind for kind in (ENROLLMENT_REQUEST, CERTIFICATE_SIGNING_REQUEST)
}

# Unique in this process by the number, elsewhere by the prefix.
_PREFIX = secrets.token_hex(6)
_NUMBERS = itertools.count(1)


@web.middleware
async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Nothing but a cancellation leaves here as an exception."""
    request_id = request[origins.REQUEST_ID] = _request_id(request)
    try:
        response = await handler(request)
    except Exception as error:
        response = answers.refusal(error, request)
        if request.content.exception() is not None:
            # Where the next request would begin is not known any more.
            response.force_close()
        _tell(request, response.status)
    headers = response.headers
    headers[REQUEST_ID] = request_id
    if _NEGOTIATED in request:
        headers["Vary"] = answers.VERSION_HEADER
        if response.status != 406:
            headers[answers.VERSION_HEADER] = answers.VERSION
    return response


def _tell(request: web.Request, code: int) -> None:
    """A request to become a device, or for a certificate, that was refused. That there is one
    already (409) is what an agent hears that asks again."""
    refusals = request.app[REFUSALS]
    kind = _ASKED_FOR.get(request.path.rpartition("/")[2])
    if refusals is None or request.method != "POST" or kind is None or code in (409, 429):
        return
    peer = request.get(PEER)
    caller = (
        Caller(name="", role="", origin=origins.origin_of(request))
        if peer is None
        else peer.caller_from(request)
    )
    act = Act(caller, "create", kind, peer.namespace if peer else "")
    refusals.tell(caller, "create", act.about(), code, HTTPStatus(code).phrase)


def negotiate(request: web.Request) -> None:
    """Raise WrongVersion unless the client takes what there is; no header means anything."""
    asked = request.headers.get(answers.VERSION_HEADER)
    request[_NEGOTIATED] = True
    if asked is not None and asked != answers.VERSION:
        raise answers.WrongVersion(asked)


def _request_id(request: web.Request) -> str:
    given = request.headers.get(REQUEST_ID)
    if given and len(given) <= _REQUEST_ID_MAX and given.isprintable() and given.isascii():
        return given
    return f"{_PREFIX}-{next(_NUMBERS)}"
