"""The authority's keys on the disk: a root and a client signer for each of its generations.

The first generation lies in the directory itself, generation n in the directory `n` below it, which
appears there whole or not at all. Nothing is moved when one follows another: which one signs is a
question of the clock (`signs-from`), and which are trusted of their certificates and of
`trusted-until`, so that processes with the same files come to the same answer.

Files are written key first, certificate last, each at once and durably. A key of the first
generation without its certificate (a crash at the first start, or a careless hand) gets a new
certificate of the same name, under which everything that the key ever signed is still good. A
client signer without its root is refused: a new root would strand every device.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.x509.oid import NameOID

from apiserver.pki import chains

CA_LIFETIME = timedelta(days=3650)
# Devices' clocks run behind; the reference allows one second.
BACKDATED = timedelta(seconds=1)
ROOT_NAME = "flightctl-ca"
CLIENT_SIGNER_NAME = "flightctl-client-signer-ca"

SIGNS_FROM, TRUSTED_UNTIL = "signs-from", "trusted-until"
_CROSS, _RENEW_WITHIN = "cross.crt", "renew-within"
_PARTS = (
    "ca.key", "ca.crt", "client-signer.key", "client-signer.crt", _CROSS, _RENEW_WITHIN, SIGNS_FROM,
)  # fmt: skip
_NONCE_BYTES = 12
ALWAYS = datetime(1970, 1, 1, tzinfo=UTC)


class AuthorityDamaged(Exception):
    """Files of the authority are missing or don't fit together; only a person can mend that."""


@dataclass(frozen=True, slots=True)
class Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_id(self) -> str:
        """What certificates that it signed name it by, in hexadecimal."""
        found = self.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        return found.value.digest.hex()


@dataclass(frozen=True, slots=True)
class Generation:
    """`cross`: certificates of its root's key by the roots before it, PEM; they let whoever trusts
    an older root trust our servers. `renew_within_s`: devices with certificates of the generations
    before it renew them within this time. `trusted_until`: when a person ended it, if one did."""

    number: int
    root: Pair
    client_signer: Pair
    signs_from: datetime = ALWAYS
    trusted_until: datetime | None = None
    cross: bytes = b""
    renew_within_s: int = 0

    @property
    def ends_at(self) -> datetime:
        """From when on its certificates count no more."""
        ends = min(end_of(self.root), end_of(self.client_signer))
        return min(ends, self.trusted_until or ends)


def load_or_create(directory: Path, now: datetime) -> tuple[Generation, ...]:
    """All generations, the first of them made if there is none. Raises AuthorityDamaged."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    has_root = (directory / "ca.key").exists()
    if not has_root and (directory / "client-signer.key").exists():
        raise AuthorityDamaged(
            f"{directory} has a client signer but no ca.key; restore it from a backup"
        )
    root = load_pair(directory, "ca")
    if root is None:
        root = _create_ca(ROOT_NAME, _key(directory, "ca"), None, now)
        write(directory / "ca.crt", root.pem)
    signer = load_pair(directory, "client-signer")
    if signer is None:
        key = _key(directory, "client-signer")
        signer = _create_ca(CLIENT_SIGNER_NAME, key, root, now)
        write(directory / "client-signer.crt", signer.pem)
    first = Generation(1, root, signer, trusted_until=_moment(directory / TRUSTED_UNTIL))
    _check_chain(directory, first)
    later = [_load(directory / str(number), number) for number in numbers(directory)]
    return (first, *later)


def numbers(directory: Path) -> list[int]:
    """Of the generations after the first."""
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit())


def _load(directory: Path, number: int) -> Generation:
    root, signer = load_pair(directory, "ca"), load_pair(directory, "client-signer")
    signs_from = _moment(directory / SIGNS_FROM)
    if root is None or signer is None or signs_from is None:
        raise AuthorityDamaged(f"{directory} is not whole; restore it from a backup")
    generation = Generation(
        number,
        root,
        signer,
        signs_from,
        _moment(directory / TRUSTED_UNTIL),
        (directory / _CROSS).read_bytes(),
        int((directory / _RENEW_WITHIN).read_text()),
    )
    _check_chain(directory, generation)
    return generation


def place(directory: Path, number: int) -> Path:
    return directory if number == 1 else directory / str(number)


def follow(
    before: Sequence[Generation], signs_from: datetime, renew_within_s: int, now: datetime
) -> Generation:
    """A new generation after these, in memory only. Every root before it vouches for its root, each
    directly: some clients count how many stand between."""
    root = _create_ca(ROOT_NAME, ec.generate_private_key(ec.SECP256R1()), None, now)
    signer_key = ec.generate_private_key(ec.SECP256R1())
    signer = _create_ca(CLIENT_SIGNER_NAME, signer_key, root, now)
    crosses = [
        _create_ca(ROOT_NAME, root.key, each.root, now).pem
        for each in reversed(before)
        if each.ends_at > now
    ]
    number = before[-1].number + 1
    return Generation(number, root, signer, signs_from, None, b"".join(crosses), renew_within_s)


# --- in the store ---------------------------------------------------------------------------


def seal(generation: Generation, before: Generation) -> str:
    """The generation for who has the one before it, and for nobody else."""
    parts = dict(
        zip(
            _PARTS,
            (
                key_pem(generation.root.key),
                generation.root.pem,
                key_pem(generation.client_signer.key),
                generation.client_signer.pem,
                generation.cross,
                str(generation.renew_within_s).encode(),
                generation.signs_from.isoformat().encode(),
            ),
            strict=True,
        )
    )
    plain = json.dumps({name: part.decode() for name, part in parts.items()}).encode()
    nonce = secrets.token_bytes(_NONCE_BYTES)
    sealed = _cipher(before).encrypt(nonce, plain, _associated(generation.number))
    return base64.b64encode(nonce + sealed).decode()


def unseal(sealed: str, before: Generation, directory: Path) -> None:
    """Write the generation after `before` below `directory`. Raises AuthorityDamaged where it was
    sealed for another."""
    number = before.number + 1
    raw = base64.b64decode(sealed)
    try:
        plain = _cipher(before).decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], _associated(number))
    except Exception as error:  # cryptography raises InvalidTag, and ValueError for what was cut
        raise AuthorityDamaged(
            f"generation {number} of the authority in the database follows another one than that "
            f"in {directory}; put the pki directory of a server that has it in its place"
        ) from error
    parts = json.loads(plain)
    temporary = directory / f".{number}.{secrets.token_hex(4)}"
    temporary.mkdir(mode=0o700)
    for name in _PARTS:
        write(temporary / name, parts[name].encode())
    try:
        temporary.rename(place(directory, number))
    except OSError:
        # Another process of this directory was first, with the same.
        shutil.rmtree(temporary)
    _sync(directory)


def _cipher(before: Generation) -> AESGCM:
    secret = before.root.key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    derived = HKDF(hashes.SHA256(), 32, salt=None, info=b"homeport: next authority").derive(secret)
    return AESGCM(derived)


def _associated(number: int) -> bytes:
    return f"generation {number}".encode()


# --- certificates and files -----------------------------------------------------------------


def end_of(pair: Pair) -> datetime:
    return pair.certificate.not_valid_after_utc


def issuer_key(issuer: Pair) -> x509.AuthorityKeyIdentifier:
    known = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known.value)


def key_usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _create_ca(
    name: str, key: ec.EllipticCurvePrivateKey, issuer: Pair | None, now: datetime
) -> Pair:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    path_length = 1 if name == ROOT_NAME else 0
    end = now + CA_LIFETIME
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(end if issuer is None else min(end, end_of(issuer)))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer is not None:
        builder = builder.add_extension(issuer_key(issuer), critical=False)
    signing_key = key if issuer is None else issuer.key
    return Pair(builder.sign(signing_key, hashes.SHA256()), key)


def _check_chain(directory: Path, generation: Generation) -> None:
    if not chains.is_issued_by(generation.client_signer.certificate, generation.root.certificate):
        raise AuthorityDamaged(f"client-signer.crt in {directory} was not signed by its ca.crt")


def load_pair(directory: Path, stem: str) -> Pair | None:
    path = directory / f"{stem}.crt"
    if not path.exists():
        return None
    try:
        loaded = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError) as error:
        raise AuthorityDamaged(f"{path} can't be read: {error}") from error
    secret = _read_key(directory / f"{stem}.key")
    if secret.public_key() != loaded.public_key():
        raise AuthorityDamaged(f"{stem}.crt and {stem}.key in {directory} don't belong together")
    return Pair(loaded, secret)


def _key(directory: Path, stem: str) -> ec.EllipticCurvePrivateKey:
    """The key in the directory; made, and durable, if there is none."""
    path = directory / f"{stem}.key"
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        write(path, key_pem(key))
        return key
    return _read_key(path)


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise AuthorityDamaged(f"{path} can't be read: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise AuthorityDamaged(f"{path} is not an ECDSA key")
    return key


def key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _moment(path: Path) -> datetime | None:
    try:
        return datetime.fromisoformat(path.read_text().strip())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise AuthorityDamaged(f"{path} is no moment: {error}") from error


def write(path: Path, content: bytes) -> None:
    """At once, durably, for the owner's eyes only."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    _sync(path.parent)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
