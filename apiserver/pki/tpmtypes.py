"""Structures of a TPM 2.0 as it writes them: public areas, attestations, signatures. Pure.

What is read here comes from strangers. The invariant: a parser answers with a value whose every
byte was accounted for, or raises Malformed; it never reads past its end and never guesses. Only the
algorithms that identities use are known (RSA, and ECC on the NIST curves, with SHA-2); what else a
TPM can do is refused by name. Numbers are those of the TCG's library specification, part 2.

No library that is kept up reads these without a TPM's own software stack, which a service that has
no TPM should not need.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntFlag

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_RSA, _ECC, _NULL = 0x0001, 0x0023, 0x0010
_RSASSA, _RSAES, _RSAPSS, _ECDSA = 0x0014, 0x0015, 0x0016, 0x0018
_HASHES: dict[int, hashes.HashAlgorithm] = {
    0x000B: hashes.SHA256(),
    0x000C: hashes.SHA384(),
    0x000D: hashes.SHA512(),
}
_CURVES: dict[int, ec.EllipticCurve] = {
    0x0003: ec.SECP256R1(),
    0x0004: ec.SECP384R1(),
    0x0005: ec.SECP521R1(),
}
# What a TPM puts in front of what it attests. A restricted key signs nothing else that begins so.
_GENERATED = 0xFF544347
_ATTEST_CERTIFY = 0x8017
_EXPONENT_BY_DEFAULT = 65537
_RSA_BITS = (2048, 3072, 4096)


class Malformed(ValueError):
    """Bytes that are not the structure that they should be."""


class Attribute(IntFlag):
    """Those of TPMA_OBJECT that say what a key is worth."""

    FIXED_TPM = 1 << 1
    FIXED_PARENT = 1 << 4
    SENSITIVE_DATA_ORIGIN = 1 << 5
    RESTRICTED = 1 << 16
    DECRYPT = 1 << 17
    SIGN = 1 << 18


# The private part was made inside a TPM and cannot leave it.
BORN_AND_KEPT = Attribute.FIXED_TPM | Attribute.FIXED_PARENT | Attribute.SENSITIVE_DATA_ORIGIN


class Reader:
    """Bytes, read from the front; every length is checked before it is used."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._at = 0

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._raw):
            raise Malformed(f"it ends after {len(self._raw)} bytes, {end} were announced")
        part = self._raw[self._at : end]
        self._at = end
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self) -> bytes:
        """A TPM2B: two bytes of length and what they announce."""
        return self.take(self.number(2))

    def end(self) -> None:
        if self._at != len(self._raw):
            raise Malformed(f"{len(self._raw) - self._at} bytes too many")


@dataclass(frozen=True, slots=True)
class Public:
    """A key's public area. `name` is what a TPM calls it: a digest over all that is said of it."""

    key: PublicKey
    attributes: Attribute
    name: bytes


@dataclass(frozen=True, slots=True)
class Certified:
    """What a TPM says when one of its keys certifies another."""

    name: bytes
    nonce: bytes


def public(raw: bytes) -> Public:
    """The public area in a TPM2B_PUBLIC. Raises Malformed."""
    outer = Reader(raw)
    area = outer.sized()
    outer.end()
    reader = Reader(area)
    kind, name_algorithm = reader.number(2), reader.number(2)
    attributes = Attribute(reader.number(4) & sum(Attribute))
    reader.sized()  # its policy, which is part of the name
    match kind:
        case _ if kind == _RSA:
            key: PublicKey = _rsa(reader)
        case _ if kind == _ECC:
            key = _ecc(reader)
        case _:
            raise Malformed(f"a key of type {kind:#06x} is neither RSA nor ECC")
    reader.end()
    digest = hashlib.new(_hash(name_algorithm).name, area).digest()
    return Public(key, attributes, name_algorithm.to_bytes(2, "big") + digest)


def _rsa(reader: Reader) -> rsa.RSAPublicKey:
    _symmetric(reader)
    scheme = reader.number(2)
    if scheme not in (_NULL, _RSAES):
        _hash(reader.number(2))
    bits, exponent = reader.number(2), reader.number(4) or _EXPONENT_BY_DEFAULT
    modulus = int.from_bytes(reader.sized(), "big")
    if bits not in _RSA_BITS or modulus.bit_length() != bits:
        raise Malformed(f"an RSA key of {modulus.bit_length()} bits that says {bits}")
    try:
        return rsa.RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as error:
        raise Malformed(f"no RSA key: {error}") from error


def _ecc(reader: Reader) -> ec.EllipticCurvePublicKey:
    _symmetric(reader)
    if reader.number(2) != _NULL:
        _hash(reader.number(2))
    curve = _CURVES.get(number := reader.number(2))
    if curve is None:
        raise Malformed(f"curve {number:#06x} is none of P-256, P-384, P-521")
    if reader.number(2) != _NULL:
        _hash(reader.number(2))
    x, y = (int.from_bytes(reader.sized(), "big") for _ in "xy")
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except ValueError as error:
        raise Malformed(f"no point of the curve: {error}") from error


def _symmetric(reader: Reader) -> None:
    """What a storage key encrypts its children with; a key that signs has none."""
    if reader.number(2) != _NULL:
        reader.take(4)


def _hash(number: int) -> hashes.HashAlgorithm:
    if number not in _HASHES:
        raise Malformed(f"hash {number:#06x} is none of SHA-256, SHA-384, SHA-512")
    return _HASHES[number]


def certified(raw: bytes) -> tuple[Certified, bytes]:
    """What an attestation of TPM2_Certify says, and the bytes that are signed. Takes a
    TPM2B_ATTEST, or what is inside one. Raises Malformed."""
    if len(raw) >= 2 and int.from_bytes(raw[:2], "big") == len(raw) - 2:
        raw = raw[2:]
    reader = Reader(raw)
    if reader.number(4) != _GENERATED:
        raise Malformed("an attestation that no TPM made")
    if (kind := reader.number(2)) != _ATTEST_CERTIFY:
        raise Malformed(f"an attestation of type {kind:#06x} certifies no key")
    reader.sized()  # the name of the key that signs
    nonce = reader.sized()
    reader.take(8 + 4 + 4 + 1 + 8)  # its clock, how often it was started, its firmware
    name = reader.sized()
    reader.sized()  # the name of the certified key with those above it
    reader.end()
    return Certified(name, nonce), raw


def check_signature(raw: bytes, key: PublicKey, signed: bytes) -> None:
    """Raises Malformed unless the TPMT_SIGNATURE is that of `key` over `signed`."""
    reader = Reader(raw)
    scheme = reader.number(2)
    algorithm = _hash(reader.number(2))
    numbers = [reader.sized()]
    if scheme == _ECDSA:
        numbers.append(reader.sized())
    reader.end()
    try:
        if scheme == _ECDSA and isinstance(key, ec.EllipticCurvePublicKey):
            r, s = (int.from_bytes(each, "big") for each in numbers)
            key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(algorithm))
        elif scheme == _RSASSA and isinstance(key, rsa.RSAPublicKey):
            key.verify(numbers[0], signed, padding.PKCS1v15(), algorithm)
        elif scheme == _RSAPSS and isinstance(key, rsa.RSAPublicKey):
            salt = padding.PSS(padding.MGF1(algorithm), padding.PSS.AUTO)
            key.verify(numbers[0], signed, salt, algorithm)
        else:
            raise Malformed(f"a signature of scheme {scheme:#06x} is not of this key")
    except InvalidSignature as error:
        raise Malformed("the signature is wrong") from error
