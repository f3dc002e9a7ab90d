"""Webhooks from one end to the other: a push to a real Git server, the delivery that each forge
makes of it over real TLS, and fleets and frozen files follow, though nobody polls."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from apiserver import app, config
from apiserver.app import Server
from bench.fleet import ADMIN, PLAIN
from controllers import gitmirror
from controllers.runtime import Controllers
from controllers.session import Endpoint
from controllers.settings import Settings
from resources import refreshing, registry
from tests.fakes import apiserver_process, git_server
from tests.fakes.waiting import PATIENCE_S

Json = dict[str, Any]

SECRET = "what-both-sides-know-9"
DELIVERIES = Path(__file__).parent / "data" / "deliveries"
# Far more than the test takes: what happens happens because somebody was woken.
NEVER_S = 3600.0


def _signature(body: bytes, secret: str) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


# sender → (body, what it sends beside it)
SENDERS: Mapping[str, tuple[str, Callable[[bytes, str], dict[str, str]]]] = {
    "GitHub": (
        "github.json",
        lambda body, secret: {
            "User-Agent": "GitHub-Hookshot/044aadd",
            "X-GitHub-Event": "push",
            "X-Hub-Signature": f"sha1={hmac.new(secret.encode(), body, hashlib.sha1).hexdigest()}",
            "X-Hub-Signature-256": f"sha256={_signature(body, secret)}",
        },
    ),
    "GitHub, as a form": (
        "github-form.txt",
        lambda body, secret: {
            "Content-Type": "application/x-www-form-urlencoded",
            "X-GitHub-Event": "push",
            "X-Hub-Signature-256": f"sha256={_signature(body, secret)}",
        },
    ),
    "Gitea": (
        "gitea.json",
        lambda body, secret: {
            "X-GitHub-Event": "push",
            "X-Gogs-Event": "push",
            "X-Gitea-Event": "push",
            "X-Gogs-Signature": _signature(body, secret),
            "X-Gitea-Signature": _signature(body, secret),
        },
    ),
    "Forgejo": (
        "gitea.json",
        lambda body, secret: {
            "X-Forgejo-Event": "push",
            "X-Forgejo-Signature": _signature(body, secret),
        },
    ),
    "GitLab": (
        "gitlab.json",
        lambda _, secret: {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": secret},
    ),
    "Bitbucket": (
        "bitbucket.json",
        lambda body, secret: {
            "X-Event-Key": "repo:push",
            "X-Hub-Signature": f"sha256={_signature(body, secret)}",
        },
    ),
    "Bitbucket on one's own server": (
        "bitbucket-server.json",
        lambda body, secret: {
            "X-Event-Key": "repo:refs_changed",
            "X-Hub-Signature": f"sha256={_signature(body, secret)}",
        },
    ),
    "a pipeline with curl": ("", lambda _, secret: {"Authorization": f"Bearer {secret}"}),
}


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    settings = config.settings_of(
        data=tmp_path / "data", listen="127.0.0.1:0", agent_listen="127.0.0.1:0"
    )
    server = await app.serve(settings)
    endpoint = Endpoint(socket=settings.controllers_socket)
    controllers = Controllers(endpoint, Settings(tmp_path / "state", poll_s=NEVER_S))
    await asyncio.to_thread(controllers.start)
    yield server
    assert await asyncio.to_thread(controllers.stop)
    await server.stop()


async def create(server: Server, kind: str, name: str, spec: Json, **labels: str) -> None:
    found = registry.by_kind(kind)
    document = {"metadata": {"name": name, "labels": labels}, "spec": spec}
    await server.operations.create(ADMIN, found, "default", document, PLAIN)


def manifest(image: str) -> str:
    spec = {
        "selector": {"matchLabels": {"fleet": "kept"}},
        "template": {"spec": {"os": {"image": image}}},
    }
    head = {"apiVersion": "flightctl.io/v1beta1", "kind": "Fleet", "metadata": {"name": "kept"}}
    return yaml.safe_dump(head | {"spec": spec})


async def seen(server: Server) -> tuple[str, str]:
    """Which commit the sync has applied, and which one the fleet's files are of."""
    kinds = registry.by_kind("ResourceSync"), registry.by_kind("TemplateVersion")
    sync = await server.operations.get(ADMIN, kinds[0], "default", "one")
    versions = await server.operations.store.read(lambda s: s.list(kinds[1], "default"))
    frozen = [v for v in versions if v["spec"]["fleet"] == "files"]
    newest = max(frozen, key=lambda v: int(v["metadata"]["resourceVersion"]), default=None)
    files = newest["status"]["inputs"][0]["revision"] if newest else ""
    return str((sync.get("status") or {}).get("observedCommit")), files


async def note(server: Server) -> str:
    kind = registry.by_kind("Repository")
    return refreshing.note(await server.operations.get(ADMIN, kind, "default", "demo"))


async def until(server: Server, commit: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while await seen(server) != (commit, commit):
                await asyncio.sleep(0.05)
    except TimeoutError:
        sync = await server.operations.get(
            ADMIN, registry.by_kind("ResourceSync"), "default", "one"
        )
        words = [one["message"] for one in sync["status"]["conditions"]]
        raise AssertionError(f"{commit}: {await seen(server)}, {words}") from None


@pytest.mark.timeout(120)
async def test_a_push_is_followed_at_once_whichever_forge_tells_of_it(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What the repository said just now serves all who ask, but for those who were woken.
    monkeypatch.setattr(gitmirror, "TOGETHER_S", NEVER_S)
    trusting = ssl.create_default_context(cafile=str(tmp_path / "data" / "pki" / "ca.crt"))

    async def deliver(sender: str, secret: str) -> tuple[int, str]:
        file, headers_of = SENDERS[sender]
        body = (DELIVERIES / file).read_bytes() if file else b""
        return await asyncio.to_thread(
            apiserver_process.ask, server.url, trusting, "POST", "/hooks/default/demo", body,
            headers={"Content-Type": "application/json"} | headers_of(body, secret),
        )  # fmt: skip

    with git_server.running(tmp_path / "git") as git:
        tree = git.repository("demo")
        commit = tree.push(**{"fleets/kept.yaml": manifest("os:0"), "device/etc/motd": "0"})
        spec = git.https_spec("demo") | {"webhookSecret": SECRET}
        await create(server, "Repository", "demo", spec)
        wanted = {"repository": "demo", "targetRevision": "main", "path": "fleets"}
        await create(server, "ResourceSync", "one", wanted)
        reference = {"repository": "demo", "targetRevision": "main", "path": "device"}
        template = {"spec": {"config": [{"name": "base", "gitRef": reference}]}}
        await create(server, "Fleet", "files", {"template": template})
        await until(server, commit)
        for number, sender in enumerate(SENDERS, 1):
            old = commit
            files = {"fleets/kept.yaml": manifest(f"os:{number}"), "device/etc/motd": str(number)}
            commit = tree.push(**files)
            before = await note(server)
            code, said = await deliver(sender, "what-nobody-knows-10")
            assert code == 401, sender
            assert "nothing was done" in said
            assert await note(server) == before
            assert await seen(server) == (old, old)
            code, said = await deliver(sender, SECRET)
            assert code == 202, f"{sender}: {said}"
            await until(server, commit)
