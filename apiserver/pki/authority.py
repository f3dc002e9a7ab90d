"""The service's own certificate authority: a root, and under it the signer of client certificates.

Two keys, since what the root signs (servers) and what the client signer signs (whoever may call)
are trusted by different people: the agent listener trusts the client signers alone.

There may be several generations of both (`generations`): the latest whose time has come signs, the
older ones are trusted until they end. A server's certificate comes with its root's certificates by
the older roots, so that who knows only an older one trusts it too.
"""

from __future__ import annotations

import enum
import hashlib
import ipaddress
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from apiserver.errors import Unauthorized
from apiserver.pki import chains, extensions, generations, requests, signers
from apiserver.pki.generations import BACKDATED, AuthorityDamaged, Generation, Pair

__all__ = ["Authority", "AuthorityDamaged", "Standing"]

SERVER_LIFETIME = timedelta(days=730)
# A server certificate is replaced this long before its end.
SERVER_RENEWAL = timedelta(days=90)

Clock = Callable[[], datetime]


class Standing(enum.Enum):
    """What a certificate's issuer is to us: the one that signs, one that did and is trusted, one
    that is trusted no more, or none of ours."""

    CURRENT = "current"
    OLDER = "older"
    ENDED = "ended"
    FOREIGN = "foreign"


class Authority:
    """Signs for the whole life of a store; the keys are in its data directory."""

    def __init__(self, directory: Path, known: Sequence[Generation], now: Clock) -> None:
        self.directory = directory
        # Authorities outside that sign for our servers, in PEM.
        self.servers_outside = b""
        self._now = now
        self._take(known)

    @classmethod
    def load_or_create(cls, directory: Path, *, now: Clock) -> Authority:
        """The authority in `directory`, made at the first start. Raises AuthorityDamaged."""
        made = cls(directory, generations.load_or_create(directory, now()), now)
        if made.signing.ends_at <= now():
            raise AuthorityDamaged(f"the authority in {directory} has expired")
        return made

    def reload(self) -> None:
        """Look at the directory again. Raises AuthorityDamaged, and then nothing has changed."""
        self._take(generations.load_or_create(self.directory, self._now()))

    def _take(self, known: Sequence[Generation]) -> None:
        self.generations = tuple(known)
        self._by_issuer = {each.client_signer.key_id: each for each in known}
        # Read out of the certificates once: each request asks.
        self._ends_at = {each.number: each.ends_at for each in known}

    @property
    def signing(self) -> Generation:
        now = self._now()
        return [each for each in self.generations if each.signs_from <= now][-1]

    def standing(self, issuer: str) -> Standing:
        """Of the issuer that a certificate names (`PeerIdentity.issuer`). It is asked for each
        request: a handshake was made once, and its connection may last."""
        found = self._by_issuer.get(issuer)
        if found is None:
            # Each of ours names its issuer's key; one that bears the name alone was not made here.
            is_posing = issuer == generations.CLIENT_SIGNER_NAME
            return Standing.ENDED if is_posing else Standing.FOREIGN
        if self._ends_at[found.number] <= self._now():
            return Standing.ENDED
        return Standing.OLDER if found.number < self.signing.number else Standing.CURRENT

    def check(self, issuer: str) -> None:
        """Raises Unauthorized for one that is trusted no more."""
        if self.standing(issuer) is Standing.ENDED:
            raise Unauthorized("who signed the client certificate is trusted no more")

    @property
    def client_ca_pem(self) -> bytes:
        """What a listener trusts client certificates by: the client signers, not the roots."""
        return b"".join(each.client_signer.pem for each in self._trusted())

    def has_issued(self, certificate: x509.Certificate) -> bool:
        """Whether the generation that signs now has signed it, as a client's."""
        return chains.is_issued_by(certificate, self.signing.client_signer.certificate)

    @property
    def fingerprint(self) -> str:
        """Of the first key under which client certificates were signed: SHA-256, in hexadecimal."""
        public = (
            self.generations[0]
            .client_signer.certificate.public_key()
            .public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        return hashlib.sha256(public).hexdigest()

    @property
    def server_ca_pem(self) -> bytes:
        """What clients trust our servers by: the root that signs, those that are to follow, and
        who signs for our servers outside."""
        number = self.signing.number
        ours = b"".join(each.root.pem for each in self._trusted() if each.number >= number)
        return ours + self.servers_outside

    def _trusted(self) -> list[Generation]:
        now = self._now()
        return [each for each in self.generations if each.ends_at > now]

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
        return _sign(builder, self.signing.client_signer)

    def issue_server(self, names: Iterable[str]) -> tuple[bytes, bytes]:
        """A new key and its certificates for these host names and addresses: (chain, key)."""
        root = self.signing.root
        listed = list(dict.fromkeys(names))
        assert listed, "a server certificate for no name"
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, listed[0][:64])])
        builder = (
            self._leaf(subject, key.public_key(), SERVER_LIFETIME, root)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([general_name(name) for name in listed]),
                critical=False,
            )
        )
        return _sign(builder, root) + self.signing.cross, generations.key_pem(key)

    def server_files(self, stem: str, names: Iterable[str]) -> tuple[Path, Path]:
        """Paths of certificate and key of the server `stem`, for libraries that read files. Kept
        between starts while the names are the same and the end is far."""
        wanted = list(dict.fromkeys(names))
        certificate, key = self.directory / f"{stem}.crt", self.directory / f"{stem}.key"
        if not self._still_good(stem, wanted):
            cert_pem, key_pem = self.issue_server(wanted)
            generations.write(key, key_pem)
            generations.write(certificate, cert_pem)
        return certificate, key

    def _still_good(self, stem: str, names: list[str]) -> bool:
        try:
            pair = generations.load_pair(self.directory, stem)
        except AuthorityDamaged:
            # A crash between the two files. Nobody pins a server's key: it is made anew.
            return False
        if pair is None or not chains.is_issued_by(pair.certificate, self.signing.root.certificate):
            return False
        if pair.certificate.not_valid_after_utc - self._now() < SERVER_RENEWAL:
            return False
        found = pair.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        return list(found.value) == [general_name(name) for name in names]

    def _leaf(
        self,
        subject: x509.Name,
        key: CertificatePublicKeyTypes,
        lifetime: timedelta,
        issuer: Pair | None = None,
    ) -> x509.CertificateBuilder:
        issuer = issuer or self.signing.client_signer
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
            .add_extension(generations.key_usage(ca=False), critical=True)
            .add_extension(generations.issuer_key(issuer), critical=False)
        )


def _alternative_names(
    csr: x509.CertificateSigningRequest,
) -> x509.SubjectAlternativeName | None:
    try:
        found = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    kept = [name for name in found if isinstance(name, x509.DNSName | x509.IPAddress)]
    return x509.SubjectAlternativeName(kept) if kept else None


def general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _sign(builder: x509.CertificateBuilder, issuer: Pair) -> bytes:
    certificate = builder.sign(issuer.key, hashes.SHA256())
    return certificate.public_bytes(serialization.Encoding.PEM)
