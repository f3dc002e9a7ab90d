"""Which code it has what is refused of what is stored (service behaviour, 5.7), on both stores.
The reference says 500 where an error came wrapped; here each has its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from apiserver import approvals, decommissioning, errors
from apiserver.app import create_operations
from apiserver.operations import Operations
from apiserver.pki.authority import Authority
from apiserver.pki.issuing import Issuing
from apiserver.store import Store
from bench.fleet import ADMIN, DEVICE, FLEET, PLAIN, Service
from resources import registry
from resources.kind import Json, Kind
from tests.fakes.agent_client import fingerprint, signing_request

KEY = ec.generate_private_key(ec.SECP256R1())
NAME = fingerprint(KEY)
REQUEST, SHOP = approvals.ENROLLMENT_REQUEST, registry.ORGANIZATION


class Site:
    """A fleet `web` with a device `d`, one `lone` without fleet, and one that enrolled."""

    def __init__(self, operations: Operations, issuing: Issuing) -> None:
        self.operations, self.issuing = operations, issuing

    async def fill(self) -> None:
        await Service.over(self.operations)
        await self.create(DEVICE, "d", labels={"site": "a"})
        await self.create(DEVICE, "lone")
        csr = {"csr": signing_request(KEY, NAME)}
        await self.create(REQUEST, NAME, csr)
        approval = {"approved": True, "labels": {}}
        await approvals.approve_enrollment(
            self.operations, self.issuing, ADMIN, "default", NAME, approval
        )

    async def create(self, kind: Kind, name: str, spec: Json | None = None, **more: Any) -> object:
        namespace = "default" if kind.namespaced else ""
        document = {"metadata": {"name": name} | more, "spec": spec or {}}
        return await self.operations.create(ADMIN, kind, namespace, document, PLAIN)

    async def put(self, kind: Kind, name: str, **parts: Json) -> object:
        old = await self.operations.get(ADMIN, kind, "default", name)
        new = old | {key: old.get(key, {}) | part for key, part in parts.items()}
        return await self.operations.update(ADMIN, kind, "default", name, new, PLAIN)

    async def delete(self, kind: Kind, name: str, **how: Any) -> object:
        namespace = "default" if kind.namespaced else ""
        return await self.operations.delete(ADMIN, kind, namespace, name, **how)

    async def dismiss(self, name: str) -> object:
        wish = {"target": "Unenroll"}
        return await decommissioning.decommission(self.operations, ADMIN, "default", name, wish)

    async def dismiss_twice(self, name: str) -> object:
        await self.dismiss(name)
        return await self.dismiss(name)

    async def change_dismissed(self, name: str) -> object:
        await self.dismiss(name)
        return await self.put(DEVICE, name, spec={"os": {"image": "quay.io/a/b:1"}})

    async def fill_shop_with(self, finalizers: list[str]) -> object:
        await self.create(SHOP, "shop")
        document = {"metadata": {"name": "d", "finalizers": finalizers}, "spec": {}}
        await self.operations.create(ADMIN, DEVICE, "shop", document, PLAIN)
        return await self.delete(SHOP, "shop")

    async def approve_again(self) -> object:
        return await approvals.approve_enrollment(
            self.operations, self.issuing, ADMIN, "default", NAME, {"approved": True}
        )


REFUSALS: dict[str, tuple[Callable[[Site], Awaitable[object]], int]] = {
    "one that is not there is read": (lambda s: s.put(DEVICE, "none"), 404),
    "one that is not there is deleted": (lambda s: s.delete(FLEET, "none"), 404),
    "a namespace that is not there": (
        lambda s: s.operations.create(ADMIN, DEVICE, "none", {"metadata": {"name": "d"}}, PLAIN),
        404,
    ),
    "a name that is taken": (lambda s: s.create(DEVICE, "d"), 409),
    "a version that is not the last": (
        lambda s: s.put(DEVICE, "lone", metadata={"resourceVersion": "1"}),
        409,
    ),
    "a version that is none": (
        lambda s: s.put(DEVICE, "lone", metadata={"resourceVersion": "one"}),
        409,
    ),
    "another object of the name": (
        lambda s: s.delete(DEVICE, "lone", preconditions={"uid": "another"}),
        409,
    ),
    "the specification of an owned device": (
        lambda s: s.put(DEVICE, "d", spec={"os": {"image": "quay.io/a/b:1"}}),
        409,
    ),
    "a document without a name": (
        lambda s: s.operations.create(ADMIN, DEVICE, "default", {"spec": {}}, PLAIN),
        422,
    ),
    "what nobody rendered yet": (lambda s: s.operations.rendered(ADMIN, "default", "d"), 409),
    "a version of no fleet": (
        lambda s: s.operations.bind(
            ADMIN, "default", "web", {"templateVersion": "web.v9", "rollout": "web.v9-1"}
        ),
        404,
    ),
    "one that is dismissed is dismissed": (lambda s: s.dismiss_twice("lone"), 409),
    "one that is dismissed is changed": (lambda s: s.change_dismissed("lone"), 409),
    "a request whose device is there is deleted": (lambda s: s.delete(REQUEST, NAME), 409),
    "a request whose device is there is replaced": (
        lambda s: s.put(REQUEST, NAME, spec={"labels": {"a": "b"}}),
        400,
    ),
    "a request that is approved is approved": (lambda s: s.approve_again(), 400),
    "a namespace that something holds": (lambda s: s.fill_shop_with(["example.com/x"]), 409),
    "the namespace that always is": (lambda s: s.delete(SHOP, "default"), 403),
}


@pytest.mark.parametrize("case", REFUSALS.values(), ids=REFUSALS)
async def test_it_is_refused_with_its_code(
    case: tuple[Callable[[Site], Awaitable[object]], int], tmp_path: Path, database_url: str
) -> None:
    act, code = case
    store = await Store.open(database_url, data_dir=tmp_path)
    operations = create_operations(store)
    await operations.prepare()
    authority = Authority.load_or_create(tmp_path / "pki", now=lambda: datetime.now(UTC))
    site = Site(operations, Issuing(authority))
    await site.fill()
    try:
        with pytest.raises(errors.StatusError) as refused:
            await act(site)
        assert refused.value.code == code, refused.value.message
    finally:
        await store.close()
