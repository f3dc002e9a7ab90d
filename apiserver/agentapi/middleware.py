"""What every request passes: a request id, the version, and the one place that refuses.

Order: certificate, then version, then the handler. Refusals from before the negotiation carry no
version header, as the reference's don't.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from apiserver.agentapi import answers
from apiserver.agentapi.peers import Peer

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
PeerHandler = Callable[[web.Request, Peer], Awaitable[web.StreamResponse]]

REQUEST_ID: Final = "X-Request-Id"
_REQUEST_ID_MAX = 128
_NEGOTIATED = web.RequestKey("negotiated", bool)

# Unique in this process by the number, elsewhere by the prefix.
_PREFIX = secrets.token_hex(6)
_NUMBERS = itertools.count(1)


@web.middleware
async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Nothing but a cancellation leaves here as an exception."""
    try:
        response = await handler(request)
    except Exception as error:
        response = answers.refusal(error, request)
    headers = response.headers
    headers[REQUEST_ID] = _request_id(request)
    if _NEGOTIATED in request:
        headers["Vary"] = answers.VERSION_HEADER
        if response.status != 406:
            headers[answers.VERSION_HEADER] = answers.VERSION
    return response


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
