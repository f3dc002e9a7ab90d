"""A real API server on a real store, and the controllers' reconcilers of fleets called by hand: the
state after each look is what a test looks at, and time is a number that it moves."""

from __future__ import annotations

import base64
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apiserver import app, config
from apiserver.app import Server
from apiserver.builtins.events import STORED
from apiserver.operations import ListOptions
from bench.fleet import ADMIN, PLAIN
from controllers import fleets, rollouts, values, versions, worklist
from controllers.client import FLIGHTCTL, Client
from controllers.freezing import Freezer
from controllers.gitmirror import Mirrors
from controllers.gitprogram import Git
from controllers.remotes import Remotes
from controllers.secretfiles import HostCluster
from controllers.session import Endpoint
from resources import attempts, backlog, conditions, registry
from tests.fakes.git_server import GitServer
from tests.fakes.git_worktree import WorkTree

Json = dict[str, Any]

# What nobody may read who may not.
PASSWORD, SECRET = "open-sesame-1", b"hunter2-of-the-cluster"
_TREES = itertools.count()


@asynccontextmanager
async def over(database: str, folder: Path, host: HostCluster) -> AsyncIterator[Rig]:
    """A rig on a server of its own, with what it keeps in `folder` and in the database."""
    settings = config.settings_of(
        data=folder / "data",
        listen="127.0.0.1:0",
        agent_listen="127.0.0.1:0",
        database=database,
    )
    server = await app.serve(settings)
    endpoint = Endpoint(socket=settings.controllers_socket)
    try:
        async with endpoint.session() as session:
            client = Client(session, endpoint.server)
            yield Rig(server, client, folder, host, [0.0])
    finally:
        await server.stop()


@dataclass
class Rig:
    """An API server, and the controllers' reconcilers, called by hand. Time is `clock`, so that
    what was asked for just now is asked for again when the test wants it."""

    server: Server
    client: Client
    folder: Path
    host: HostCluster
    clock: list[float]
    remotes: Remotes = field(init=False)
    freezer: Freezer = field(init=False)
    seen: fleets.Look = field(default_factory=fleets.Look)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything, as in a crash; mirrors are there."""

        def monotonic() -> float:
            return self.clock[0]

        git = Git(self.folder / "known_hosts")
        mirrors = Mirrors(self.folder / "mirrors", git, monotonic=monotonic)
        self.remotes = Remotes(self.client, monotonic=monotonic)
        self.freezer = Freezer(
            self.client, self.remotes, mirrors, self.host, poll_s=5, monotonic=monotonic
        )

    def changed(self, repository: str) -> None:
        """What the runtime does when a Repository was changed."""
        self.remotes.changed("default", repository)
        self.freezer.try_again()

    async def create(self, kind: str, name: str, spec: Json, **labels: str) -> None:
        found = registry.by_kind(kind)
        document = {"metadata": {"name": name, "labels": labels}, "spec": spec}
        await self.server.operations.create(ADMIN, found, "default", document, PLAIN)

    async def repository(self, git: GitServer, **files: str) -> WorkTree:
        """A Repository `demo` with these files, on a fresh repository of the server."""
        name = f"demo-{next(_TREES)}"
        tree = git.repository(name)
        tree.push(**files)
        await self.create("Repository", "demo", git.https_spec(name))
        return tree

    async def replace(self, kind: str, name: str, spec: Json) -> None:
        found = registry.by_kind(kind)
        document = {"metadata": {"name": name}, "spec": spec}
        await self.server.operations.update(ADMIN, found, "default", name, document, PLAIN)

    async def get(self, kind: str, name: str) -> Json:
        found = registry.by_kind(kind)
        return await self.server.operations.get(ADMIN, found, "default", name)

    async def list(self, kind: str) -> list[Json]:
        found = registry.by_kind(kind)
        page = await self.server.operations.list(ADMIN, found, None, ListOptions())
        return page.items

    async def events(self) -> list[Json]:
        page = await self.server.operations.list(ADMIN, STORED, None, ListOptions())
        return page.items

    async def fleet(self, *providers: Json) -> None:
        """The fleet `web`, with one device."""
        selector = {"matchLabels": {"fleet": "web"}}
        spec = {"selector": selector, "template": {"spec": {"config": list(providers)}}}
        if any(f["metadata"]["name"] == "web" for f in await self.list("Fleet")):
            await self.replace("Fleet", "web", spec)
        else:
            await self.create("Fleet", "web", spec)
            await self.create("Device", "d1", {}, fleet="web")

    async def look(self, later_s: float = 10.0) -> Json:
        """A look of the controllers at the fleet and its current rollout, `later_s` after the last;
        its newest version. What was seen of the fleet is in `seen`."""
        self.clock[0] += later_s
        now = f"2026-11-25T00:{int(self.clock[0]) // 60 % 60:02}:{int(self.clock[0]) % 60:02}Z"
        self.seen = await fleets.reconcile(
            self.client, "default", "web", freezer=self.freezer, now=lambda: now
        )
        heads = await self.client.heads(FLIGHTCTL, "default", "templateversions", "spec.fleet=web")
        newest = versions.newest(heads)
        if newest is None:
            return {}
        current = attempts.current(await self.list("Rollout"), newest)
        if current is not None:
            name = attempts.name_of(current)
            await rollouts.reconcile(self.client, "default", name, now=lambda: now)
        return await self.get("TemplateVersion", newest)

    async def come_to_rest(self) -> None:
        """All devices are here and run what they were given."""
        rest = "UPDATE device SET connected = 1, seen = 1, reported_version = rendered_version"
        store = self.server.operations.store
        await store.write(lambda tx: tx.connection.exec_driver_sql(rest))

    async def relabel(self, name: str, **labels: str) -> None:
        old = await self.get("Device", name)
        metadata = old["metadata"] | {"labels": old["metadata"]["labels"] | labels}
        document = old | {"metadata": metadata}
        device = registry.by_kind("Device")
        await self.server.operations.update(ADMIN, device, "default", name, document, PLAIN)

    async def fetch(self, version: str = "") -> values.Look:
        """A look of the controllers at what single devices miss of a version, the newest one."""
        heads = await self.client.heads(FLIGHTCTL, "default", "templateversions", "spec.fleet=web")
        name = version or versions.newest(heads)
        assert name is not None
        return await values.fetch(self.client, "default", name, freezer=self.freezer)

    async def join(self) -> None:
        """A look of the controllers at the backlog."""
        await worklist.reconcile(self.client, "default", backlog.NAME)

    async def condition(self, type_: str = "Valid", of: str = "Fleet", name: str = "web") -> Json:
        document = await self.get(of, name)
        found = conditions.get(document["status"].get("conditions"), type_)
        assert found is not None, document["status"]
        return found

    async def rendered(self, device: str = "d1") -> dict[str, Json]:
        """What the agent is given, by path, contents decoded."""
        found = await self.server.operations.rendered(ADMIN, "default", device)
        return {
            file["path"]: {**file, "content": base64.b64decode(file["content"])}
            for provider in found["spec"]["config"]
            for file in provider["inline"]
        }

    async def contents(self, device: str = "d1") -> dict[str, bytes]:
        return {path: file["content"] for path, file in (await self.rendered(device)).items()}

    async def names(self) -> list[str]:
        return [v["metadata"]["name"] for v in await self.list("TemplateVersion")]
