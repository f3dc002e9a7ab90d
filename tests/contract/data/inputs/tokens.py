"""Bad proofs of who a user is: forms of Authorization, shapes of JWTs, headers, signatures, claims.

All are refused with 401 and a word on what is wrong; a token may be wrong in nothing but one thing.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from tests.contract.data.inputs.row import PLACE, PLAIN, Ask, Bad
from tests.fakes import bare_http, issuer
from tests.fakes.inputs_rig import Rig
from tests.fakes.issuer import Issuer, encoded

Json = dict[str, Any]
Make = Callable[[Issuer], str]

TARGET = f"{PLACE}/fleets"
DAY_S = 86_400


def said(id: str, expected: str, *values: str, code: int = 401, form: str = "status") -> Bad:
    """Authorization headers as they are; TOKEN stands for a good token."""

    def make(rig: Rig) -> Ask:
        good = rig.issuer.good()
        headers = [("Authorization", value.replace("TOKEN", good)) for value in values]
        return Ask(rig.anybody, bare_http.request("GET", TARGET, headers))

    return Bad(id, make, code, expected, form)


def token(id: str, expected: str, make: Make) -> Bad:
    def ask(rig: Rig) -> Ask:
        bearer = ("Authorization", f"Bearer {make(rig.issuer)}")
        return Ask(rig.anybody, bare_http.request("GET", TARGET, [bearer]))

    return Bad(id, ask, 401, expected)


def header(id: str, expected: str, **fields: Any) -> Bad:
    """A token whose header says so, signed as it should be nevertheless."""
    return token(id, expected, lambda i: i.token(i.claims(), fields))


def claim(id: str, expected: str, **fields: Any) -> Bad:
    return token(id, expected, lambda i: i.token(i.claims(**fields)))


def without(id: str, expected: str, name: str) -> Bad:
    def make(i: Issuer) -> str:
        return i.token({key: value for key, value in i.claims().items() if key != name})

    return token(id, expected, make)


def part(id: str, expected: str, number: int, text: str) -> Bad:
    """A good token with another header (0), payload (1) or signature (2)."""

    def make(i: Issuer) -> str:
        parts = i.good().split(".")
        parts[number] = text
        return ".".join(parts)

    return token(id, expected, make)


def raw_claims(id: str, expected: str, name: str, text: str) -> Bad:
    """A claim in JSON that Python would not write."""

    def make(i: Issuer) -> str:
        return i.token(json.dumps(i.claims(**{name: "HERE"})).replace('"HERE"', text))

    return token(id, expected, make)


def keyed_by(id: str, expected: str, secret: Callable[[Issuer], bytes], **fields: Any) -> Bad:
    """HMAC with what is no secret, or not ours alone."""

    def make(i: Issuer) -> str:
        head = {"alg": "HS256", "typ": "JWT", "kid": "rsa"} | fields
        signed = f"{encoded(json.dumps(head))}.{encoded(json.dumps(i.claims()))}"
        return f"{signed}.{encoded(issuer.sealed(secret(i), signed.encode()))}"

    return token(id, expected, make)


def signed_by(id: str, expected: str, sign: Callable[[Issuer, bytes], bytes], **fields: Any) -> Bad:
    """A token with another signature than it should have."""

    def make(i: Issuer) -> str:
        head = {"alg": "ES256", "typ": "JWT", "kid": "ec"} | fields
        signed = f"{encoded(json.dumps(head))}.{encoded(json.dumps(i.claims()))}"
        return f"{signed}.{encoded(sign(i, signed.encode()))}"

    return token(id, expected, make)


def promoted(i: Issuer) -> str:
    """Another's name under a signature that was for one's own."""
    parts = i.good().split(".")
    parts[1] = encoded(json.dumps(i.claims(preferred_username="admin")))
    return ".".join(parts)


def nested(i: Issuer) -> str:
    return i.token(i.good(), {"cty": "JWT"})


def other_issuers_name(i: Issuer) -> str:
    claims = json.dumps(i.claims())
    return i.token(claims[:-1] + ', "iss": "https://elsewhere.example.com"}')


def by_stranger(i: Issuer, signed: bytes) -> bytes:
    return issuer.raw_signature(i.stranger, signed)


def by_der(i: Issuer, signed: bytes) -> bytes:
    return i.elliptic.sign(signed, ec.ECDSA(hashes.SHA256()))


def cut(i: Issuer, signed: bytes) -> bytes:
    return issuer.raw_signature(i.elliptic, signed)[:-1]


def flipped(i: Issuer, signed: bytes) -> bytes:
    found = bytearray(issuer.raw_signature(i.elliptic, signed))
    found[40] ^= 1
    return bytes(found)


def own_key(i: Issuer, signed: bytes) -> bytes:
    """Of whom the token itself says how to check it."""
    return by_stranger(i, signed)


JWK = issuer.jwk(ec.generate_private_key(ec.SECP256R1()))
DEEP = encoded("[" * 4000)
NO_PROVIDER = "whose token this is"
NO_JWT, NOT_VALID, NOT_TAKEN = "the token is no JWT", "the token is not valid", "are not taken"
UNKNOWN_KEY, UNKNOWN = "does not publish", "no identity provider is known"

FORMS = [
    said("no-authorization", "unauthorized"),
    said("empty", "unauthorized", ""),
    said("scheme-alone", "no text", "Bearer"),
    said("scheme-and-blanks", "no text", "Bearer     "),
    said("basic", "unauthorized", "Basic " + base64.b64encode(b"admin:admin").decode()),
    said("basic-with-a-token", "unauthorized", "Basic TOKEN"),
    said("digest", "unauthorized", 'Digest username="admin", response="00"'),
    said("negotiate", "unauthorized", "Negotiate YII="),
    said("another-scheme", "unauthorized", "Token TOKEN"),
    said("no-scheme", "unauthorized", "TOKEN"),
    said("scheme-with-a-colon", "unauthorized", "Bearer: TOKEN"),
    said("scheme-grown-together", "unauthorized", "BearerTOKEN"),
    said("tab-for-a-blank", "unauthorized", "Bearer\tTOKEN"),
    said("quoted", NO_JWT, 'Bearer "TOKEN"'),
    said("two-in-one", "no text", "Bearer TOKEN TOKEN"),
    said("a-list", NO_JWT, "Bearer TOKEN,TOKEN"),
    said("two-headers-bad-first", NO_JWT, "Bearer x", "Bearer TOKEN"),
    said("two-headers-basic-first", "unauthorized", "Basic eDp4", "Bearer TOKEN"),
    said("no-ascii", "no text", "Bearer \xe9\xe9\xe9.a.b"),
    said("not-utf-8", "no text", "Bearer \xff\xfe"),
    said("too-long", "no text", "Bearer " + "a" * (17 << 10), code=400, form=PLAIN)._replace(
        expected="got more than"
    ),
    said("of-a-provider-that-is-gone", "is gone", "Bearer homeport~default~nobody~x"),
    said("opaque-of-one-that-gives-out-jwts", "is gone", "Bearer homeport~default~tokens~x"),
    said("opaque-of-no-name", NO_PROVIDER, "Bearer homeport~~~"),
    said("as-long-as-may-be", NO_JWT, "Bearer " + "a" * (16 << 10)),
]

SHAPES = [
    said("one-part", NO_JWT, "Bearer abc"),
    said("two-parts", NO_JWT, "Bearer e30.e30"),
    said("four-parts", NO_JWT, "Bearer TOKEN.e30"),
    said("five-parts-as-encrypted", NO_JWT, "Bearer e30.a.b.c.d"),
    said("dots-alone", NO_JWT, "Bearer .."),
    said("opaque", NO_JWT, "Bearer 9f86d081884c7d659a2feaa0c55ad015"),
    said("json", NO_JWT, 'Bearer {"sub":"admin"}'),
    part("header-empty", NO_JWT, 0, ""),
    part("header-not-base64", NO_JWT, 0, "!!!!"),
    part("header-not-json", NO_JWT, 0, encoded("{")),
    part("header-a-list", NO_JWT, 0, encoded("[]")),
    part("header-a-text", NO_JWT, 0, encoded('"ES256"')),
    part("header-not-utf-8", NO_JWT, 0, encoded(b"\xff\xfe")),
    part("header-endlessly-deep", NO_JWT, 0, DEEP),
    part("payload-empty", NO_JWT, 1, ""),
    part("payload-not-base64", NO_JWT, 1, "*"),
    part("payload-not-json", NO_JWT, 1, encoded("sub=admin")),
    part("payload-a-list", NO_JWT, 1, encoded("[]")),
    part("payload-a-number", NO_JWT, 1, encoded("1")),
    part("payload-null", NO_JWT, 1, encoded("null")),
    part("payload-not-utf-8", NO_JWT, 1, encoded(b"\xff\xfe")),
    part("payload-endlessly-deep", NO_JWT, 1, DEEP),
    part("payload-with-a-huge-number", NO_JWT, 1, encoded('{"a":' + "9" * 5000 + "}")),
    part("signature-not-base64", NO_JWT, 2, "*"),
    part("signature-empty", NOT_VALID, 2, ""),
    part("signature-of-one-byte", NOT_VALID, 2, "AA"),
    part("signature-of-zeros", NOT_VALID, 2, encoded(bytes(64))),
    part("signature-of-ones", NOT_VALID, 2, encoded(b"\xff" * 64)),
    token("a-token-in-a-token", NO_JWT, nested),
    token("claims-changed-after-signing", NOT_VALID, promoted),
    token("issuer-said-twice", UNKNOWN, other_issuers_name),
]

HEADERS = [
    header("alg-none", NOT_TAKEN, alg="none"),
    header("alg-none-in-capitals", NOT_TAKEN, alg="NONE"),
    header("alg-none-mixed", NOT_TAKEN, alg="nOnE"),
    header("alg-empty", NOT_TAKEN, alg=""),
    header("alg-null", NOT_TAKEN, alg=None),
    header("alg-number", NOT_TAKEN, alg=256),
    header("alg-list", NOT_TAKEN, alg=["ES256"]),
    header("alg-object", NOT_TAKEN, alg={"ES256": True}),
    header("alg-unknown", NOT_TAKEN, alg="ES257"),
    header("alg-small-letters", NOT_TAKEN, alg="es256"),
    header("alg-outdated", NOT_TAKEN, alg="RS1"),
    header("alg-of-another-curve", "and not for ES384", alg="ES384"),
    header("alg-of-another-key", "and not for RS256", alg="RS256"),
    header("alg-of-elliptic-keys-for-rsa", NOT_VALID, alg="ES256", kid="rsa"),
    header("alg-of-a-thumb", "and not for EdDSA", alg="EdDSA"),
    keyed_by("public-key-as-a-secret", NOT_TAKEN, lambda i: issuer.public_pem(i.modular)),
    keyed_by("public-elliptic-key-as-a-secret", NOT_TAKEN, lambda i: issuer.public_pem(i.elliptic)),
    keyed_by("empty-secret", NOT_TAKEN, lambda i: b""),
    keyed_by("client-secret", NOT_TAKEN, lambda i: i.shared, kid="shared"),
    keyed_by("hmac-under-another-name", UNKNOWN_KEY, lambda i: i.shared, kid="shared", alg="RS256"),
    header("kid-unknown", UNKNOWN_KEY, kid="another"),
    header("kid-empty", UNKNOWN_KEY, kid=""),
    header("kid-number", NO_JWT, kid=1),
    header("kid-list", NO_JWT, kid=["ec"]),
    header("kid-with-a-path", UNKNOWN_KEY, kid="../../../../dev/null"),
    header("kid-with-a-statement", UNKNOWN_KEY, kid="' OR 1=1 --"),
    header("kid-with-nul", UNKNOWN_KEY, kid="ec\0"),
    header("kid-in-capitals", UNKNOWN_KEY, kid="EC"),
    header("kid-long", UNKNOWN_KEY, kid="k" * 4000),
    header("kid-of-a-key-that-encrypts", UNKNOWN_KEY, kid="sealing"),
    header("crit-unknown", NO_JWT, crit=["exp"], exp=1),
    header("crit-empty", NO_JWT, crit=[]),
    header("crit-text", NO_JWT, crit="b64"),
    header("payload-unencoded", NO_JWT, b64=False, crit=["b64"]),
    signed_by("own-key-inside", NOT_VALID, own_key, jwk=JWK),
    signed_by("own-keys-elsewhere", NOT_VALID, own_key, jku="http://127.0.0.1:1/keys"),
    signed_by("own-certificate-inside", NOT_VALID, own_key, x5c=["MIIB"]),
    signed_by("own-certificate-elsewhere", NOT_VALID, own_key, x5u="http://127.0.0.1:1/c"),
    signed_by("of-a-stranger", NOT_VALID, by_stranger),
    signed_by("of-a-stranger-under-the-rsa-key", NOT_VALID, by_stranger, kid="rsa", alg="RS256"),
    signed_by("as-der", NOT_VALID, by_der),
    signed_by("cut", NOT_VALID, cut),
    signed_by("one-bit-flipped", NOT_VALID, flipped),
    signed_by("padded", NOT_VALID, lambda i, s: issuer.raw_signature(i.elliptic, s) + b"\0"),
]

CLAIMS = [
    without("no-exp", "exp", "exp"),
    without("no-iss", UNKNOWN, "iss"),
    without("no-aud", UNKNOWN, "aud"),
    without("no-sub", "sub", "sub"),
    without("no-name", "names nobody", "preferred_username"),
    claim("iss-unknown", UNKNOWN, iss="https://elsewhere.example.com"),
    claim("iss-number", UNKNOWN, iss=1),
    claim("iss-list", UNKNOWN, iss=["https://elsewhere.example.com"]),
    claim("iss-null", UNKNOWN, iss=None),
    claim("iss-empty", UNKNOWN, iss=""),
    token("iss-below-ours", UNKNOWN, lambda i: i.token(i.claims(iss=f"{i.url}/realm"))),
    token("iss-with-a-query", UNKNOWN, lambda i: i.token(i.claims(iss=f"{i.url}?x"))),
    token("iss-in-a-list", UNKNOWN, lambda i: i.token(i.claims(iss=[i.url]))),
    token("iss-by-https", UNKNOWN, lambda i: i.token(i.claims(iss=i.url.replace("p:", "ps:")))),
    claim("aud-other", UNKNOWN, aud="another-client"),
    claim("aud-list-of-others", UNKNOWN, aud=["a", "b"]),
    claim("aud-empty-list", UNKNOWN, aud=[]),
    claim("aud-null", UNKNOWN, aud=None),
    claim("aud-number", UNKNOWN, aud=1),
    claim("aud-object", UNKNOWN, aud={"homeport": True}),
    claim("aud-in-capitals", UNKNOWN, aud="HOMEPORT"),
    claim("aud-with-a-number", NOT_VALID, aud=[issuer.CLIENT, 1]),
    claim("azp-other", "and not for us", azp="another-client"),
    claim("azp-list", "and not for us", azp=[issuer.CLIENT]),
    claim("azp-number", "and not for us", azp=1),
    claim("azp-null", "and not for us", azp=None),
    claim("exp-past", "has expired", exp=int(time.time()) - DAY_S),
    claim("exp-zero", "has expired", exp=0),
    claim("exp-negative", "has expired", exp=-1),
    claim("exp-null", NOT_VALID, exp=None),
    claim("exp-text", NOT_VALID, exp="tomorrow"),
    claim("exp-date", NOT_VALID, exp="2036-01-01T00:00:00Z"),
    claim("exp-list", NOT_VALID, exp=[2**40]),
    claim("exp-object", NOT_VALID, exp={"$gt": 0}),
    claim("exp-true", "has expired", exp=True),
    raw_claims("exp-endless", NOT_VALID, "exp", "1e999"),
    raw_claims("exp-infinity", NOT_VALID, "exp", "Infinity"),
    raw_claims("exp-no-number", NOT_VALID, "exp", "NaN"),
    claim("nbf-tomorrow", NOT_VALID, nbf=int(time.time()) + DAY_S),
    claim("nbf-text", NOT_VALID, nbf="yesterday"),
    claim("nbf-list", NOT_VALID, nbf=[0]),
    raw_claims("nbf-endless", NOT_VALID, "nbf", "-1e999"),
    claim("iat-tomorrow", NOT_VALID, iat=int(time.time()) + DAY_S),
    claim("iat-text", NOT_VALID, iat="now"),
    claim("iat-list", NOT_VALID, iat=[0]),
    raw_claims("iat-endless", NOT_VALID, "iat", "1e999"),
    claim("sub-number", NOT_VALID, sub=4711),
    claim("sub-list", NOT_VALID, sub=["4711"]),
    claim("sub-null", NOT_VALID, sub=None),
    claim("jti-number", NOT_VALID, jti=1),
    claim("name-empty", "names nobody", preferred_username=""),
    claim("name-number", "names nobody", preferred_username=1),
    claim("name-list", "names nobody", preferred_username=["admin"]),
    claim("name-null", "names nobody", preferred_username=None),
]

ROWS = [*FORMS, *SHAPES, *HEADERS, *CLAIMS]
