"""JWTs are verified by keys that their issuer publishes, and by nothing that they say."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from apiserver.auth import asking, oidc
from apiserver.errors import ServiceUnavailable, StatusError, Unauthorized
from resources.kind import Json
from tests.fakes.waiting import until

ISSUER = "https://id.example.com/realm"
RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())


def published(key: Any, kid: str, **more: str) -> Json:
    algorithm = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else (
        jwt.algorithms.ECAlgorithm
    )  # fmt: skip
    found: Json = algorithm.to_jwk(key.public_key(), as_dict=True)
    return {**found, "kid": kid} | more


class Provider:
    """What a provider answers, and how often it was asked."""

    def __init__(self, *keys: Json) -> None:
        self.keys = list(keys)
        self.issuer = ISSUER
        self.is_down = False
        self.asked: list[str] = []

    async def fetch(self, url: str) -> Json:
        self.asked.append(url)
        await asyncio.sleep(0)
        if self.is_down:
            raise asking.ProviderUnreachable(f"{url}: refused")
        if url.endswith("/.well-known/openid-configuration"):
            return {"issuer": self.issuer, "jwks_uri": f"{ISSUER}/keys"}
        return {"keys": self.keys}


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def token(key: Any = RSA_KEY, kid: str = "one", algorithm: str = "RS256", **said: Any) -> str:
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": "homeport", "sub": "4711", "exp": now + 3600, "iat": now} | said
    claims = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(claims, key, algorithm, headers={"kid": kid})


async def verdict(text: str, *keys: Json) -> Any:
    """The claims, or the refusal."""
    provider = Provider(*(keys or (published(RSA_KEY, "one"), published(EC_KEY, "ec"))))
    try:
        header, _ = oidc.unverified(text)
        return await oidc.verified(
            text, header, oidc.Keys(ISSUER, provider.fetch), ["homeport"], "homeport"
        )
    except StatusError as error:
        return error


@pytest.mark.parametrize("algorithm", ["RS256", "RS512", "PS256"])
async def test_a_token_of_its_issuer_is_good(algorithm: str) -> None:
    assert (await verdict(token(algorithm=algorithm)))["sub"] == "4711"


async def test_elliptic_curves_several_audiences_and_a_little_skew_are_good() -> None:
    said = await verdict(
        token(EC_KEY, "ec", "ES256", aud=["x", "homeport"], azp="homeport", exp=time.time() - 10)
    )
    assert said["aud"] == ["x", "homeport"]


BAD = {
    "expired": (token(exp=time.time() - 60), "has expired"),
    "not yet": (token(nbf=time.time() + 600), "not yet valid"),
    "no expiry": (token(exp=None), "exp"),
    "no subject": (token(sub=None), "sub"),
    "no audience": (token(aud=None), "aud"),
    "another audience": (token(aud="someone-else"), "udience"),
    "for another": (token(azp="someone-else"), "given out for 'someone-else'"),
    "another issuer": (token(iss="https://evil.example.com"), "is of 'https://evil.example.com'"),
    "another's key": (token(OTHER_KEY), "not valid: Signature"),
    "unknown key": (token(kid="two"), "does not publish"),
    "no key id": (jwt.encode({"iss": ISSUER}, RSA_KEY, "RS256"), "does not publish"),
    "key of another sort": (token(EC_KEY, "one", "ES256"), "not valid"),
    "unsigned": (token(None, algorithm="none"), "'none' are not taken"),
    "shared secret": (token("s" * 32, algorithm="HS256"), "'HS256' are not taken"),
    "cut": (token()[:-9], "not valid|no JWT"),
    "no token": ("eyJ.eyJ.x", "no JWT"),
    "two parts": ("a.b", "no JWT"),
}


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=BAD)
async def test_what_is_wrong_is_said(text: str, words: str) -> None:
    refusal = await verdict(text)
    assert isinstance(refusal, Unauthorized), refusal
    with pytest.raises(Unauthorized, match=words):
        raise refusal


async def test_a_key_serves_what_it_was_published_for() -> None:
    assert isinstance(await verdict(token(), published(RSA_KEY, "one", alg="PS256")), Unauthorized)
    assert isinstance(await verdict(token(), published(RSA_KEY, "one", use="enc")), Unauthorized)
    secret = {"kty": "oct", "kid": "one", "k": "c2VjcmV0"}
    assert isinstance(await verdict(token(), secret), Unauthorized)


async def test_a_provider_that_calls_itself_something_else_is_not_believed() -> None:
    provider = Provider(published(RSA_KEY, "one"))
    provider.issuer = "https://evil.example.com"
    with pytest.raises(ServiceUnavailable, match="can't be reached"):
        await oidc.Keys(ISSUER, provider.fetch).find("one")


async def test_keys_are_fetched_once_and_again_when_one_is_new_or_all_are_old() -> None:
    provider, clock = Provider(published(RSA_KEY, "one")), Clock()
    keys = oidc.Keys(ISSUER, provider.fetch, monotonic=clock)
    await asyncio.gather(*(keys.find("one") for _ in range(20)))
    assert len(provider.asked) == 2, "discovery, and the keys"

    provider.keys = [published(OTHER_KEY, "two")]
    with pytest.raises(Unauthorized):
        await keys.find("two")
    assert len(provider.asked) == 2, "not again so soon: anybody can invent names of keys"
    clock.now += oidc.RENEW_S
    assert (await keys.find("two"))["kid"] == "two"
    with pytest.raises(Unauthorized):
        await keys.find("one")

    asked = len(provider.asked)
    clock.now += oidc.FRESH_S
    await keys.find("two")
    assert len(provider.asked) == asked, "who has a key waits for nobody"
    await until(lambda: len(provider.asked) == asked + 2)


async def test_a_provider_that_is_down_locks_out_nobody_whose_key_is_known() -> None:
    provider, clock = Provider(published(RSA_KEY, "one")), Clock()
    provider.is_down = True
    keys = oidc.Keys(ISSUER, provider.fetch, monotonic=clock)
    with pytest.raises(ServiceUnavailable, match="can't be reached"):
        await keys.find("one")
    provider.is_down = False
    clock.now += oidc.RENEW_S
    await keys.find("one")
    provider.is_down = True
    clock.now += 10 * oidc.FRESH_S
    assert (await keys.find("one"))["kid"] == "one"
    await asyncio.sleep(0.01)
    clock.now += oidc.RENEW_S
    with pytest.raises(Unauthorized):
        await keys.find("two")
