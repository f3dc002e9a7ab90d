"""Users by bearer token: which identity provider it is of, and who that makes of them here.

Providers come from the server's configuration and from AuthProviders; those are read again when the
last look is older than LOOK_S, so that one that was made, changed or taken back counts within
seconds on every replica, with nobody to tell the others.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial

import aiohttp

from apiserver.auth import asking, claims, oidc, provenance
from apiserver.auth.chain import Evidence
from apiserver.auth.claims import Provider, normalised
from apiserver.auth.identity import Caller
from apiserver.auth.introspection import Introspection
from apiserver.auth.tokenreview import TokenReviews
from apiserver.auth.verdicts import Verdicts
from apiserver.errors import ServiceUnavailable, Unauthorized
from apiserver.store import Snapshot, Store
from resources import registry
from resources.authprovider import K8S, OAUTH2, OIDC, TYPES_OF_FILE
from resources.kind import Json

LOOK_S = 5.0
# Of a token; beyond it nothing is parsed.
TOKEN_BYTES_MAX = 16 << 10
ISSUERS_MAX = 1_000
# RFC 6750 §2.1, and nothing that could end a header.
_TOKEN = re.compile(r"[!-~]+")
# What all tokens of Kubernetes say something under, and no others.
_CLUSTERS = "kubernetes.io"


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
    _verdicts: Verdicts = field(init=False)
    _keys: dict[tuple[str, str], oidc.Keys] = field(default_factory=dict)
    _known: Known | None = None
    _looked_at: float = 0.0
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        asked = {
            OAUTH2: Introspection(self.session, self.keys_of).ask,
            K8S: TokenReviews(self.session).ask,
        }
        self._verdicts = Verdicts(
            lambda provider, token: asked[provider.type](provider, token), self.monotonic
        )

    async def authenticate(self, evidence: Evidence) -> Caller | None:
        """None without a bearer token. Raises Unauthorized, ServiceUnavailable."""
        scheme, _, token = evidence.authorization.partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = token.strip()
        if not _TOKEN.fullmatch(token) or len(token) > TOKEN_BYTES_MAX:
            raise Unauthorized(f"the token is longer than {TOKEN_BYTES_MAX} bytes, or no text")
        known = await self.known()
        if named := provenance.read(token):
            home, name, token = named
            asked = [
                provider
                for provider in known.providers
                if (provider.home, provider.name, provider.type) == (home, name, OAUTH2)
            ]
            if not asked:
                raise Unauthorized(f"the identity provider {name}, whose token this is, is gone")
            return await self._first(asked, token, known)
        return await self._first(_candidates(known, token), token, known)

    async def _first(self, asked: Iterable[Provider], token: str, known: Known) -> Caller:
        """Who takes it decides; one that can't be asked could be the one."""
        refusal: Unauthorized | ServiceUnavailable | None = None
        for provider in asked:
            try:
                said = await self._claims(provider, token)
                return claims.caller_of(provider, said, known.namespaces)
            except ServiceUnavailable as problem:
                refusal = problem
            except Unauthorized as problem:
                refusal = refusal or problem
        assert refusal is not None
        raise refusal

    async def _claims(self, provider: Provider, token: str) -> claims.Claims:
        if provider.type != OIDC:
            return await self._verdicts.of(provider, token)
        header, _ = oidc.unverified(token)
        ours = provider.client_id
        return await oidc.verified(token, header, self.keys_of(provider.issuer), [ours], ours)

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
        asked = filter(_is_asked, (*self.ours, *made))
        return Known(in_order(asked), _namespaces(snapshot.list(registry.ORGANIZATION, None)))

    def keys_of(self, issuer: str, url: str = "") -> oidc.Keys:
        """What is known of an issuer's keys, or of those at an address, kept between requests."""
        which = (issuer, url)
        if which not in self._keys:
            if len(self._keys) >= ISSUERS_MAX:
                self._keys.clear()
            self._keys[which] = oidc.Keys(issuer, partial(asking.fetch, self.session), url)
        return self._keys[which]


def in_order(providers: Iterable[Provider]) -> tuple[Provider, ...]:
    """Those that are vouched for first. A name means the first that has it: no administrator of an
    organisation can have people log in at a provider of his by calling it as another is called."""
    return tuple(sorted(providers, key=lambda provider: not provider.is_vouched))


def _is_asked(provider: Provider) -> bool:
    return provider.spec.get("enabled") is not False and provider.type in TYPES_OF_FILE


def _candidates(known: Known, token: str) -> list[Provider]:
    """Who could know a token that bears nobody's name (contract §9). Raises Unauthorized if there
    is nobody."""
    # An AuthProvider that nobody vouches for is shown no token of others.
    readers = [each for each in known.providers if each.type != OIDC and each.is_vouched]
    try:
        _, said = oidc.unverified(token)
    except Unauthorized:
        if readers:
            return readers
        raise
    if any(str(claim).startswith(_CLUSTERS) for claim in said):
        asked = [each for each in readers if each.type == K8S]
    elif "iss" not in said:
        asked = readers
    else:
        issuer, audiences = normalised(str(said["iss"])), _audiences(said.get("aud"))
        asked = [
            provider
            for provider in known.providers
            if provider.type == OIDC
            and provider.issuer == issuer
            and provider.client_id in audiences
        ]
        asked += [each for each in readers if each.type == OAUTH2 and each.issuer == issuer]
    if not asked:
        raise Unauthorized(
            "no identity provider is known here that gives out tokens as "
            f"{normalised(str(said.get('iss', '')))!r} for {sorted(_audiences(said.get('aud')))}"
        )
    return asked


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
