"""Bytes of an agent's request to JSON, leniently: what an agent says is kept as it came.

Refused is what can't be kept, or would hurt others: what our databases can't write down (NUL), and
wrong JSON types in the parts of a status that have one, for a typed client that lists devices fails
on the whole list when one of them carries a number where it expects a text. Unknown fields, unknown
words and missing parts are neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import orjson
from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError
from pydantic import ValidationError

from apiserver.errors import BadRequest, Timeout
from resources.device import DeviceStatus
from resources.errors import TYPE_INVALID, FieldError, Invalid
from resources.kind import Json

# A body of which the rest never comes, or comes in no form of HTTP, must not hold a share for ever.
READ_S_MAX = 60.0
# With fewer brackets nothing is as deep as what orjson refuses to write (254).
_DEEP = 250
_PREFIX = "API Error: request body has an error:"
# Such as string_type, dict_type, bool_type: the type is wrong, whatever the value.
_WRONG_TYPE = "_type"
_BAD_TIME = "string_pattern_mismatch"


async def read(request: web.Request, media_type: str) -> Any:
    """The JSON in the body. Raises BadRequest; aiohttp answers what is too large."""
    if request.content_type != media_type or "Content-Type" not in request.headers:
        said = request.headers.get("Content-Type", "")
        raise BadRequest(f'{_PREFIX} header Content-Type has unexpected value "{said}"')
    try:
        async with asyncio.timeout(READ_S_MAX):
            raw = await request.read()
    except TimeoutError as error:
        raise Timeout("the body of the request did not arrive in time") from error
    except RequestPayloadError as error:
        raise BadRequest(f"{_PREFIX} it is not in the encoding that it is said to be in") from error
    try:
        value = orjson.loads(raw)
        if raw.count(b"{") + raw.count(b"[") >= _DEEP:
            # What can be read may still be too deep to be written.
            orjson.dumps(value)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
        raise BadRequest(f"{_PREFIX} failed to decode request body: {error}") from error
    if b"\\u0000" in raw and _has_nul(value):
        raise BadRequest("unsupported Unicode escape sequence")
    return value


async def read_object(request: web.Request) -> Json:
    value = await read(request, "application/json")
    if not isinstance(value, dict):
        raise BadRequest(f"{_PREFIX} doesn't match schema: value must be an object")
    return value


def object_at(document: Json, key: str) -> Json:
    """A member that must be an object; empty where there is none."""
    value = document.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadRequest(f"{_PREFIX} doesn't match schema: {key} must be an object")
    return value


def check_status(status: Json, path: str) -> None:
    """Raise Invalid for a status that would make every list of devices unreadable."""
    try:
        DeviceStatus.model_validate(status)
    except ValidationError as problem:
        complaints = list(_harmful(problem, path))
        if complaints:
            raise Invalid(complaints) from problem


def _harmful(problem: ValidationError, path: str) -> Iterator[FieldError]:
    for error in problem.errors(include_url=False, include_context=False):
        # null is the zero value to the typed clients, and to us; but in a list it is no item.
        if error["input"] is None and not isinstance(error["loc"][-1], int):
            continue
        kind = error["type"]
        if kind.endswith(_WRONG_TYPE) or kind == _BAD_TIME:
            place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error["loc"])
            yield FieldError(path + place, TYPE_INVALID, error["msg"])


def _has_nul(value: Any) -> bool:
    if isinstance(value, str):
        return "\0" in value
    if isinstance(value, dict):
        return any("\0" in key or _has_nul(inner) for key, inner in value.items())
    return isinstance(value, list) and any(_has_nul(inner) for inner in value)
