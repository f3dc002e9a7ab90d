"""Configuration from Git, HTTP and Secrets, to the bytes that agents get: real servers on loopback,
a real API server on a real store; the host cluster alone is a stand-in."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from apiserver.errors import Conflict
from apiserver.store import compaction
from bench.fleet import ADMIN
from controllers import fleets, followers
from controllers.client import ApiError, Client, Unreachable
from controllers.runtime import Controllers
from controllers.secretfiles import HostCluster
from controllers.session import Endpoint
from controllers.settings import Settings
from resources import registry
from resources.event import DETAILS
from tests.fakes import sources_rig
from tests.fakes.file_server import FileServer
from tests.fakes.git_server import GitServer
from tests.fakes.host_cluster import Cluster
from tests.fakes.sources_rig import PASSWORD, SECRET, Rig
from tests.fakes.waiting import PATIENCE_S

Json = dict[str, Any]


@pytest.fixture
async def rig(tmp_path: Path, cluster: Cluster) -> AsyncIterator[Rig]:
    host = HostCluster(cluster.kubeconfig, environment={})
    async with sources_rig.over("", tmp_path, host) as found:
        yield found


def from_git(path: str = "/device", name: str = "base", revision: str = "main") -> Json:
    reference = {"repository": "demo", "targetRevision": revision, "path": path}
    return {"name": name, "gitRef": reference}


def from_http(suffix: str = "/motd", path: str = "/etc/motd") -> Json:
    return {
        "name": "web",
        "httpRef": {"repository": "files", "suffix": suffix, "filePath": path},
    }


def from_secret(name: str = "creds") -> Json:
    reference = {"name": name, "namespace": "devices", "mountPath": "/etc/creds", "user": "app"}
    return {"name": "acm-secrets", "secretRef": reference}


def inline(path: str, content: str) -> Json:
    return {"name": "last", "inline": [{"path": path, "content": content, "mode": 0o600}]}


async def told(rig: Rig, reason: str) -> tuple[str, Json]:
    """Message and details of the one event of this reason."""
    (found,) = [one for one in await rig.events() if one["spec"]["reason"] == reason]
    details = json.loads(found["metadata"]["annotations"][DETAILS])
    assert details.pop("detailType") == reason
    return found["spec"]["message"], details


# --- Git ----------------------------------------------------------------------------------------


async def test_a_tree_lands_on_the_device_and_follows_its_branch(rig: Rig, git: GitServer) -> None:
    """A, B and A again are three versions; what touches other files is none."""
    tree = await rig.repository(
        git, **{"device/etc/app.conf": "one", "device/bin/run": "#!", "README": "x"}
    )
    (tree.path / "device/bin/run").chmod(0o755)
    (tree.path / "device/etc/link").symlink_to("../etc/app.conf")
    one = tree.push()
    await rig.fleet(from_git())
    first = await rig.look()
    assert first["metadata"]["name"] == "web.v1"
    (found,) = first["status"]["inputs"]
    assert (found["name"], found["revision"], found["files"]) == ("base", one, 3)
    got = await rig.rendered()
    assert {path: (f["content"], f["mode"], f["user"]) for path, f in got.items()} == {
        "/bin/run": (b"#!", 0o755, "root"),
        "/etc/app.conf": (b"one", 0o644, "root"),
        "/etc/link": (b"one", 0o644, "root"),
    }
    assert (await rig.condition("InputsCurrent"))["status"] == "True"

    tree.push(README="nobody gets this")
    assert (await rig.look())["metadata"]["name"] == "web.v1"
    two = tree.push(**{"device/etc/app.conf": "two"})
    assert (await rig.look(0.1))["metadata"]["name"] == "web.v1", "not asked again at once"
    second = await rig.look()
    assert re.fullmatch(r"web\.v1-[0-9a-f]{8}", second["metadata"]["name"])
    assert second["status"]["inputs"][0]["revision"] == two
    assert (await rig.contents())["/etc/app.conf"] == b"two"
    message, details = await told(rig, "DependencyChangeDetected")
    assert message == f"What base gives has changed; {second['metadata']['name']} holds it."
    assert details == {"resourceKey": "git:demo/main", "fingerprint": two}

    tree.git("reset", "--quiet", "--hard", one)
    tree.push()
    third = await rig.look()
    assert third["metadata"]["name"] not in ("web.v1", second["metadata"]["name"])
    assert third["status"]["inputs"][0]["manifest"] == found["manifest"]
    assert (await rig.contents())["/etc/app.conf"] == b"one"
    assert len(await rig.names()) == 3
    await rig.look()
    before = rig.server.operations.store.hub.version
    rig.restart()
    await rig.look()
    assert rig.server.operations.store.hub.version == before, "a restart makes nothing new"


async def test_a_commit_stays_and_a_file_lands_under_its_own_name(rig: Rig, git: GitServer) -> None:
    tree = await rig.repository(git, **{"device/etc/motd": "one"})
    commit = tree.git("rev-parse", "HEAD")
    await rig.fleet(from_git("device/etc/motd", revision=commit))
    await rig.look()
    tree.push(**{"device/etc/motd": "two"})
    await rig.look()
    assert await rig.contents() == {"/motd": b"one"}
    assert await rig.names() == ["web.v1"]


async def test_what_cannot_be_frozen_says_where_and_why(rig: Rig, git: GitServer) -> None:
    tree = await rig.repository(git, **{"device/a": "a", "agent/etc/flightctl/config.yaml": "x"})
    (tree.path / "links").mkdir()
    (tree.path / "links/out").symlink_to("/etc/passwd")
    tree.push()
    await rig.create("Repository", "oci", {"type": "oci", "registry": "quay.io"})
    absent: Json = {"name": "base", "gitRef": {**from_git()["gitRef"], "repository": "no"}}
    mistyped = {"name": "base", "httpRef": {"repository": "oci", "filePath": "/a"}}
    cases: list[tuple[Json, str, str]] = [
        (from_git(revision="nowhere"), "[1].gitRef.targetRevision", "main"),
        (from_git("/nothing"), "[1].gitRef.path", '"nothing"'),
        (from_git("/agent"), "[1].gitRef.path", "belongs to the agent"),
        (from_git("/links"), "[1].gitRef.path", "symlink to"),
        (absent, "[1].gitRef.repository", "does not exist"),
        (mistyped, "[1].httpRef.repository", "of type oci"),
        (from_secret() | {"name": "base"}, "[1].secretRef.name", "does not exist"),
    ]
    for provider, field, words in cases:
        await rig.fleet(inline("/etc/first", "x"), provider)
        assert await rig.look() == {}
        valid = await rig.condition()
        assert (valid["status"], valid["reason"]) == ("False", "Invalid")
        start = f"1 invalid configuration: base. Error: spec.template.spec.config{field}: "
        assert valid["message"].startswith(start), valid["message"]
        assert words in valid["message"]
    await rig.fleet(inline("/a/b", "x"), from_git())
    await rig.look()
    assert "both a file and the directory" in (await rig.condition())["message"]
    await rig.fleet(absent, mistyped | {"name": "other"})
    await rig.look()
    message = (await rig.condition())["message"]
    assert message.startswith("2 invalid configurations: base, other. First error: spec.template")
    rig.host = HostCluster(environment={})
    rig.restart()
    await rig.fleet(from_secret())
    await rig.look()
    assert "kubernetes API is not available" in (await rig.condition())["message"]


async def test_it_is_mended_without_anybody_touching_the_fleet(rig: Rig, git: GitServer) -> None:
    await rig.fleet(from_git())
    assert await rig.look() == {}
    await rig.repository(git, **{"device/a": "a"})
    rig.changed("demo")
    await rig.look(0.1)
    assert await rig.contents() == {"/a": b"a"}
    assert (await rig.condition())["status"] == "True"


async def test_what_fails_is_asked_ever_more_rarely(rig: Rig, git: GitServer) -> None:
    await rig.repository(git, **{"device/a": "a"})
    await rig.fleet(from_git(revision="nowhere"))
    asked = []
    for _ in range(60):
        before = len(git.requests)
        await rig.look(5)
        if len(git.requests) > before:
            asked.append(int(rig.clock[0]))
    gaps = [b - a for a, b in itertools.pairwise(asked)]
    assert gaps == sorted(gaps)
    assert gaps[0] <= 10 < 60 <= gaps[-1], gaps


async def test_while_a_source_does_not_answer_devices_keep_what_they_have(
    rig: Rig, git: GitServer, files: FileServer
) -> None:
    await rig.repository(git, **{"device/a": "a"})
    await rig.create("Repository", "files", files.spec())
    files.files["/motd"] = b"hello"
    await rig.fleet(from_git(), from_http())
    await rig.look()
    files.answers["/motd"] = 503
    await rig.look()
    assert (await rig.condition())["status"] == "True"
    current = await rig.condition("InputsCurrent")
    assert (current["status"], current["reason"]) == ("False", "NotAnswering")
    assert "web" in current["message"]
    assert "503" in current["message"]
    message, details = await told(rig, "DependencySyncProbeFailed")
    assert message == current["message"]
    assert details["resourceKey"] == "http:files/motd"
    assert "503" in details["error"]
    assert await rig.contents() == {"/a": b"a", "/etc/motd": b"hello"}
    # A changed template needs the source, and says so.
    await rig.fleet(from_git(), from_http(), inline("/b", "b"))
    await rig.look()
    assert (await rig.condition())["status"] == "False"
    assert await rig.names() == ["web.v1"]
    files.answers.clear()
    await rig.look(400)
    assert (await rig.condition("InputsCurrent"))["status"] == "True"
    assert await rig.contents() == {"/a": b"a", "/etc/motd": b"hello", "/b": b"b"}


# --- HTTP and Secrets ---------------------------------------------------------------------------


async def test_a_file_over_https_is_asked_for_by_its_etag_and_followed(
    rig: Rig, files: FileServer
) -> None:
    await rig.create("Repository", "files", files.spec())
    files.files["/motd"] = b"one"
    await rig.fleet(from_http())
    (found,) = (await rig.look())["status"]["inputs"]
    assert found["revision"].startswith("sha256:")
    assert found["etag"]
    await rig.look()
    assert [status for _, status, _ in files.requests] == [200, 304]
    files.files["/motd"] = b"two"
    await rig.look()
    assert (await rig.rendered())["/etc/motd"]["content"] == b"two"
    assert (await rig.rendered())["/etc/motd"]["mode"] == 0o644
    assert len(await rig.names()) == 2


async def test_a_server_that_refuses_is_not_trusted_gives_too_much_or_sends_away(
    rig: Rig, files: FileServer
) -> None:
    await rig.create("Repository", "files", files.spec())
    files.files |= {"/large": bytes(9 << 20), "/motd": b"here"}
    for change, words in (
        ({"password": "wrong-password-9"}, "401"),
        ({"ca.crt": None}, "not vouched for"),
    ):
        await rig.replace("Repository", "files", files.spec(**change))
        rig.changed("files")
        await rig.fleet(from_http())
        assert await rig.look() == {}
        message = (await rig.condition())["message"]
        assert "spec.template.spec.config[0].httpRef.repository" in message
        assert words in message
        assert "wrong-password-9" not in message
    await rig.replace("Repository", "files", files.spec())
    rig.changed("files")
    files.redirects |= {"/away": "https://127.0.0.1:1/motd", "/near": "/motd"}
    for suffix, words in (("/large", "larger than"), ("/away", "credentials do not go")):
        await rig.fleet(from_http(suffix))
        await rig.look()
        assert words in (await rig.condition())["message"]
    await rig.fleet(from_http("/near"))
    await rig.look()
    assert await rig.contents() == {"/etc/motd": b"here"}


async def test_a_secret_is_followed_and_later_sources_override_earlier_ones(
    rig: Rig, git: GitServer, cluster: Cluster
) -> None:
    await rig.repository(git, **{"device/etc/creds/user": "nobody", "device/etc/z": "z"})
    first = cluster.put("devices", "creds", user=b"me", password=SECRET)
    await rig.fleet(from_git(), from_secret(), inline("/etc/z", "last word"))
    version = await rig.look()
    assert [i["revision"] for i in version["status"]["inputs"]][1] == first
    got = await rig.rendered()
    assert list(got) == ["/etc/creds/user", "/etc/z", "/etc/creds/password"]
    assert {path: (f["content"], f["user"]) for path, f in got.items()} == {
        "/etc/creds/user": (b"me", "app"),
        "/etc/z": (b"last word", "root"),
        "/etc/creds/password": (SECRET, "app"),
    }
    cluster.put("devices", "creds", user=b"me", password=SECRET)
    await rig.look()
    assert len(await rig.names()) == 1, "a new resourceVersion with the same content is nothing new"
    cluster.put("devices", "creds", user=b"you", password=SECRET)
    await rig.look()
    assert (await rig.contents())["/etc/creds/user"] == b"you"


async def test_secrets_show_nowhere(
    rig: Rig, git: GitServer, files: FileServer, cluster: Cluster, capfd: Any
) -> None:
    """Neither what sources hold nor what opens them: in no object, event or line of the log, in
    good days and in bad ones."""
    await rig.repository(git, **{"device/a": "a"})
    await rig.create("Repository", "files", files.spec())
    files.files["/motd"] = b"hello"
    cluster.put("devices", "creds", password=SECRET)
    await rig.fleet(from_git(), from_http(), from_secret())
    await rig.look()
    assert (await rig.contents())["/etc/creds/password"] == SECRET
    files.answers["/motd"], cluster.token = 500, "another"
    await rig.replace("Repository", "demo", git.https_spec("nothing"))
    await rig.look(400)
    assert (await rig.condition())["status"] == "False"
    shown = [json.dumps(await rig.list(kind.kind)) for kind in registry.KINDS]
    events = await rig.events()
    assert "FleetInvalid" in {event["spec"]["reason"] for event in events}
    shown.append(json.dumps(events))
    out, err = capfd.readouterr()
    hidden = [PASSWORD, git.password, "let-me-in", SECRET.decode()]
    hidden += [base64.b64encode(text.encode()).decode().rstrip("=") for text in hidden]
    hidden.append(base64.b64encode(f"reader:{PASSWORD}".encode()).decode())
    for text in hidden:
        for place in (*shown, out, err):
            assert text not in place, text


async def test_what_takes_credentials_to_read_is_encrypted_in_the_database(
    rig: Rig, git: GitServer, files: FileServer
) -> None:
    """Frozen and rendered. What a fleet says itself stands there for everybody to read."""
    hidden = (b"only-by-git-credentials", b"only-by-http-credentials")
    await rig.repository(git, **{"device/a": hidden[0].decode()})
    await rig.create("Repository", "files", files.spec())
    files.files["/motd"] = hidden[1]
    await rig.fleet(from_git(), from_http(), inline("/etc/z", "said-to-everybody"))
    await rig.look()
    found = await rig.contents()
    assert (found["/a"], found["/etc/motd"]) == hidden
    stored = b"".join(path.read_bytes() for path in rig.server.settings.data.glob("homeport.db*"))
    assert b"said-to-everybody" in stored, "or this test shows nothing"
    for text in hidden:
        assert text not in stored
        assert base64.b64encode(text)[:24] not in stored


# --- crashes ------------------------------------------------------------------------------------


class Dying(Client):
    """The controllers' client, in a process that dies at its n-th request: before it is sent, or
    after it was answered."""

    def __init__(self, client: Client, at: int, *, after: bool) -> None:
        super().__init__(client._session, client._server)
        self.left, self.after = at, after

    async def _send(self, method: str, path: str, **more: Any) -> bytes:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Unreachable("died before")
        answer = await super()._send(method, path, **more)
        if self.left == 0:
            raise Unreachable("died after")
        return answer


async def test_a_crash_at_any_request_loses_nothing_and_is_repeated_cleanly(
    rig: Rig, files: FileServer, cluster: Cluster
) -> None:
    await rig.create("Repository", "files", files.spec())
    cluster.put("devices", "creds", user=b"me", password=SECRET)
    files.files["/motd"] = b"first"
    await rig.fleet(from_http(), from_secret())
    alive = rig.client
    for number, after in enumerate((False, True)):
        at = 0
        while True:
            at += 1
            # Something new each time, so that every crash is one in the middle of a freeze.
            content = f"{number}-{at}"
            files.files["/motd"] = content.encode()
            rig.client = dying = Dying(alive, at, after=after)
            rig.restart()
            rig.clock[0] += 10
            with contextlib.suppress(Unreachable):
                await fleets.reconcile(
                    dying, "default", "web", freezer=rig.freezer, now=lambda: "2026-11-25T00:00:00Z"
                )
            rig.client = alive
            rig.restart()
            made = await rig.names()
            version = await rig.look()
            got = await rig.contents()
            assert got["/etc/motd"] == content.encode()
            assert got["/etc/creds/password"] == SECRET
            assert len(await rig.names()) <= len(made) + 1
            assert (await rig.look())["metadata"]["uid"] == version["metadata"]["uid"]
            if dying.left > 0:
                break
        print(f"crash points, {'after' if after else 'before'} the request: {at - 1}")
        assert at > 8


async def test_what_was_swept_while_it_was_not_used_yet_is_sent_again(
    rig: Rig, files: FileServer
) -> None:
    await rig.create("Repository", "files", files.spec())
    files.files["/motd"] = b"here"
    await rig.fleet(from_http())
    made = await rig.look()
    # As if an hour had passed: nothing points at it any more.
    kind = registry.by_kind("TemplateVersion")
    operations = rig.server.operations
    await operations.delete(ADMIN, kind, "default", made["metadata"]["name"])

    def sweep(tx: Any) -> None:
        tx.now += timedelta(hours=2)
        compaction.compact(tx)

    await rig.fleet(from_http(), inline("/b", "b"))
    for _ in range(3):
        await operations.store.write(sweep)
    with pytest.raises(ApiError, match="is not stored"):
        await rig.look()
    await rig.look()
    assert await rig.contents() == {"/etc/motd": b"here", "/b": b"b"}


# --- devices without fleet ----------------------------------------------------------------------


async def test_a_device_without_fleet_follows_by_itself(rig: Rig, git: GitServer) -> None:
    async def follow(later_s: float = 10) -> bool:
        rig.clock[0] += later_s
        now = "2026-11-25T00:00:00Z"
        return await followers.reconcile(
            rig.client, "default", freezer=rig.freezer, now=lambda: now
        )

    assert not await follow()
    await rig.create("Device", "alone", {"config": [from_git(revision="prod")]})
    assert await follow()
    valid = await rig.condition("SpecValid", "Device", "alone")
    assert valid["status"] == "False"
    assert "1 invalid configuration: base. Error: spec.config[0].gitRef.repo" in valid["message"]
    tree = await rig.repository(git, **{"device/a": "one"})
    tree.git("checkout", "--quiet", "-b", "prod")
    tree.push()
    await follow(400)
    assert await rig.contents("alone") == {"/a": b"one"}
    assert (await rig.condition("SpecValid", "Device", "alone"))["status"] == "True"
    shown = await rig.get("Device", "alone")
    (reference,) = shown["status"]["dependencySync"]["configRefs"]
    assert reference["fingerprint"] == tree.git("rev-parse", "HEAD")

    before = rig.server.operations.store.hub.version
    await follow()
    assert rig.server.operations.store.hub.version == before
    tree.push(**{"device/a": "two"})
    await follow()
    assert await rig.contents("alone") == {"/a": b"two"}
    # A branch that goes away is a fault of the spec; when it comes back all is well.
    tree.git("branch", "-m", "prod", "other")
    tree.push()
    await follow()
    assert (await rig.condition("SpecValid", "Device", "alone"))["status"] == "False"
    assert await rig.contents("alone") == {"/a": b"two"}
    tree.git("branch", "-m", "other", "prod")
    tree.push()
    await follow(400)
    assert (await rig.condition("SpecValid", "Device", "alone"))["status"] == "True"
    await rig.replace("Device", "alone", {"config": [inline("/b", "b")]})
    assert await rig.contents("alone") == {"/b": b"b"}
    assert not await follow()


# --- all of it, by itself -----------------------------------------------------------------------


async def test_the_controllers_follow_by_themselves(rig: Rig, git: GitServer) -> None:
    """Nobody calls anything: a Repository that comes late, a push, a device without fleet."""

    async def until(device: str, content: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                with contextlib.suppress(Conflict):
                    if await rig.contents(device) == {"/a": content}:
                        return
                await asyncio.sleep(0.1)

    endpoint = Endpoint(socket=rig.server.settings.controllers_socket)
    controllers = Controllers(endpoint, Settings(rig.folder / "state", poll_s=1))
    await asyncio.to_thread(controllers.start)
    try:
        await rig.fleet(from_git())
        await rig.create("Device", "alone", {"config": [from_git()]})
        tree = await rig.repository(git, **{"device/a": "one"})
        await asyncio.gather(until("d1", b"one"), until("alone", b"one"))
        tree.push(**{"device/a": "two"})
        await asyncio.gather(until("d1", b"two"), until("alone", b"two"))
        assert len(await rig.names()) == 2
    finally:
        assert await asyncio.to_thread(controllers.stop)
