"""The Kubernetes face over a real store on loopback, without TLS: who calls is a header.

`Authorization: Bearer <role>` is a caller of that role; without it nobody is known. Everything
behind the authenticator is the real thing.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from aiohttp.test_utils import TestClient, TestServer

from apiserver import app
from apiserver.auth.chain import Evidence
from apiserver.auth.identity import Caller
from apiserver.kube.face import Face, utc_now
from apiserver.pki.authority import Authority
from apiserver.pki.issuing import Issuing
from apiserver.refusals import Refusals
from apiserver.store import Store
from resources.kind import Json

_NAMESPACES = itertools.count(1)
G = "/apis/flightctl.io/v1beta1"
H = "/apis/homeport.dev/v1alpha1"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"


async def by_header(evidence: Evidence) -> Caller | None:
    scheme, _, role = evidence.authorization.partition(" ")
    return Caller(f"test-{role}", role=role, source="header") if scheme == "Bearer" else None


@dataclass(slots=True)
class Rig:
    """The face, and a client that is an administrator unless it says otherwise."""

    face: Face
    client: TestClient[Any, Any]

    @property
    def version(self) -> int:
        return self.face.operations.store.hub.version

    def call(self, method: str, path: str, *, role: str = "admin", **more: Any) -> Any:
        headers = dict(more.pop("headers", {}))
        if role:
            headers.setdefault("Authorization", f"Bearer {role}")
        return self.client.request(method, path, headers=headers, **more)

    async def json(self, method: str, path: str, *, code: int = 200, **more: Any) -> Json:
        """The JSON answer, whose code must be `code`."""
        async with self.call(method, path, **more) as response:
            text = await response.text()
            assert response.status == code, f"{response.status} {text}"
            found: Json = await response.json()
            return found

    async def refused(self, method: str, path: str, code: int, **more: Any) -> Json:
        """The Status of a refusal, checked for its form."""
        status = await self.json(method, path, code=code, **more)
        assert status["kind"] == "Status", status
        assert (status["status"], status["code"]) == ("Failure", code)
        assert status["reason"]
        assert status["message"]
        return status

    async def namespace(self) -> str:
        """A fresh one."""
        name = f"ns-{next(_NAMESPACES)}"
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await self.json("POST", "/api/v1/namespaces", json=body, code=201)
        return name

    async def fleets(self, *names: str) -> str:
        """The path of the fleets in a fresh namespace, which holds these."""
        path = f"{G}/namespaces/{await self.namespace()}/fleets"
        for name in names:
            await self.json("POST", path, json=fleet(name), code=201)
        return path


@asynccontextmanager
async def running(data: Path, **changes: Any) -> AsyncIterator[Rig]:
    store = await Store.open(data_dir=data)
    operations = app.create_operations(store)
    await operations.prepare()
    authority = Authority.load_or_create(data / "pki", now=utc_now)
    refusals = Refusals(store)
    face = app.create_face(operations, Issuing(authority), by_header, refusals=refusals)
    face = replace(face, **changes)
    client = TestClient(TestServer(app.create_user_app(face)))
    await client.start_server()
    try:
        yield Rig(face, client)
    finally:
        await client.close()
        await store.close()


def fleet(name: str, **labels: str) -> Json:
    metadata: Json = {"name": name}
    if labels:
        metadata["labels"] = labels
    return {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "Fleet",
        "metadata": metadata,
        "spec": {
            "selector": {"matchLabels": {"fleet": name}},
            "template": {"spec": {"os": {"image": "quay.io/acme/os:1"}}},
        },
    }


__all__ = ["JSON_PATCH", "MERGE", "G", "H", "Rig", "fleet", "running"]
