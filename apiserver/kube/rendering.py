"""Answers: documents and lists in the representation that was asked for, and errors as Status.

The one place where an error becomes bytes. What was not foreseen is 500 with the request's id and
nothing of its inside; the log has the rest. Lists are written, and big answers compressed where the
client takes it, off the event loop: a list of ten thousand devices would hold everybody up.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

import orjson
import structlog
import yaml
from aiohttp import web
from aiohttp.typedefs import Handler
from isal import isal_zlib

from apiserver import origins, refusing
from apiserver.errors import (
    BadRequest,
    InternalError,
    MethodNotAllowed,
    NotFound,
    StatusError,
    TooLarge,
    Unauthorized,
    Unprocessable,
)
from apiserver.operations import Page
from apiserver.wire import accept, shapes, table, warning
from resources.errors import Invalid
from resources.kind import Json, Kind

log = structlog.get_logger()

COMPRESSED_FROM_BYTES = 128 * 1024
REQUEST_ID = "X-Request-Id"
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


@dataclass(frozen=True, slots=True)
class Content:
    """A body as it goes out."""

    raw: bytes
    type: str
    is_packed: bool = False


def wanted(request: web.Request) -> accept.Representation:
    """What the client accepts. Raises NotAcceptable; so ask before anything is written."""
    return accept.negotiate(request.headers.get("Accept", ""))


async def document(
    request: web.Request,
    kind: Kind,
    body: Json,
    *,
    now: datetime,
    status: int = 200,
    warnings: Iterable[str] = (),
) -> web.Response:
    """One object."""
    representation = wanted(request)
    include = table.parse_include(request.query.get("includeObject", ""))
    match representation.shape:
        case accept.TABLE:
            version = body.get("metadata", {}).get("resourceVersion", "")
            body = table.table(
                kind, [body], now=now, include=include, metadata={"resourceVersion": version}
            )
        case accept.PARTIAL | accept.PARTIAL_LIST:
            body = shapes.partial(body)
    return await plain(request, body, representation, status=status, warnings=warnings)


def page_writer(
    request: web.Request, kind: Kind, metadata: Callable[[Page], Json], *, now: datetime
) -> Callable[[Page], Content]:
    """Makes what answers a list of a page and its ListMeta; in any thread."""
    representation = wanted(request)
    include = table.parse_include(request.query.get("includeObject", ""))
    packs = _takes_gzip(request)

    def write(found: Page) -> Content:
        items, listed = found.items, metadata(found)
        match representation.shape:
            case accept.TABLE:
                body = table.table(kind, items, now=now, include=include, metadata=listed)
            case accept.PARTIAL | accept.PARTIAL_LIST:
                body = shapes.partial_list(items, listed)
            case _:
                body = shapes.listed(kind, items, listed)
        return _packed(_written(body, representation), packs=packs)

    return write


async def plain(
    request: web.Request,
    body: Json | None,
    representation: accept.Representation = accept.PLAIN,
    *,
    status: int = 200,
    warnings: Iterable[str] = (),
) -> web.Response:
    """A document as it is."""
    content = _written(body, representation)
    if len(content.raw) > COMPRESSED_FROM_BYTES:
        content = await asyncio.to_thread(_packed, content, packs=_takes_gzip(request))
    return answer(content, status=status, warnings=warnings)


def answer(content: Content, *, status: int = 200, warnings: Iterable[str] = ()) -> web.Response:
    """The response that carries it."""
    response = web.Response(status=status, body=content.raw, content_type=content.type)
    for value in warning.headers(warnings):
        response.headers.add("Warning", value)
    if content.is_packed:
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Vary"] = "Accept-Encoding"
    return response


def _written(body: Json | None, representation: accept.Representation) -> Content:
    if representation.media == accept.YAML:
        text = yaml.dump(body, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)
        return Content(text.encode(), representation.content_type)
    raw = orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE)
    return Content(raw, representation.content_type)


def _takes_gzip(request: web.Request) -> bool:
    return "gzip" in request.headers.get("Accept-Encoding", "")


def _packed(content: Content, *, packs: bool) -> Content:
    if not packs or len(content.raw) <= COMPRESSED_FROM_BYTES:
        return content
    return Content(isal_zlib.compress(content.raw, 1, wbits=31), content.type, is_packed=True)


def status(error: StatusError) -> web.Response:
    """The `Status` of a refusal."""
    response = web.Response(
        status=error.code,
        body=orjson.dumps(error.document(), option=orjson.OPT_APPEND_NEWLINE),
        content_type=accept.JSON,
    )
    if error.retry_after_s:
        response.headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


@web.middleware
async def answering(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Gives each request an id and turns what handlers raise into Status."""
    given = request.headers.get(REQUEST_ID, "")
    request_id = given if _SANE_ID.fullmatch(given) else str(uuid.uuid4())
    request[origins.REQUEST_ID] = request_id
    try:
        response = await handler(request)
    except Exception as problem:
        error = as_status(problem)
        if error.code == 500:
            log.exception("request failed", id=request_id, method=request.method, path=request.path)
        response = status(error)
        if request.content.exception() is not None:
            # Where the next request would begin is not known any more.
            response.force_close()
    if not response.prepared:
        response.headers[REQUEST_ID] = request_id
        response.headers["Server"] = "homeport"
    return response


def as_status(problem: Exception) -> StatusError:
    """The refusal that an exception means to a client."""
    if refusal := refusing.of_store(problem):
        log.warning("store refused", error=str(problem))
        return refusal
    match problem:
        case StatusError():
            return problem
        case Invalid():
            return Unprocessable(str(problem), causes=problem.errors)
        case web.HTTPException():
            return _of_http(problem)
        case _:
            return InternalError("an internal error occurred; the log has more under X-Request-Id")


def _of_http(problem: web.HTTPException) -> StatusError:
    """aiohttp's own refusals: of paths, methods and malformed requests."""
    match problem.status:
        case 404:
            return NotFound("the server could not find the requested resource")
        case 405:
            return MethodNotAllowed(
                "the server does not allow this method on the requested resource"
            )
        case 413:
            return TooLarge("the body of the request is too large")
        case code if 400 <= code < 500:
            return BadRequest(problem.reason)
        case _:
            return InternalError(problem.reason)
