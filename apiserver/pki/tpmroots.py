"""The makers of TPMs whose endorsement certificates are believed.

An operator names them: there is no list of ours. Each certificate of the directory is trusted by
itself, an intermediate one as much as a root, since devices send the endorsement certificate alone
and nothing between it and a root. Without any, no TPM is believed.

What is asked of an endorsement certificate is little, for makers vary: one of the trusted issued
it, both are in force, it is no CA, and if it says what it is for, then that is an endorsement key.
The last keeps out what the same CA signed for other purposes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from apiserver.pki import chains

CERTIFICATES_MAX = 1000
_PEM = b"-----BEGIN CERTIFICATE-----"
_SUFFIXES = (".pem", ".crt", ".cer", ".der")
# All that the library throws at certificates that are none.
_UNREADABLE = (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.InvalidVersion)
_ENDORSEMENT_KEY = x509.ObjectIdentifier("2.23.133.8.1")
# Others must be understood where they are critical; these are, or say nothing that matters here:
# the alternative name of an endorsement certificate is the model of its TPM.
_UNDERSTOOD = frozenset(
    {
        x509.BasicConstraints.oid,
        x509.KeyUsage.oid,
        x509.ExtendedKeyUsage.oid,
        x509.SubjectAlternativeName.oid,
        x509.CertificatePolicies.oid,
    }
)


class Unproven(ValueError):
    """What should show that a key lives in a TPM does not; the text is for people."""


class Roots:
    """Trusted issuers of endorsement certificates."""

    def __init__(
        self,
        trusted: Iterable[x509.Certificate] = (),
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._trusted = tuple(trusted)
        self._now = now

    def __bool__(self) -> bool:
        return bool(self._trusted)

    def verified(self, der: bytes) -> x509.Certificate:
        """The endorsement certificate, if a trusted one issued it. Raises Unproven."""
        if not self._trusted:
            raise Unproven("no makers of TPMs are trusted: start the server with --tpm-ca")
        try:
            certificate = certificate_in(der)
            certificate.public_key()
            issued = [each for each in self._trusted if chains.is_issued_by(certificate, each)]
            problem = self._problem(certificate)
        except _UNREADABLE as error:
            raise Unproven(f"the endorsement certificate can't be read: {error}") from error
        if not issued:
            issuer = certificate.issuer.rfc4514_string()[:200]
            raise Unproven(f"the endorsement certificate is of an issuer not trusted: {issuer}")
        if not any(self._is_in_force(each) for each in issued):
            raise Unproven("the certificate of the TPM's maker is not in force")
        if problem:
            raise Unproven(f"the endorsement certificate {problem}")
        return certificate

    def _problem(self, certificate: x509.Certificate) -> str:
        extensions = {each.oid: each for each in certificate.extensions}
        for each in extensions.values():
            if each.critical and each.oid not in _UNDERSTOOD:
                return f"has an extension that must be understood: {each.oid.dotted_string}"
        if chains.is_authority(certificate):
            return "is that of a CA"
        uses = extensions.get(x509.ExtendedKeyUsage.oid)
        if uses is not None and _ENDORSEMENT_KEY not in uses.value:
            return "is not one for endorsement keys"
        return "" if self._is_in_force(certificate) else "is not in force"

    def _is_in_force(self, certificate: x509.Certificate) -> bool:
        now = self._now()
        return certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc


NO_MAKERS = Roots()


def load(directory: Path, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Roots:
    """Those of a directory: files of PEM, as many as each has, or one in DER. Raises ValueError
    with the file that can't be used, and OSError."""
    found: list[x509.Certificate] = []
    for path in sorted(directory.iterdir()):
        if path.suffix.lower() not in _SUFFIXES:
            continue
        raw = path.read_bytes()
        try:
            found += (
                x509.load_pem_x509_certificates(raw)
                if _PEM in raw
                else [x509.load_der_x509_certificate(raw)]
            )
        except _UNREADABLE as error:
            raise ValueError(f"{path} can't be read as certificates: {error}") from error
    if not found:
        raise ValueError(f"{directory} has no certificates ({', '.join(_SUFFIXES)})")
    if len(found) > CERTIFICATES_MAX:
        raise ValueError(f"{directory} has more than {CERTIFICATES_MAX} certificates")
    for each in found:
        if not chains.is_authority(each):
            name = each.subject.rfc4514_string()
            raise ValueError(f"{directory}: the certificate of {name!r} is not that of a CA")
    return Roots(found, now=now)


def certificate_in(der: bytes) -> x509.Certificate:
    """The endorsement certificate as it was read from a TPM, whose memory is larger than it: what
    is behind it is no part of it. Raises what cryptography raises for one that can't be read."""
    return x509.load_der_x509_certificate(_first(der))


def _first(der: bytes) -> bytes:
    """The first value of DER, without what stands behind it."""
    if len(der) < 4 or der[0] != 0x30:
        return der
    if der[1] < 0x80:
        return der[: 2 + der[1]]
    width = der[1] & 0x7F
    return der[: 2 + width + int.from_bytes(der[2 : 2 + width], "big")]
