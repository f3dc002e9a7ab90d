"""Access tokens of OAuth 2: what a provider may answer, and what is made of it.

The providers here are written down; real ones are asked in conformance/test_logins.py. GitHub is
nowhere asked for real: what it answers is [simulated] by its documentation.
"""

from __future__ import annotations

import base64
import time
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import jwt
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from apiserver.auth import asking, oidc, provenance, verdicts
from apiserver.auth.asking import OddAnswer, ProviderUnreachable
from apiserver.auth.claims import Provider, provider_of
from apiserver.auth.introspection import Introspection
from apiserver.auth.tokens import Known, _candidates, in_order
from apiserver.errors import Unauthorized
from resources.kind import Json

NOW = 1_700_000_000.0
KEY = rsa.generate_private_key(65537, 2048)


class Answers:
    """What is answered by path: a status and a body. `seen` are the requests."""

    def __init__(self) -> None:
        self.by_path: dict[str, tuple[int, Any]] = {"/me": (200, {"login": "ann"})}
        self.seen: list[tuple[str, dict[str, str], Any]] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json() if request.content_type == "application/json" else dict(
            await request.post()
        )  # fmt: skip
        self.seen.append((request.path, dict(request.headers), body))
        status, answer = self.by_path[request.path]
        if isinstance(answer, str):
            return web.Response(status=status, text=answer, headers={"Location": "/elsewhere"})
        return web.json_response(answer, status=status)


@pytest_asyncio.fixture
async def answers() -> Answers:
    return Answers()


@pytest_asyncio.fixture
async def base(answers: Answers) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answers.answer)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest_asyncio.fixture
async def introspection() -> AsyncIterator[Introspection]:
    async with aiohttp.ClientSession() as session:

        async def fetch(url: str) -> Json:
            return await asking.fetch(session, url)

        yield Introspection(session, lambda issuer, url: oidc.Keys(issuer, fetch, url), lambda: NOW)


def oauth2(base: str, **spec: Any) -> Provider:
    whole = {
        "providerType": "oauth2", "clientId": "home:port", "clientSecret": "a secret",
        "authorizationUrl": f"{base}/authorize", "tokenUrl": f"{base}/token",
        "userinfoUrl": f"{base}/me",
    }  # fmt: skip
    return provider_of({"metadata": {"name": "id"}, "spec": whole | spec}, is_ours=True)


GOOD = {
    "bare": ({"active": True}, verdicts.GOOD_S),
    "for us": ({"active": True, "client_id": "home:port", "exp": NOW + 60}, 60.0),
    "in the audience": ({"active": True, "aud": ["x", "home:port"], "client_id": "x"}, 5.0),
}


@pytest.mark.parametrize(("answer", "lasts_s"), GOOD.values(), ids=GOOD)
async def test_a_token_that_is_good(
    introspection: Introspection, answers: Answers, base: str, answer: Json, lasts_s: float
) -> None:
    answers.by_path["/introspect"] = 200, answer
    found = await introspection.ask(oauth2(base), "the-token")
    assert found.claims == {"login": "ann"}
    assert found.lasts_s == lasts_s
    (_, headers, form), (_, asked, _) = answers.seen
    assert form == {"token": "the-token", "token_type_hint": "access_token"}
    proof = base64.b64decode(headers["Authorization"].removeprefix("Basic ")).decode()
    assert proof == "home%3Aport:a%20secret", (
        "each is encoded, or a colon would part them elsewhere"
    )
    assert asked["Authorization"] == "Bearer the-token"


BAD = {
    "inactive": ((200, {"active": False}), Unauthorized, "not valid"),
    "not said": ((200, {}), Unauthorized, "not valid"),
    "a text": ((200, {"active": "true"}), Unauthorized, "not valid"),
    "another's": ((200, {"active": True, "client_id": "x"}), Unauthorized, "given out for 'x'"),
    "for another": ((200, {"active": True, "aud": "y"}), Unauthorized, "given out for 'y'"),
    "ended": ((200, {"active": True, "exp": NOW}), Unauthorized, "expired"),
    "our secret": ((401, {"error": "invalid_client"}), OddAnswer, "client's id and secret"),
    "broken": ((500, "oops"), OddAnswer, "answers 500"),
    "no JSON": ((200, "<html>"), OddAnswer, "no JSON object"),
    "a list": ((200, [True]), OddAnswer, "no JSON object"),
    "elsewhere": ((307, "there"), OddAnswer, "answers 307"),
    "endless": ((200, {"a": "x" * (asking.ANSWER_BYTES_MAX + 1)}), OddAnswer, "more than it"),
}


@pytest.mark.parametrize(("answer", "problem", "words"), BAD.values(), ids=BAD)
async def test_one_that_is_not_and_providers_that_are_odd(
    introspection: Introspection,
    answers: Answers,
    base: str,
    answer: Any,
    problem: type[Exception],
    words: str,
) -> None:
    answers.by_path["/introspect"] = answer
    with pytest.raises(problem, match=words):
        await introspection.ask(oauth2(base), "the-token")
    assert [path for path, _, _ in answers.seen] == ["/introspect"], "nobody else saw the token"


async def test_a_userinfo_that_says_nothing(
    introspection: Introspection, answers: Answers, base: str
) -> None:
    answers.by_path |= {"/introspect": (200, {"active": True}), "/me": (401, {})}
    with pytest.raises(Unauthorized, match="does not say whose"):
        await introspection.ask(oauth2(base), "the-token")
    answers.by_path["/me"] = 200, {"groups": "x" * verdicts.CLAIMS_BYTES_MAX}
    with pytest.raises(OddAnswer, match="more than it should"):
        await introspection.ask(oauth2(base), "the-token")


async def test_nobody_is_there(introspection: Introspection, base: str) -> None:
    how = {"type": "rfc7662", "url": "http://127.0.0.1:9/introspect"}
    with pytest.raises(ProviderUnreachable) as problem:
        await introspection.ask(oauth2(base, introspection=how), "the-token")
    assert not isinstance(problem.value, OddAnswer)


@pytest.mark.parametrize(
    ("status", "problem"), [(200, None), (404, Unauthorized), (422, Unauthorized), (401, OddAnswer)]
)
async def test_github(
    introspection: Introspection,
    answers: Answers,
    base: str,
    status: int,
    problem: type[Exception] | None,
) -> None:
    answers.by_path["/applications/home%3Aport/token"] = status, {"app": {"client_id": "home:port"}}
    answers.by_path["/applications/home:port/token"] = status, {"app": {"client_id": "home:port"}}
    provider = oauth2(base, introspection={"type": "github", "url": f"{base}/"})
    if problem is None:
        assert (await introspection.ask(provider, "gho_x")).claims == {"login": "ann"}
    else:
        with pytest.raises(problem):
            await introspection.ask(provider, "gho_x")
    assert answers.seen[0][2] == {"access_token": "gho_x"}


def signed(**said: Any) -> str:
    now = time.time()
    claims = {"iss": "https://id", "sub": "1", "aud": "home:port", "exp": now + 3600} | said
    return jwt.encode(claims, KEY, "RS256", headers={"kid": "k"})


JWTS: dict[str, tuple[Json, str, str]] = {
    "good": ({}, signed(), ""),
    "of its issuer": ({"issuer": "https://id/"}, signed(), ""),
    "for a wider audience": ({"audience": ["fleet"]}, signed(aud=["fleet"], azp="cli"), ""),
    "of another issuer": ({"issuer": "https://other"}, signed(), "is of 'https://id'"),
    "for another": ({}, signed(aud="fleet"), "not valid"),
    "ended": ({}, signed(exp=time.time() - 60), "expired"),
    "opaque": ({}, "opaque", "no JWT"),
}


@pytest.mark.parametrize(("how", "token", "words"), JWTS.values(), ids=JWTS)
async def test_tokens_that_are_jwts(
    introspection: Introspection, answers: Answers, base: str, how: Json, token: str, words: str
) -> None:
    key = RSAAlgorithm.to_jwk(KEY.public_key(), as_dict=True)
    answers.by_path["/keys"] = 200, {"keys": [{**key, "kid": "k"}]}
    provider = oauth2(base, introspection={"type": "jwt", "jwksUrl": f"{base}/keys"} | how)
    if not words:
        assert (await introspection.ask(provider, token)).claims == {"login": "ann"}
        return
    with pytest.raises(Unauthorized, match=words):
        await introspection.ask(provider, token)


def named(name: str, home: str, kind: str, *, is_vouched: bool, **spec: Any) -> Provider:
    return Provider(name, home, {"providerType": kind, "clientId": "c"} | spec, is_vouched)


OURS = named("ours", "", "oauth2", is_vouched=True, issuer="https://one")
VOUCHED = named("vouched", "acme", "oauth2", is_vouched=True, issuer="https://two")
FOREIGN = named("foreign", "acme", "oauth2", is_vouched=False, issuer="https://two")
CLUSTER = named("cluster", "", "k8s", is_vouched=True)
OIDC = named("oidc", "acme", "oidc", is_vouched=False, issuer="https://two")
ALL = Known((OURS, VOUCHED, FOREIGN, CLUSTER, OIDC), {})


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        (None, ["ours", "vouched", "cluster"]),
        ({"sub": "1"}, ["ours", "vouched", "cluster"]),
        ({"iss": "https://two", "aud": "x"}, ["vouched"]),
        ({"iss": "https://two/", "aud": ["c"]}, ["oidc", "vouched"]),
        ({"iss": "https://two", "kubernetes.io": {}}, ["cluster"]),
    ],
)
def test_who_is_shown_a_token_without_a_name(claims: Json | None, expected: list[str]) -> None:
    """Never one that nobody vouches for, but it can read the token itself."""
    token = "opaque" if claims is None else jwt.encode(claims, "x" * 32, "HS256")
    assert [each.name for each in _candidates(ALL, token)] == expected


def test_a_name_is_read_as_it_was_written() -> None:
    assert provenance.read(provenance.marked(FOREIGN, "a~b")) == ("acme", "foreign", "a~b")
    assert provenance.read(provenance.marked(OURS, "x")) == ("", "ours", "x")
    assert provenance.read("homeport~a~b") is None
    assert provenance.read("else~a~b~c") is None


def test_of_two_with_one_name_the_one_that_is_vouched_for_is_meant() -> None:
    evil = named("company", "aaa", "oidc", is_vouched=False, issuer="https://evil")
    good = named("company", "default", "oidc", is_vouched=True, issuer="https://good")
    assert in_order([evil, FOREIGN, good]) == (good, evil, FOREIGN)
