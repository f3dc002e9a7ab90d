"""From an identity provider's claims to a caller: names, organisations, roles. Pure.

The invariant: a provider that no super administrator vouches for gives roles in its own namespace
and nowhere else, whatever its claims say. Names of organisations are looked up as they are, never
made to fit: two that would become one name would share what is theirs.

Rules: contract §9 and §10.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from apiserver.auth import roles
from apiserver.auth.identity import ADMIN, AUTHENTICATED, EVERYWHERE, NOBODY, ORG_ADMIN, Caller
from apiserver.errors import Unauthorized
from resources import authprovider
from resources.kind import Json

# Said of an AuthProvider by the server alone, when a super administrator wrote it.
VOUCHED = "auth-provider/createdBySuperAdmin"
ALL_OF_THEIRS = "*"
VALUES_MAX = 1_000
# What clocks may differ by: a token counts for so long beyond its end.
SKEW_S = 30.0

Claims = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Provider:
    """An AuthProvider that may be asked. `home` is its namespace; empty for one of the server's own
    configuration, which is vouched for by who started the server."""

    name: str
    home: str
    spec: Json = field(repr=False)
    is_vouched: bool

    @property
    def issuer(self) -> str:
        return normalised(self.spec.get("issuer") or "")

    @property
    def client_id(self) -> str:
        return str(self.spec.get("clientId") or "")

    @property
    def type(self) -> str:
        return str(self.spec["providerType"])


def provider_of(document: Json, *, is_ours: bool = False) -> Provider:
    """`is_ours`: it comes from the server's own configuration."""
    metadata = document["metadata"]
    noted = (metadata.get("annotations") or {}).get(VOUCHED) == "true"
    home = "" if is_ours else metadata["namespace"]
    spec = authprovider.completed(document["spec"])
    return Provider(metadata["name"], home, spec, is_ours or noted)


def normalised(url: str) -> str:
    """As issuers are compared: scheme and host in lower case, no slash at the end (§6.7)."""
    scheme, colon, rest = url.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme.lower()}{colon}{host.lower()}{slash}{path}".rstrip("/")


def caller_of(provider: Provider, claims: Claims, namespaces: Mapping[str, str]) -> Caller:
    """Who that is here. `namespaces`: names of organisations at identity providers, to namespaces.

    Raises Unauthorized when the claims name nobody.
    """
    spec = provider.spec
    path = spec.get("usernameClaim") or authprovider.USERNAME_CLAIM
    name = _at(claims, path)
    if not isinstance(name, str) or not name:
        raise Unauthorized(
            f'the token names nobody: "{".".join(path)}", where identity provider '
            f"{provider.name} says users' names are, is no text in its claims"
        )
    named = organizations(provider, claims, name)
    places = {namespaces[each] for each in named if each in namespaces}
    if not provider.is_vouched:
        # Its own namespace it may call by that name too, whatever providers call it.
        places = places.union(named) & {provider.home}
    return Caller(
        name=name,
        groups=frozenset((AUTHENTICATED,)),
        role=NOBODY,
        source=f"authprovider/{provider.home}/{provider.name}".replace("//", "/"),
        further=_further(provider, claims, places, namespaces),
        expires_at=_end(provider, claims),
    )


def _end(provider: Provider, claims: Claims) -> float:
    """When the token ends. Of an opaque one the claims are its owner's, and tell nothing of it."""
    end = claims.get("exp") if provider.type == authprovider.OIDC else None
    return end + SKEW_S if isinstance(end, int | float) else math.inf


def organizations(provider: Provider, claims: Claims, name: str) -> list[str]:
    """The organisations of a user, as the identity provider names them, the first a thousand."""
    assignment = provider.spec["organizationAssignment"]
    kind = assignment["type"]
    if kind == authprovider.STATIC:
        return [assignment["organizationName"]]
    default = authprovider.PER_USER_PREFIX if kind == authprovider.PER_USER else ""
    prefix = assignment.get("organizationNamePrefix")
    suffix = assignment.get("organizationNameSuffix") or ""
    found = (
        [name] if kind == authprovider.PER_USER else _texts(_at(claims, assignment["claimPath"]))
    )
    return [f"{default if prefix is None else prefix}{each}{suffix}" for each in found]


def _further(
    provider: Provider, claims: Claims, places: Iterable[str], namespaces: Mapping[str, str]
) -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = {place: set() for place in places}
    for where, role in _given(provider, claims):
        if role == ADMIN and not where:
            if provider.is_vouched:
                found.setdefault(EVERYWHERE, set()).add(ADMIN)
            continue
        # Who administers one organisation administers no other.
        held = ORG_ADMIN if role == ADMIN else role
        for place, roles_there in found.items():
            if place and (where in ("", ALL_OF_THEIRS) or namespaces.get(where) == place):
                roles_there.add(held)
    return {place: frozenset(held) for place, held in found.items() if held}


def _given(provider: Provider, claims: Claims) -> Iterable[tuple[str, str]]:
    """Pairs of an organisation ("" where none is said) and one of our roles."""
    assignment = provider.spec["roleAssignment"]
    if assignment["type"] == authprovider.STATIC:
        said = assignment["roles"]
    else:
        said = _texts(_at(claims, assignment["claimPath"]))
    separator = assignment.get("separator") or authprovider.SEPARATOR
    for each in said:
        where, _, external = each.rpartition(separator)
        if role := EXTERNAL.get(external):
            yield where, role


# What providers report, to our own names. Those themselves are not taken from outside.
EXTERNAL = {name: roles.GROUPS[name] for name in authprovider.ROLES}


def _at(claims: Any, path: Iterable[str]) -> Any:
    for name in path:
        claims = claims.get(name) if isinstance(claims, Mapping) else None
    return claims


def _texts(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    found = value if isinstance(value, list) else []
    return [each for each in found[:VALUES_MAX] if isinstance(each, str)]
