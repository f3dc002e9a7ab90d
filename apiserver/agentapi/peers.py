"""Whose request it is: the client certificate of the connection, its organisation, its share.

The TLS layer has checked the chain; here the signer decides which endpoints are open. What a
certificate says never changes, so it is read once and remembered by its digest; what may change
(expiry, revocation, the organisation) is asked again each time.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from uuid import UUID

from aiohttp import web

from apiserver.auth import identity
from apiserver.auth.identity import Caller
from apiserver.errors import BadRequest, Forbidden, TooManyRequests, Unauthorized
from apiserver.origins import origin_of
from apiserver.pki import signers, validity
from apiserver.pki.extensions import PeerIdentity, Unreadable
from apiserver.pki.issuing import Issuing
from apiserver.pki.revocations import Revocations
from apiserver.store import Snapshot, Store
from resources import registry
from resources.kind import Json

_ORGANIZATION = registry.by_kind("Organization")
_RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True)
class Peer:
    """Who calls: `device` is empty for an enrolment certificate."""

    identity: PeerIdentity
    namespace: str
    device: str

    @property
    def caller(self) -> Caller:
        return Caller(
            name=self.identity.common_name,
            role=identity.DEVICE if self.device else identity.ENROLLMENT,
            namespace=self.namespace,
            device=self.device,
            source="certificate",
        )

    def caller_from(self, request: web.Request) -> Caller:
        """For what is told in the audit."""
        return replace(self.caller, origin=origin_of(request))


class Organizations:
    """UUID → namespace. The pairs are immutable, so only a miss asks the store, and only if
    something was written since it was asked last."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._namespaces: dict[UUID, str] = {}
        self._read_at = -1

    async def namespace_of(self, organization: UUID) -> str:
        """Raises Forbidden for one that does not exist: never 404, which means more to agents."""
        found = self._namespaces.get(organization)
        if found is None and self._store.hub.version > self._read_at:
            self._read_at, self._namespaces = await self._store.read(_pairs)
            found = self._namespaces.get(organization)
        if found is None:
            raise Forbidden("the organization of the certificate is not known here")
        return found


def _pairs(snapshot: Snapshot) -> tuple[int, dict[UUID, str]]:
    found = snapshot.list(_ORGANIZATION, None)
    pairs = {UUID(each["metadata"]["uid"]): each["metadata"]["name"] for each in found}
    return snapshot.version, pairs


class Peers:
    """Reads certificates of connections; `issuing` says what they prove."""

    def __init__(
        self,
        organizations: Organizations,
        issuing: Issuing,
        revocations: Revocations,
        *,
        remembered: int,
        now: Callable[[], float],
    ) -> None:
        self._organizations = organizations
        self._issuing = issuing
        self._revocations = revocations
        self._remembered = remembered
        self._now = now
        self._known: OrderedDict[bytes, PeerIdentity] = OrderedDict()

    async def device(self, request: web.Request) -> Peer:
        """The device that calls. Raises Unauthorized for every other certificate."""
        found = self._identity(request.transport)
        name = signers.device_of(found)
        if not name or found.fingerprint not in ("", found.common_name):
            raise Unauthorized(
                "this endpoint needs a certificate that was issued to a device by "
                f"{signers.DEVICE_ENROLLMENT} or {signers.RENEWAL}"
            )
        return await self._let_in(found, name)

    async def enrollment(self, request: web.Request) -> Peer:
        """The holder of an enrolment certificate."""
        return await self.enrollment_over(request.transport)

    async def enrollment_over(self, transport: asyncio.BaseTransport | None) -> Peer:
        """The same, of a connection that brings no such request."""
        found = self._identity(transport)
        if found.signer != signers.ENROLLMENT:
            raise Unauthorized(
                f"this endpoint needs a certificate that was issued by {signers.ENROLLMENT}"
            )
        return await self._let_in(found, "")

    async def _let_in(self, found: PeerIdentity, device: str) -> Peer:
        if found.organization is None:
            raise BadRequest("no organization ID found in certificate")
        namespace = await self._organizations.namespace_of(found.organization)
        self._issuing.authority.check(found.issuer)
        self._revocations.check(namespace, found)
        return Peer(found, namespace, device)

    def _identity(self, transport: asyncio.BaseTransport | None) -> PeerIdentity:
        der = _certificate(transport)
        # A digest, since 50 000 whole certificates would be 40 MB.
        key = hashlib.sha256(der).digest()
        found = self._known.get(key)
        if found is None:
            try:
                found = self._issuing.identity_of(der)
            except Unreadable as error:
                raise Unauthorized(f"the client certificate can't be used: {error}") from error
            self._known[key] = found
            if len(self._known) > self._remembered:
                self._known.popitem(last=False)
        validity.check(found, self._now())
        return found


def shown(request: web.Request, peer: Peer) -> Json:
    """The certificate of the connection, as it is written down."""
    return {
        "commonName": peer.identity.common_name,
        "fingerprint": hashlib.sha256(_certificate(request.transport)).hexdigest(),
        "authority": peer.identity.issuer,
    }


def _certificate(transport: asyncio.BaseTransport | None) -> bytes:
    """In DER. Raises Unauthorized where there is none."""
    tls = None if transport is None else transport.get_extra_info("ssl_object")
    der: bytes | None = None if tls is None else tls.getpeercert(True)
    if not der:
        raise Unauthorized("no client certificate")
    return der


class Shares:
    """How many requests of one identity are under way. More are refused, not queued: what queues
    here would hold memory for a client that has a retry of its own."""

    def __init__(self) -> None:
        self._under_way: Counter[int | str] = Counter()

    @contextmanager
    def taken(self, holder: int | str, most: int) -> Iterator[None]:
        if self._under_way[holder] >= most:
            raise TooManyRequests(
                f"more than {most} requests at a time", retry_after_s=_RETRY_AFTER_S
            )
        self._under_way[holder] += 1
        try:
            yield
        finally:
            self._under_way[holder] -= 1
            if not self._under_way[holder]:
                del self._under_way[holder]
