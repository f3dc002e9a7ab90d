"""What the handlers of the Kubernetes face share: one object on the application, nothing global.

Handlers are thin: read the request, authorise, call the operations, render. What differs between
kinds (namespaces are a view, requests for certificates are judged at birth) is data here, so that
no handler asks which kind it has before it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from aiohttp import web

from apiserver.auth.chain import Authenticator
from apiserver.auth.exchange import Logins
from apiserver.auth.identity import Caller
from apiserver.catalogue import Catalogue
from apiserver.kube.crowding import Gate
from apiserver.kube.strangers import Strangers
from apiserver.operations import (
    Deleted,
    ListOptions,
    Operations,
    Page,
    WatchBatch,
    WatchOptions,
    WriteOptions,
    Written,
)
from apiserver.refusals import Refusals
from resources.kind import Json, Kind
from resources.selectors import FieldSelector, LabelSelector

T = TypeVar("T")


class Registry(Protocol):
    """The verbs on kinds, as `Operations` has them; views of kinds have the same."""

    async def get(self, caller: Caller, kind: Kind, namespace: str, name: str) -> Json: ...

    async def list_as(
        self,
        caller: Caller,
        kind: Kind,
        namespace: str | None,
        options: ListOptions,
        write: Callable[[Page], T],
    ) -> T: ...

    async def create(
        self, caller: Caller, kind: Kind, namespace: str, document: Json, options: WriteOptions
    ) -> Written: ...

    async def update(
        self,
        caller: Caller,
        kind: Kind,
        namespace: str,
        name: str,
        document: Json,
        options: WriteOptions,
        *,
        subresource: str = "",
        create_missing: bool = False,
    ) -> Written: ...

    async def patch(
        self,
        caller: Caller,
        kind: Kind,
        namespace: str,
        name: str,
        change: Callable[[Json], Json],
        options: WriteOptions,
        *,
        subresource: str = "",
    ) -> Written: ...

    async def apply(
        self,
        caller: Caller,
        kind: Kind,
        namespace: str,
        name: str,
        config: Json,
        options: WriteOptions,
        *,
        subresource: str = "",
    ) -> Written: ...

    async def delete(
        self,
        caller: Caller,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        preconditions: Json | None = None,
        propagation: str | None = None,
        dry_run: bool = False,
    ) -> Deleted: ...

    async def delete_collection(
        self,
        caller: Caller,
        kind: Kind,
        namespace: str | None,
        labels: LabelSelector = ...,
        fields: FieldSelector | None = None,
        *,
        propagation: str | None = None,
        dry_run: bool = False,
    ) -> Sequence[Json]: ...

    async def reach(self, version: int, timeout_s: float) -> int:
        """The newest version of this registry's sequence, as soon as it is `version` or above, at
        the latest after that time."""
        ...

    def watch(
        self, caller: Caller, kind: Kind, namespace: str | None, options: WatchOptions
    ) -> AsyncIterator[WatchBatch]: ...


Creator = Callable[[Caller, str, Json, WriteOptions], Awaitable[Written]]


class Approvals(Protocol):
    """The decisions that end in a certificate."""

    async def approve_enrollment(
        self, caller: Caller, namespace: str, name: str, approval: Json
    ) -> Json | None: ...

    async def sign_csr(self, caller: Caller, namespace: str, name: str, document: Json) -> Json: ...

    async def enrollment_config(self, caller: Caller, namespace: str, name: str) -> Json: ...


def utc_now() -> datetime:
    return datetime.now(UTC)


def uniform(least: float, most: float) -> float:
    """Jitter; nothing here is secret."""
    return random.uniform(least, most)  # noqa: S311


@dataclass(frozen=True, slots=True)
class Face:
    """`views`: registries of single kinds, by resource; `creators`: what judges one at creation;
    `reach_s`: how long a watch waits for a version that this process has not seen yet."""

    operations: Operations
    catalogue: Catalogue
    authenticate: Authenticator
    approvals: Approvals
    release: str
    views: Mapping[str, Registry] = field(default_factory=dict)
    creators: Mapping[str, Creator] = field(default_factory=dict)
    logins: Logins | None = None
    refusals: Refusals | None = None
    reach_s: float = 3.0
    gate: Gate = field(default_factory=Gate)
    strangers: Strangers = field(default_factory=Strangers)
    draining: asyncio.Event = field(default_factory=asyncio.Event)
    now: Callable[[], datetime] = utc_now
    jitter: Callable[[float, float], float] = uniform

    def registry(self, kind: Kind) -> Registry:
        # Events of two groups may share a kind's name; a view is of one resource.
        return self.views.get(kind.resource, self.operations)


FACE = web.AppKey("FACE", Face)
