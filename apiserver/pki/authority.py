"""The service's own certificate authority: a root, and under it the signer of client certificates.

Two keys, since what the root signs (servers) and what the client signer signs (whoever may call)
are trusted by different people: the agent listener trusts the client signer alone.

Files are written key first, certificate last, each at once and durably. A key without its
certificate (a crash at the first start, or a careless hand) gets a new certificate of the same
name, under which everything that the key ever signed is still good. A client signer without its
root is refused: a new root would strand every device.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from apiserver.pki import extensions, requests, signers

CA_LIFETIME = timedelta(days=3650)
SERVER_LIFETIME = timedelta(days=730)
# A server certificate is replaced at a start this long before its end.
SERVER_RENEWAL = timedelta(days=90)
# Devices' clocks run behind; the reference allows one second.
BACKDATED = timedelta(seconds=1)

ROOT_NAME = "flightctl-ca"
CLIENT_SIGNER_NAME = "flightctl-client-signer-ca"

Clock = Callable[[], datetime]


class AuthorityDamaged(Exception):
    """Files of the authority are missing or don't fit together; only a person can mend that."""


@dataclass(frozen=True, slots=True)
class _Pair:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


class Authority:
    """Signs for the whole life of a store; the keys are in its data directory."""

    def __init__(self, directory: Path, root: _Pair, client_signer: _Pair, now: Clock) -> None:
        self._directory = directory
        self._root = root
        self._client_signer = client_signer
        self._now = now

    @classmethod
    def load_or_create(cls, directory: Path, *, now: Clock) -> Authority:
        """The authority in `directory`, made at the first start. Raises AuthorityDamaged."""
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        has_root = (directory / "ca.key").exists()
        if not has_root and (directory / "client-signer.key").exists():
            raise AuthorityDamaged(
                f"{directory} has a client signer but no ca.key; restore it from a backup"
            )
        root = _load(directory, "ca")
        if root is None:
            root = _create_ca(ROOT_NAME, _key(directory, "ca"), None, now())
            _write(directory / "ca.crt", root.pem)
        client_signer = _load(directory, "client-signer")
        if client_signer is None:
            key = _key(directory, "client-signer")
            client_signer = _create_ca(CLIENT_SIGNER_NAME, key, root, now())
            _write(directory / "client-signer.crt", client_signer.pem)
        _check_chain(directory, root, client_signer, now())
        return cls(directory, root, client_signer, now)

    @property
    def client_ca_pem(self) -> bytes:
        """What a listener trusts client certificates by: the client signer, not the root."""
        return self._client_signer.pem

    @property
    def fingerprint(self) -> str:
        """Of the key under which client certificates are signed: SHA-256, in hexadecimal."""
        public = self._client_signer.certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return hashlib.sha256(public).hexdigest()

    @property
    def server_ca_pem(self) -> bytes:
        """What clients trust our servers by."""
        return self._root.pem

    def issue_client(
        self,
        request: requests.SigningRequest,
        *,
        common_name: str,
        signer: str,
        organization: UUID | None,
        fingerprint: str | None,
        lifetime: timedelta,
        groups: Sequence[str] = (),
    ) -> bytes:
        """The leaf for the key of `request`, as PEM. Raises requests.Refused.

        Of the CSR's subject nothing is taken: an organisation that a device writes into its own
        request would be a group of administrators on the user's face. Its DNS and IP names are.
        """
        attributes = [extensions.common_name(common_name)]
        attributes += [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
        builder = self._leaf(x509.Name(attributes), request.csr.public_key(), lifetime)
        purposes = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if signer == signers.SERVER_SVC:
            purposes.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        names = _alternative_names(request.csr)
        if names is not None:
            builder = builder.add_extension(names, critical=False)
        values = (
            (extensions.SIGNER, signer),
            (extensions.ORGANIZATION, str(organization) if organization is not None else ""),
            (extensions.FINGERPRINT, fingerprint or ""),
        )
        for oid, text in values:
            if text:
                unrecognized = x509.UnrecognizedExtension(oid, extensions.encode(text))
                builder = builder.add_extension(unrecognized, critical=False)
        return _sign(builder, self._client_signer)

    def issue_server(self, names: Iterable[str]) -> tuple[bytes, bytes]:
        """A new key and its certificate for these host names and addresses: (certificate, key)."""
        listed = list(dict.fromkeys(names))
        assert listed, "a server certificate for no name"
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, listed[0][:64])])
        builder = (
            self._leaf(subject, key.public_key(), SERVER_LIFETIME, self._root)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in listed]),
                critical=False,
            )
        )
        return _sign(builder, self._root), _key_pem(key)

    def server_files(self, stem: str, names: Iterable[str]) -> tuple[Path, Path]:
        """Paths of certificate and key of the server `stem`, for libraries that read files. Kept
        between starts while the names are the same and the end is far."""
        wanted = list(dict.fromkeys(names))
        certificate, key = self._directory / f"{stem}.crt", self._directory / f"{stem}.key"
        if not self._still_good(stem, wanted):
            cert_pem, key_pem = self.issue_server(wanted)
            _write(key, key_pem)
            _write(certificate, cert_pem)
        return certificate, key

    def _still_good(self, stem: str, names: list[str]) -> bool:
        try:
            pair = _load(self._directory, stem)
        except AuthorityDamaged:
            # A crash between the two files. Nobody pins a server's key: it is made anew.
            return False
        if pair is None or not _is_issued_by(pair.certificate, self._root.certificate):
            return False
        if pair.certificate.not_valid_after_utc - self._now() < SERVER_RENEWAL:
            return False
        found = pair.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return list(found.value) == [_general_name(name) for name in names]

    def _leaf(
        self,
        subject: x509.Name,
        key: CertificatePublicKeyTypes,
        lifetime: timedelta,
        issuer: _Pair | None = None,
    ) -> x509.CertificateBuilder:
        issuer = issuer or self._client_signer
        now = self._now()
        # A leaf that outlives its authority would only look valid.
        end = min(now + lifetime, issuer.certificate.not_valid_after_utc)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer.certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - BACKDATED)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(ca=False), critical=True)
            .add_extension(_issuer_key(issuer), critical=False)
        )


def _issuer_key(issuer: _Pair) -> x509.AuthorityKeyIdentifier:
    known = issuer.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known.value)


def _alternative_names(
    csr: x509.CertificateSigningRequest,
) -> x509.SubjectAlternativeName | None:
    try:
        found = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    kept = [name for name in found if isinstance(name, x509.DNSName | x509.IPAddress)]
    return x509.SubjectAlternativeName(kept) if kept else None


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(*, ca: bool) -> x509.KeyUsage:
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
    name: str, key: ec.EllipticCurvePrivateKey, issuer: _Pair | None, now: datetime
) -> _Pair:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    path_length = 1 if issuer is None else 0
    end = now + CA_LIFETIME
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(end if issuer is None else min(end, _end_of(issuer)))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_key_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer is not None:
        builder = builder.add_extension(_issuer_key(issuer), critical=False)
    signing_key = key if issuer is None else issuer.key
    return _Pair(builder.sign(signing_key, hashes.SHA256()), key)


def _end_of(pair: _Pair) -> datetime:
    return pair.certificate.not_valid_after_utc


def _sign(builder: x509.CertificateBuilder, issuer: _Pair) -> bytes:
    certificate = builder.sign(issuer.key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM)


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # cryptography raises ValueError, TypeError and InvalidSignature here
        return False
    return True


def _check_chain(directory: Path, root: _Pair, client_signer: _Pair, now: datetime) -> None:
    if not _is_issued_by(client_signer.certificate, root.certificate):
        raise AuthorityDamaged(f"client-signer.crt in {directory} was not signed by its ca.crt")
    for name, pair in (("ca.crt", root), ("client-signer.crt", client_signer)):
        if _end_of(pair) <= now:
            raise AuthorityDamaged(f"{name} in {directory} has expired")


def _load(directory: Path, stem: str) -> _Pair | None:
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
    return _Pair(loaded, secret)


def _key(directory: Path, stem: str) -> ec.EllipticCurvePrivateKey:
    """The key in the directory; made, and durable, if there is none."""
    path = directory / f"{stem}.key"
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        _write(path, _key_pem(key))
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


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _write(path: Path, content: bytes) -> None:
    """At once, durably, for the owner's eyes only."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    parent = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)
