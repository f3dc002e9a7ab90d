"""Calls to a signer outside: one address, TLS and token as their files say now.

Everything has a limit: the time of a call, the size of an answer. Redirects are not followed, for
they would carry the token to where nobody sent it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import aiohttp

from apiserver import bounded
from apiserver.pki.orders import Unavailable
from apiserver.pki.signerfile import Outside
from resources.kind import Json

ANSWER_BYTES_MAX = 256 * 1024
MESSAGE_MAX = 500
_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class NotReached(Exception):
    """No answer that could be read; the message says what happened."""


@dataclass(frozen=True, slots=True)
class Reply:
    """`document` is None where the body is no JSON object."""

    status: int
    retry_after_s: float
    document: Json | None

    @property
    def message(self) -> str:
        """What a refusal says, as Kubernetes' Status and our contract have it."""
        said = (self.document or {}).get("message")
        return said[:MESSAGE_MAX] if isinstance(said, str) else ""

    def trouble(self) -> Unavailable | None:
        """What this answer says of the signer as a whole, if it is nothing about the order."""
        if self.status in (401, 403):
            why = f"it does not let us in ({self.status}); look at its token or certificate"
        elif self.status == 429:
            why = "it asks for patience (429)"
        elif self.status >= 500:
            why = f"it answers {self.status}"
        else:
            return None
        said = f": {self.message}" if self.message else ""
        return Unavailable(why + said, self.retry_after_s)


@dataclass(slots=True)
class Line:
    """The way to one signer. Made once; used by many calls at a time."""

    session: aiohttp.ClientSession
    settings: Outside
    _context: ssl.SSLContext | None = None
    _made_of: tuple[tuple[str, int, int], ...] = ()
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def call(
        self,
        method: str,
        url: str,
        body: Json | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> Reply:
        """The answer, whatever its status. Raises NotReached."""
        try:
            async with asyncio.timeout(self.settings.timeout_seconds):
                context, token = await self._credentials()
                async with self.session.request(
                    method,
                    url,
                    json=body,
                    headers={"Accept": "application/json", **token, **headers},
                    ssl=context,
                    allow_redirects=False,
                ) as response:
                    said = await bounded.body_of(response, ANSWER_BYTES_MAX)
                    if said is None:
                        raise NotReached("it answers more than it should")
                    wait_s = _seconds(response.headers.get("Retry-After", ""))
                    return Reply(response.status, wait_s, _object(said))
        except TimeoutError as error:
            raise NotReached(f"no answer in {self.settings.timeout_seconds:g} s") from error
        except aiohttp.ClientError as error:
            raise NotReached(str(error) or type(error).__name__) from error
        except (OSError, ValueError) as error:  # a file that is gone, or is no certificate
            raise NotReached(str(error)) from error

    async def _credentials(self) -> tuple[ssl.SSLContext, dict[str, str]]:
        async with self._lock:
            return await asyncio.to_thread(self._read)

    def _read(self) -> tuple[ssl.SSLContext, dict[str, str]]:
        settings = self.settings
        files = settings.ca_file, settings.client_certificate_file, settings.client_key_file
        made_of = tuple(_stamp(file) for file in files if file is not None)
        if self._context is None or made_of != self._made_of:
            context = ssl.create_default_context(cafile=settings.ca_file)
            if settings.client_certificate_file is not None:
                context.load_cert_chain(settings.client_certificate_file, settings.client_key_file)
            self._context, self._made_of = context, made_of
        if settings.token_file is None:
            return self._context, {}
        token = settings.token_file.read_text("ascii").strip()
        return self._context, {"Authorization": f"Bearer {token}"}


def _stamp(file: Path) -> tuple[str, int, int]:
    found = file.stat()
    return str(file), found.st_mtime_ns, found.st_ino


def _object(body: bytes) -> Json | None:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _seconds(text: str) -> float:
    """Of a Retry-After; 0 where there is none in seconds."""
    return float(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0.0
