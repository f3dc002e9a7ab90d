"""Bodies of requests: read up to a limit and within a time, then decoded.

The invariant: no body larger than its limit is ever held, whatever its Content-Length says and
however it was compressed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from apiserver.errors import BadRequest, Timeout, TooLarge
from apiserver.wire import body, options
from resources.kind import Json

READ_S_MAX = 60.0
# Larger bodies are decoded beside the event loop: YAML of 3 MiB takes a second and more.
ASIDE_FROM_BYTES = 64 * 1024


async def raw(request: web.Request, limit: int = body.BODY_BYTES_MAX) -> bytes:
    """The bytes. Raises as `feed` does."""
    chunks: list[bytes] = []
    await feed(request, limit, chunks.append)
    return b"".join(chunks)


async def feed(request: web.Request, limit: int, take: Callable[[bytes], None]) -> None:
    """Gives `take` the bytes as they come. Raises TooLarge, and Timeout for a client that does not
    go on."""
    if (request.content_length or 0) > limit:
        raise _too_large(limit)
    left = limit
    try:
        async with asyncio.timeout(READ_S_MAX):
            async for chunk in request.content.iter_any():
                left -= len(chunk)
                if left < 0:
                    raise _too_large(limit)
                take(chunk)
    except TimeoutError as error:
        raise Timeout("the body of the request did not arrive in time") from error
    except RequestPayloadError as error:
        raise BadRequest("the body is not in the encoding that it is said to be in") from error
    except ConnectionResetError as error:
        # For the log alone: nobody is there to read it.
        raise BadRequest("the client went away before its body was whole") from error


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"the body of the request is larger than {limit} bytes")


async def document(request: web.Request, write: options.WriteQuery) -> tuple[Json, list[str]]:
    """The object in the body, and warnings about fields that stand twice in it."""
    found, duplicates = await _decoded(request, await raw(request))
    return found, judged(duplicates, write)


async def _decoded(request: web.Request, content: bytes) -> tuple[Json, list[str]]:
    media = request.headers.get("Content-Type", "")
    if len(content) > ASIDE_FROM_BYTES:
        return await asyncio.to_thread(body.decode, media, content)
    return body.decode(media, content)


async def value(
    request: web.Request, media: str, write: options.WriteQuery
) -> tuple[Any, list[str]]:
    """The JSON in the body, of whatever type, read as `media`."""
    found, duplicates = body.decode_value(media, await raw(request))
    return found, judged(duplicates, write)


async def optional(request: web.Request) -> Json:
    """The object in the body; an empty one where there is no body."""
    content = await raw(request)
    if not content.strip():
        return {}
    return (await _decoded(request, content))[0]


def judged(duplicates: list[str], write: options.WriteQuery) -> list[str]:
    """Duplicate fields as `fieldValidation` wants them taken."""
    said = [f'duplicate field "{path}"' for path in duplicates]
    if said and write.field_validation == "Strict":
        raise BadRequest(f"strict decoding error: {', '.join(said)}")
    return said if write.field_validation == "Warn" else []
