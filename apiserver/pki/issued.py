"""What came back from a signer outside, measured against what was ordered. Pure.

The invariant: a certificate that passes opens exactly the doors that were approved, for the key
that was approved. Who signs outside is trusted to keep its own key, and not to be right: a wrong
key, another's name, or extensions that were left out are refused here and not at the door.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID

from apiserver.pki import chains, extensions
from apiserver.pki.orders import Order

PEM_BYTES_MAX = 128 * 1024
# Clocks of signers run ahead.
SKEW = timedelta(minutes=5)
# Signers round up. What lives longer than it was to could outlive its own revocation.
LONGER = timedelta(days=1)
_SHORTEST = timedelta(minutes=1)


class Unfit(ValueError):
    """A certificate that is not what was ordered; the text says what to change at the signer."""


@dataclass(frozen=True, slots=True)
class Trust:
    """The authorities that sign leaves outside: each may be the direct issuer of one, since a
    device shows its leaf alone."""

    authorities: tuple[x509.Certificate, ...]

    @property
    def pem(self) -> bytes:
        parts = [each.public_bytes(serialization.Encoding.PEM) for each in self.authorities]
        return b"".join(parts)

    def has_issued(self, certificate: x509.Certificate) -> bool:
        """Whether one of them is its direct issuer."""
        return any(chains.is_issued_by(certificate, authority) for authority in self.authorities)


def trust_of(pem: bytes) -> Trust:
    """The authorities in a bundle. Raises Unfit for what is none."""
    with _reading():
        found = _certificates(pem)
        for certificate in found:
            if not chains.is_authority(certificate):
                name = certificate.subject.rfc4514_string()
                raise Unfit(f"{name!r} is not the certificate of an authority")
        return Trust(tuple(found))


def leaf_of(pem: bytes, order: Order, trust: Trust, *, now: datetime) -> bytes:
    """The certificate that was ordered, alone, in PEM. Raises Unfit."""
    with _reading():
        leaf = _measured(pem, order.request.public_key, trust, now)
        if leaf.not_valid_after_utc > now + order.granted.lifetime + LONGER:
            wanted = f"{order.granted.lifetime.total_seconds():.0f} s"
            raise Unfit(f"the certificate is valid for longer than the {wanted} that it was to be")
        _check_purposes(leaf, {"clientAuth": ExtendedKeyUsageOID.CLIENT_AUTH})
        _check_identity(leaf, order)
        return leaf.public_bytes(serialization.Encoding.PEM)


@contextmanager
def _reading() -> Iterator[None]:
    """What can't be read is as unfit as what is wrong."""
    try:
        yield
    except Unfit:
        raise
    except extensions.MALFORMED as error:
        raise Unfit(f"the certificate can't be read: {error}") from error


def _measured(
    pem: bytes, key: CertificatePublicKeyTypes, trust: Trust, now: datetime
) -> x509.Certificate:
    """The first certificate, if it is for the key, valid now, and of an authority that we trust."""
    leaf = _certificates(pem)[0]
    if _spki(leaf.public_key()) != _spki(key):
        raise Unfit("the certificate is for another key than the request's")
    if leaf.not_valid_before_utc > now + SKEW:
        raise Unfit(f"the certificate is not valid before {leaf.not_valid_before_utc:%FT%TZ}")
    if leaf.not_valid_after_utc < now + _SHORTEST:
        raise Unfit(f"the certificate expired at {leaf.not_valid_after_utc:%FT%TZ}")
    if not trust.has_issued(leaf):
        raise Unfit(
            f"the certificate's issuer, {leaf.issuer.rfc4514_string()!r}, is not in trustFile; "
            "devices show no intermediate certificates, so the direct issuer must be there"
        )
    if chains.is_authority(leaf):
        raise Unfit("the certificate is that of an authority")
    return leaf


def server_leaf_of(
    pem: bytes,
    key: CertificatePublicKeyTypes,
    names: Iterable[x509.GeneralName],
    trust: Trust,
    *,
    now: datetime,
) -> bytes:
    """The certificate of a server of ours, alone, in PEM. Clients go by its names, so extensions of
    ours are not asked for. Raises Unfit."""
    with _reading():
        leaf = _measured(pem, key, trust, now)
        _check_purposes(leaf, {"serverAuth": ExtendedKeyUsageOID.SERVER_AUTH})
        if missing := [str(name.value) for name in names if name not in names_of(leaf.extensions)]:
            raise Unfit(f"the certificate is not for {', '.join(missing)}")
        return leaf.public_bytes(serialization.Encoding.PEM)


def names_of(found_in: x509.Extensions) -> set[x509.GeneralName]:
    """The alternative names."""
    try:
        found = found_in.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return set()
    return set(found.value)


def _certificates(pem: bytes) -> Sequence[x509.Certificate]:
    if len(pem) > PEM_BYTES_MAX:
        raise Unfit("the certificates are too large")
    return x509.load_pem_x509_certificates(pem)


def _spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _check_purposes(leaf: x509.Certificate, wanted: Mapping[str, x509.ObjectIdentifier]) -> None:
    try:
        found = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        names = ", ".join(wanted)
        raise Unfit(f"the certificate has no extended key usage; it must have {names}") from None
    if missing := [name for name, oid in wanted.items() if oid not in found]:
        raise Unfit(f"the certificate's extended key usage lacks {', '.join(missing)}")


def _check_identity(leaf: x509.Certificate, order: Order) -> None:
    granted = order.granted
    found = extensions.identity_of(leaf.public_bytes(serialization.Encoding.DER))
    pairs = (
        ("common name", granted.common_name, found.common_name),
        (f"extension {extensions.SIGNER.dotted_string}", granted.signer, found.signer),
        (
            f"extension {extensions.ORGANIZATION.dotted_string}",
            "" if granted.organization is None else str(granted.organization),
            "" if found.organization is None else str(found.organization),
        ),
        (
            f"extension {extensions.FINGERPRINT.dotted_string}",
            granted.fingerprint or "",
            found.fingerprint,
        ),
    )
    for what, wanted, is_there in pairs:
        if wanted != is_there:
            said = repr(is_there) if is_there else "missing"
            raise Unfit(f"the certificate's {what} must be {wanted!r}, and is {said}")
