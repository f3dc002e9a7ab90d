"""What a fleet takes from outside for single devices, by parameters, to the bytes that agents get,
on both stores: real Git and HTTP servers on loopback, a real API server; the host cluster alone is
a stand-in [simulated]. Each value is fetched once, frozen for its version, and told by those who
miss it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from apiserver import resolving
from apiserver.store import Transaction, devices, sets
from controllers import pinning, values
from controllers.client import FLIGHTCTL, Unreachable
from controllers.runtime import Controllers
from controllers.secretfiles import HostCluster
from controllers.session import Endpoint
from controllers.settings import Settings
from resources import digest, registry
from tests.fakes import sources_rig
from tests.fakes.file_server import FileServer
from tests.fakes.git_server import GitServer
from tests.fakes.host_cluster import Cluster
from tests.fakes.sources_rig import SECRET, Rig
from tests.fakes.waiting import PATIENCE_S

Json = dict[str, Any]

# A dozen devices are then several transactions.
CHUNK = 10


@pytest.fixture
async def rig(
    tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rig]:
    """For what is decided above the store."""
    monkeypatch.setattr(sets, "CHUNK", CHUNK)
    async with sources_rig.over("", tmp_path, _host(cluster)) as found:
        yield found


@pytest.fixture
async def stored(
    database_url: str, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rig]:
    """For what the store decides."""
    monkeypatch.setattr(sets, "CHUNK", CHUNK)
    # What was rendered is forgotten between two transactions.
    monkeypatch.setattr(resolving, "REMEMBERED", 1)
    async with sources_rig.over(database_url, tmp_path, _host(cluster)) as found:
        yield found


def _host(cluster: Cluster) -> HostCluster:
    return HostCluster(cluster.kubeconfig, environment={})


def from_git(path: str = "/sites/{{ .metadata.labels.site }}", revision: str = "main") -> Json:
    reference = {"repository": "demo", "targetRevision": revision, "path": path}
    return {"name": "site", "gitRef": reference}


def from_http(suffix: str = "/{{ .metadata.labels.site }}") -> Json:
    reference = {"repository": "files", "suffix": suffix, "filePath": "/etc/motd"}
    return {"name": "motd", "httpRef": reference}


async def fill(rig: Rig, sites: list[str], **spec: Any) -> None:
    """Devices d00…, one for each site; the fleet `web` over them with what `spec` says."""
    for number, site in enumerate(sites):
        await rig.create(
            "Device", f"d{number:02}", {}, fleet="web", **({"site": site} if site else {})
        )
    await change(rig, **spec)


async def change(rig: Rig, *, config: list[Json], policy: Json | None = None) -> None:
    spec: Json = {
        "selector": {"matchLabels": {"fleet": "web"}},
        "template": {"spec": {"config": config}},
    }
    if policy:
        spec["rolloutPolicy"] = policy
    is_new = not any(f["metadata"]["name"] == "web" for f in await rig.list("Fleet"))
    await (rig.create if is_new else rig.replace)("Fleet", "web", spec)


async def settled(rig: Rig, later_s: float = 10.0) -> Json:
    """Looks until nothing more comes of them; the newest version."""
    version = await rig.look(later_s)
    while (await rig.fetch()).changed:
        await rig.look(0.0)
        await rig.join()
    return version


async def row(rig: Rig, name: str) -> Any:
    store = rig.server.operations.store
    return await store.read(lambda s: devices.row_by_name(s.connection, "default", name))


async def info(rig: Rig, name: str) -> str:
    return str((await rig.get("Device", name))["status"]["updated"]["info"])


async def frozen(rig: Rig, version: Json) -> list[Json]:
    name = version["metadata"]["name"]
    page = await rig.client.values("default", name, state="frozen")
    found: list[Json] = page["items"]
    return found


async def test_devices_get_what_their_labels_say_and_each_value_is_fetched_once(
    stored: Rig, git: GitServer
) -> None:
    rig = stored
    sites = ["a", "b", "c"]
    content = {f"sites/{s}/etc/site": f"of {s}" for s in sites}
    await rig.repository(git, **content, **{"sites/a/etc/more": "x"})
    await fill(rig, [sites[n % 3] for n in range(25)], config=[from_git()])
    version = await rig.look()
    assert version["status"].get("inputs") is None, "nothing is the same for all"
    assert (await rig.condition())["status"] == "True"
    assert "is being fetched" in await info(rig, "d07")
    assert await rig.contents("d07") == {}, "it has what it had"
    progress = await rig.client.progress("default", "web", "web.v1-1")
    assert [progress[key] for key in ("unbound", "waiting", "failed")] == [25, 25, 0]
    said = await rig.condition("Progressing", "Rollout", "web.v1-1")
    assert said["message"].endswith(", 25 wait for what they take from outside.")

    look = await rig.fetch()
    assert (look.is_missing, look.changed, look.rollouts) == (False, 3, ["web.v1-1"])
    await rig.look(0.0)
    for number, site in ((0, "a"), (1, "b"), (14, "c"), (24, "a")):
        got = await rig.contents(f"d{number:02}")
        assert got.pop("/etc/site") == f"of {site}".encode()
        assert got == ({"/etc/more": b"x"} if site == "a" else {})
    kept = {item["values"]["path"]: item for item in await frozen(rig, version)}
    assert kept.keys() == {"/sites/a", "/sites/b", "/sites/c"}
    assert {item["files"] for item in kept.values()} == {1, 2}
    assert len({item["revision"] for item in kept.values()}) == 1
    rendered = {(await row(rig, f"d{n:02}"))["rendered_digest"] for n in range(25)}
    assert len(rendered) == 3, "one document for each value"
    progress = await rig.client.progress("default", "web", "web.v1-1")
    assert (progress["unbound"], progress["rendered"]) == (0, 25)
    await settled(rig)
    before = rig.server.operations.store.hub.version
    rig.restart()
    await settled(rig)
    assert rig.server.operations.store.hub.version == before, "looking again writes nothing"


async def test_another_label_takes_what_is_frozen_and_a_new_value_is_frozen_first(
    stored: Rig, git: GitServer
) -> None:
    rig = stored
    tree = await rig.repository(git, **{f"sites/{s}/etc/site": f"of {s}" for s in "abc"})
    await fill(rig, ["a", "b"], config=[from_git()])
    await settled(rig)
    asked = len(git.requests)
    await rig.relabel("d00", site="b")
    await rig.join()
    assert await rig.contents("d00") == {"/etc/site": b"of b"}
    assert len(git.requests) == asked, "it was frozen"

    await rig.relabel("d01", site="c")
    await rig.join()
    assert await rig.contents("d01") == {"/etc/site": b"of b"}, "it keeps what it has"
    assert (await row(rig, "d01"))["render_needed"] == 1
    assert (await rig.fetch()).changed == 1
    await rig.join()
    assert await rig.contents("d01") == {"/etc/site": b"of c"}
    assert await rig.names() == ["web.v1"]

    # While it waits, another label counts, not the one that it waits for.
    tree.push(**{"sites/d/etc/site": "of d"})
    await rig.relabel("d01", site="d")
    await rig.join()
    await rig.relabel("d01", site="a")
    await rig.join()
    assert await rig.contents("d01") == {"/etc/site": b"of a"}
    assert (await row(rig, "d01"))["render_needed"] == 0


async def test_what_cannot_be_had_is_told_by_those_who_need_it_and_mended_by_itself(
    stored: Rig, git: GitServer
) -> None:
    rig = stored
    tree = await rig.repository(git, **{"sites/a/etc/site": "of a"})
    await fill(rig, ["a", "x", "a", "x", ""], config=[from_git()])
    version = await settled(rig)
    for name in ("d00", "d02"):
        assert await rig.contents(name) == {"/etc/site": b"of a"}
    cause = 'config[0].gitRef.path "/sites/x": there is no "sites/x" in '
    for name in ("d01", "d03"):
        device = await rig.get("Device", name)
        assert device["metadata"]["annotations"][devices.ROLLOUT_ERROR].startswith(cause)
        updated = device["status"]["updated"]
        assert updated["status"] == "OutOfDate"
        assert cause in updated["info"]
        valid = await rig.condition("SpecValid", "Device", name)
        assert (valid["status"], valid["reason"]) == ("False", "Invalid")
        assert valid["message"].startswith(cause)
    assert 'no label "site"' in await info(rig, "d04")
    progress = await rig.client.progress("default", "web", "web.v1-1")
    assert [progress[key] for key in ("rendered", "failed", "unbound")] == [2, 3, 0]
    assert [cause["count"] for cause in progress["failures"]] == [2, 1]
    assert (await rig.condition())["status"] == "True", "the fleet is not to blame"

    asked = len(git.requests)
    assert not (await rig.fetch()).changed
    assert len(git.requests) == asked, "not asked again at once"
    tree.push(**{"sites/x/etc/site": "of x"})
    await settled(rig, 60.0)
    assert await rig.contents("d01") == {"/etc/site": b"of x"}
    assert await rig.contents("d03") == {"/etc/site": b"of x"}
    assert await rig.names() == [version["metadata"]["name"]], "without a new version"
    device = await rig.get("Device", "d01")
    assert devices.ROLLOUT_ERROR not in device["metadata"]["annotations"]
    assert (await rig.condition("SpecValid", "Device", "d01"))["status"] == "True"


async def test_a_server_that_does_not_answer_fails_nobody(stored: Rig, files: FileServer) -> None:
    rig = stored
    await rig.create("Repository", "files", files.spec())
    files.files |= {"/a": b"of a"}
    files.answers["/b"] = 503
    await fill(rig, ["a", "b"], config=[from_http()])
    await settled(rig)
    assert await rig.contents("d00") == {"/etc/motd": b"of a"}
    assert "answered 503" in await info(rig, "d01")
    progress = await rig.client.progress("default", "web", "web.v1-1")
    assert [progress[key] for key in ("rendered", "failed", "unbound")] == [1, 0, 1]
    del files.answers["/b"]
    files.files["/b"] = b"of b"
    await settled(rig, 60.0)
    assert await rig.contents("d01") == {"/etc/motd": b"of b"}
    assert not [r for r in files.requests if r[0] == "/a" and r[1] == 200][1:], "once, then by ETag"


async def test_one_that_never_answers_is_not_asked_for_each_value(
    rig: Rig, files: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "PARALLEL", 1)
    await rig.create("Repository", "files", files.spec())
    sites = [f"s{number:02}" for number in range(20)]
    files.answers |= {f"/{site}": 503 for site in sites}
    await fill(rig, sites, config=[from_http()])
    await rig.look()
    look = await rig.fetch()
    assert (look.is_missing, look.changed) == (True, 20)
    assert len(files.requests) == values.SILENT_AFTER


async def test_a_source_that_changes_makes_a_version_and_a_version_never_changes(
    rig: Rig, git: GitServer, files: FileServer
) -> None:
    tree = await rig.repository(git, **{f"sites/{s}/etc/site": f"of {s}" for s in "ab"})
    await rig.create("Repository", "files", files.spec())
    files.files |= {"/a": b"one", "/b": b"one"}
    await fill(rig, ["a", "b"], config=[from_git(), from_http()])
    first = await settled(rig)
    tree.push(**{"other/file": "nobody gets this"})
    assert (await settled(rig))["metadata"]["name"] == "web.v1"
    tree.push(**{"sites/a/etc/site": "of a, new"})
    had = (await row(rig, "d01"))["rendered_version"]
    # Another device with a known value, before anybody has looked.
    await rig.create("Device", "late", {}, fleet="web", site="a")
    await rig.join()
    assert (await rig.contents("late"))["/etc/site"] == b"of a"
    second = await settled(rig)
    assert second["metadata"]["name"].startswith("web.v1-")
    assert second["spec"] == first["spec"]
    assert (await rig.contents("late"))["/etc/site"] == b"of a, new"
    assert (await rig.contents("d01"))["/etc/site"] == b"of b"
    assert (await row(rig, "d01"))["rendered_version"] == had, "nothing new for this one"
    files.files["/b"] = b"two"
    third = await settled(rig)
    assert (await rig.contents("d01"))["/etc/motd"] == b"two"
    assert (await rig.contents("d00"))["/etc/motd"] == b"one"
    assert len(await rig.names()) == 3
    reasons = Counter(event["spec"]["reason"] for event in await rig.events())
    assert reasons["DependencyChangeDetected"] == 2

    # What is gone at its source stays on the devices, and the fleet says what is not followed.
    del files.files["/b"]
    assert (await settled(rig))["metadata"]["name"] == third["metadata"]["name"]
    said = await rig.condition("InputsCurrent")
    assert said["status"] == "False"
    assert 'config[1].httpRef.suffix "/b"' in said["message"]
    assert (await rig.contents("d01"))["/etc/motd"] == b"two"


async def test_many_values_are_asked_for_once_and_followed_in_turns(
    rig: Rig, files: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "FOLLOWED", 2)
    await rig.create("Repository", "files", files.spec())
    sites = [f"s{number}" for number in range(5)]
    files.files |= {f"/{site}": site.encode() for site in sites}
    await fill(rig, sites * 6, config=[from_http()])
    version = await settled(rig)
    assert sorted(path for path, _, _ in files.requests) == sorted(files.files)
    assert (await row(rig, "d29"))["template_version"] == "web.v1"
    # By key, as the pages are.
    order = [item["values"]["suffix"] for item in await frozen(rig, version)]
    await rig.look(60.0)
    del files.files[order[0]]
    said = []
    for _ in range(6):
        await rig.look(60.0)
        said.append((await rig.condition("InputsCurrent"))["status"])
    first = said.index("False")
    assert set(said[first:]) == {"False"}, "it does not come and go with the turns"
    files.files[order[4]] = b"new"
    files.files[order[0]] = order[0][1:].encode()
    for _ in range(3):
        await settled(rig, 600.0)
    assert len(await rig.names()) == 2
    assert (await rig.condition("InputsCurrent"))["status"] == "True"


async def test_a_fleet_that_is_kept_in_git_takes_the_commit_that_it_was_read_from(
    rig: Rig, git: GitServer
) -> None:
    tree = await rig.repository(git, **{f"sites/{s}/etc/site": "one" for s in "ab"})
    one = tree.git("rev-parse", "HEAD")
    two = tree.push(**{"sites/a/etc/site": "two", "sites/c/etc/site": "two"})
    await fill(rig, ["a", "c"], config=[from_git()])
    kind = registry.by_kind("Fleet")
    source = {"repository": "demo", "targetRevision": "main"}

    async def read_from(commit: str) -> None:
        """As a ResourceSync leaves it."""
        said = {pinning.ANNOTATION: json.dumps(source | {"commit": commit})}

        def write(tx: Transaction) -> None:
            old = tx.get(kind, "default", "web")
            assert old is not None
            annotations = (old["metadata"].get("annotations") or {}) | said
            kept = {"annotations": annotations, "owner": "ResourceSync/demo"}
            tx.update(kind, old, old | {"metadata": old["metadata"] | kept})

        await rig.server.operations.store.write(write)

    await read_from(one)
    await settled(rig)
    assert await rig.contents("d00") == {"/etc/site": b"one"}
    assert 'gitRef.path "/sites/c"' in await info(rig, "d01"), "it is in no commit that was taken"
    await read_from(two)
    version = await settled(rig, 600.0)
    assert version["metadata"]["name"] != "web.v1"
    assert await rig.contents("d00") == {"/etc/site": b"two"}
    assert await rig.contents("d01") == {"/etc/site": b"two"}


async def test_devices_of_one_version_get_one_commit(rig: Rig, git: GitServer) -> None:
    tree = await rig.repository(git, **{f"sites/{s}/etc/site": "one" for s in "ab"})
    fixed = {"name": "base", "gitRef": from_git("/sites/a")["gitRef"]}
    await fill(rig, ["a"], config=[fixed | {"name": "base"}, from_git()])
    version = await settled(rig)
    tree.push(**{"sites/b/etc/site": "two", "sites/c/etc/site": "two"})
    await rig.create("Device", "late", {}, fleet="web", site="b")
    await rig.create("Device", "later", {}, fleet="web", site="c")
    await rig.join()
    rig.clock[0] += 60
    await rig.fetch()
    await rig.join()
    assert await rig.contents("late") == {"/etc/site": b"one"}, "what this version is"
    assert await rig.contents("later") == {"/etc/site": b"two"}, "or what there is"
    assert len({item["revision"] for item in await frozen(rig, version)}) == 2


async def test_branches_and_tags_may_be_named_by_labels(rig: Rig, git: GitServer) -> None:
    tree = await rig.repository(git, **{"device/etc/ring": "main"})
    tree.git("tag", "stable")
    tree.push(**{"device/etc/ring": "newer"})
    tree.git("push", "--quiet", "origin", "stable")
    await fill(
        rig,
        ["stable", "main", "nowhere"],
        config=[from_git("/device", "{{ .metadata.labels.site }}")],
    )
    await settled(rig)
    assert await rig.contents("d00") == {"/etc/ring": b"main"}
    assert await rig.contents("d01") == {"/etc/ring": b"newer"}
    assert 'gitRef.targetRevision "nowhere"' in await info(rig, "d02")


async def test_secrets_of_single_devices_have_keyed_digests(rig: Rig, cluster: Cluster) -> None:
    cluster.put("devices", "site-a", token=SECRET)
    reference = {
        "name": "site-{{ .metadata.labels.site }}",
        "namespace": "devices",
        "mountPath": "/etc/{{ .metadata.name }}",
    }
    await fill(rig, ["a", "b"], config=[{"name": "creds", "secretRef": reference}])
    version = await settled(rig)
    assert await rig.contents("d00") == {"/etc/d00/token": SECRET}
    assert (await row(rig, "d00"))["rendered_digest"].startswith(digest.KEYED_PREFIX)
    assert 'secretRef.name "site-b"' in await info(rig, "d01")
    (item,) = await frozen(rig, version)
    assert SECRET.decode() not in str(item)
    cluster.put("devices", "site-a", token=b"rotated")
    await settled(rig, 60.0)
    assert await rig.contents("d00") == {"/etc/d00/token": b"rotated"}


async def test_what_was_taken_back_to_is_fetched_for_and_nothing_else_is(
    rig: Rig, files: FileServer
) -> None:
    """A fleet whose newest version was reverted, and one whose template is wrong just now."""
    await rig.create("Repository", "files", files.spec())
    files.files |= {f"/{name}": name.encode() for name in ("a", "c", "v2-a")}
    await fill(rig, ["a", "a"], config=[from_http()])
    await settled(rig)
    await rig.come_to_rest()
    await rig.look(0.0)
    assert (await rig.get("Rollout", "web.v1-1"))["status"]["phase"] == "Completed"
    await change(rig, config=[from_http("/v2-{{ .metadata.labels.site }}")])
    await settled(rig)
    assert await rig.contents("d00") == {"/etc/motd": b"v2-a"}
    rollout = await rig.get("Rollout", "web.v2-1")
    await rig.replace("Rollout", "web.v2-1", rollout["spec"] | {"control": {"revert": True}})
    await rig.look(0.0)
    assert rig.seen.wants == "web.v1"
    assert await rig.contents("d00") == {"/etc/motd": b"a"}
    await rig.relabel("d01", site="c")
    await rig.join()
    assert not (await rig.fetch("web.v2")).changed
    assert (await rig.fetch("web.v1")).changed == 1
    await rig.join()
    assert await rig.contents("d01") == {"/etc/motd": b"c"}

    await rig.relabel("d00", site="d")
    await rig.join()
    wrong = {"name": "x", "gitRef": from_git("/")["gitRef"] | {"repository": "none"}}
    await change(rig, config=[wrong])
    await rig.look(0.0)
    assert (await rig.condition())["status"] == "False"
    assert rig.seen.wants == "web.v1", "its devices need what they need"


async def test_where_files_go_may_be_any_template(rig: Rig, files: FileServer) -> None:
    await rig.create("Repository", "files", files.spec())
    files.files |= {"/a": b"of a", "/fixed": b"for all"}
    path = '{{ index .metadata.labels "dir" | replace ":" "/" | printf "/etc/%s" }}'
    references = [
        {"suffix": "/{{ .metadata.labels.site }}", "filePath": path + "/own"},
        {"suffix": "/fixed", "filePath": path},
    ]
    config = [
        {"name": f"s{number}", "httpRef": {"repository": "files", **reference}}
        for number, reference in enumerate(references)
    ]
    await fill(rig, ["a", "a"], config=config[:1])
    await rig.relabel("d00", dir="x.y")
    await settled(rig)
    assert await rig.contents("d00") == {"/etc/x.y/own": b"of a"}
    await change(rig, config=config[1:])
    await settled(rig)
    assert await rig.contents("d00") == {"/etc/x.y": b"for all"}
    assert 'httpRef.filePath: "/etc/"' in await info(rig, "d01")
    await change(rig, config=config)
    await settled(rig)
    assert "is both a file and the directory" in await info(rig, "d00")


async def test_controllers_that_die_between_a_fetch_and_its_naming_lose_nothing(
    rig: Rig, git: GitServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rig.repository(git, **{f"sites/{s}/etc/site": f"of {s}" for s in "ab"})
    await fill(rig, ["a", "b"], config=[from_git()])
    await rig.look()

    async def dies(*_: Any, **__: Any) -> int:
        raise Unreachable("killed here")

    settle = rig.client.settle
    monkeypatch.setattr(rig.client, "settle", dies)
    with pytest.raises(Unreachable):
        await rig.fetch()
    monkeypatch.setattr(rig.client, "settle", settle)
    rig.restart()
    page = await rig.client.values("default", "web.v1", state="missing")
    assert len(page["items"]) == 2
    await settled(rig)
    assert await rig.contents("d01") == {"/etc/site": b"of b"}

    # What was named once stays, whatever an older process says later.
    known = await frozen(rig, await rig.get("TemplateVersion", "web.v1"))
    late = [{"key": item["key"], "problem": "too late"} for item in known]
    assert await rig.client.settle("default", "web.v1", late) == 0


async def test_controllers_do_all_of_it_and_go_on_where_others_were_stopped(
    rig: Rig, files: FileServer
) -> None:
    """With threads, queues and watches as they are; the server of files is mended while nobody
    looks."""
    await rig.create("Repository", "files", files.spec())
    files.files["/a"] = b"of a"
    files.answers["/b"] = 503
    async with _controllers(rig):
        await fill(rig, ["a", "b"], config=[from_http()])
        await _until(rig, "d00", b"of a")
        page = await rig.client.values("default", "web.v1", state="missing")
        assert [item["values"]["suffix"] for item in page["items"]] == ["/b"]
    del files.answers["/b"]
    files.files |= {"/b": b"of b", "/c": b"of c"}
    async with _controllers(rig):
        await _until(rig, "d01", b"of b")
        await rig.relabel("d00", site="c")
        await _until(rig, "d00", b"of c")
        files.files["/c"] = b"of c, new"
        await _until(rig, "d00", b"of c, new")
    assert len(await rig.names()) == 2


@asynccontextmanager
async def _controllers(rig: Rig) -> AsyncIterator[None]:
    endpoint = Endpoint(socket=rig.server.settings.controllers_socket)
    controllers = Controllers(endpoint, Settings(rig.folder / "state", poll_s=1))
    await asyncio.to_thread(controllers.start)
    try:
        yield
    finally:
        assert await asyncio.to_thread(controllers.stop)


async def _until(rig: Rig, device: str, motd: bytes) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await rig.contents(device) != {"/etc/motd": motd}:
            await asyncio.sleep(0.1)


async def test_a_repository_that_is_missing_makes_the_fleet_invalid(
    rig: Rig, git: GitServer
) -> None:
    await fill(rig, ["a"], config=[from_git()])
    assert await rig.look() == {}
    message = (await rig.condition())["message"]
    assert "spec.template.spec.config[0].gitRef.repository" in message
    assert "does not exist" in message


async def test_what_waits_takes_no_place_of_a_budget(stored: Rig, files: FileServer) -> None:
    rig = stored
    await rig.create("Repository", "files", files.spec())
    files.files |= {f"/{site}": site.encode() for site in "cd"}
    files.answers |= {"/a": 503, "/b": 404}
    policy = {"disruptionBudget": {"maxUnavailable": 1}}
    await fill(rig, ["a", "b", "c", "d"], config=[from_http()], policy=policy)
    await rig.come_to_rest()
    for _ in range(4):
        await settled(rig, 0.0)
        await rig.come_to_rest()
    assert await rig.contents("d02") == {"/etc/motd": b"c"}
    assert await rig.contents("d03") == {"/etc/motd": b"d"}
    progress = await rig.client.progress("default", "web", "web.v1-1")
    assert [progress[key] for key in ("done", "failed", "unbound", "held")] == [2, 1, 1, 0]


async def test_a_batch_waits_for_what_its_devices_need(stored: Rig, files: FileServer) -> None:
    rig = stored
    await rig.create("Repository", "files", files.spec())
    files.files |= {f"/{site}": site.encode() for site in "abc"}
    policy = {"deviceSelection": {"strategy": "BatchSequence", "sequence": [{"limit": 2}]}}
    await fill(rig, ["a", "b", "c"], config=[from_http()], policy=policy)
    await rig.come_to_rest()
    await rig.look()
    (batch,) = (await rig.client.progress("default", "web", "web.v1-1"))["batches"]
    assert [batch[key] for key in ("number", "total", "unbound", "done")] == [0, 2, 2, 0]
    page = await rig.client.values("default", "web.v1", state="missing")
    assert {item["values"]["suffix"] for item in page["items"]} == {"/a", "/b"}
    rollout = await rig.get("Rollout", "web.v1-1")
    assert rollout["status"]["currentBatch"] == 0
    await settled(rig, 0.0)
    (batch,) = (await rig.client.progress("default", "web", "web.v1-1"))["batches"]
    assert [batch[key] for key in ("rendered", "unbound")] == [2, 0]
    assert await rig.contents("d02") == {}
    await rig.come_to_rest()
    await settled(rig, 0.0)
    assert await rig.contents("d02") == {"/etc/motd": b"c"}


async def test_a_version_that_goes_takes_its_values_along(stored: Rig, files: FileServer) -> None:
    rig = stored
    await rig.create("Repository", "files", files.spec())
    files.files["/a"] = b"x"
    await fill(rig, ["a"], config=[from_http()])
    await settled(rig)
    kind = (await rig.get("TemplateVersion", "web.v1"))["kind"]
    await rig.client.delete(FLIGHTCTL, "default", "templateversions", await rig.get(kind, "web.v1"))

    def count(snapshot: Any) -> int:
        answer = snapshot.connection.exec_driver_sql("SELECT count(*) FROM frozen_value")
        return int(answer.scalar_one())

    assert await rig.server.operations.store.read(count) == 0
