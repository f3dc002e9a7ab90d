"""The servers' own certificate where an authority outside signs it: ordered, kept, renewed.

The invariant: there is always a certificate to serve with. Until the signer has answered, and when
it let what it gave expire, that is the built-in authority's, which clients are told to trust too.

Key and certificate are one file, so that no crash leaves one of each. The order under way, its key
and its CSR, is another; the order is named by its key, so after a crash it is the same order.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import UUID

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from apiserver.pki import extensions, generations, issued, pacing, requests, signers
from apiserver.pki.authority import SERVER_LIFETIME, general_name
from apiserver.pki.issued import Unfit
from apiserver.pki.issuing import Outsider
from apiserver.pki.orders import Declined, Issued, Order, Pending, Unavailable, Unusable
from apiserver.pki.pacing import Pace

COMMON_NAME = "svc-api"
# As soon as no more of its life is left the next one is ordered.
LEFT = 1 / 3
LOOK_S = 60.0

log = structlog.get_logger()


@dataclass(slots=True)
class Presenting:
    """`changed` puts the files in force that are there to be presented."""

    directory: Path
    outsider: Outsider
    names: Sequence[str]
    now: Callable[[], datetime]
    changed: Callable[[], Awaitable[None]]
    chance: Callable[[], float] = random.random
    _was_good: bool = False
    _pace: Pace = pacing.START

    @property
    def file(self) -> Path:
        """Key and certificate in PEM."""
        return self.directory / "server-outside.pem"

    @property
    def order_file(self) -> Path:
        """Key and CSR in PEM, while the CSR is at the signer."""
        return self.directory / "server-order.pem"

    def files(self) -> tuple[Path, Path] | None:
        """Certificate and key to present; None while there is none that will do."""
        return (self.file, self.file) if self.left() > 0 else None

    def left(self) -> float:
        """The share of its life that our certificate has left; 0 if there is none that will do."""
        try:
            pem = self.file.read_bytes()
            found = x509.load_pem_x509_certificate(self._leaf(pem, _key(pem).public_key()))
        except (OSError, ValueError):
            return 0.0
        whole = found.not_valid_after_utc - found.not_valid_before_utc
        return (found.not_valid_after_utc - self.now()) / whole

    async def keep(self) -> None:
        """Runs until it is cancelled."""
        while True:
            wait_s = LOOK_S
            try:
                wait_s = await self.step()
            except Exception:  # what is presented goes on being presented
                log.warning("server certificate not ordered", exc_info=True)
            await asyncio.sleep(wait_s)

    async def step(self) -> float:
        """Do what is due; after how many seconds to look again."""
        left = await asyncio.to_thread(self.left)
        await self._present(left > 0)
        if left > LEFT:
            return LOOK_S
        key, order = await asyncio.to_thread(self._order)
        answer = await self._asked(order)
        if isinstance(answer, Issued):
            await asyncio.to_thread(self._keep, key, answer.pem)
            self._pace, self._was_good = pacing.START, False
            await self._present(True)
            return LOOK_S
        self._pace = pacing.after(answer, self._pace, now=0.0, chance=self.chance())
        title = self.outsider.signer.title
        log.warning("server certificate waits", signer=title, answer=answer)
        return self._pace.next_at

    async def _present(self, is_good: bool) -> None:
        if is_good != self._was_good:
            await self.changed()
            self._was_good = is_good
            log.info("server certificate changed", is_from_outside=is_good)

    async def _asked(self, order: Order) -> Issued | Pending | Unusable | Unavailable:
        """Its answer, measured. A refusal is the operator's to mend, and the order made again: no
        person could approve it once more."""
        answer = await self.outsider.signer.ask(order)
        if isinstance(answer, Declined):
            await self.outsider.signer.forget(order)
            return Unusable(answer.message)
        if not isinstance(answer, Issued):
            return answer
        try:
            return Issued(self._leaf(answer.pem, order.request.public_key))
        except Unfit as unfit:
            return Unusable(str(unfit))

    def _leaf(self, pem: bytes, key: CertificatePublicKeyTypes) -> bytes:
        trust = self.outsider.trust
        return issued.server_leaf_of(pem, key, _wanted(self.names), trust, now=self.now())

    def _order(self) -> tuple[ec.EllipticCurvePrivateKey, Order]:
        """The order under way, or a new one with a new key."""
        try:
            kept = self.order_file.read_bytes()
            key, request = _key(kept), requests.parse(_request_in(kept))
            is_ours = issued.names_of(request.csr.extensions) == set(_wanted(self.names))
        except (OSError, ValueError):
            is_ours = False
        if not is_ours:
            key = ec.generate_private_key(ec.SECP256R1())
            pem = _signing_request(key, self.names)
            generations.write(self.order_file, generations.key_pem(key) + pem)
            request = requests.parse(pem)
        granted = signers.Grant(signers.SERVER_SVC, COMMON_NAME, None, None, SERVER_LIFETIME)
        return key, Order(_uid(key), "Server", "", self.names[0], request, granted, "homeport")

    def _keep(self, key: ec.EllipticCurvePrivateKey, leaf: bytes) -> None:
        generations.write(self.file, generations.key_pem(key) + leaf)
        self.order_file.unlink(missing_ok=True)


def _wanted(names: Sequence[str]) -> list[x509.GeneralName]:
    return [general_name(name) for name in names]


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    found = serialization.load_pem_private_key(pem, password=None)
    if not isinstance(found, ec.EllipticCurvePrivateKey):
        raise ValueError("not an ECDSA key")
    return found


def _request_in(pem: bytes) -> bytes:
    return pem[pem.index(b"-----BEGIN CERTIFICATE REQUEST-----") :]


def _signing_request(key: ec.EllipticCurvePrivateKey, names: Sequence[str]) -> bytes:
    csr = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([extensions.common_name(COMMON_NAME)]))
        .add_extension(x509.SubjectAlternativeName(_wanted(names)), critical=False)
        .sign(key, hashes.SHA256())
    )
    return csr.public_bytes(serialization.Encoding.PEM)


def _uid(key: ec.EllipticCurvePrivateKey) -> str:
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return str(UUID(bytes=hashlib.sha256(public).digest()[:16], version=4))
