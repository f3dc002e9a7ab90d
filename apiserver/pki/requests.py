"""A certificate signing request, read once and checked for what holds for every signer.

Refused here: what is not one PEM block, a signature that does not prove the key, and keys that are
too weak. Whether the *name* may be had is a signer's question (`signers`).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from dataclasses import dataclass
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from apiserver.pki import extensions

REQUEST_BYTES_MAX = 64 * 1024
RSA_BITS_MIN = 2048
_BLOCK = re.compile(
    rb"\A\s*-----BEGIN CERTIFICATE REQUEST-----\s+(?P<body>[A-Za-z0-9+/=\s]+?)"
    rb"\s*-----END CERTIFICATE REQUEST-----\s*\Z"
)
# A TCG-CSR-IDevID starts with structure version 1.0 in big-endian.
_TCG_MAGIC = b"\x01\x00\x01\x00"


class Refused(ValueError):
    """A request that no signer would sign, or that its signer does not; the text is for people."""


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """A CSR whose signature was verified."""

    csr: x509.CertificateSigningRequest
    common_name: str
    organization: UUID | None

    @property
    def public_key(self) -> CertificatePublicKeyTypes:
        return self.csr.public_key()


def parse(pem: bytes) -> SigningRequest:
    """The request in `pem`. Raises Refused. White space around and within lines is forgiven, since
    YAML block scalars bring it along; anything else beside the one block is not."""
    if len(pem) > REQUEST_BYTES_MAX:
        raise Refused("the CSR is too large")
    return _read(pem)


# Looked at when it comes and again when it is approved, which is often a moment later.
@functools.lru_cache(maxsize=256)
def _read(pem: bytes) -> SigningRequest:
    block = _BLOCK.match(pem)
    if block is None:
        raise Refused(_why_not_pem(pem))
    try:
        der = base64.b64decode(b"".join(block["body"].split()), validate=True)
        csr = x509.load_der_x509_csr(der)
        key = csr.public_key()
        # The CSR of a client says nothing of its form that we rely on, but for its signature.
        signed = csr.is_signature_valid
        with extensions.long_names():
            subject = csr.subject
        request = SigningRequest(
            csr=csr,
            common_name=extensions.common_name_of(subject),
            organization=extensions.organization_of(csr.extensions),
        )
    except extensions.MALFORMED as error:
        raise Refused(f"the CSR can't be read: {error}") from error
    if not signed:
        raise Refused("the CSR's signature does not match its key")
    _check_key(key)
    return request


def _why_not_pem(pem: bytes) -> str:
    try:
        if base64.b64decode(pem[:64], validate=False).startswith(_TCG_MAGIC):
            return "the CSR is a TCG-CSR-IDevID; identities in a TPM are not supported yet"
    except ValueError:
        pass
    return "the CSR must be one PEM block of type CERTIFICATE REQUEST and nothing else"


def _check_key(key: CertificatePublicKeyTypes) -> None:
    match key:
        case rsa.RSAPublicKey() if key.key_size < RSA_BITS_MIN:
            raise Refused(f"an RSA key needs {RSA_BITS_MIN} bits at least, not {key.key_size}")
        case rsa.RSAPublicKey() | ed25519.Ed25519PublicKey():
            pass
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1() | ec.SECP384R1() | ec.SECP521R1()):
            pass
        case _:
            raise Refused("the key must be ECDSA (P-256, P-384, P-521), RSA or Ed25519")


def fingerprints(key: CertificatePublicKeyTypes) -> tuple[str, str]:
    """The two names that a device with this key may have: base32hex and hex of the digest of the
    key. ECDSA: X then Y, each without leading zero bytes, as big integers print themselves; RSA:
    the modulus. Raises Refused for other keys."""
    match key:
        case ec.EllipticCurvePublicKey():
            numbers = key.public_numbers()
            material = _big_endian(numbers.x) + _big_endian(numbers.y)
        case rsa.RSAPublicKey():
            material = _big_endian(key.public_numbers().n)
        case _:
            raise Refused("a device's key must be ECDSA or RSA")
    digest = hashlib.sha256(material).digest()
    return base64.b32hexencode(digest).decode().rstrip("=").lower(), digest.hex()


def _big_endian(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")
