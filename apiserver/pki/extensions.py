"""Who a certificate says its holder is: three private extensions and the subject.

The object identifiers, their values and their encoding (a bare ASN.1 string, PrintableString where
possible) are the reference's: agents, gateways and telemetry collectors read them. An extension
that is there but cannot be read is an error, never "not there": a certificate whose organisation
is unreadable must not fall into the default one.
"""

from __future__ import annotations

import math
import string
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from uuid import UUID

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import NameOID

SIGNER = x509.ObjectIdentifier("1.3.6.1.4.1.99999.1.1")
ORGANIZATION = x509.ObjectIdentifier("1.3.6.1.4.1.99999.1.2")
FINGERPRINT = x509.ObjectIdentifier("1.3.6.1.4.1.99999.1.3")

_PRINTABLE_STRING = 0x13
_UTF8_STRING = 0x0C
_PRINTABLE = frozenset(string.ascii_letters + string.digits + " '()+,-./:=?")
# Longer values than a name or a UUID have no business here; it keeps lengths in one or two bytes.
_VALUE_BYTES_MAX = 1024
# What cryptography raises of a request or a certificate that it can't read. Most of these are no
# ValueErrors, though strangers write what raises them.
MALFORMED = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class Unreadable(ValueError):
    """A certificate or request carries something that we can't understand."""


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """What a client certificate proves. `signer` decides which endpoints it may use; `fingerprint`
    is the extension's text, empty where there is none; `serial` is what revocation names."""

    signer: str
    organization: UUID | None
    fingerprint: str
    common_name: str
    serial: int
    groups: tuple[str, ...] = ()
    # The key identifier of who signed it, in hexadecimal; its name where it has none.
    issuer: str = ""
    # Unix seconds. A handshake checks it once, but a connection may outlive it by years.
    expires_at: float = math.inf
    begins_at: float = -math.inf


def encode(text: str) -> bytes:
    """DER of `text`, as Go's `asn1.Marshal` writes a string."""
    value = text.encode()
    if len(value) > _VALUE_BYTES_MAX:
        raise ValueError("too long for an extension of ours")
    tag = _PRINTABLE_STRING if set(text) <= _PRINTABLE else _UTF8_STRING
    return bytes([tag]) + _length(len(value)) + value


def decode(der: bytes) -> str:
    """The text in `der`. Raises Unreadable for anything else than one whole string."""
    if len(der) < 2 or der[0] not in (_PRINTABLE_STRING, _UTF8_STRING):
        raise Unreadable("an extension is not an ASN.1 string")
    for header in (2, 3, 4):
        length = len(der) - header
        if length >= 0 and der[1:header] == _length(length):
            try:
                return der[header:].decode()
            except UnicodeDecodeError as error:
                raise Unreadable("an extension is not UTF-8") from error
    raise Unreadable("an extension has a wrong length")


def _length(size: int) -> bytes:
    if size < 0x80:
        return bytes([size])
    if size < 0x100:
        return bytes([0x81, size])
    return bytes([0x82, size >> 8, size & 0xFF])


def text_of(extensions: x509.Extensions, oid: x509.ObjectIdentifier) -> str:
    """The value of one of the three; empty where it is absent."""
    try:
        value = extensions.get_extension_for_oid(oid).value
    except x509.ExtensionNotFound:
        return ""
    assert isinstance(value, x509.UnrecognizedExtension)
    return decode(value.value)


def organization_of(extensions: x509.Extensions) -> UUID | None:
    """The organisation, where one is named."""
    text = text_of(extensions, ORGANIZATION)
    if not text:
        return None
    try:
        return UUID(text)
    except ValueError as error:
        raise Unreadable("the organisation in the certificate is not a UUID") from error


@contextmanager
def long_names() -> Iterator[None]:
    """X.509 ends a common name at 64 characters and cryptography insists. The contract doesn't:
    `device:` before a name in hex has 71, and so have service names of devices."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Attribute's length must be", UserWarning)
        yield


def common_name(text: str) -> x509.NameAttribute[str]:
    with long_names():
        return x509.NameAttribute(NameOID.COMMON_NAME, text, _validate=False)


def common_name_of(name: x509.Name) -> str:
    """The one common name; empty where there is none. Two would be a matter of interpretation."""
    found = _texts(name.get_attributes_for_oid(NameOID.COMMON_NAME))
    if len(found) > 1:
        raise Unreadable("the subject has several common names")
    return found[0] if found else ""


def _texts(attributes: Iterable[x509.NameAttribute[str | bytes]]) -> list[str]:
    return [a.value if isinstance(a.value, str) else a.value.hex() for a in attributes]


def identity_of(cert_der: bytes) -> PeerIdentity:
    """What the certificate says, whose signature the TLS layer has checked. Raises Unreadable."""
    try:
        certificate = x509.load_der_x509_certificate(cert_der)
        extensions = certificate.extensions
        with long_names():
            subject = certificate.subject
    except MALFORMED as error:
        raise Unreadable(f"the certificate can't be read: {error}") from error
    groups = _texts(subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME))
    return PeerIdentity(
        signer=text_of(extensions, SIGNER),
        organization=organization_of(extensions),
        fingerprint=text_of(extensions, FINGERPRINT),
        common_name=common_name_of(subject),
        serial=certificate.serial_number,
        groups=tuple(groups),
        issuer=_issuer(certificate, extensions),
        expires_at=certificate.not_valid_after_utc.timestamp(),
        begins_at=certificate.not_valid_before_utc.timestamp(),
    )


def _issuer(certificate: x509.Certificate, extensions: x509.Extensions) -> str:
    try:
        found = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    except x509.ExtensionNotFound:
        return common_name_of(certificate.issuer)
    return (found.key_identifier or b"").hex() or common_name_of(certificate.issuer)
