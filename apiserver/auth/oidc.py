"""JWTs of OpenID Connect providers: their keys, found and kept; a token, verified.

PyJWT verifies; this module says which key may, and never what a token says about itself: the
algorithm must be one for public keys, the key one that its issuer publishes now.

The invariant: a provider that is down locks out nobody whose key is known. Keys are fetched again
when they are old or a token names one that is not there, the latter no more often than RENEW_S, so
that invented key names are no lever against the provider. (OpenID Connect Discovery 1.0 §4,
RFC 7517, RFC 8725.)
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jwt
import structlog

from apiserver.auth.asking import OddAnswer, ProviderUnreachable
from apiserver.auth.claims import SKEW_S, normalised
from apiserver.errors import ServiceUnavailable, Unauthorized
from resources.kind import Json

log = structlog.get_logger(__name__)

# Public keys only: with a shared secret, whoever may verify could also sign.
ALGORITHMS = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
)
FRESH_S = 15 * 60.0
RENEW_S = 10.0
# kubectl waits so long ten times before it shows what is wrong.
RETRY_S = 1

Fetch = Callable[[str], Awaitable[Json]]


@dataclass(slots=True)
class Keys:
    """The keys of one issuer, or those at `url`, whoever signs with them if `issuer` is empty.
    `fetch` gets a JSON document, or raises ProviderUnreachable."""

    issuer: str
    fetch: Fetch
    url: str = ""
    monotonic: Callable[[], float] = time.monotonic
    _document: Json = field(default_factory=dict)
    _known: Mapping[str, Json] = field(default_factory=dict)
    _fetched_at: float | None = None
    _tried_at: float | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _renewing: asyncio.Task[None] | None = None

    @property
    def called(self) -> str:
        return self.issuer or self.url

    async def find(self, key_id: str) -> Json:
        """The key as it was published. Raises Unauthorized for one that the issuer does not
        publish, ServiceUnavailable while that can't be known."""
        if key_id in self._known:
            # Whose key is known waits for nobody.
            if self._is_due() and (self._renewing is None or self._renewing.done()):
                self._renewing = asyncio.create_task(self._renewed_when(self._is_due))
            return self._known[key_id]
        await self._renewed_when(lambda: self._may_try() and key_id not in self._known)
        if key := self._known.get(key_id):
            return key
        if self._fetched_at is None:
            raise unreachable(self.called)
        raise Unauthorized(
            f"the token is signed with a key ({key_id!r}) that {self.called} does not publish; "
            "log in again"
        )

    async def endpoint(self, name: str) -> str:
        """An address out of the discovery document. Raises ServiceUnavailable."""
        await self._renewed_when(self._is_due)
        found = self._document.get(name)
        if not isinstance(found, str):
            raise unreachable(self.called)
        return found

    def _may_try(self) -> bool:
        return self._tried_at is None or self.monotonic() >= self._tried_at + RENEW_S

    def _is_due(self) -> bool:
        is_fresh = self._fetched_at is not None and self.monotonic() < self._fetched_at + FRESH_S
        return self._may_try() and not is_fresh

    async def _renewed_when(self, is_due: Callable[[], bool]) -> None:
        """Who comes while it is being done waits, and finds it done."""
        if is_due():
            async with self._lock:
                if is_due():
                    await self._renew()

    async def _renew(self) -> None:
        try:
            found = {} if self.url else await self._discover()
            keys = await self.fetch(self.url or str(found.get("jwks_uri", "")))
        except ProviderUnreachable as problem:
            log.warning("identity provider out of reach", issuer=self.called, why=str(problem))
        else:
            self._document, self._known = found, _usable(keys)
            self._fetched_at = self.monotonic()
        finally:
            self._tried_at = self.monotonic()

    async def _discover(self) -> Json:
        found = await self.fetch(f"{self.issuer}/.well-known/openid-configuration")
        if normalised(str(found.get("issuer", ""))) != self.issuer:
            raise OddAnswer(f"it calls itself {found.get('issuer')!r}, and not {self.issuer!r}")
        return found


def unreachable(issuer: str) -> ServiceUnavailable:
    return ServiceUnavailable(
        f"the identity provider {issuer} can't be reached, so its tokens can't be checked; "
        "certificates still work",
        retry_after_s=RETRY_S,
    )


def _usable(document: Json) -> dict[str, Json]:
    """Public keys for signatures, by key id; one without is found under ""."""
    listed = document.get("keys")
    return {
        str(each.get("kid", "")): each
        for each in (listed if isinstance(listed, list) else ())
        if isinstance(each, dict)
        and each.get("use", "sig") == "sig"
        and each.get("kty") in ("RSA", "EC", "OKP")
    }


def unverified(token: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Header and claims as they are said, to find out who could verify them; proof of nothing.
    Raises Unauthorized for what is no JWT."""
    try:
        header = jwt.get_unverified_header(token)
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.PyJWTError as error:
        raise Unauthorized("the token is no JWT") from error
    return header, claims


async def verified(
    token: str, header: Mapping[str, Any], keys: Keys, audience: Sequence[str], party: str = ""
) -> Mapping[str, Any]:
    """The claims of a token that `keys.issuer` gave out for one of `audience`, and that is valid
    now; if it names an authorised party, that must be `party`.

    Raises Unauthorized with what is wrong, ServiceUnavailable while it can't be known.
    """
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        raise Unauthorized(f"tokens signed by {algorithm!r} are not taken; use one of {ALGORITHMS}")
    published = await keys.find(str(header.get("kid", "")))
    if published.get("alg", algorithm) != algorithm:
        raise Unauthorized(f"the token's key is for {published['alg']}, and not for {algorithm}")
    try:
        key = jwt.PyJWK(published, algorithm)
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm],
            audience=audience,
            leeway=SKEW_S,
            options={"require": ["exp", "iss", "aud", "sub"]},
        )
    except jwt.ExpiredSignatureError as error:
        raise Unauthorized("the token has expired; log in again: homeport login") from error
    except jwt.PyJWTError as error:
        raise Unauthorized(f"the token is not valid: {error}") from error
    if keys.issuer and normalised(str(claims["iss"])) != keys.issuer:
        raise Unauthorized(f"the token is of {claims['iss']!r}, and not of {keys.issuer!r}")
    if party and claims.get("azp", party) != party:
        raise Unauthorized(f"the token was given out for {claims['azp']!r}, and not for us")
    return claims
