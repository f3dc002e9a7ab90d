"""Which certificates are revoked, as each process knows it: a dictionary in memory, no query.

Level-triggered: a task follows the change log and reads again what changed of the revocations. It
looks at most once in LOOK_S, so a revocation counts within about a second on every process. Before
the first request all are read. When the store can't be read, what was known goes on to count.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager

import structlog

from apiserver import tasks
from apiserver.errors import Unauthorized
from apiserver.pki import signers
from apiserver.pki.extensions import PeerIdentity
from apiserver.store import Snapshot, Store
from resources import registry, revocation
from resources.kind import Json

LOOK_S = 1.0
# A look without anything to read; it only bounds how long a closed store is waited for.
_WAIT_S = 30.0

REVOCATION = registry.CERTIFICATE_REVOCATION
Place = tuple[str, str]  # namespace, name of the revocation
What = tuple[str, str | int]  # namespace, and a device's name or a serial number

log = structlog.get_logger()


class Revocations:
    """`on_change` is called after each change, with what is revoked already in force."""

    def __init__(self, store: Store, now: Callable[[], float] = time.time) -> None:
        self._store = store
        self._now = now
        self._seen = -1
        self._entries: dict[Place, tuple[What, float]] = {}
        self._until: dict[What, float] = {}
        self.on_change: list[Callable[[], None]] = []

    def is_revoked(self, namespace: str, identity: PeerIdentity) -> bool:
        """Whether the certificate of this organisation counts no more."""
        if not self._until:
            return False
        device = signers.device_of(identity)
        return self._holds((namespace, identity.serial)) or (
            bool(device) and self._holds((namespace, device))
        )

    def check(self, namespace: str, identity: PeerIdentity) -> None:
        """Raises Unauthorized for a certificate that was revoked."""
        if self.is_revoked(namespace, identity):
            raise Unauthorized("the client certificate was revoked")

    def _holds(self, what: What) -> bool:
        return self._until.get(what, 0.0) > self._now()

    async def look(self) -> None:
        """Read what changed since the last look."""
        version, everything, found = await self._store.read(self._changed)
        self._seen = version
        if not everything and not found:
            return
        if everything:
            self._entries = {}
        for place, document in found:
            self._entries.pop(place, None)
            if document is not None:
                self._entries[place] = _what(place[0], document), revocation.ends_at(document)
        # Two may name the same; the one that lasts longer counts.
        self._until = dict(sorted(self._entries.values(), key=lambda entry: entry[1]))
        for tell in self.on_change:
            tell()

    @asynccontextmanager
    async def followed(self) -> AsyncIterator[None]:
        """All are known when the block begins, and what changes until it ends."""
        await self.look()
        async with tasks.running(self._follow(), "revocations"):
            yield

    async def _follow(self) -> None:
        while not self._store.hub.closed:
            try:
                await self._store.hub.wait(self._seen, _WAIT_S)
                await self.look()
            except Exception:  # this task is the only one that hears of revocations
                log.warning("revocations could not be read", exc_info=True)
            await asyncio.sleep(LOOK_S)

    def _changed(self, s: Snapshot) -> tuple[int, bool, list[tuple[Place, Json | None]]]:
        if self._seen < s.compacted or self._seen < 0:
            documents: Iterable[Json] = s.list(REVOCATION, None)
            return s.version, True, [(_place(document), document) for document in documents]
        names = s.changed_names(REVOCATION, self._seen)
        return s.version, False, [((ns, name), s.get(REVOCATION, ns, name)) for ns, name in names]


def is_barred(snapshot: Snapshot, namespace: str, device: str, now: float) -> bool:
    """Whether a device gets no certificate, as this snapshot has it."""
    found = snapshot.saying(REVOCATION, namespace, "device", device)
    return any(
        document["spec"].get("device") == device and revocation.ends_at(document) > now
        for document in found
    )


def _place(document: Json) -> Place:
    return document["metadata"]["namespace"], document["metadata"]["name"]


def _what(namespace: str, document: Json) -> What:
    spec = document["spec"]
    return namespace, spec.get("device") or revocation.serial_of(spec["serial"])
