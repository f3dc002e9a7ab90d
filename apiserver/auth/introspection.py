"""OAuth 2 without identity tokens: is this access token good, was it given out for us, and whose is
it? Its provider knows, and says so in one of three ways; who the owner is its userinfo says.

The invariant: a token that was given out for another client is nobody here, wherever the provider
says for whom it was. Else whoever runs some other application could be each of its users.
(RFC 7662; GitHub's "check a token"; RFC 9068 for tokens that are JWTs after all.)
"""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import aiohttp

from apiserver.auth import asking, oidc
from apiserver.auth.asking import OddAnswer
from apiserver.auth.claims import SKEW_S, Provider, normalised
from apiserver.auth.verdicts import CLAIMS_BYTES_MAX, GOOD_S, Found
from apiserver.errors import ServiceUnavailable, Unauthorized
from resources import authprovider
from resources.kind import Json

# The keys of an issuer, or those at an address.
KeysOf = Callable[[str, str], oidc.Keys]

_NO_LONGER = "the token is not valid, or is not any more; log in again: homeport login"


@dataclass(frozen=True, slots=True)
class Introspection:
    """Asks providers of type oauth2. `now`: seconds since the epoch."""

    session: aiohttp.ClientSession
    keys_of: KeysOf
    now: Callable[[], float] = time.time

    async def ask(self, provider: Provider, token: str) -> Found:
        """Raises Unauthorized, ProviderUnreachable."""
        how = authprovider.introspection(provider.spec)
        match how.get("type"):
            case "rfc7662":
                lasts_s = await self._by_rfc7662(provider, how["url"], token)
            case "github":
                lasts_s = await self._by_github(provider, how["url"], token)
            case "jwt":
                lasts_s = await self._by_keys(provider, how, token)
            case other:
                raise OddAnswer(f"nobody here knows how to introspect by {other}")
        return Found(await self._userinfo(provider, token), lasts_s)

    async def _by_rfc7662(self, provider: Provider, url: str, token: str) -> float:
        form = {"token": token, "token_type_hint": "access_token"}
        status, said = await asking.ask(
            self.session, "POST", url, data=form, headers=_as_client(provider)
        )
        _check_status(url, status)
        if said.get("active") is not True:
            raise Unauthorized(_NO_LONGER)
        _check_party(provider, (*_texts(said.get("aud")), *_texts(said.get("client_id"))))
        ends = said.get("exp")
        if not isinstance(ends, int | float):
            return GOOD_S
        if ends <= self.now():
            raise Unauthorized("the token has expired; log in again: homeport login")
        return ends - self.now()

    async def _by_github(self, provider: Provider, url: str, token: str) -> float:
        whole = f"{url.rstrip('/')}/applications/{quote(provider.client_id, safe='')}/token"
        status, _ = await asking.ask(
            self.session, "POST", whole, json={"access_token": token},
            headers=_as_client(provider),
        )  # fmt: skip
        # It knows tokens of other applications no more than invented ones.
        if status in (404, 422):
            raise Unauthorized(_NO_LONGER)
        _check_status(whole, status)
        return GOOD_S

    async def _by_keys(self, provider: Provider, how: Json, token: str) -> float:
        header, _ = oidc.unverified(token)
        keys = self.keys_of(normalised(how.get("issuer") or ""), how["jwksUrl"])
        audience = how.get("audience") or [provider.client_id]
        try:
            said = await oidc.verified(token, header, keys, audience)
        except ServiceUnavailable as problem:
            raise OddAnswer(f"its keys can't be had from {how['jwksUrl']}") from problem
        return float(said["exp"]) - self.now() + SKEW_S

    async def _userinfo(self, provider: Provider, token: str) -> Json:
        url = provider.spec["userinfoUrl"]
        headers = _json() | {"Authorization": f"Bearer {token}"}
        status, said = await asking.ask(
            self.session, "GET", url, headers=headers, bytes_max=CLAIMS_BYTES_MAX
        )
        if status in (401, 403):
            raise Unauthorized(f"the provider does not say whose the token is: {url} says {status}")
        _check_status(url, status)
        return said


def _json() -> dict[str, str]:
    return {"Accept": "application/json", "User-Agent": "homeport"}


def _as_client(provider: Provider) -> dict[str, str]:
    """What we prove ourselves by (RFC 6749 §2.3.1); a colon inside of either must part nothing."""
    secret = str(provider.spec.get("clientSecret") or "")
    proof = ":".join(quote(each, safe="") for each in (provider.client_id, secret))
    return _json() | {"Authorization": f"Basic {base64.b64encode(proof.encode()).decode()}"}


def _check_status(url: str, status: int) -> None:
    if status == 401:
        raise OddAnswer(f"{url} does not take the client's id and secret")
    if status != 200:
        raise OddAnswer(f"{url} answers {status}")


def _check_party(provider: Provider, named: Iterable[str]) -> None:
    named = list(named)
    if named and provider.client_id not in named:
        raise Unauthorized(f"the token was given out for {named[0]!r}, and not for us")


def _texts(value: Any) -> list[str]:
    found = value if isinstance(value, list) else [value]
    return [each for each in found if isinstance(each, str)]
