"""`/api/v1/auth/...`: what a login needs, for whoever asks (contract §9)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import parse_qsl

import orjson
from aiohttp import web

from apiserver.auth.exchange import Logins
from apiserver.errors import BadRequest, NotFound
from apiserver.kube import bodies, rendering
from apiserver.kube.face import FACE
from resources.kind import Json

REQUEST_BYTES_MAX = 64 << 10


async def config(request: web.Request) -> web.StreamResponse:
    """GET auth/config."""
    return await rendering.plain(request, await _logins(request).config())


async def exchange(request: web.Request) -> web.StreamResponse:
    """POST auth/{provider}/token: a code or a refresh token for tokens."""
    return await _answered(request, _logins(request).exchange)


async def begin_on_a_device(request: web.Request) -> web.StreamResponse:
    """POST auth/{provider}/device: a code that a person takes to a browser elsewhere."""
    return await _answered(request, _logins(request).begin_on_a_device)


async def _answered(
    request: web.Request,
    ask: Callable[[str, Mapping[str, str]], Awaitable[tuple[int, Json]]],
) -> web.StreamResponse:
    asked = _asked(request, await bodies.raw(request, REQUEST_BYTES_MAX))
    status, answer = await ask(request.match_info["provider"], asked)
    response = await rendering.plain(request, answer, status=status)
    response.headers["Cache-Control"] = "no-store"
    return response


# Who asks has nothing to prove yet.
OPEN = (config, exchange, begin_on_a_device)


def _logins(request: web.Request) -> Logins:
    found = request.app[FACE].logins
    if found is None:
        raise NotFound("this listener takes no logins")
    return found


def _asked(request: web.Request, body: bytes) -> Mapping[str, str]:
    try:
        if request.content_type == "application/x-www-form-urlencoded":
            return dict(parse_qsl(body.decode(), max_num_fields=20))
        found = orjson.loads(body)
    except ValueError as error:
        raise BadRequest("a TokenRequest is a form or a JSON object") from error
    if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
        raise BadRequest("a TokenRequest is an object of texts")
    return found
