"""Who calls: the transport's proof handed to the authenticators, before any handler runs.

The invariant: a handler finds a caller on the request, or is one of the few that anybody may ask:
health, version, what a login needs, and webhooks, which prove something else. Headers in which a
proxy would name users are not read here at all. Who asks to be taken for another is refused: to
overhear it would answer `kubectl auth can-i --as=somebody`, or delete, with the caller's own
rights.
"""

from __future__ import annotations

from dataclasses import replace
from ssl import SSLObject

from aiohttp import web
from aiohttp.typedefs import Handler

from apiserver.auth.chain import Evidence
from apiserver.auth.identity import Caller
from apiserver.errors import Forbidden, Unauthorized
from apiserver.kube import signingin
from apiserver.kube.face import FACE
from apiserver.origins import origin_of

CALLER: web.RequestKey[Caller] = web.RequestKey("CALLER", Caller)

_HEALTH = frozenset({"healthz", "livez", "readyz"})
_OPEN = _HEALTH | {"version", "hooks"}
_IMPERSONATE = "impersonate-"
_AS_YOURSELF = (
    "impersonation is not served: send the request as yourself, without Impersonate-* headers "
    "(kubectl: without --as and --as-group)"
)


def is_open(path: str) -> bool:
    """Paths that say nothing of anybody's objects to who asks."""
    # Without a slash where a method is about the whole server, or a proxy's.
    return (*path.split("/", 2), "")[1] in _OPEN


def evidence_of(request: web.Request) -> Evidence:
    tls: SSLObject | None = request.get_extra_info("ssl_object")
    certificate = tls.getpeercert(binary_form=True) if tls is not None else None
    return Evidence(certificate, request.headers.get("Authorization", ""))


@web.middleware
async def authenticating(request: web.Request, handler: Handler) -> web.StreamResponse:
    # The login's paths lie among those of resources, so the route decides and not how it is spelt.
    face = request.app[FACE]
    if is_open(request.path) or request.match_info.handler in signingin.OPEN:
        if request.path.split("/", 2)[1] in _HEALTH:
            return await handler(request)
        with face.strangers.at_an_open_path():
            return await handler(request)
    evidence = evidence_of(request)
    with face.strangers.judged(evidence.authorization):
        caller = await face.authenticate(evidence)
        if caller is None:
            raise Unauthorized("Unauthorized")
    if any(name.lower().startswith(_IMPERSONATE) for name in request.headers):
        raise Forbidden(_AS_YOURSELF)
    request[CALLER] = replace(caller, origin=origin_of(request))
    return await handler(request)
