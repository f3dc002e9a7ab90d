"""What is refused on this face goes into the audit: who may not, at any verb, and every write.

Left out: what only says "later" (429), rehearsals, paths that mean nothing, and what the audit does
not tell when it is done either.
"""

from __future__ import annotations

from aiohttp import web
from aiohttp.typedefs import Handler

from apiserver import refusing
from apiserver.auditing import Act
from apiserver.auth.identity import Caller
from apiserver.errors import StatusError
from apiserver.kube.authenticating import CALLER
from apiserver.kube.face import FACE
from apiserver.kube.target import named, verb_of
from apiserver.origins import origin_of
from resources.errors import Invalid

_NOT_LET_IN = frozenset({401, 403})
_LATER = 429
_FALSE = ("false", "0")


@web.middleware
async def telling(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except Exception as problem:
        _tell(request, problem)
        raise


def _tell(request: web.Request, problem: Exception) -> None:
    refusals = request.app[FACE].refusals
    found = named(request) if "version" in request.match_info else None
    if refusals is None or found is None:
        return
    kind, path = found
    verb = verb_of(request, path)
    if verb in ("get", "list") and request.query.get("watch", "false") not in _FALSE:
        verb = "watch"
    code, reason, name = _outcome(problem)
    is_write = request.method not in ("GET", "HEAD") and "dryRun" not in request.query
    if code == _LATER or not verb or not (is_write or code in _NOT_LET_IN):
        return
    caller = request.get(CALLER) or Caller(name="", role="", origin=origin_of(request))
    act = Act(caller, verb, kind, path.namespace, path.name or name, path.subresource)
    if caller.source and not act.is_told:
        return
    refusals.tell(caller, verb, act.about(), code, reason)


def _outcome(problem: Exception) -> tuple[int, str, str]:
    """Code, reason, and the name of the object where the refusal says it."""
    problem = refusing.of_store(problem) or problem
    match problem:
        case StatusError():
            return problem.code, problem.reason, problem.name
        case Invalid():
            return 422, "Invalid", ""
        case web.HTTPException():
            return problem.status, "", ""
        case _:
            return 500, "InternalError", ""
