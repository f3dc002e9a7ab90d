"""A fleet in a store, beside the model of it: what happens to one happens to the other."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from apiserver import bindings
from apiserver.auth.identity import Caller
from apiserver.operations import Operations, WriteOptions
from apiserver.store import Store, Transaction, devices
from resources import registry
from tests.fakes.rollout_model import Device, Model

Json = dict[str, Any]
ADMIN = Caller(name="admin", role="admin")
PLAIN = WriteOptions()
FLEET, VERSION, ROLLOUT = (
    registry.by_kind(kind) for kind in ("Fleet", "TemplateVersion", "Rollout")
)
STATES = ("total", "unbound", "held", "done", "failed", "timedOut", "disconnected")


@dataclass
class Clock:
    now: datetime = datetime(2026, 11, 26, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@dataclass
class Site:
    operations: Operations
    clock: Clock

    async def write(self, change: Any) -> Any:
        return await self.operations.store.write(change)


@asynccontextmanager
async def opened(database_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    clock = Clock()
    store = await Store.open(database_url, data_dir=tmp_path, clock=clock)
    operations = Operations(store)
    await operations.prepare()
    yield Site(operations, clock)
    await store.close()


class Rolling:
    """One fleet in the store, beside the model of it."""

    def __init__(self, site: Site, name: str, model: Model) -> None:
        self.site, self.name, self.model = site, name, model
        self.generation = 0

    @classmethod
    async def begin(cls, site: Site, name: str, model: Model) -> Rolling:
        """Devices that run the first version, and the second offered under the model's policy."""
        rolling = cls(site, name, model)
        document = {
            "metadata": {"name": name},
            "spec": {
                "selector": {"matchLabels": {"fleet": name}},
                "template": {"spec": template("start")},
            },
        }
        await site.operations.create(ADMIN, FLEET, "default", document, PLAIN)
        await site.write(rolling._insert)
        await rolling.offer("one", {})
        answer = await rolling.bind_asked({})
        assert answer["bound"] == len(model.devices)
        await site.write(rolling.run_everything)
        await rolling.offer("two", model.policy)
        return rolling

    def _insert(self, tx: Transaction) -> None:
        for device in self.model.devices:
            metadata = {
                "name": self.in_store(device),
                "namespace": "default",
                "uid": f"uid-{self.in_store(device)}",
                "creationTimestamp": tx.timestamp,
                "labels": {"fleet": self.name, **device.labels},
            }
            bindings.insert_device(tx, {"metadata": metadata, "spec": {}})

    def in_store(self, device: Device) -> str:
        return f"{self.name}-{device.name}"

    async def offer(self, content: str, policy: Json) -> None:
        self.generation += 1
        version = f"{self.name}.v{self.generation}"
        status = template(content) | {"conditions": []}
        document = {"metadata": {"name": version}, "spec": {"fleet": self.name}, "status": status}
        await self.site.operations.create(ADMIN, VERSION, "default", document, PLAIN)
        target = {"fleet": self.name, "templateVersion": version} | (
            {"policy": policy} if policy else {}
        )
        rollout = {"metadata": {"name": f"{version}-1"}, "spec": {"target": target}}
        await self.site.operations.create(ADMIN, ROLLOUT, "default", rollout, PLAIN)

    async def bind_asked(self, request: Json) -> Json:
        version = f"{self.name}.v{self.generation}"
        asked = {"templateVersion": version, "rollout": f"{version}-1"} | request
        return await self.site.operations.bind(ADMIN, "default", self.name, asked)

    async def bind(self, batch: int, *, select: bool, limit: int) -> None:
        self.model.now = self.site.clock.now.timestamp()
        answer = await self.bind_asked({"batch": batch, "select": select, "limit": limit})
        assert answer["bound"] == self.model.bind(batch, select=select, limit=limit)

    async def progress(self) -> Json:
        name = f"{self.name}.v{self.generation}-1"
        return await self.site.operations.progress(ADMIN, "default", self.name, name)

    def run_everything(self, tx: Transaction) -> None:
        self._each(tx, run_what_is_given)

    async def try_again(self) -> None:
        self.model.retry += 1

        def raised(document: Json) -> Json:
            spec = document["spec"] | {"control": {"retry": self.model.retry}}
            return document | {"spec": spec}

        name = f"{self.name}.v{self.generation}-1"
        await self.site.operations.patch(ADMIN, ROLLOUT, "default", name, raised, PLAIN)

    async def mark(self) -> None:
        """Those whose turn has not come are told so; nobody else is."""
        await self.bind_asked({"mark": True})
        assert (await self.progress())["misjudged"] == 0

    def _each(self, tx: Transaction, change: Any) -> None:
        for device in self.model.devices:
            row = devices.row_by_name(tx.connection, "default", self.in_store(device))
            assert row is not None
            if changes := change(row, device):
                devices.save(tx, row, changes)

    async def happens(self, device: Device, what: str) -> None:
        """Something that a device does, or that befalls it, in both."""
        if what in ("done", "failed"):
            if device.state != "updating" or not device.connected:
                return
            device.state = "done" if what == "done" else "failed"
        else:
            device.connected = what == "comes"
        change = partial(OF[what], only=device)
        await self.site.write(partial(self._each, change=change))

    async def compare(self) -> None:
        self.model.now = self.site.clock.now.timestamp()
        version = f"{self.name}.v{self.generation}"
        found = await self.site.operations.progress(ADMIN, "default", self.name, f"{version}-1")
        wanted = self.model.progress()
        for state in STATES:
            assert found[state] == wanted[state], state
        for ours, theirs in itertools.zip_longest(found["batches"], wanted["batches"]):
            assert {s: ours[s] for s in (*STATES, "number")} == {
                s: theirs[s] for s in (*STATES, "number")
            }
        rows = await self.site.operations.store.read(
            lambda s: {
                device.name: devices.row_by_name(s.connection, "default", self.in_store(device))
                for device in self.model.devices
            }
        )
        for device in self.model.devices:
            row = rows[device.name]
            assert row is not None
            assert (row["template_version"] == version) == device.is_bound, device
            if not device.retry:
                assert (row["rendered_template_version"] == version) == device.given, device
            assert row["rollout_retry"] == device.retry, device
            assert (row["render_needed"] == 1) == (device.is_bound and not device.given), device
            if device.is_bound:
                assert row["rollout_batch"] == device.batch, device


def template(content: str) -> Json:
    return {"config": [{"name": "motd", "inline": [{"path": "/etc/motd", "content": content}]}]}


def run_what_is_given(row: Any, device: Device) -> Json:
    return {"connected": int(device.connected), "seen": 1} | {
        "reported_version": row["rendered_version"]
    }


def _succeeds(row: Any, device: Device, only: Device) -> Json:
    return {"reported_version": row["rendered_version"]} if device is only else {}


def _fails(row: Any, device: Device, only: Device) -> Json:
    failed = {"failed_version": row["rendered_version"], "failed_digest": row["rendered_digest"]}
    return failed if device is only else {}


def _comes(row: Any, device: Device, only: Device) -> Json:
    return {"connected": 1} if device is only else {}


def _goes(row: Any, device: Device, only: Device) -> Json:
    return {"connected": 0} if device is only else {}


OF = {"done": _succeeds, "failed": _fails, "comes": _comes, "goes": _goes}
