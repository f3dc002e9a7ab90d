"""Fleets that a Git repository describes: real Git servers, a real API server on a real store, the
controllers' reconcilers called by hand with a clock of the test's; and the whole once through
kubectl, where every secret is looked for in everything that can be read."""

from __future__ import annotations

import base64
import itertools
import json
import os
import resource
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from apiserver import app, config
from apiserver.app import Server
from apiserver.errors import StatusError
from apiserver.operations import ListOptions
from bench.fleet import ADMIN, PLAIN
from controllers import access, fleets, gitmirror
from controllers.client import ApiError, Client
from controllers.freezing import Freezer
from controllers.gitmirror import Mirrors
from controllers.gitprogram import Git
from controllers.remotes import Known, Remotes
from controllers.repositories import Repositories
from controllers.resourcesyncs import ResourceSyncs
from controllers.secretfiles import HostCluster
from controllers.session import Endpoint
from resources import conditions, registry
from tests.e2e import processes
from tests.e2e.service import Service
from tests.fakes.git_server import GitServer
from tests.fakes.git_worktree import WorkTree

Json = dict[str, Any]

POLL_S = 60.0
_TREES = itertools.count()


class Failing(Client):
    """A client that is refused when it writes the fleet of this name."""

    refused = ""

    async def create(self, api: str, namespace: str, plural: str, document: Json) -> Json:
        if document["metadata"].get("name") == self.refused:
            raise ApiError(503, "ServiceUnavailable", "the service is busy")
        return await super().create(api, namespace, plural, document)


@dataclass
class Rig:
    server: Server
    client: Failing
    clock: list[float]
    mirrors: Mirrors
    remotes: Remotes
    syncs: ResourceSyncs
    repositories: Repositories
    freezer: Freezer

    async def create(self, kind: str, name: str, spec: Json, **metadata: Any) -> Json:
        found = registry.by_kind(kind)
        document = {"metadata": {"name": name, **metadata}, "spec": spec}
        return (
            await self.server.operations.create(ADMIN, found, "default", document, PLAIN)
        ).document

    async def replace(self, kind: str, name: str, spec: Json) -> None:
        found = registry.by_kind(kind)
        document = {"metadata": {"name": name}, "spec": spec}
        await self.server.operations.update(ADMIN, found, "default", name, document, PLAIN)
        if kind == "Repository":
            self.remotes.changed("default", name)
            self.syncs.changed("default", name)

    async def delete(self, kind: str, name: str) -> None:
        await self.server.operations.delete(ADMIN, registry.by_kind(kind), "default", name)

    async def get(self, kind: str, name: str) -> Json:
        return await self.server.operations.get(ADMIN, registry.by_kind(kind), "default", name)

    async def fleets(self) -> dict[str, str]:
        """Names and images of the fleets that there are."""
        kind = registry.by_kind("Fleet")
        page = await self.server.operations.list(ADMIN, kind, None, ListOptions())
        return {
            f["metadata"]["name"]: f["spec"]["template"]["spec"]["os"]["image"] for f in page.items
        }

    async def owner(self, fleet: str) -> str:
        return str((await self.get("Fleet", fleet))["metadata"].get("owner", ""))

    async def sync(self, name: str, path: str, repository: str = "demo", **spec: Any) -> None:
        """Make a ResourceSync and look at it."""
        wanted = {"repository": repository, "targetRevision": "main", "path": path, **spec}
        await self.create("ResourceSync", name, wanted)
        await self.look(name)

    async def look(self, name: str = "one", later_s: float = POLL_S + 1) -> float | None:
        self.clock[0] += later_s
        return await self.syncs.reconcile("default", name)

    async def said(self, type_: str, of: str = "ResourceSync", name: str = "one") -> list[str]:
        """Status, reason and message of a condition."""
        document = await self.get(of, name)
        found = conditions.get((document.get("status") or {}).get("conditions"), type_)
        return [found[key] for key in ("status", "reason", "message")] if found else []

    async def frozen(self, fleet: str) -> list[tuple[str, str]]:
        """Look at the fleet. Image and commit of the files of its versions, in order."""
        self.clock[0] += POLL_S + 1
        await fleets.reconcile(
            self.client, "default", fleet, freezer=self.freezer, now=self.syncs.now
        )
        page = await self.server.operations.list(
            ADMIN, registry.by_kind("TemplateVersion"), None, ListOptions()
        )
        found = sorted(page.items, key=lambda each: int(each["metadata"]["resourceVersion"]))
        return [
            (each["status"]["os"]["image"], each["status"]["inputs"][0]["revision"])
            for each in found
        ]

    async def commit(self, name: str = "one") -> str:
        status = (await self.get("ResourceSync", name)).get("status") or {}
        return str(status.get("observedCommit", ""))


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    settings = config.settings_of(
        data=tmp_path / "data", listen="127.0.0.1:0", agent_listen="127.0.0.1:0"
    )
    server = await app.serve(settings)
    endpoint = Endpoint(socket=settings.controllers_socket)
    clock = [1000.0]

    def now() -> str:
        return f"2026-11-25T00:{int(clock[0]) // 60 % 60:02}:{int(clock[0]) % 60:02}Z"

    def monotonic() -> float:
        return clock[0]

    async with endpoint.session() as session:
        client = Failing(session, endpoint.server)
        mirrors = Mirrors(tmp_path / "git", Git(tmp_path / "known_hosts"), monotonic=monotonic)
        remotes = Remotes(client, monotonic=monotonic)
        syncs = ResourceSyncs(client, mirrors, remotes, POLL_S, now, monotonic)

        async def attempt(known: Known) -> str:
            return await access.problem_of(mirrors, known)

        def changed(namespace: str, name: str) -> None:
            remotes.changed(namespace, name)
            syncs.changed(namespace, name)

        repositories = Repositories(client, remotes, attempt, changed, 120.0, now, monotonic)
        freezer = Freezer(
            client, remotes, mirrors, HostCluster(None), poll_s=POLL_S, monotonic=monotonic
        )
        yield Rig(server, client, clock, mirrors, remotes, syncs, repositories, freezer)
    await server.stop()


async def source(rig: Rig, git: GitServer, way: str = "https", /, **files: str) -> WorkTree:
    """The Repository `demo`, on a fresh repository of the server with these files."""
    name = f"demo-{next(_TREES)}"
    tree = git.repository(name)
    tree.push(**files)
    await rig.create("Repository", "demo", getattr(git, f"{way}_spec")(name))
    return tree


def fleet(name: str, image: str = "quay.io/acme/os:1") -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "flightctl.io/v1beta1",
            "kind": "Fleet",
            "metadata": {"name": name},
            "spec": {
                "selector": {"matchLabels": {"fleet": name}},
                "template": {"spec": {"os": {"image": image}}},
            },
        }
    )


def kept_with_files(name: str, image: str) -> str:
    """A fleet whose configuration is in the folder `device` of its own repository."""
    document = yaml.safe_load(fleet(name, image))
    reference = {"repository": "demo", "targetRevision": "main", "path": "/device"}
    document["spec"]["template"]["spec"]["config"] = [{"name": "files", "gitRef": reference}]
    return yaml.safe_dump(document)


# --- the good ways ------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["https", "ssh"])
async def test_fleets_are_what_the_repository_says_commit_after_commit(
    rig: Rig, git: GitServer, way: str
) -> None:
    two = f"{fleet('b')}---\n{fleet('c')}"
    tree = await source(rig, git, way, **{"fleets/a.yaml": fleet("a"), "fleets/sub/bc.yml": two})
    await rig.sync("one", "/fleets")
    assert sorted(await rig.fleets()) == ["a", "b", "c"]
    assert await rig.owner("b") == "ResourceSync/one"
    assert await rig.commit() == tree.git("rev-parse", "main")
    assert (await rig.said("Accessible"))[:2] == ["True", "accessible"]
    assert (await rig.said("ResourceParsed"))[:2] == ["True", "success"]
    assert (await rig.said("Synced"))[:2] == ["True", "success"]
    tree.remove("fleets/sub")
    tree.push(**{"fleets/a.yaml": fleet("a", "x:2"), "fleets/d.json": json.dumps(
        yaml.safe_load(fleet("d"))
    ), "README.md": "{"})  # fmt: skip
    await rig.look()
    assert await rig.fleets() == {"a": "x:2", "d": "quay.io/acme/os:1"}
    assert await rig.commit() == tree.git("rev-parse", "main")
    status = await rig.get("ResourceSync", "one")
    assert status["status"]["observedGeneration"] == 1


async def test_a_commit_that_changes_a_fleet_and_its_files_is_one_version(
    rig: Rig, git: GitServer
) -> None:
    """Whoever looks first: the files are followed by the commit that the fleet was read from."""
    tree = await source(
        rig, git, **{"f/a.yaml": kept_with_files("a", "x:1"), "device/etc/conf": "1"}
    )
    await rig.sync("one", "/f")
    assert (await rig.said("Synced"))[:2] == ["True", "success"], str(
        await rig.said("ResourceParsed")
    )
    assert await rig.frozen("a") == [("x:1", tree.git("rev-parse", "HEAD"))]
    first = tree.git("rev-parse", "HEAD")

    second = tree.push(**{"f/a.yaml": kept_with_files("a", "x:2"), "device/etc/conf": "2"})
    assert await rig.frozen("a") == [("x:1", first)], "the files went ahead of their fleet"
    await rig.look()
    assert await rig.frozen("a") == [("x:1", first), ("x:2", second)]

    # Files alone are followed too, and only with a commit that can be taken.
    third = tree.push(**{"device/etc/conf": "3"})
    await rig.look()
    assert await rig.frozen("a") == [("x:1", first), ("x:2", second), ("x:2", third)]
    tree.push(**{"f/a.yaml": "kind: Fleet\nmetadata: {", "device/etc/conf": "4"})
    await rig.look()
    assert len(await rig.frozen("a")) == 3

    # Nobody keeps it any more: its files are followed by themselves.
    await rig.delete("ResourceSync", "one")
    assert (await rig.frozen("a"))[3:] == [("x:2", tree.git("rev-parse", "HEAD"))]


async def test_a_single_file_a_tag_and_a_commit_can_be_followed(rig: Rig, git: GitServer) -> None:
    tree = await source(rig, git, **{"a.yaml": fleet("a"), "b.yaml": fleet("b")})
    tree.git("tag", "v1")
    first = tree.git("rev-parse", "HEAD")
    tree.push(**{"a.yaml": fleet("a", "x:2")})
    await rig.sync("tagged", "a.yaml", targetRevision="v1")
    await rig.sync("pinned", "/b.yaml", targetRevision=first)
    assert await rig.fleets() == {"a": "quay.io/acme/os:1", "b": "quay.io/acme/os:1"}


async def test_a_look_that_finds_nothing_new_writes_nothing(rig: Rig, git: GitServer) -> None:
    await source(rig, git, **{"a.yaml": fleet("a")})
    await rig.sync("one", "a.yaml")
    before = rig.server.operations.store.hub.version
    await rig.look()
    await rig.look(later_s=400)
    assert rig.server.operations.store.hub.version == before


async def test_between_two_polls_nobody_is_asked_but_for_a_refresh(
    rig: Rig, git: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The mirrors would answer by themselves, so shortly after the last question.
    monkeypatch.setattr(gitmirror, "TOGETHER_S", -1.0)
    tree = await source(rig, git, **{"a.yaml": fleet("a")})
    await rig.sync("one", "a.yaml")
    tree.push(**{"a.yaml": fleet("a", "x:2")})
    asked = len(git.requests)
    wait_s = await rig.look(later_s=0)
    assert wait_s is not None
    assert 0 < wait_s <= POLL_S
    assert len(git.requests) == asked
    kind = registry.by_kind("ResourceSync")
    await rig.server.operations.refresh(ADMIN, kind, "default", "one")
    await rig.look(later_s=2)
    assert await rig.fleets() == {"a": "x:2"}


async def test_force_pushes_are_followed_and_renamed_branches_are_told(
    rig: Rig, git: GitServer
) -> None:
    tree = await source(rig, git, **{"a.yaml": fleet("a")})
    tree.push(**{"a.yaml": fleet("a", "x:2")})
    await rig.sync("one", "a.yaml")
    tree.git("reset", "--quiet", "--hard", "HEAD~1")
    tree.push(**{"a.yaml": fleet("a", "x:3")})
    await rig.look()
    assert await rig.fleets() == {"a": "x:3"}
    tree.git("branch", "--move", "trunk")
    tree.push(**{"a.yaml": fleet("a", "x:4")})
    await rig.look()
    status, reason, message = await rig.said("Accessible")
    assert (status, reason) == ("False", "failed to clone repository")
    assert 'has no branch, tag or commit "main"; its branches: trunk' in message
    assert await rig.fleets() == {"a": "x:3"}
    assert (await rig.said("Synced"))[0] == "True"
    await rig.replace(
        "ResourceSync", "one", {"repository": "demo", "targetRevision": "trunk", "path": "a.yaml"}
    )
    await rig.look()
    assert await rig.fleets() == {"a": "x:4"}
    assert (await rig.said("Accessible"))[0] == "True"


def _memory_mb() -> int:
    """The most that this process, in which the service runs, has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@pytest.mark.timeout(600)
async def test_thousands_of_files_are_read_in_one_go(rig: Rig, git: GitServer) -> None:
    number = 50_000 if os.environ.get("HOMEPORT_SOAK") else 5_000
    config_map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"
    files = {f"many/{i % 100}/{i}.yaml": config_map for i in range(number - 2)}
    await source(rig, git, **files, **{"many/7/web.yaml": fleet("a"), "z.yaml": fleet("z")})
    before_mb, began = _memory_mb(), time.monotonic()
    await rig.sync("one", "many")
    took_s = time.monotonic() - began
    assert sorted(await rig.fleets()) == ["a"]
    assert (await rig.said("ResourceParsed"))[2] == f"1 fleets in {number - 1} files"
    print(f"files in the repository: {number}; fetched, read and applied in {took_s:.1f} s")
    print(f"memory of the service: {before_mb} MB before, {_memory_mb()} MB at most")


# --- what goes wrong ----------------------------------------------------------------------------


async def test_a_manifest_that_does_not_parse_is_told_by_file_and_line_and_changes_nothing(
    rig: Rig, git: GitServer
) -> None:
    tree = await source(rig, git, **{"f/a.yaml": fleet("a"), "f/b.yaml": fleet("b")})
    await rig.sync("one", "f")
    good = await rig.commit()
    tree.remove("f/a.yaml")
    tree.push(**{"f/b.yaml": fleet("b", "x:2"), "f/c.yaml": "kind: Fleet\nmetadata: {\n"})
    await rig.look()
    status, reason, message = await rig.said("ResourceParsed")
    assert (status, reason) == ("False", "fail")
    assert "f/c.yaml:3: is not YAML" in message
    assert (await rig.said("Synced"))[:2] == ["False", "fail"]
    assert f"stay as commit {good[:12]}" in (await rig.said("Synced"))[2]
    assert await rig.fleets() == {"a": "quay.io/acme/os:1", "b": "quay.io/acme/os:1"}
    assert await rig.commit() == good
    tree.push(**{"f/c.yaml": fleet("c").replace("image:", "imaeg:")})
    await rig.look()
    assert "f/c.yaml:12: Fleet c: spec.template.spec.os.imaeg" in (
        await rig.said("ResourceParsed")
    )[2]  # fmt: skip
    tree.push(**{"f/c.yaml": fleet("c")})
    await rig.look()
    assert sorted(await rig.fleets()) == ["b", "c"]
    assert (await rig.said("Synced"))[0] == "True"


@pytest.mark.parametrize(
    ("way", "changes", "says"),
    [
        ("https", {"password": "not-the-pa55"}, "refused the credentials of spec.httpConfig"),
        ("ssh", {"knownHosts": "other ssh-ed25519 AAAA\n"}, "host key of"),
    ],
)
async def test_who_is_not_let_in_says_so_and_goes_on_as_soon_as_he_is(
    rig: Rig, git: GitServer, way: str, changes: Json, says: str
) -> None:
    tree = await source(rig, git, way, **{"a.yaml": fleet("a")})
    assert tree.bare is not None
    spec = getattr(git, f"{way}_spec")
    name = tree.bare.name.removesuffix(".git")
    await rig.replace("Repository", "demo", spec(name, **changes))
    assert await rig.repositories.reconcile("default", "demo") == 120.0
    status, reason, message = await rig.said("Accessible", "Repository", "demo")
    assert (status, reason) == ("False", "Inaccessible")
    assert says in message
    await rig.sync("one", "a.yaml")
    assert (await rig.said("Accessible"))[:2] == ["False", "failed to clone repository"]
    assert says in (await rig.said("Accessible"))[2]
    assert await rig.said("Synced") == []
    await rig.replace("Repository", "demo", spec(name))
    await rig.repositories.reconcile("default", "demo")
    assert await rig.said("Accessible", "Repository", "demo") == [
        "True", "Accessible", "Accessible",
    ]  # fmt: skip
    await rig.look(later_s=2)
    assert sorted(await rig.fleets()) == ["a"]


async def test_an_unreachable_repository_is_tried_again_less_often_but_is(
    rig: Rig, git: GitServer
) -> None:
    await rig.create("Repository", "demo", {"type": "git", "url": "https://127.0.0.1:1/x"})
    waits = []
    for _ in range(4):
        rig.clock[0] += 500
        waits.append(await rig.repositories.reconcile("default", "demo"))
    assert waits == [120.0, 240.0, 480.0, 480.0]
    assert "does not take connections" in (await rig.said("Accessible", "Repository", "demo"))[2]
    await rig.sync("one", "a.yaml")
    assert "does not take connections" in (await rig.said("Accessible"))[2]


async def test_a_repository_that_is_not_there_or_of_another_type_is_told(
    rig: Rig, git: GitServer
) -> None:
    await rig.sync("one", "a.yaml", repository="nobody")
    status, reason, message = await rig.said("Accessible")
    assert (status, reason) == ("False", "repository resource not found")
    assert "there is no Repository nobody" in message
    await rig.create("Repository", "nobody", {"type": "oci", "registry": "127.0.0.1:1"})
    await rig.look()
    assert "is of type oci, not git" in (await rig.said("Accessible"))[2]


async def test_a_sync_of_a_catalog_says_that_it_is_not_served_and_whether_it_could_be_read(
    rig: Rig, git: GitServer
) -> None:
    await source(
        rig, git, **{"a.yaml": "kind: Catalog\nmetadata: {name: a}\n", "b.yaml": fleet("b")}
    )
    await rig.sync("catalog", "a.yaml", type="catalog")
    status, reason, message = await rig.said("Synced", name="catalog")
    assert (status, reason) == ("False", "fail")
    assert "catalogs are not served yet, so nothing was applied" in message
    assert (await rig.said("Accessible", name="catalog"))[:2] == ["True", "accessible"]
    assert await rig.commit("catalog") == ""
    await rig.sync("lost", "c.yaml", type="catalog")
    assert (await rig.said("Accessible", name="lost"))[1] == "path not found in repository"
    await rig.sync("fleets", "/")
    message = (await rig.said("ResourceParsed", name="fleets"))[2]
    assert "a.yaml:1: a Catalog does not belong into a ResourceSync of type fleet" in message
    assert await rig.fleets() == {}


async def test_an_empty_or_vanished_path_deletes_nothing_unless_told(
    rig: Rig, git: GitServer
) -> None:
    files = {"f/a.yaml": fleet("a"), "f/b.yaml": fleet("b"), "f/README": "", "x": ""}
    tree = await source(rig, git, **files)
    await rig.sync("one", "f")
    tree.remove("f/a.yaml", "f/b.yaml")
    tree.push()
    await rig.look()
    status, _, message = await rig.said("Synced")
    assert status == "False"
    assert "would delete all 2 fleets of this ResourceSync; nothing was deleted" in message
    assert "spec.allowEmpty: true" in message
    tree.remove("f")
    tree.push()
    await rig.look()
    assert (await rig.said("Accessible"))[:2] == ["False", "path not found in repository"]
    assert sorted(await rig.fleets()) == ["a", "b"]
    spec = {"repository": "demo", "targetRevision": "main", "path": "f", "allowEmpty": True}
    await rig.replace("ResourceSync", "one", spec)
    await rig.look()
    assert await rig.fleets() == {}
    assert (await rig.said("Synced"))[0] == "True"


async def test_nothing_is_deleted_when_something_could_not_be_applied(
    rig: Rig, git: GitServer
) -> None:
    tree = await source(rig, git, **{"f/a.yaml": fleet("a"), "f/b.yaml": fleet("b")})
    await rig.sync("one", "f")
    tree.remove("f/a.yaml")
    tree.push(**{"f/b.yaml": fleet("b", "x:2"), "f/c.yaml": fleet("c")})
    rig.client.refused = "c"
    await rig.look()
    assert sorted(await rig.fleets()) == ["a", "b"]
    message = (await rig.said("Synced"))[2]
    assert "f/c.yaml:4: the service is busy" in message
    assert "1 that left the repository were not deleted" in message
    rig.client.refused = ""
    await rig.look()
    assert sorted(await rig.fleets()) == ["b", "c"]


# --- whose a fleet is ---------------------------------------------------------------------------


async def test_of_two_syncs_that_claim_one_fleet_the_first_has_it(rig: Rig, git: GitServer) -> None:
    files = {"one/a.yaml": fleet("a"), "two/a.yaml": fleet("a", "x:2"), "two/b.yaml": fleet("b")}
    tree = await source(rig, git, **files)
    await rig.sync("one", "one")
    await rig.sync("two", "two")
    status, _, message = await rig.said("Synced", name="two")
    assert status == "False"
    assert "two/a.yaml:4: Fleet a is already kept by ResourceSync/one" in message
    assert await rig.fleets() == {"a": "quay.io/acme/os:1"}
    assert (await rig.said("Synced"))[0] == "True"
    before = rig.server.operations.store.hub.version
    await rig.look("two")
    assert rig.server.operations.store.hub.version == before, "what was said is not said again"
    tree.remove("one/a.yaml")
    tree.push(**{"one/other.yaml": fleet("other")})
    await rig.look("one")
    await rig.look("two")
    assert await rig.fleets() == {
        "a": "x:2",
        "b": "quay.io/acme/os:1",
        "other": "quay.io/acme/os:1",
    }
    assert await rig.owner("a") == "ResourceSync/two"


async def test_a_persons_fleet_is_taken_over_and_is_free_when_the_sync_is_gone(
    rig: Rig, git: GitServer
) -> None:
    mine = yaml.safe_load(fleet("a", "x:0"))
    annotations = {"example.com/note": "mine"}
    await rig.create("Fleet", "a", mine["spec"], annotations=annotations, labels={"old": "1"})
    await source(rig, git, **{"a.yaml": fleet("a")})
    await rig.sync("one", "a.yaml")
    taken = await rig.get("Fleet", "a")
    assert taken["metadata"]["owner"] == "ResourceSync/one"
    assert taken["metadata"]["annotations"] == annotations
    assert "labels" not in taken["metadata"]
    with pytest.raises(StatusError, match="kept by ResourceSync one"):
        await rig.replace("Fleet", "a", mine["spec"])
    await rig.delete("ResourceSync", "one")
    assert await rig.look() is None
    await rig.replace("Fleet", "a", mine["spec"])
    assert await rig.fleets() == {"a": "x:0"}


# --- the whole ----------------------------------------------------------------------------------


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    service = Service(tmp_path / "data")
    try:
        # Other tests run beside this one.
        service.start(timeout_s=50)
        yield service
    finally:
        service.stop()


def test_through_kubectl_and_no_secret_is_anywhere_to_be_read(
    service: Service, git: GitServer, tmp_path: Path
) -> None:
    wrong = "wr0ng-pa55-in-the-clear"
    for name in ("web", "edge"):
        git.repository(name).push(**{f"{name}.yaml": fleet(name)})
    specs = {
        "web": git.https_spec("web"),
        "edge": git.ssh_spec("edge"),
        "locked": git.https_spec("web", password=wrong),
        "stranger": git.ssh_spec("edge", knownHosts=""),
    }
    for name, spec in specs.items():
        head = {"apiVersion": "flightctl.io/v1beta1", "metadata": {"name": name}}
        sync = {"repository": name, "targetRevision": "main", "path": "/"}
        for document in (
            {**head, "kind": "Repository", "spec": spec},
            {**head, "kind": "ResourceSync", "spec": sync},
        ):
            service.kubectl("apply", "-f", "-", stdin=json.dumps(document))
    for name in ("web", "edge"):
        service.kubectl("wait", "--for=condition=Synced", f"resourcesync/{name}", "--timeout=60s")
        assert service.get("fleet", name)["metadata"]["owner"] == f"ResourceSync/{name}"

    def refused(kind: str, name: str) -> bool:
        found = conditions.get(
            service.get(kind, name).get("status", {}).get("conditions"), "Accessible"
        )
        return found is not None and found["status"] == "False"

    def told() -> bool:
        kinds = ("repository", "resourcesync")
        return all(refused(kind, name) for kind in kinds for name in ("locked", "stranger"))

    processes.until(told, "both say that they are not let in", timeout_s=60)
    # Applying the same again changes nothing, though what is read back is masked.
    again = json.dumps({"apiVersion": "flightctl.io/v1beta1", "kind": "Repository",
                        "metadata": {"name": "web"}, "spec": specs["web"]})  # fmt: skip
    before = service.get("repository", "web")["metadata"]["resourceVersion"]
    service.kubectl("apply", "-f", "-", stdin=again)
    assert service.get("repository", "web")["metadata"]["resourceVersion"] == before
    assert service.kubectl("create", "--raw", (
        "/apis/flightctl.io/v1beta1/namespaces/default/resourcesyncs/web/refresh"
    ), "-f", "-", stdin="{}")  # fmt: skip
    service.kubectl("delete", "repository", "stranger")
    texts = [
        service.kubectl("get", "repositories,resourcesyncs,fleets,events", "-o", "yaml"),
        service.kubectl("get", "repositories", "-o", "wide"),
        service.kubectl("describe", "repositories,resourcesyncs"),
        service.log.read_text(),
    ]
    connection = sqlite3.connect(service.data / "homeport.db")
    texts += [row[0] for row in connection.execute("SELECT body FROM change WHERE body NOT NULL")]
    connection.close()
    assert "refused the credentials" in texts[2]
    assert "RepositoryInaccessible" in texts[2]
    assert "ResourceSyncSynced" in texts[2]
    secrets = [git.password, wrong, git.passphrase]
    secrets += [base64.b64encode(git.private_key.encode()).decode(), git.private_key.split("\n")[1]]
    for text in texts:
        for secret in secrets:
            assert secret not in text
    for file in (service.data / "controllers").rglob("*"):
        if file.is_file():
            assert not any(secret.encode() in file.read_bytes() for secret in secrets), file
