"""The certificate request of a device whose key lives in a TPM: TCG-CSR-IDevID, as agents send it.

It carries an ordinary certificate request, the certificate of the TPM's endorsement key, the public
areas of an attestation key (LAK) and of the device's own key (LDevID), and the LAK's word that the
LDevID is in the same TPM. `read` takes it apart; `check` asks what of it holds:

    maker's certificate ── endorsement key ┄┄ LAK ── LDevID ── the request's key

All but the dotted line can be seen from the bytes. That LAK and endorsement key are of one TPM is
shown by a challenge only (`tpmcredential`), so a bundle that is copied from another device passes
here and fails there.

Base64 in `spec.csr`; all numbers big-endian. The sizes of all parts stand before the first.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding

from apiserver.pki import tpmtypes
from apiserver.pki.requests import Refused, SigningRequest, parse
from apiserver.pki.tpmroots import Roots, Unproven
from apiserver.pki.tpmtypes import BORN_AND_KEPT, Attribute, Malformed, Reader

MAGIC = b"\x01\x00\x01\x00"
# A bundle of today has 3 KB; boot logs, which may be in it, are not looked at.
BUNDLE_BYTES_MAX = 256 * 1024
_CONTENT_VERSION = 0x00000100
_SHA256 = 0x0B
_PARTS = (
    "model",
    "serial",
    "request",
    "boot_log",
    "ek_certificate",
    "lak",
    "lak_ticket",
    "lak_certified",
    "lak_signature",
    "key",
    "key_certified",
    "key_signature",
    "padding",
)
_KEY_NEEDS = BORN_AND_KEPT | Attribute.SIGN
_LAK_NEEDS = _KEY_NEEDS | Attribute.RESTRICTED


@dataclass(frozen=True, slots=True)
class Bundle:
    """The parts that mean something here, as they came."""

    request: bytes
    ek_certificate: bytes
    lak: bytes
    key: bytes
    key_certified: bytes
    key_signature: bytes
    signed: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """What a bundle showed: keys of one TPM, if the challenge is passed."""

    endorsement: x509.Certificate
    lak: tpmtypes.Public


def is_bundle(text: str) -> bool:
    """Whether a `spec.csr` means to be one: told by its first bytes."""
    head = "".join(text[:32].split())[:8]
    try:
        return base64.b64decode(head, validate=True).startswith(MAGIC)
    except ValueError:
        return False


def text_of(request: str) -> str:
    """What is in the `spec.request` of a CertificateSigningRequest: PEM, or a bundle as it would be
    in `spec.csr`. Raises ValueError."""
    raw = base64.b64decode(request)
    if raw.startswith(MAGIC):
        return base64.b64encode(raw).decode()
    return raw.decode(errors="replace")


def signing_request(text: str) -> SigningRequest:
    """The ordinary request that is in a bundle, or is the text itself. Raises Refused."""
    if not is_bundle(text):
        return parse(text.encode())
    return request_of(read(text))


def read(text: str) -> Bundle:
    """Raises Refused for what is no bundle."""
    if len(text) > BUNDLE_BYTES_MAX * 4 // 3 + 1024:
        raise Refused("the CSR is too large")
    try:
        raw = base64.b64decode("".join(text.split()), validate=True)
        return _bundle(raw)
    except (Malformed, binascii.Error, ValueError) as error:
        raise Refused(f"the TCG-CSR-IDevID can't be read: {error}") from error


def _bundle(raw: bytes) -> Bundle:
    outer = Reader(raw)
    if outer.take(4) != MAGIC:
        raise Malformed("it has another version than 1.0")
    size, signature_size = outer.number(4), outer.number(4)
    signed = outer.take(size)
    signature = outer.take(signature_size)
    outer.end()
    reader = Reader(signed)
    if reader.number(4) != _CONTENT_VERSION:
        raise Malformed("its contents have another version than 1.0")
    if reader.number(4) != _SHA256 or reader.number(4) != hashlib.sha256().digest_size:
        raise Malformed("it is not hashed by SHA-256")
    sizes = [reader.number(4) for _ in _PARTS]
    parts = {name: reader.take(size) for name, size in zip(_PARTS, sizes, strict=True)}
    reader.end()
    return Bundle(
        request=parts["request"],
        ek_certificate=parts["ek_certificate"],
        lak=parts["lak"],
        key=parts["key"],
        key_certified=parts["key_certified"],
        key_signature=parts["key_signature"],
        signed=signed,
        signature=signature,
    )


def request_of(bundle: Bundle) -> SigningRequest:
    """The ordinary request in it, PEM or DER, with its own signature verified. Raises Refused."""
    raw = bundle.request
    if not raw.lstrip().startswith(b"-----"):
        try:
            csr = x509.load_der_x509_csr(raw)
        except (ValueError, x509.InvalidVersion) as error:
            raise Refused(f"the CSR in the TCG-CSR-IDevID can't be read: {error}") from error
        raw = csr.public_bytes(serialization.Encoding.PEM)
    return parse(raw)


def check(bundle: Bundle, roots: Roots) -> Claim:
    """What an enrolment shows. Raises Unproven, which says what is missing or wrong."""
    if not bundle.ek_certificate:
        raise Unproven("it has no certificate of an endorsement key")
    endorsement = roots.verified(bundle.ek_certificate)
    return Claim(endorsement, check_key(bundle))


def check_key(bundle: Bundle) -> tpmtypes.Public:
    """The LAK, which has certified the key of the request that is in it. Raises Unproven."""
    try:
        lak, key = tpmtypes.public(bundle.lak), tpmtypes.public(bundle.key)
        said, signed = tpmtypes.certified(bundle.key_certified)
        if lak.attributes & _LAK_NEEDS != _LAK_NEEDS or lak.attributes & Attribute.DECRYPT:
            raise Unproven(
                "the attestation key may sign what its TPM did not make, or may leave it"
            )
        if key.attributes & _KEY_NEEDS != _KEY_NEEDS:
            raise Unproven("the key may leave its TPM, or was not made in it")
        tpmtypes.check_signature(bundle.key_signature, lak.key, signed)
    except Malformed as error:
        raise Unproven(f"the attestation is of no use: {error}") from error
    if said.name != key.name:
        raise Unproven("the attestation key has certified another key")
    if request_of(bundle).public_key != key.key:
        raise Unproven("the request is for another key than the one that the TPM certified")
    if not _is_signed(bundle, key.key):
        raise Unproven("the bundle is not signed by its own key")
    return lak


def _is_signed(bundle: Bundle, key: tpmtypes.PublicKey) -> bool:
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(bundle.signature, bundle.signed, ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(bundle.signature, bundle.signed, padding.PKCS1v15(), hashes.SHA256())
    except InvalidSignature:
        return False
    return True
