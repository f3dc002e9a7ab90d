"""Who signs what here, and whose certificates open which doors: the one place that knows.

Every certificate is asked for at `Issuing`. The built-in authority answers at once; a signer
outside takes its time, and what waits for it is worked off elsewhere (`apiserver.signing`).

An authority outside is trusted for the purposes that it is configured for and for no other: one
that signs management certificates can't make an enrolment certificate, and neither can make one for
users, whatever it writes into it. It goes on being trusted after it was given up, for as long as
the file of signers names its certificate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import aiohttp
from cryptography import x509

from apiserver.pki import extensions, signerfile
from apiserver.pki.authority import Authority
from apiserver.pki.calling import Line
from apiserver.pki.extensions import PeerIdentity, Unreadable
from apiserver.pki.httpsigner import HttpSigner
from apiserver.pki.issued import Trust, trust_of
from apiserver.pki.kubesigner import KubernetesSigner
from apiserver.pki.orders import Signer
from apiserver.pki.requests import SigningRequest
from apiserver.pki.signers import Grant


@dataclass(frozen=True, slots=True)
class Outsider:
    """A signer outside, the signer names that it answers to, and the authorities that sign what it
    answers."""

    signer: Signer
    names: frozenset[str]
    trust: Trust


@dataclass(frozen=True, slots=True)
class Trusted:
    """Authorities outside, and the signer names that their certificates may bear."""

    names: frozenset[str]
    trust: Trust


@dataclass(frozen=True, slots=True)
class Issuing:
    """Who signs, by signer name; `server`: who signs our own servers' certificates, if not we."""

    authority: Authority
    outsiders: tuple[Outsider, ...] = ()
    trusted: tuple[Trusted, ...] = ()
    server: Outsider | None = None
    _built_in: dict[bytes, Trust] = field(default_factory=dict)

    def outsider(self, signer_name: str) -> Outsider | None:
        """Who signs outside for that name; None if we do."""
        return next((each for each in self.outsiders if signer_name in each.names), None)

    def issue(self, request: SigningRequest, granted: Grant) -> bytes | None:
        """The certificate in PEM, or None: its signer is outside, and takes its time."""
        if self.outsider(granted.signer) is not None:
            return None
        return self.authority.issue_client(
            request,
            common_name=granted.common_name,
            signer=granted.signer,
            organization=granted.organization,
            fingerprint=granted.fingerprint,
            lifetime=granted.lifetime,
        )

    @property
    def client_ca_pem(self) -> bytes:
        """What the agents' listener trusts client certificates by."""
        return self.authority.client_ca_pem + b"".join(each.trust.pem for each in self.trusted)

    def identity_of(self, cert_der: bytes) -> PeerIdentity:
        """What a certificate of a device says, whose chain the TLS layer has checked. Raises
        Unreadable, also for one whose issuer may not say that."""
        found = extensions.identity_of(cert_der)
        if not self.trusted:
            return found
        certificate = x509.load_der_x509_certificate(cert_der)
        if self._own_trust().has_issued(certificate):
            return found
        for each in self.trusted:
            if found.signer in each.names and each.trust.has_issued(certificate):
                return found
        raise Unreadable(
            f"its issuer, {certificate.issuer.rfc4514_string()!r}, is not one for certificates of "
            f"{found.signer or 'no signer'}"
        )

    def _own_trust(self) -> Trust:
        pem = self.authority.client_ca_pem
        if pem not in self._built_in:
            # The authority may be rotated while we run; then the old answer is of no use.
            self._built_in.clear()
            self._built_in[pem] = trust_of(pem)
        return self._built_in[pem]


def issuing_of(
    authority: Authority,
    configured: Mapping[str, signerfile.Signer],
    session: aiohttp.ClientSession,
) -> Issuing:
    """Raises SignerFileError."""
    outsiders: dict[str, Outsider] = {}
    trusted = []
    for purpose, settings in configured.items():
        if settings.trust_file is None:
            continue
        names = signerfile.PURPOSES[purpose]
        trust = signerfile.trust(settings.trust_file)
        if purpose == signerfile.SERVER:
            # Of the client certificates of such an authority nothing is believed.
            authority.servers_outside = trust.pem
        else:
            trusted.append(Trusted(names, trust))
        match settings:
            case signerfile.Http():
                outsiders[purpose] = Outsider(HttpSigner(Line(session, settings)), names, trust)
            case signerfile.Kubernetes():
                signer = KubernetesSigner(Line(session, settings), settings)
                outsiders[purpose] = Outsider(signer, names, trust)
    server = outsiders.pop(signerfile.SERVER, None)
    return Issuing(authority, tuple(outsiders.values()), tuple(trusted), server)
