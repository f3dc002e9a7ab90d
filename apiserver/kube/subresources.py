"""Subresources: status as any kind has it, and the few that are verbs of our own.

A subresource is a name in the table below and nothing else; which kinds have it, and with which
verbs, is said where the kind is declared, and was checked before a handler here runs.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from apiserver import acting, decommissioning, fetching, followers, resuming, showing
from apiserver.auditing import Act
from apiserver.errors import BadRequest, Unprocessable
from apiserver.kube import bodies, reading, rendering, writing
from apiserver.kube.face import FACE, Face
from apiserver.kube.target import Target
from apiserver.wire import options, patch
from resources.errors import REQUIRED, FieldError
from resources.kind import Json

Handler = Callable[[web.Request, Target], Awaitable[web.StreamResponse]]

FOLLOWING_MAX = 500
REFRESH_BYTES_MAX = 4096
_DECIDED = ("approvedBy", "approvedAt")


async def handle(request: web.Request, target: Target) -> web.StreamResponse:
    handler = _HANDLERS.get((target.kind.kind, target.subresource, target.verb))
    if handler is None:
        # What is declared without a row of its own is a part of the document, as status is.
        handler = _PARTS[target.verb]
    return await handler(request, target)


# --- approval ------------------------------------------------------------------------------------


async def _show_approval(request: web.Request, target: Target) -> web.StreamResponse:
    return await rendering.plain(request, await _approval(request, target))


async def _approval(request: web.Request, target: Target) -> Json:
    face = request.app[FACE]
    found = await face.operations.get(target.caller, target.kind, target.place, target.name)
    approval = (found.get("status") or {}).get("approval")
    return approval if isinstance(approval, dict) else {}


async def _approve(request: web.Request, target: Target) -> web.StreamResponse:
    """The reference's EnrollmentRequestApproval as body, and its EnrollmentRequestApprovalStatus
    as answer; `null` where there is none."""
    face = request.app[FACE]
    query = _not_rehearsed(request)
    if target.verb == "patch":
        change, warnings = await writing.change(request, query, patch.CHANGES)
        current = await _approval(request, target)
        approval = change({k: v for k, v in current.items() if k not in _DECIDED})
    else:
        approval, warnings = await bodies.document(request, query)
    decided = await face.approvals.approve_enrollment(
        target.caller, target.place, target.name, approval
    )
    return await rendering.plain(request, decided, warnings=warnings)


async def _sign(request: web.Request, target: Target) -> web.StreamResponse:
    """The whole request as body, its conditions saying Approved or Denied."""
    face = request.app[FACE]
    query = _not_rehearsed(request)
    if target.verb == "patch":
        change, warnings = await writing.change(request, query, patch.CHANGES)
        current = await face.operations.get(target.caller, target.kind, target.place, target.name)
        document = change(current)
    else:
        document, warnings = await bodies.document(request, query)
    signed = await face.approvals.sign_csr(target.caller, target.place, target.name, document)
    return await rendering.document(request, target.kind, signed, now=face.now(), warnings=warnings)


async def _enrollment_config(request: web.Request, target: Target) -> web.StreamResponse:
    """The agent's configuration with the certificate that was issued; its key is not ours."""
    face = request.app[FACE]
    config = await face.approvals.enrollment_config(target.caller, target.place, target.name)
    return await rendering.plain(request, config)


def _not_rehearsed(request: web.Request) -> options.WriteQuery:
    query = writing.write_query(request)
    if query.dry_run:
        # A certificate that nobody was meant to get would be out in the world.
        complaint = FieldError("dryRun", REQUIRED, "can't be used where a certificate is signed")
        raise Unprocessable(f"dryRun: {complaint.detail}", causes=[complaint])
    return query


# --- fleets and devices --------------------------------------------------------------------------


async def _bind(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    body, warnings = await bodies.document(request, writing.write_query(request))
    answer = await face.operations.bind(target.caller, target.place, target.name, body)
    return await rendering.plain(request, answer, warnings=warnings)


async def _progress(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    rollout = request.query.get("rollout", "")
    if not rollout:
        raise BadRequest("name the rollout: progress?rollout=NAME")
    answer = await face.operations.progress(target.caller, target.place, target.name, rollout)
    return await rendering.plain(request, answer)


async def _hand_over(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    body, warnings = await bodies.document(request, writing.write_query(request))
    answer = await followers.hand_over(face.operations.store, target.place, target.name, body)
    return await rendering.plain(request, answer, warnings=warnings)


async def _following(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    limit = options.integer(request.query, "limit", FOLLOWING_MAX) or FOLLOWING_MAX
    after = request.query.get("after", "")
    answer = await followers.page(face.operations.store, target.place, after, limit)
    return await rendering.plain(request, answer)


async def _values(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    limit = options.integer(request.query, "limit", FOLLOWING_MAX) or FOLLOWING_MAX
    state = request.query.get("state", "missing")
    if state not in ("missing", "frozen"):
        raise BadRequest("state must be missing or frozen")
    answer = await fetching.page(
        face.operations.store,
        target.place,
        target.name,
        is_open=state == "missing",
        after=request.query.get("after", ""),
        limit=limit,
    )
    return await rendering.plain(request, answer)


async def _settle(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    body, warnings = await bodies.document(request, writing.write_query(request))
    answer = await fetching.settle(face.operations.store, target.place, target.name, body)
    return await rendering.plain(request, answer, warnings=warnings)


async def _decommission(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    query = writing.write_query(request)
    body, warnings = await bodies.document(request, query)
    gone = await decommissioning.decommission(
        face.operations, target.caller, target.place, target.name, body, dry_run=query.dry_run
    )
    return await rendering.document(request, target.kind, gone, now=face.now(), warnings=warnings)


async def _act(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    query = writing.write_query(request)
    body, warnings = await bodies.document(request, query)
    place = target.place, target.name, body
    done = await acting.act(
        face.operations, target.caller, target.kind, *place, dry_run=query.dry_run
    )
    return await rendering.document(request, target.kind, done, now=face.now(), warnings=warnings)


async def _resume(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    query = writing.write_query(request)
    body, warnings = await bodies.document(request, query)
    answer = await resuming.resume(
        face.operations, target.caller, target.place, body, dry_run=query.dry_run
    )
    return await rendering.plain(request, answer, warnings=warnings)


async def _rendered(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    found = await face.operations.rendered(target.caller, target.place, target.name)
    # It may hold files from Secrets.
    _tell_read(face, target, found)
    return await rendering.document(request, target.kind, found, now=face.now())


def _tell_read(face: Face, target: Target, found: Json) -> None:
    """Who reads secrets is told in the audit."""
    if face.refusals is not None:
        act = Act(target.caller, "get", target.kind, target.place, target.name, target.subresource)
        face.refusals.tell_read(target.caller, act.about(found))


async def _last_seen(request: web.Request, target: Target) -> web.StreamResponse:
    """As the reference answers: 204 where the device was never heard of."""
    seen = await request.app[FACE].operations.store.read(
        lambda snapshot: showing.last_seen(snapshot, target.kind, target.place, target.name)
    )
    if seen is None:
        return web.Response(status=204)
    return await rendering.plain(request, {"lastSeen": seen})


# --- repositories and what is read from them -----------------------------------------------------


async def _credentials(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    found = await face.operations.credentials(target.caller, target.kind, target.place, target.name)
    _tell_read(face, target, found)
    return await rendering.document(request, target.kind, found, now=face.now())


async def _refresh(request: web.Request, target: Target) -> web.StreamResponse:
    """Any body will do; the answer is the object, with the note that it is to be looked at."""
    face = request.app[FACE]
    await bodies.raw(request, REFRESH_BYTES_MAX)
    noted = await face.operations.refresh(target.caller, target.kind, target.place, target.name)
    return await rendering.document(
        request, target.kind, noted.document, now=face.now(), status=201
    )


_PARTS: Mapping[str, Handler] = {
    "get": reading.get,
    "update": writing.update,
    "patch": writing.patch_,
}
_HANDLERS: Mapping[tuple[str, str, str], Handler] = {
    ("EnrollmentRequest", "approval", "get"): _show_approval,
    ("EnrollmentRequest", "approval", "update"): _approve,
    ("EnrollmentRequest", "approval", "patch"): _approve,
    ("CertificateSigningRequest", "approval", "update"): _sign,
    ("CertificateSigningRequest", "approval", "patch"): _sign,
    ("CertificateSigningRequest", "enrollmentconfig", "get"): _enrollment_config,
    ("Fleet", "bindings", "create"): _bind,
    ("Fleet", "progress", "get"): _progress,
    ("TemplateVersion", "values", "get"): _values,
    ("TemplateVersion", "values", "create"): _settle,
    ("Device", "decommission", "update"): _decommission,
    ("Device", "lifecycle", "create"): _act,
    ("Fleet", "lifecycle", "create"): _act,
    ("Backlog", "resume", "create"): _resume,
    ("Device", "rendered", "get"): _rendered,
    ("Device", "lastseen", "get"): _last_seen,
    ("Device", "inputs", "create"): _hand_over,
    ("Backlog", "following", "get"): _following,
    ("Repository", "credentials", "get"): _credentials,
    ("ResourceSync", "refresh", "create"): _refresh,
}
