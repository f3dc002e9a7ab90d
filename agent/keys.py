"""Keys, requests and certificates: the one module that needs `cryptography`.

It runs as a short-lived child, `python -m agent.keys`: one JSON question on stdin, one JSON answer
on stdout. So the long-lived agent keeps none of that library in memory, and a private key is never
an argument or a file on the way. Nothing here reads a clock or touches a disk.

The name of a device is a function of its public key, and must be the same as flightctl's: SHA-256
over the minimal big-endian bytes of X and Y (leading zero bytes dropped), or of an RSA modulus,
in lower-case base32hex without padding.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
    PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

Json = dict[str, Any]

RSA_BITS_MIN = 2048
QUESTION_BYTES_MAX = 1 << 20


def answer(question: Json) -> Json:
    """The answer to one question; `{"error": text}` where a PEM text is of no use."""
    try:
        match question["do"]:
            case "create":
                return {"key": create()}
            case "describe":
                return {"name": name_of(_key(question["key"]).public_key())}
            case "request":
                return {"csr": request(_key(question["key"]), question.get("commonName") or "")}
            case "certificate":
                public = _key(question["key"]).public_key()
                return certificate(question["certificate"], public)
            case unknown:
                return {"error": f"unknown question {unknown!r}"}
    except Exception as error:  # the child's outermost border: whatever the library throws
        return {"error": str(error) or type(error).__name__}


def create() -> str:
    """A new ECDSA P-256 key, as SEC1 PEM."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    return (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        .decode()
    )


def name_of(public: PublicKey) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec

    numbers = public.public_numbers()
    if isinstance(numbers, ec.EllipticCurvePublicNumbers):
        raw = _minimal(numbers.x) + _minimal(numbers.y)
    else:
        raw = _minimal(numbers.n)
    digest = hashlib.sha256(raw).digest()
    return base64.b32hexencode(digest).decode().rstrip("=").lower()


def request(key: PrivateKey, common_name: str = "") -> str:
    """A PKCS#10 request, PEM, whose subject is a common name and nothing else: the device's name,
    where no other is given."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import NameOID

    algorithm: hashes.SHA256 | hashes.SHA384 | hashes.SHA512 = hashes.SHA256()
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size > 256:
        algorithm = hashes.SHA384() if key.curve.key_size == 384 else hashes.SHA512()
    text = common_name or name_of(key.public_key())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])
    signed = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, algorithm)
    return signed.public_bytes(serialization.Encoding.PEM).decode()


def certificate(pem: str, key: PublicKey) -> Json:
    """Facts about the first certificate of a chain, and whether it is that of `key`; times in
    seconds since 1970."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    leaf = x509.load_pem_x509_certificates(pem.encode())[0]
    names = leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return {
        "commonName": str(names[0].value) if names else "",
        "serial": format(leaf.serial_number, "x"),
        "notBefore": leaf.not_valid_before_utc.timestamp(),
        "notAfter": leaf.not_valid_after_utc.timestamp(),
        "fitsKey": leaf.public_key() == key,
    }


def _key(pem: str) -> PrivateKey:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < RSA_BITS_MIN:
            raise ValueError(f"an RSA key of {key.key_size} bits is too short")
        return key
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("neither an ECDSA nor an RSA key")
    return key


def _minimal(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def main() -> int:
    raw = sys.stdin.buffer.read(QUESTION_BYTES_MAX)
    sys.stdout.write(json.dumps(answer(json.loads(raw))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
