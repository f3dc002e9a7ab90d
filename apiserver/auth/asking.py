"""How identity providers are asked: one request, with a limit on its time and on its answer."""

from __future__ import annotations

from typing import Any

import aiohttp
import orjson

from apiserver import bounded
from resources.kind import Json

TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 1 << 20


class ProviderUnreachable(Exception):
    """An identity provider does not answer, or not what it should; the message says what."""


class OddAnswer(ProviderUnreachable):
    """It answers, but nothing that could be used: who asks next may fare better."""


async def ask(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    bytes_max: int = ANSWER_BYTES_MAX,
    may_lead_on: bool = False,
    **request: Any,
) -> tuple[int, Json]:
    """Status and JSON object; an empty one where there is none and the status is no success.

    Redirects are followed if it `may_lead_on`: tokens and secrets are for this address alone.
    Raises ProviderUnreachable.
    """
    try:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with session.request(
            method, url, timeout=timeout, allow_redirects=may_lead_on, **request
        ) as response:
            body = await bounded.body_of(response, bytes_max)
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise ProviderUnreachable(f"{url}: {error or type(error).__name__}") from error
    if body is None:
        raise OddAnswer(f"{response.url} answers more than it should")
    try:
        found = orjson.loads(body)
    except ValueError:
        found = None
    if isinstance(found, dict):
        return response.status, found
    if response.status < 300:
        raise OddAnswer(f"{url} answers no JSON object")
    return response.status, {}


async def fetch(session: aiohttp.ClientSession, url: str) -> Json:
    """A document that anybody may read. Raises ProviderUnreachable."""
    status, found = await ask(session, "GET", url, may_lead_on=True)
    if status != 200:
        raise ProviderUnreachable(f"{url} answers {status}")
    return found
