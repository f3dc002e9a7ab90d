"""A TPM of cryptography's keys, for what a real one would never do: lie. [simulated]

It writes the structures of the TCG's library specification, part 2, from the specification's side,
and undoes what TPM2_MakeCredential does as part 1 has it. It shares no code with the service. That
both are right is for the tests with swtpm to show; here each part can be wrong on purpose.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.x509.oid import NameOID

from tests.fakes.agent_client import fingerprint, signing_request

Key = ec.EllipticCurvePrivateKey
EK_USE = x509.ObjectIdentifier("2.23.133.8.1")
# fixedTPM, fixedParent, sensitiveDataOrigin, userWithAuth, noDA; sign; restricted
KEPT = 0x0000_0472
SIGNS, RESTRICTED, DECRYPTS = 1 << 18, 1 << 16, 1 << 17
DAY = timedelta(days=1)


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def sized(raw: bytes) -> bytes:
    return len(raw).to_bytes(2, "big") + raw


@dataclass(slots=True)
class Maker:
    """Who makes TPMs and certifies that."""

    name: str = "a maker of TPMs"
    key: Key = field(default_factory=new_key)
    valid_for: timedelta = 30 * DAY

    @property
    def certificate(self) -> x509.Certificate:
        usable = x509.BasicConstraints(ca=True, path_length=None)
        return self._signed(self.name, self.key.public_key(), self.valid_for, usable)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    def endorse(
        self,
        key: Any,
        *more: x509.ExtensionType,
        valid_for: timedelta = 20 * DAY,
        use: x509.ObjectIdentifier = EK_USE,
    ) -> bytes:
        """The certificate of an endorsement key, DER."""
        plain = x509.BasicConstraints(ca=False, path_length=None)
        extensions = (plain, x509.ExtendedKeyUsage([use]), *more)
        made = self._signed("unknown", key, valid_for, *extensions)
        return made.public_bytes(serialization.Encoding.DER)

    def _signed(
        self, name: str, key: Any, valid_for: timedelta, *extensions: x509.ExtensionType
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self.name))
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(now, now + valid_for) - DAY)
            .not_valid_after(now + valid_for)
        )
        for each in extensions:
            critical = not isinstance(each, x509.ExtendedKeyUsage)
            builder = builder.add_extension(each, critical=critical)
        return builder.sign(self.key, hashes.SHA256())


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass(slots=True)
class SoftwareTpm:
    """`endorsement` is an ECC key unless another is given."""

    maker: Maker = field(default_factory=Maker)
    endorsement: Key | rsa.RSAPrivateKey = field(default_factory=new_key)
    lak: Key = field(default_factory=new_key)
    key: Key = field(default_factory=new_key)

    @property
    def name(self) -> str:
        return fingerprint(self.key)

    @property
    def lak_name(self) -> bytes:
        return object_name(public_area(self.lak, KEPT | SIGNS | RESTRICTED))

    def bundle(self, **changes: Any) -> str:
        """The certificate request in base64. `changes` take the place of parts by their names, or
        of `attributes`, `lak_attributes`, `certified_name`, `signing_key`, `request_key`."""
        area = public_area(self.key, changes.get("attributes", KEPT | SIGNS))
        lak = public_area(self.lak, changes.get("lak_attributes", KEPT | SIGNS | RESTRICTED))
        attest = changes.get("attest") or attestation(
            changes.get("certified_name") or object_name(area)
        )
        request_key = changes.get("request_key") or self.key
        named = fingerprint(request_key)
        parts = {
            "model": b"M",
            "serial": b"S",
            "request": signing_request(request_key, named).encode(),
            "boot_log": b"",
            "ek_certificate": self.maker.endorse(self.endorsement.public_key()),
            "lak": sized(lak),
            "lak_ticket": b"",
            "lak_certified": b"",
            "lak_signature": b"",
            "key": sized(area),
            "key_certified": sized(attest),
            "key_signature": signature(self.lak, attest),
            "padding": b"",
        }
        parts |= {name: value for name, value in changes.items() if name in parts}
        head = changes.get("head") or b"".join(_u32(n) for n in (0x100, 0x0B, 32))
        sizes = b"".join(_u32(len(part)) for part in parts.values())
        content = head + sizes + b"".join(parts.values())
        signing_key = changes.get("signing_key") or self.key
        proof = signing_key.sign(content, ec.ECDSA(hashes.SHA256()))
        whole = _u32(0x01000100) + _u32(len(content)) + _u32(len(proof)) + content + proof
        return base64.b64encode(whole + changes.get("behind", b"")).decode()

    def activate(self, blob: bytes, encrypted: bytes, *, name: bytes = b"") -> bytes:
        """TPM2_ActivateCredential; AssertionError where a TPM would refuse."""
        name = name or self.lak_name
        seed, algorithm, size = self._seed(encrypted)
        outer_size = int.from_bytes(blob[:2], "big")
        outer, inner = blob[2 : 2 + outer_size], blob[2 + outer_size :]
        sealed = kdfa(algorithm, seed, b"INTEGRITY", b"", hashlib.new(algorithm).digest_size)
        assert hmac.digest(sealed, inner + name, algorithm) == outer, "integrity"
        key = kdfa(algorithm, seed, b"STORAGE", name, size)
        decryptor = Cipher(algorithms.AES(key), CFB(bytes(16))).decryptor()
        plain = decryptor.update(inner) + decryptor.finalize()
        assert int.from_bytes(plain[:2], "big") == len(plain) - 2
        return plain[2:]

    def _seed(self, encrypted: bytes) -> tuple[bytes, str, int]:
        if isinstance(self.endorsement, rsa.RSAPrivateKey):
            large = self.endorsement.key_size >= 3072
            chosen = hashes.SHA384() if large else hashes.SHA256()
            oaep = padding.OAEP(padding.MGF1(chosen), chosen, b"IDENTITY\0")
            seed = self.endorsement.decrypt(encrypted, oaep)
            return seed, chosen.name, 32 if large else 16
        bits = self.endorsement.key_size
        algorithm = {256: "sha256", 384: "sha384", 521: "sha512"}[bits]
        x_size = int.from_bytes(encrypted[:2], "big")
        x, y = encrypted[2 : 2 + x_size], encrypted[4 + x_size :]
        point = b"\x04" + x + y
        theirs = ec.EllipticCurvePublicKey.from_encoded_point(self.endorsement.curve, point)
        shared = self.endorsement.exchange(ec.ECDH(), theirs)
        mine = self.endorsement.public_key().public_numbers().x.to_bytes((bits + 7) // 8, "big")
        seed = hashlib.new(algorithm, _u32(1) + shared + b"IDENTITY\0" + x + mine).digest()
        return seed, algorithm, 16 if bits == 256 else 32


def kdfa(algorithm: str, key: bytes, label: bytes, context: bytes, size: int) -> bytes:
    out, counter = b"", 0
    while len(out) < size:
        counter += 1
        message = _u32(counter) + label + b"\0" + context + _u32(size * 8)
        out += hmac.digest(key, message, algorithm)
    return out[:size]


def public_area(key: Any, attributes: int) -> bytes:
    """TPMT_PUBLIC of an ECC key that signs by ECDSA with SHA-256."""
    numbers = key.public_key().public_numbers()
    curve = {256: 3, 384: 4, 521: 5}[key.key_size]
    size = (key.key_size + 7) // 8
    head = [0x0023, 0x000B, attributes >> 16, attributes & 0xFFFF, 0, 0x0010, 0x0018, 0x000B]
    words = b"".join(each.to_bytes(2, "big") for each in [*head, curve, 0x0010])
    return words + b"".join(sized(each.to_bytes(size, "big")) for each in (numbers.x, numbers.y))


def object_name(area: bytes) -> bytes:
    return b"\x00\x0b" + hashlib.sha256(area).digest()


def attestation(name: bytes, *, magic: int = 0xFF544347, kind: int = 0x8017) -> bytes:
    """TPMS_ATTEST of TPM2_Certify."""
    return (
        _u32(magic)
        + kind.to_bytes(2, "big")
        + sized(b"\x00\x0b" + bytes(32))
        + sized(bytes(8))
        + bytes(8 + 4 + 4 + 1 + 8)
        + sized(name)
        + sized(b"\x00\x0b" + bytes(32))
    )


def signature(key: Key, data: bytes) -> bytes:
    """TPMT_SIGNATURE by ECDSA with SHA-256."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
    parts = sized(r.to_bytes(32, "big")) + sized(s.to_bytes(32, "big"))
    return b"\x00\x18\x00\x0b" + parts


def _u32(number: int) -> bytes:
    return number.to_bytes(4, "big")
