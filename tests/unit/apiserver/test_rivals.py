"""Two AuthProviders do not claim the same tokens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from apiserver.auth.identity import NOBODY, ORG_ADMIN, Caller
from apiserver.errors import Conflict
from apiserver.operations import Operations, WriteOptions
from apiserver.store import Store
from resources.kind import Json
from resources.registry import AUTH_PROVIDER, ORGANIZATION

ROOT = Caller("root", role="admin")
OPTIONS = WriteOptions(field_manager="a")
BOB, EVE = (
    Caller(name, role=NOBODY, further={home: frozenset([ORG_ADMIN])})
    for name, home in (("bob", "acme"), ("eve", "evil"))
)
OIDC: Json = {"providerType": "oidc", "issuer": "https://id.example.com/a"}
OAUTH2: Json = {
    "providerType": "oauth2",
    "issuer": "https://id.example.com/a",
    "authorizationUrl": "https://id.example.com/authorize",
    "tokenUrl": "https://id.example.com/token",
    "userinfoUrl": "https://id.example.com/me",
}


class Place:
    def __init__(self, operations: Operations) -> None:
        self.operations = operations

    async def make(
        self, name: str, who: Json, caller: Caller = ROOT, home: str = "acme", **spec: Any
    ) -> Json:
        document = provider(name, home, who, **spec)
        made = await self.operations.create(caller, AUTH_PROVIDER, home, document, OPTIONS)
        return made.document


def provider(name: str, home: str, who: Json, **spec: Any) -> Json:
    whole = who | {
        "clientId": "homeport",
        "clientSecret": "s3cret",
        "organizationAssignment": {"type": "static", "organizationName": home},
        "roleAssignment": {"type": "static", "roles": ["flightctl-viewer"]},
    }
    return {"metadata": {"name": name}, "spec": whole | spec}


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    store = await Store.open(data_dir=tmp_path)
    operations = Operations(store)
    await operations.prepare()
    for name in ("acme", "evil"):
        document: Json = {"metadata": {"name": name}, "spec": {}}
        await operations.create(ROOT, ORGANIZATION, "", document, WriteOptions())
    yield Place(operations)
    await store.close()


async def test_the_second_for_the_same_tokens_is_refused_by_every_verb(place: Place) -> None:
    await place.make("first", OIDC)
    for change in ({}, {"issuer": "HTTPS://ID.example.com/a/"}):
        with pytest.raises(Conflict, match=r'AuthProvider "first" has spec.issuer https://id'):
            await place.make("second", OIDC, **change)
    document = provider("second", "acme", OIDC)
    operations = place.operations
    with pytest.raises(Conflict, match="first"):
        await operations.apply(ROOT, AUTH_PROVIDER, "acme", "second", document, OPTIONS)
    with pytest.raises(Conflict, match="first"):
        await operations.update(
            ROOT, AUTH_PROVIDER, "acme", "second", document, OPTIONS, create_missing=True
        )
    # Another client there, another path, another type are other tokens.
    await place.make("second", OIDC, clientId="other")
    await place.make("third", OIDC, issuer="https://id.example.com/b")
    await place.make("opaque", OAUTH2)
    with pytest.raises(Conflict, match=r"spec\.userinfoUrl"):
        await place.make("opaque2", OAUTH2, issuer="https://elsewhere.example.com")
    with pytest.raises(Conflict, match="first"):
        await operations.patch(
            ROOT,
            AUTH_PROVIDER,
            "acme",
            "second",
            lambda old: old | {"spec": old["spec"] | {"clientId": "homeport"}},
            OPTIONS,
        )


async def test_one_may_be_changed_and_its_place_is_free_when_it_is_gone(place: Place) -> None:
    made = await place.make("first", OIDC)
    changed = made | {"spec": made["spec"] | {"enabled": False}}
    await place.operations.update(ROOT, AUTH_PROVIDER, "acme", "first", changed, OPTIONS)
    with pytest.raises(Conflict):  # one that is switched off may be switched on
        await place.make("second", OIDC)
    await place.operations.delete(ROOT, AUTH_PROVIDER, "acme", "first")
    await place.make("second", OIDC)


async def test_another_organisations_is_not_named(place: Place) -> None:
    await place.make("secret-name", OIDC, EVE, "evil")
    with pytest.raises(Conflict, match="another AuthProvider has") as caught:
        await place.make("mine", OIDC, BOB)
    assert "secret-name" not in caught.value.message
    assert "evil" not in caught.value.message


async def test_who_is_vouched_for_is_not_kept_out_by_who_is_not(place: Place) -> None:
    await place.make("squatter", OIDC, EVE, "evil")
    await place.make("company", OIDC)
    with pytest.raises(Conflict):
        await place.make("again", OIDC, EVE, "evil")
    with pytest.raises(Conflict):
        await place.make("twice", OIDC)


async def test_of_two_at_once_one_is_made(place: Place) -> None:
    outcomes = await asyncio.gather(
        *(place.make(f"p{number}", OIDC, replace(ROOT)) for number in range(8)),
        return_exceptions=True,
    )
    assert sum(isinstance(each, dict) for each in outcomes) == 1
    assert sum(isinstance(each, Conflict) for each in outcomes) == 7
