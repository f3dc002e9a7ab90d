"""A service's core with many devices in one fleet, driven without HTTP."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from apiserver import bindings
from apiserver.app import create_operations
from apiserver.auth.identity import Caller
from apiserver.operations import ListOptions, Operations, Page, WriteOptions
from apiserver.store import Store, Transaction, reports
from resources import registry
from resources.kind import Json

ADMIN = Caller(name="admin", role="admin")
FLEET = registry.by_kind("Fleet")
DEVICE = registry.by_kind("Device")
VERSION = registry.by_kind("TemplateVersion")
ROLLOUT = registry.by_kind("Rollout")
PLAIN = WriteOptions()


class Service:
    """Operations on a store of their own, with one fleet `web` that selects site=a."""

    def __init__(self, operations: Operations) -> None:
        self.operations = operations
        # Versions are named after the fleet's generation, as the controllers do.
        self._generation = 1

    @classmethod
    async def start(cls, directory: Path) -> Service:
        operations = create_operations(await Store.open(data_dir=directory))
        await operations.prepare()
        return await cls.over(operations)

    @classmethod
    async def over(cls, operations: Operations) -> Service:
        """The fleet, made by operations that are prepared already."""
        await operations.create(ADMIN, FLEET, "default", fleet("start"), PLAIN)
        return cls(operations)

    async def stop(self) -> None:
        await self.operations.store.close()

    async def fill(self, number: int) -> None:
        """Devices d000000…, a thousand a transaction."""
        for start in range(0, number, 1_000):
            end = min(start + 1_000, number)
            await self.operations.store.write(partial(_insert, first=start, end=end))

    async def offer(self, content: str) -> Json:
        """A fleet change as far as a person and the controllers make it: the fleet, its version,
        its rollout. Returns the bind that is to be asked for."""
        self._generation += 1
        target = f"web.v{self._generation}"
        await self.operations.update(ADMIN, FLEET, "default", "web", fleet(content), PLAIN)
        status = template(content) | {"conditions": []}
        version = {"metadata": {"name": target}, "spec": {"fleet": "web"}, "status": status}
        await self.operations.create(ADMIN, VERSION, "default", version, PLAIN)
        spec = {"target": {"fleet": "web", "templateVersion": target}}
        rollout = {"metadata": {"name": f"{target}-1"}, "spec": spec}
        await self.operations.create(ADMIN, ROLLOUT, "default", rollout, PLAIN)
        return {"templateVersion": target, "rollout": f"{target}-1"}

    async def bind(self, request: Json) -> Json:
        return await self.operations.bind(ADMIN, "default", "web", request)

    async def change(self, content: str) -> Json:
        """A fleet change and its bind."""
        return await self.bind(await self.offer(content))

    async def page(self, **selectors: Any) -> Page:
        options = ListOptions(limit=100, **selectors)
        return await self.operations.list(ADMIN, DEVICE, "default", options)

    async def summary(self) -> Json:
        return await self.operations.store.read(lambda s: s.counters("default"))

    async def report(self, name: str, number: int, more: Json | None = None) -> None:
        """A status of about two kilobytes, and `more` facts, that differs from the last one."""
        facts = _STATUS["systemInfo"] | (more or {}) | {"bootID": str(number)}
        status = _STATUS | {"systemInfo": facts}
        await self.operations.store.write(
            lambda tx: reports.put(tx, reports.Report("default", name, status))
        )


def fleet(content: str) -> Json:
    """The fleet `web` with one file of this content."""
    selector = {"matchLabels": {"site": "a"}}
    spec = {"selector": selector, "template": {"spec": template(content)}}
    return {"metadata": {"name": "web"}, "spec": spec}


def template(content: str) -> Json:
    return {"config": [{"name": "motd", "inline": [{"path": "/etc/motd", "content": content}]}]}


def _insert(tx: Transaction, first: int, end: int) -> None:
    for n in range(first, end):
        metadata = {
            "name": f"d{n:06}",
            "namespace": "default",
            "uid": f"uid-{n:06}",
            "creationTimestamp": tx.timestamp,
            "labels": {"site": "a", "serial": str(n)},
        }
        bindings.insert_device(tx, {"metadata": metadata, "spec": {}})


_STATUS: Json = {
    "conditions": [
        {
            "type": "Updating",
            "status": "False",
            "reason": "Updated",
            "message": "Updated to desired renderedVersion: 2",
            "lastTransitionTime": "2026-11-23T00:00:00Z",
        }
    ],
    "systemInfo": {
        "architecture": "amd64",
        "operatingSystem": "linux",
        "agentVersion": "1",
        "bootID": "",
    }
    | {f"custom{n}": "a value of some length, as devices report them" for n in range(20)},
    "applications": [{"name": "web", "ready": "1/1", "restarts": 0, "status": "Running"}],
    "applicationsSummary": {"status": "Healthy"},
    "resources": {"cpu": "Healthy", "memory": "Healthy", "disk": "Healthy"},
    "integrity": {"status": "Unknown"},
    "config": {"renderedVersion": "2"},
    "os": {"image": "", "imageDigest": ""},
    "updated": {"status": "Unknown"},
    "summary": {"status": "Online"},
    "lifecycle": {"status": "Unknown"},
}
