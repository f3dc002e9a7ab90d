"""Certificate requests: their form, their proof, and the name that a key gives."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from apiserver.pki import requests
from apiserver.pki.requests import Refused
from tests.fakes.agent_client import fingerprint, signing_request

# The request of shared/inputs/enrollmentrequest.yaml, whose name is its key's hex digest.
KNOWN_NAME = "13d632d86373caaeda64da4052f957faa742fc7050026748bc79065c8819d1b0"
KNOWN = """-----BEGIN CERTIFICATE REQUEST-----
MIIBBjCBrQIBADBLMUkwRwYDVQQDE0AxM2Q2MzJkODYzNzNjYWFlZGE2NGRhNDA1
MmY5NTdmYWE3NDJmYzcwNTAwMjY3NDhiYzc5MDY1Yzg4MTlkMWIwMFkwEwYHKoZI
zj0CAQYIKoZIzj0DAQcDQgAEHBMC30NRJTJ3NWOlei9YWkBM/MzoNDGyMRKuzE0/
cKkyXVJexHq0xIn22YCNN3ZDNxxwW6LlQg3ijGnvStQOb6AAMAoGCCqGSM49BAMC
A0gAMEUCIQDSrxi6krdCKcLChdMB3w7IqmDlZhREGbHMCESVn6ssPAIgZL+QrJtw
8R+r4piaYvZktrsk3yCIuz3hI7loYmXP3d8=
-----END CERTIFICATE REQUEST-----
"""


def test_a_known_request_gives_its_known_name() -> None:
    found = requests.parse(KNOWN.encode())
    assert found.common_name == KNOWN_NAME
    base32hex, hexadecimal = requests.fingerprints(found.public_key)
    assert hexadecimal == KNOWN_NAME
    assert base32hex == "2fb35m33ef5atmj4r9055uanvajk5v3ga016ei5sf435p20pq6o0"


def test_blanks_at_the_ends_of_lines_are_forgiven() -> None:
    spoilt = "\n  " + KNOWN.replace("\n", "  \r\n")
    assert requests.parse(spoilt.encode()).common_name == KNOWN_NAME


def test_leading_zero_bytes_of_a_coordinate_are_not_hashed() -> None:
    """One key in 128 has such a coordinate; a padded digest would give it another name."""
    for secret in range(1, 5_000):
        key = ec.derive_private_key(secret, ec.SECP256R1())
        numbers = key.public_key().public_numbers()
        if numbers.x.bit_length() <= 248:
            break
    assert numbers.x.bit_length() <= 248
    material = numbers.x.to_bytes(31, "big").lstrip(b"\0") + numbers.y.to_bytes(32, "big").lstrip(
        b"\0"
    )
    expected = hashlib.sha256(material).hexdigest()
    assert requests.fingerprints(key.public_key())[1] == expected
    assert requests.fingerprints(key.public_key())[0] == fingerprint(key)


def test_an_rsa_key_is_named_by_its_modulus() -> None:
    key = rsa.generate_private_key(65537, 2048)
    modulus = key.public_key().public_numbers().n.to_bytes(256, "big")
    expected = hashlib.sha256(modulus).hexdigest()
    assert requests.fingerprints(key.public_key())[1] == expected


def test_a_device_cannot_have_an_edwards_key() -> None:
    with pytest.raises(Refused, match="ECDSA or RSA"):
        requests.fingerprints(ed25519.Ed25519PrivateKey.generate().public_key())


def _weak() -> str:
    key = rsa.generate_private_key(65537, 1024)
    return _signed(key)


def _strange() -> str:
    return _signed(dsa.generate_private_key(2048))


def _signed(key: rsa.RSAPrivateKey | dsa.DSAPrivateKey) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return csr.public_bytes(serialization.Encoding.PEM).decode()


def _forged() -> str:
    """The signature's last byte is another one."""
    lines = KNOWN.strip().splitlines()
    der = bytearray(base64.b64decode("".join(lines[1:-1])))
    der[-1] ^= 1
    body = base64.encodebytes(bytes(der)).decode()
    return f"{lines[0]}\n{body}{lines[-1]}\n"


def _version_3() -> str:
    lines = KNOWN.strip().splitlines()
    der = base64.b64decode("".join(lines[1:-1])).replace(b"\x02\x01\x00", b"\x02\x01\x02", 1)
    return f"{lines[0]}\n{base64.b64encode(der).decode()}\n{lines[-1]}\n"


def _two_names() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return signing_request(key, "a", x509.NameAttribute(NameOID.COMMON_NAME, "b"))


@pytest.mark.parametrize(
    ("pem", "text"),
    [
        pytest.param("", "one PEM block", id="nothing"),
        pytest.param(KNOWN + KNOWN, "one PEM block", id="two blocks"),
        pytest.param(KNOWN + "x", "one PEM block", id="something behind"),
        pytest.param(KNOWN.replace("REQUEST", "THING"), "one PEM block", id="another type"),
        pytest.param(KNOWN.replace("MIIB", "AAAA"), "can't be read", id="garbage"),
        pytest.param("AQABAAAA", "TPM", id="a TPM's bundle"),
        pytest.param(KNOWN + " " * 70_000, "too large", id="too large"),
        pytest.param(_forged(), "signature", id="forged"),
        pytest.param(_version_3(), "not a valid CSR version", id="of a version that there is not"),
        pytest.param(_two_names(), "several common names", id="two common names"),
        pytest.param(_weak(), "2048 bits", id="weak RSA"),
        pytest.param(_strange(), "must be ECDSA", id="DSA"),
    ],
)
def test_what_is_not_one_good_request_is_refused(pem: str, text: str) -> None:
    with pytest.raises(Refused, match=text):
        requests.parse(pem.encode())
