"""A process with a real store, eight writers and a watcher, that kills itself at a named point.

Usage: python -m tests.fakes.dying_store DIR SEED POINT RESUME [DATABASE]

It prints a line for everything that was acknowledged (`A version uid`) or delivered to the watcher
(`E type version uid object-version`), after it was, and dies by SIGKILL at POINT once enough writes
were acknowledged. POINT: `before-commit`, `after-commit` (durable, nobody answered yet), `replying`
(some were answered), `idle`.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

from apiserver.auth.identity import Caller
from apiserver.operations import Operations, WatchOptions, WriteOptions
from apiserver.store import Store
from apiserver.store.postgres import PostgresDatabase
from apiserver.store.sqlite import SqliteDatabase
from resources import registry
from resources.kind import Json

ADMIN = Caller(name="admin", role="admin")
PLAIN = WriteOptions()
FLEET = registry.by_kind("Fleet")
DEVICE = registry.by_kind("Device")
VERSION = registry.by_kind("TemplateVersion")
ROLLOUT = registry.by_kind("Rollout")

WRITERS = 8
DEVICES = 60


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Dying:
    """A database that dies around a commit when it is armed."""

    armed = ""

    def commit(self, connection: Any) -> None:
        if self.armed == "before-commit":
            die()
        super().commit(connection)  # type: ignore[misc]
        if self.armed == "after-commit":
            die()


class DyingSqlite(Dying, SqliteDatabase):
    """Real SQLite."""


class DyingPostgres(Dying, PostgresDatabase):
    """Real PostgreSQL, of which this process is a client: the database lives on."""


class Process:
    """What this process has acknowledged, and when it is to die."""

    def __init__(self, operations: Operations, database: Dying, seed: int, point: str) -> None:
        self.operations = operations
        self.database = database
        self.random = random.Random(seed)
        self.point = point
        self.acknowledged = 0
        self.enough = 500 + self.random.randint(0, 60)

    def ack(self, version: int, uid: str) -> None:
        sys.stdout.write(f"A {version} {uid}\n")
        self.acknowledged += 1
        if self.acknowledged < self.enough:
            return
        sys.stdout.flush()
        if self.point == "replying":
            die()
        self.database.armed = self.point

    async def write_for_ever(self, writer: int) -> None:
        choice = random.Random(self.random.random())
        while True:
            name = f"w{writer}-{choice.randint(0, 5)}"
            try:
                await self._write(name, choice)
            except Exception as refused:
                if type(refused).__name__ not in ("NotFound", "AlreadyExists", "Conflict"):
                    raise

    async def _write(self, name: str, choice: random.Random) -> None:
        operations = self.operations
        what = choice.random()
        if what < 0.4:
            document = {
                "metadata": {"name": name, "labels": {"n": str(choice.randint(0, 2))}},
                "spec": {"template": {"spec": {}}},
            }
            stored = (await operations.create(ADMIN, FLEET, "default", document, PLAIN)).document
        elif what < 0.85:
            label = str(choice.randint(0, 2))

            def change(old: Json) -> Json:
                metadata = old["metadata"] | {
                    "labels": {"n": label, "t": str(choice.random())[2:9]}
                }
                return old | {"metadata": metadata}

            patched = await operations.patch(ADMIN, FLEET, "default", name, change, PLAIN)
            stored = patched.document
        else:
            gone = await operations.delete(ADMIN, FLEET, "default", name)
            stored = gone.document
        metadata = stored["metadata"]
        self.ack(int(metadata["resourceVersion"]), metadata["uid"])

    async def bind_for_ever(self) -> None:
        """Bulk binds to one of two templates, one rollout after the other."""
        number = self.random.randint(1, 10**9)
        while True:
            number += 1
            target = f"bulk.v{number}"
            spec = {
                "config": [{"name": "f", "inline": [{"path": "/etc/f", "content": str(number)}]}]
            }
            version = {
                "metadata": {"name": target},
                "spec": {"fleet": "bulk"},
                "status": spec | {"conditions": []},
            }
            rollout = {
                "metadata": {"name": f"{target}-1"},
                "spec": {"target": {"fleet": "bulk", "templateVersion": target}},
            }
            await self.operations.create(ADMIN, VERSION, "default", version, PLAIN)
            await self.operations.create(ADMIN, ROLLOUT, "default", rollout, PLAIN)
            request = {"templateVersion": target, "rollout": f"{target}-1"}
            await self.operations.bind(ADMIN, "default", "bulk", request)
            await asyncio.sleep(0.02)

    async def watch(self, kind: Any, resume: int) -> None:
        options = WatchOptions(resource_version=resume or None, timeout_s=600)
        async for batch in self.operations.watch(ADMIN, kind, "default", options):
            for event in batch.events:
                metadata = event.document["metadata"]
                version, uid = metadata["resourceVersion"], metadata["uid"]
                sys.stdout.write(f"E {kind.kind} {event.type} {version} {uid}\n")
                sys.stdout.flush()


async def ensure(operations: Operations) -> None:
    """The fleet of the bulk binds, and its devices."""
    fleet = {
        "metadata": {"name": "bulk"},
        "spec": {"selector": {"matchLabels": {"bulk": "1"}}, "template": {"spec": {}}},
    }
    await operations.update(ADMIN, FLEET, "default", "bulk", fleet, PLAIN, create_missing=True)
    for number in range(DEVICES):
        device = {"metadata": {"name": f"d{number}", "labels": {"bulk": "1"}}, "spec": {}}
        await operations.update(
            ADMIN, DEVICE, "default", f"d{number}", device, PLAIN, create_missing=True
        )


async def main(
    directory: Path, seed: int, point: str, resume: dict[str, int], url: str = ""
) -> None:
    database: DyingSqlite | DyingPostgres
    if url:
        database = await DyingPostgres.open(url)
    else:
        database = DyingSqlite(directory / "homeport.db")
    store = await Store.over(database)
    operations = Operations(store)
    await operations.prepare()
    if not resume["Fleet"]:
        await ensure(operations)
    process = Process(operations, database, seed, point)
    async with asyncio.TaskGroup() as group:
        for kind in (FLEET, DEVICE):
            group.create_task(process.watch(kind, resume[kind.kind]))
        for writer in range(WRITERS):
            group.create_task(process.write_for_ever(writer))
        group.create_task(process.bind_for_ever())
        if point == "idle":
            while process.acknowledged < process.enough:
                await asyncio.sleep(0.01)
            die()


if __name__ == "__main__":
    places = sys.argv[4].split(",")
    asyncio.run(
        main(
            Path(sys.argv[1]),
            int(sys.argv[2]),
            sys.argv[3],
            {"Fleet": int(places[0]), "Device": int(places[1])},
            *sys.argv[5:],
        )
    )
