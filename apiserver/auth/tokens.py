"""Users by bearer token: which identity provider it is of, and who that makes of them here.

Providers come from the server's configuration and from AuthProviders; those are read again when the
last look is older than LOOK_S, so that one that was made, changed or taken back counts within
seconds on every replica, with nobody to tell the others.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import aiohttp
import orjson

from apiserver.auth import claims, oidc
from apiserver.auth.chain import Evidence
from apiserver.auth.claims import Provider, normalised
from apiserver.auth.identity import Caller
from apiserver.errors import Unauthorized
from apiserver.store import Snapshot, Store
from resources import registry
from resources.authprovider import OIDC
from resources.kind import Json

LOOK_S = 5.0
TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 1 << 20
# Of a token; beyond it nothing is parsed.
TOKEN_BYTES_MAX = 16 << 10
ISSUERS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Known:
    """Who may be asked, and which namespaces organisations have."""

    providers: tuple[Provider, ...]
    namespaces: Mapping[str, str]


@dataclass(slots=True)
class Tokens:
    """The authenticator. `ours` are the providers of the server's configuration."""

    store: Store
    session: aiohttp.ClientSession
    ours: tuple[Provider, ...] = ()
    monotonic: Callable[[], float] = time.monotonic
    _keys: dict[str, oidc.Keys] = field(default_factory=dict)
    _known: Known | None = None
    _looked_at: float = 0.0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def authenticate(self, evidence: Evidence) -> Caller | None:
        """None without a bearer token. Raises Unauthorized, ServiceUnavailable."""
        scheme, _, token = evidence.authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = token.strip()
        if not token.isascii() or len(token) > TOKEN_BYTES_MAX:
            raise Unauthorized(f"the token is longer than {TOKEN_BYTES_MAX} bytes, or no text")
        header, said = oidc.unverified(token)
        known = await self.known()
        issuer, audiences = normalised(str(said.get("iss", ""))), _audiences(said.get("aud"))
        asked = [
            provider
            for provider in known.providers
            if provider.issuer == issuer and provider.client_id in audiences
        ]
        if not asked:
            raise Unauthorized(
                f"no identity provider is known here that gives out tokens as {issuer!r} for "
                f"{sorted(audiences)}"
            )
        return await self._first(asked, token, header, known)

    async def _first(
        self, asked: Iterable[Provider], token: str, header: Mapping[str, object], known: Known
    ) -> Caller:
        refusal: Unauthorized | None = None
        for provider in asked:
            keys = self.keys_of(provider.issuer)
            try:
                said = await oidc.verified(token, header, keys, provider.client_id)
                return claims.caller_of(provider, said, known.namespaces)
            except Unauthorized as problem:
                refusal = refusal or problem
        assert refusal is not None
        raise refusal

    async def known(self) -> Known:
        """At most LOOK_S old."""
        if self._known is None or self.monotonic() >= self._looked_at + LOOK_S:
            async with self._lock:
                if self._known is None or self.monotonic() >= self._looked_at + LOOK_S:
                    # Before the look: what is written while it lasts is seen by the next.
                    self._looked_at = self.monotonic()
                    self._known = await self.store.read(self._look)
        return self._known

    def _look(self, snapshot: Snapshot) -> Known:
        made = map(claims.provider_of, snapshot.list(registry.AUTH_PROVIDER, None))
        asked = tuple(provider for provider in (*self.ours, *made) if _is_asked(provider))
        return Known(asked, _namespaces(snapshot.list(registry.ORGANIZATION, None)))

    def keys_of(self, issuer: str) -> oidc.Keys:
        """What is known of an issuer, kept between requests."""
        if issuer not in self._keys:
            if len(self._keys) >= ISSUERS_MAX:
                self._keys.clear()
            self._keys[issuer] = oidc.Keys(issuer, self._fetch)
        return self._keys[issuer]

    async def _fetch(self, url: str) -> Json:
        try:
            timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
            async with self.session.get(url, timeout=timeout) as response:
                if response.status != 200:
                    raise oidc.ProviderUnreachable(f"{url} answers {response.status}")
                found = orjson.loads(await limited(response))
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise oidc.ProviderUnreachable(f"{url}: {error or type(error).__name__}") from error
        if not isinstance(found, dict):
            raise oidc.ProviderUnreachable(f"{url} answers no JSON object")
        return found


async def limited(response: aiohttp.ClientResponse) -> bytes:
    """The body. Raises ProviderUnreachable for one of more than ANSWER_BYTES_MAX."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise oidc.ProviderUnreachable(f"{response.url} answers more than it should")
    return bytes(body)


def _is_asked(provider: Provider) -> bool:
    spec = provider.spec
    return spec.get("enabled") is not False and spec["providerType"] == OIDC


def _audiences(said: object) -> frozenset[str]:
    found = said if isinstance(said, list) else [said]
    return frozenset(each for each in found if isinstance(each, str))


def _namespaces(organizations: Iterable[Json]) -> dict[str, str]:
    """By the name at identity providers; an organisation without one goes by its own."""
    found: dict[str, str] = {}
    for document in organizations:
        name = document["metadata"]["name"]
        external = (document.get("spec") or {}).get("externalId") or name
        # Of two with one name neither is meant: it must not depend on which was read first.
        found[external] = "" if external in found else name
    return {external: name for external, name in found.items() if name}
