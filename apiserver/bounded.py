"""Answers of others, of which no more is read than was meant to be."""

from __future__ import annotations

import aiohttp


async def body_of(response: aiohttp.ClientResponse, bytes_max: int) -> bytes | None:
    """The body; None where it is longer than that."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > bytes_max:
            return None
    return bytes(body)
