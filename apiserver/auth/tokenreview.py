"""Tokens of a Kubernetes cluster: its TokenReview says whose they are, its RoleBindings what for.

All its users belong to one organisation. They have the roles that RoleBindings in `rbacNs` give
them, by the name of the role without the suffix that an installation puts there. We ask as
ourselves, with a token that is read anew each time since clusters renew them; it must be allowed to
create TokenReviews and to list those RoleBindings.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import aiohttp

from apiserver.auth import asking
from apiserver.auth.asking import OddAnswer
from apiserver.auth.claims import Provider
from apiserver.auth.verdicts import Found
from apiserver.errors import Unauthorized
from resources.kind import Json

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/namespaces/{}/rolebindings"
PAGE, PAGES_MAX = 500, 20


@dataclass(frozen=True, slots=True)
class TokenReviews:
    """Asks providers of type k8s."""

    session: aiohttp.ClientSession

    async def ask(self, provider: Provider, token: str) -> Found:
        """Raises Unauthorized, ProviderUnreachable."""
        status, answer = await self._call(provider, "POST", REVIEWS, {
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
            "spec": {"token": token},
        })  # fmt: skip
        if status not in (200, 201):
            raise OddAnswer(f"we may not review tokens: {status} {answer.get('message', '')}")
        said = _mapping(answer.get("status"))
        if said.get("authenticated") is not True:
            raise Unauthorized(f"the cluster does not take the token: {said.get('error', '')}")
        user = _mapping(said.get("user"))
        held = [role async for role in self._roles(provider, user)]
        return Found({**user, "roles": held})

    async def _roles(self, provider: Provider, user: Json) -> Any:
        place = provider.spec.get("rbacNs")
        if not place:
            return
        query = {"limit": str(PAGE)}
        for _ in range(PAGES_MAX):
            path = f"{BINDINGS.format(quote(place, safe=''))}?{urlencode(query)}"
            status, page = await self._call(provider, "GET", path)
            if status != 200:
                raise OddAnswer(f"we may not list RoleBindings in {place}: {status}")
            for role in _held(page, user, place):
                yield _without(role, provider.spec.get("roleSuffix") or "")
            query["continue"] = _mapping(page.get("metadata")).get("continue") or ""
            if not query["continue"]:
                return
        raise OddAnswer(f"{place} has more than {PAGE * PAGES_MAX} RoleBindings")

    async def _call(
        self, provider: Provider, method: str, path: str, body: Json | None = None
    ) -> tuple[int, Json]:
        spec = provider.spec
        try:
            token, authority = _read(Path(spec["tokenFile"])), _read(Path(spec["caFile"]))
            tls = _context(authority)
        except (OSError, ValueError) as error:
            raise OddAnswer(f"what we prove ourselves to the cluster by: {error}") from error
        headers = {"Authorization": f"Bearer {token.strip()}", "Accept": "application/json"}
        url = f"{spec['apiUrl'].rstrip('/')}{path}"
        return await asking.ask(self.session, method, url, headers=headers, json=body, ssl=tls)


def _read(path: Path) -> str:
    return path.read_text()


@functools.lru_cache(maxsize=16)
def _context(authority: str) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority)


def _held(page: Json, user: Json, place: str) -> Iterator[str]:
    """The names of the roles that these bindings give to the user."""
    for binding in page.get("items") or ():
        if any(_means(subject, user, place) for subject in binding.get("subjects") or ()):
            yield str(_mapping(binding.get("roleRef")).get("name", ""))


def _means(subject: Mapping[str, Any], user: Json, place: str) -> bool:
    name, groups = subject.get("name"), user.get("groups") or ()
    match subject.get("kind"):
        case "User":
            return bool(name == user.get("username"))
        case "Group":
            return name in groups
        case "ServiceAccount":
            whole = f"system:serviceaccount:{subject.get('namespace') or place}:{name}"
            return whole == user.get("username")
    return False


def _without(role: str, suffix: str) -> str:
    """The role as it is called without what tells installations apart, and the hyphen before."""
    return role.removesuffix(suffix).removesuffix("-") if suffix else role


def _mapping(value: Any) -> Json:
    return value if isinstance(value, dict) else {}
