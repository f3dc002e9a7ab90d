"""Two questions about certificates that everybody asks who follows a chain."""

from __future__ import annotations

from cryptography import x509


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer`, by name and by key, has signed it."""
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # cryptography raises ValueError, TypeError and InvalidSignature here
        return False
    return True


def is_authority(certificate: x509.Certificate) -> bool:
    """Whether it says that it may sign others."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound:
        return False
    return found.value.ca
