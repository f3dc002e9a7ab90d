"""What leaves this face: documents as JSON, refusals in flightctl's Status shape. The one place.

A 404 that says `Device of name "x" not found` makes a reference agent delete its certificate and
data and enrol again. Only a `NotFound` about the kind Device is worded so, and only a reader of the
store that found no row raises that.
"""

from __future__ import annotations

import base64
from http import HTTPStatus
from typing import Any, Final

import orjson
import structlog
from aiohttp import web

from apiserver import refusing
from apiserver.errors import (
    AlreadyExists,
    InternalError,
    NotFound,
    StatusError,
    Unprocessable,
    UnsupportedMediaType,
)
from resources.errors import Invalid
from resources.kind import Json

JSON: Final = "application/json"
API_VERSION: Final = "flightctl.io/v1beta1"
VERSION: Final = "v1beta1"
VERSION_HEADER: Final = "Flightctl-API-Version"
SUPPORTED_HEADER: Final = "Flightctl-API-Versions-Supported"
BASE: Final = "/api/v1"
# Ours, for agents of ours: seconds within which the device should renew its certificate.
RENEW_WITHIN_HEADER: Final = "Homeport-Renew-Within"

# The reference says 400 where Kubernetes has finer codes.
_AS_BAD_REQUEST = (Unprocessable, UnsupportedMediaType)

log = structlog.get_logger()


class WrongVersion(Exception):
    """The client asks for an API version that this endpoint does not have."""


def document(body: Json, *, status: int = 200) -> web.Response:
    """A resource."""
    return encoded(orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE), status=status)


def with_authorities(body: Json, pem: bytes) -> Json:
    """With what the device is to trust our servers by, where it is given a certificate. A field of
    ours, which other agents pass over."""
    status = body.get("status") or {}
    if not status.get("certificate"):
        return body
    return body | {"status": status | {"caBundle": base64.b64encode(pem).decode()}}


def encoded(body: bytes, *, status: int = 200) -> web.Response:
    """A resource that is JSON already."""
    return web.Response(body=body, status=status, content_type=JSON)


def nothing_new() -> web.Response:
    return web.Response(status=204)


def refusal(error: Exception, request: web.Request) -> web.StreamResponse:
    """What a client sees of an exception."""
    if isinstance(error, web.HTTPException):
        return _of_http(error, request)
    if isinstance(error, WrongVersion):
        return _wrong_version(str(error))
    if refused := refusing.of_store(error):
        log.warning("store refused", path=request.path, error=str(error))
        error = refused
    elif isinstance(error, Invalid):
        return status_of(400, str(error))
    elif not isinstance(error, StatusError):
        log.error("request failed", path=request.path, exc_info=error)
        error = InternalError("internal error; the log of the service says more")
    response = status_of(_code(error), _message(error))
    if error.retry_after_s:
        response.headers["Retry-After"] = str(error.retry_after_s)
    return response


def status_of(code: int, message: str) -> web.Response:
    """flightctl's Status: `reason` is the phrase of the code, not a word of Kubernetes'."""
    body = {
        "apiVersion": API_VERSION,
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "reason": HTTPStatus(code).phrase,
        "message": message,
    }
    return document(body, status=code)


def _code(error: StatusError) -> int:
    return 400 if isinstance(error, _AS_BAD_REQUEST) else error.code


def _message(error: StatusError) -> str:
    if isinstance(error, NotFound) and error.kind is not None:
        return f'{error.kind.kind} of name "{error.name}" not found'
    if isinstance(error, AlreadyExists):
        return "a resource with this name already exists"
    return error.message


def _of_http(error: web.HTTPException, request: web.Request) -> web.StreamResponse:
    """aiohttp's own refusals. A wrong method is 404 here, never 405."""
    match error.status:
        case 404 | 405 if not request.path.startswith(f"{BASE}/"):
            return web.Response(status=404, text="404 page not found\n")
        case 404:
            return status_of(404, "API Error: no matching operation was found")
        case 405:
            return status_of(404, "API Error: method not allowed")
        case 413:
            return status_of(413, f"API Error: request body has an error: {error.text}")
        case code:
            return status_of(code, f"API Error: {error.reason}")


def _wrong_version(asked: str) -> web.Response:
    # Clients of the reference find the other members empty here.
    body: dict[str, Any] = {
        "apiVersion": "",
        "kind": "",
        "status": "",
        "reason": "",
        "code": 406,
        "message": f"API version {asked[:64]!r} is not supported",
    }
    response = web.Response(
        body=orjson.dumps(body, option=orjson.OPT_APPEND_NEWLINE),
        status=406,
        content_type=JSON,
        charset="utf-8",
    )
    response.headers[SUPPORTED_HEADER] = VERSION
    return response
