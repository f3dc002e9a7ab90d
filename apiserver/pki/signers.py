"""Who signs what: the reference's signers, their rules for names, peers and lifetimes.

Pure. `verify` asks whether the request may be made at all by this peer (a refusal is the caller's
error); `grant` says what the certificate will contain (a refusal is a signing failure, which the
request then carries as a condition). A certificate's signer decides which endpoints it opens, so
the prefix `device:` belongs to the two signers of device identities and to no other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from apiserver.pki.extensions import PeerIdentity, identity_of
from apiserver.pki.requests import Refused, SigningRequest, fingerprints

__all__ = ["PeerIdentity", "Refused", "grant", "identity_of", "verify"]

ENROLLMENT = "flightctl.io/enrollment"
ENROLLMENT_ALIAS = "enrollment"
DEVICE_ENROLLMENT = "flightctl.io/device-enrollment"
RENEWAL = "flightctl.io/device-management-renewal"
SVC_CLIENT = "flightctl.io/device-svc-client"
SERVER_SVC = "flightctl.io/server-svc"

ALL = (ENROLLMENT, DEVICE_ENROLLMENT, RENEWAL, SVC_CLIENT, SERVER_SVC)
# Whose certificates identify a device.
MANAGEMENT = frozenset({DEVICE_ENROLLMENT, RENEWAL})

DEVICE_PREFIX = "device:"
ENROLLMENT_PREFIX = "client-enrollment-"
NAME_LENGTH_MIN = 16
LIFETIME = timedelta(days=365)

REQUIRED_USAGES = ("clientAuth", "CA:false")


@dataclass(frozen=True, slots=True)
class Grant:
    """What the authority shall write into the certificate."""

    signer: str
    common_name: str
    organization: UUID | None
    fingerprint: str | None
    lifetime: timedelta


def device_of(peer: PeerIdentity) -> str:
    """The device that a certificate identifies; empty for every other certificate."""
    if peer.signer not in MANAGEMENT or not peer.common_name.startswith(DEVICE_PREFIX):
        return ""
    return peer.common_name.removeprefix(DEVICE_PREFIX)


def verify(signer: str, request: SigningRequest, peer: PeerIdentity | None) -> None:
    """Raise Refused unless this peer (None: a user) may make this request."""
    if request.common_name.startswith(DEVICE_PREFIX) and signer not in MANAGEMENT:
        raise Refused(f"common names with {DEVICE_PREFIX!r} are reserved for devices")
    match signer:
        case _ if signer == ENROLLMENT:
            if peer is not None:
                raise Refused("enrolment certificates are requested by users, not by devices")
        case _ if signer == RENEWAL:
            device = device_of(_needed(peer))
            # With the prefix, as it is in the certificate, or as devices enrol.
            if not device or request.common_name.removeprefix(DEVICE_PREFIX) != device:
                raise Refused("a device may renew its own management certificate only")
        case _ if signer == SVC_CLIENT:
            device = device_of(_needed(peer))
            if not device or not request.common_name.endswith(f"-{device}"):
                raise Refused("the common name must end with '-' and the name of the device")
        case _ if signer == DEVICE_ENROLLMENT:
            raise Refused("this signer is used by way of an EnrollmentRequest only")
        case _ if signer == SERVER_SVC:
            raise Refused("server certificates can't be requested by way of the API")
        case _ if signer == "ca":
            raise Refused("signer 'ca' was removed; use flightctl.io/enrollment")
        case _:
            raise Refused(f"unknown signer {signer!r}; known are {', '.join(ALL)}")


def _needed(peer: PeerIdentity | None) -> PeerIdentity:
    if peer is None:
        raise Refused("only a device may ask this signer")
    return peer


def verify_usages(usages: Iterable[str]) -> None:
    """Raise Refused unless the certificate is asked for as what it will be."""
    missing = [usage for usage in REQUIRED_USAGES if usage not in set(usages)]
    if missing:
        raise Refused(f"usages must contain {' and '.join(missing)}")


def verify_enrollment(request: SigningRequest, name: str, *, is_agent: bool) -> None:
    """Raise Refused unless the request's common name is the EnrollmentRequest's name, and, when an
    agent calls, that name is the fingerprint of its key."""
    if len(name) < NAME_LENGTH_MIN:
        raise Refused(f"the name must have {NAME_LENGTH_MIN} characters at least")
    if request.common_name.removeprefix(DEVICE_PREFIX) != name:
        raise Refused(
            f"the CSR's common name {request.common_name!r} must be the request's name {name!r}"
        )
    if is_agent and name not in fingerprints(request.public_key):
        raise Refused("the name must be the fingerprint of the key, in base32hex or hex")


def grant(
    signer: str,
    request: SigningRequest,
    *,
    name: str,
    organization: UUID,
    peer: PeerIdentity | None,
    expiration_s: int | None = None,
) -> Grant:
    """What the certificate for the resource `name` will be. Raises Refused."""
    if request.organization is not None and request.organization != organization:
        raise Refused("the CSR names another organisation than the one that it was sent to")
    match signer:
        case _ if signer == ENROLLMENT:
            common_name = _enrollment_name(name)
            if _enrollment_name(request.common_name) != common_name:
                raise Refused(
                    f"the CSR's common name {request.common_name!r} must be the request's "
                    f"name {name!r}"
                )
            return Grant(signer, common_name, organization, None, _lifetime(expiration_s, None))
        case _ if signer == DEVICE_ENROLLMENT:
            common_name = DEVICE_PREFIX + name
        case _ if signer == RENEWAL:
            common_name = _needed(peer).common_name
        case _ if signer == SVC_CLIENT:
            device = device_of(_needed(peer))
            lifetime = _lifetime(expiration_s, LIFETIME)
            # The organisation is written here too; where the reference leaves it out, its
            # consumers can only guess the default one.
            return Grant(signer, request.common_name, organization, device, lifetime)
        case _:
            raise Refused(f"signer {signer!r} does not sign here")
    return Grant(signer, common_name, organization, common_name, _lifetime(expiration_s, LIFETIME))


def _enrollment_name(name: str) -> str:
    return name if name.startswith(ENROLLMENT_PREFIX) else ENROLLMENT_PREFIX + name


def _lifetime(expiration_s: int | None, most: timedelta | None) -> timedelta:
    if expiration_s is None:
        return LIFETIME
    if expiration_s <= 0:
        raise Refused("expirationSeconds must be above 0")
    # No more than the authority's own life is ever asked of timedelta, which has an end too.
    asked = timedelta(seconds=min(expiration_s, 3650 * 86_400))
    return asked if most is None else min(asked, most)
