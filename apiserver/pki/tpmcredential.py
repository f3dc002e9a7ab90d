"""A secret that only one TPM can read, and only while it holds a certain key: TPM2_MakeCredential.

Pure but for the random numbers. The secret is encrypted to the endorsement key, whose certificate
the TPM's maker signed, and bound to the name of another key; a TPM gives it back by
TPM2_ActivateCredential if both keys are its own. Who returns the secret has shown just that. As the
TCG's library specification has it, part 1, "Credential Protection"; it needs no TPM.

An endorsement certificate says the key, and not which hash and cipher its TPM uses with it. Those
are the ones of the TCG's templates: the larger kinds of keys have the larger hash and cipher.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.kdf.concatkdf import ConcatKDFHash
from cryptography.hazmat.primitives.kdf.kbkdf import KBKDFHMAC, CounterLocation, Mode

from apiserver.pki.tpmtypes import Malformed, PublicKey

SECRET_BYTES = 32
# As the labels of the specification are hashed: with the zero that ends them.
_IDENTITY = b"IDENTITY\0"
_LARGE_RSA_BITS = 3072


@dataclass(frozen=True, slots=True)
class Credential:
    """`blob` and `encrypted_secret` are the contents of TPM2B_ID_OBJECT and
    TPM2B_ENCRYPTED_SECRET; `secret` is what must come back."""

    blob: bytes
    encrypted_secret: bytes
    secret: bytes


@dataclass(frozen=True, slots=True)
class _Suite:
    hash: hashes.HashAlgorithm
    aes_bytes: int


def make(endorsement: PublicKey, name: bytes) -> Credential:
    """A credential for the key called `name`. Raises Malformed for an endorsement key of a kind
    that no template has."""
    suite = _suite(endorsement)
    match endorsement:
        case rsa.RSAPublicKey():
            seed = secrets.token_bytes(suite.hash.digest_size)
            oaep = padding.OAEP(padding.MGF1(suite.hash), suite.hash, _IDENTITY)
            encrypted = endorsement.encrypt(seed, oaep)
        case _:
            seed, encrypted = _agreed(endorsement, suite)
    secret = secrets.token_bytes(SECRET_BYTES)
    return Credential(_protected(seed, name, secret, suite), encrypted, secret)


def _suite(key: PublicKey) -> _Suite:
    match key:
        case rsa.RSAPublicKey(key_size=bits):
            small = bits < _LARGE_RSA_BITS
            return _Suite(hashes.SHA256(), 16) if small else _Suite(hashes.SHA384(), 32)
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return _Suite(hashes.SHA256(), 16)
        case ec.EllipticCurvePublicKey(curve=ec.SECP384R1()):
            return _Suite(hashes.SHA384(), 32)
        case ec.EllipticCurvePublicKey(curve=ec.SECP521R1()):
            return _Suite(hashes.SHA512(), 32)
        case _:
            raise Malformed("the endorsement key is neither RSA nor of P-256, P-384, P-521")


def _agreed(endorsement: ec.EllipticCurvePublicKey, suite: _Suite) -> tuple[bytes, bytes]:
    """A seed that the TPM finds too, and the point that it finds it with."""
    ours = ec.generate_private_key(endorsement.curve)
    size = (endorsement.key_size + 7) // 8
    mine, theirs = ours.public_key().public_numbers(), endorsement.public_numbers()
    x, y = mine.x.to_bytes(size, "big"), mine.y.to_bytes(size, "big")
    parties = _IDENTITY + x + theirs.x.to_bytes(size, "big")
    shared = ours.exchange(ec.ECDH(), endorsement)
    seed = ConcatKDFHash(suite.hash, suite.hash.digest_size, parties).derive(shared)
    return seed, _sized(x) + _sized(y)


def _protected(seed: bytes, name: bytes, secret: bytes, suite: _Suite) -> bytes:
    key = _derived(suite, seed, b"STORAGE", name, suite.aes_bytes)
    # Each key encrypts one thing, so that the constant start is safe.
    encryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).encryptor()
    encrypted = encryptor.update(_sized(secret)) + encryptor.finalize()
    seal = hmac.HMAC(_derived(suite, seed, b"INTEGRITY", b"", suite.hash.digest_size), suite.hash)
    seal.update(encrypted + name)
    return _sized(seal.finalize()) + encrypted


def _derived(suite: _Suite, seed: bytes, label: bytes, context: bytes, size: int) -> bytes:
    """KDFa of the specification, which is the counter mode of NIST SP 800-108."""
    return KBKDFHMAC(
        algorithm=suite.hash,
        mode=Mode.CounterMode,
        length=size,
        rlen=4,
        llen=4,
        location=CounterLocation.BeforeFixed,
        label=label,
        context=context,
        fixed=None,
    ).derive(seed)


def _sized(raw: bytes) -> bytes:
    return len(raw).to_bytes(2, "big") + raw
