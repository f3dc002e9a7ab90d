"""An issuer of tokens on loopback that publishes its keys as OpenID Connect has it, and signs
anything that it is told to: what no identity provider does, so that what such tokens meet can be
seen. Logins are not its business; a real provider is in `identity`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

Json = dict[str, Any]

CLIENT = "homeport"
STOP_S = 5


def _ec() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _rsa() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@dataclass(slots=True)
class Issuer:
    """Publishes `ec`, `rsa`, one for encryption and one that is shared; `stranger` is nobody's."""

    url: str = ""
    elliptic: ec.EllipticCurvePrivateKey = field(default_factory=_ec)
    modular: rsa.RSAPrivateKey = field(default_factory=_rsa)
    sealing: ec.EllipticCurvePrivateKey = field(default_factory=_ec)
    stranger: ec.EllipticCurvePrivateKey = field(default_factory=_ec)
    shared: bytes = b"a-secret-of-the-issuer-and-of-its-clients-only"

    def published(self) -> Json:
        keys = [
            jwk(self.elliptic) | {"kid": "ec", "use": "sig", "alg": "ES256"},
            jwk(self.modular) | {"kid": "rsa", "use": "sig"},
            jwk(self.sealing) | {"kid": "sealing", "use": "enc"},
            {"kty": "oct", "kid": "shared", "k": encoded(self.shared)},
        ]
        return {"keys": keys}

    def claims(self, **said: Any) -> Json:
        """Those of a good token, with `said` in their place."""
        now = int(time.time())
        right = {"iss": self.url, "aud": CLIENT, "sub": "4711", "preferred_username": "ada"}
        return right | {"iat": now, "exp": now + 3600} | said

    def good(self) -> str:
        return self.token(self.claims())

    def token(self, claims: object, header: Mapping[str, Any] | None = None) -> str:
        """Signed with the key that the header names, however wrong the rest of it is. Claims may be
        any JSON, or text that is none."""
        said = {"alg": "ES256", "typ": "JWT", "kid": "ec"} | dict(header or {})
        payload = claims if isinstance(claims, str) else json.dumps(claims)
        signed = f"{encoded(json.dumps(said))}.{encoded(payload)}"
        return f"{signed}.{encoded(self.signature(said, signed.encode()))}"

    def signature(self, header: Mapping[str, Any], signed: bytes) -> bytes:
        if header.get("kid") == "rsa":
            return self.modular.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        return raw_signature(self.elliptic, signed)


def encoded(text: str | bytes) -> str:
    raw = text if isinstance(text, bytes) else text.encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def raw_signature(key: ec.EllipticCurvePrivateKey, signed: bytes) -> bytes:
    """As JWTs have it: both numbers, 32 bytes each."""
    numbers = decode_dss_signature(key.sign(signed, ec.ECDSA(hashes.SHA256())))
    return b"".join(number.to_bytes(32, "big") for number in numbers)


def sealed(secret: bytes, signed: bytes) -> bytes:
    return hmac.digest(secret, signed, hashlib.sha256)


def jwk(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> Json:
    """The public half."""
    if isinstance(key, rsa.RSAPrivateKey):
        return RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return ECAlgorithm.to_jwk(key.public_key(), as_dict=True)


def public_pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


@contextlib.contextmanager
def running() -> Iterator[Issuer]:
    """One on a port from the kernel, until the end of the block."""
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = {
                "/.well-known/openid-configuration": {
                    "issuer": issuer.url,
                    "jwks_uri": f"{issuer.url}/keys",
                },
                "/keys": issuer.published(),
            }.get(self.path)
            raw = json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        issuer.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join(STOP_S)
