"""The mirrors against real Git servers, over HTTPS and SSH: who gets in, who does not, what is
said then, and that no credential can be seen from outside while it is used."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controllers.giterrors import (
    AccessDenied,
    GitError,
    HostKeyUnknown,
    RepositoryNotFound,
    Unreachable,
    Untrusted,
)
from controllers.gitmirror import Mirrors
from controllers.gitprogram import Git
from controllers.gitremote import Remote, remote_of
from tests.fakes.git_server import GitServer
from tests.fakes.git_worktree import WorkTree

Json = dict[str, Any]


@pytest.fixture(scope="module")
def tree(git: GitServer) -> WorkTree:
    tree = git.repository("fleets")
    tree.push(**{"web.yaml": "kind: Fleet\n"})
    return tree


@pytest.fixture
def mirrors(tmp_path: Path) -> Mirrors:
    return Mirrors(tmp_path / "mirrors", Git(tmp_path / "known_hosts"))


def remote(spec: Json) -> Remote:
    return remote_of({"metadata": {"name": "x", "namespace": "default"}, "spec": spec})


@pytest.mark.parametrize("way", ["https", "ssh"])
async def test_who_has_the_credentials_reads(
    git: GitServer, tree: WorkTree, mirrors: Mirrors, way: str
) -> None:
    source = remote(getattr(git, f"{way}_spec")("fleets"))
    commit = await mirrors.resolve(source, "main")
    assert commit == tree.git("rev-parse", "main")
    entries = await mirrors.entries(source, commit)
    assert list((await mirrors.read(source, entries)).values()) == [b"kind: Fleet\n"]


@pytest.mark.parametrize(
    ("way", "changes", "kind", "says"),
    [
        pytest.param("https", {"password": "wrong-pa55"}, AccessDenied,
                     "refused the credentials of spec.httpConfig", id="https, wrong password"),
        pytest.param("https", {"username": None, "password": None}, AccessDenied,
                     "wants credentials and was given none that it takes", id="https, no password"),
        pytest.param("https", {"username": None, "password": None, "token": "e30.e30.eHg"},
                     AccessDenied, "wants credentials and was", id="https, a token not taken"),
        pytest.param("https", {"ca.crt": None}, Untrusted,
                     r"put the authority's certificate into spec.httpConfig\[ca.crt\]",
                     id="https, unknown authority"),
        pytest.param("ssh", {"knownHosts": ""}, HostKeyUnknown,
                     "the host key of 127.0.0.1:[0-9]+ is not known, so nothing was sent",
                     id="ssh, unknown host"),
        pytest.param("ssh", {"knownHosts": None}, HostKeyUnknown, "is not known",
                     id="ssh, unknown host, and the service has no known_hosts"),
        pytest.param("ssh", {"sshPrivateKey": None, "privateKeyPassphrase": None}, AccessDenied,
                     "refused the key", id="ssh, no key"),
    ],
)  # fmt: skip
async def test_who_is_refused_is_told_why_and_what_to_do(
    git: GitServer,
    tree: WorkTree,
    mirrors: Mirrors,
    way: str,
    changes: Json,
    kind: type[GitError],
    says: str,
) -> None:
    source = remote(getattr(git, f"{way}_spec")("fleets", **changes))
    with pytest.raises(kind, match=says) as refused:
        await mirrors.resolve(source, "main")
    for secret in (*source.secrets(), git.passphrase):
        assert secret not in str(refused.value)


async def test_a_host_whose_key_has_changed_is_refused(
    git: GitServer, tree: WorkTree, mirrors: Mirrors
) -> None:
    other = git.known_hosts.rpartition(" ")[0]
    key = (git.folder / "ssh" / "user.pub").read_text().split()[1]
    source = remote(git.ssh_spec("fleets", knownHosts=f"{other} {key}\n"))
    with pytest.raises(HostKeyUnknown, match="another host key than the known one"):
        await mirrors.resolve(source, "main")


@pytest.mark.parametrize("way", ["https", "ssh"])
async def test_servers_are_believed_blindly_only_where_that_is_asked_for(
    git: GitServer, tree: WorkTree, mirrors: Mirrors, way: str
) -> None:
    changes: Json = {"skipServerVerification": True, "ca.crt": None, "knownHosts": None}
    changes.pop("knownHosts" if way == "https" else "ca.crt")
    source = remote(getattr(git, f"{way}_spec")("fleets", **changes))
    assert await mirrors.resolve(source, "main")


async def test_the_known_hosts_of_the_service_are_for_repositories_without_their_own(
    git: GitServer, tree: WorkTree, tmp_path: Path
) -> None:
    (tmp_path / "known hosts").write_text(git.known_hosts)
    mirrors = Mirrors(tmp_path / "mirrors", Git(tmp_path / "known hosts"))
    assert await mirrors.resolve(remote(git.ssh_spec("fleets", knownHosts=None)), "main")


@pytest.mark.parametrize("way", ["https", "ssh"])
async def test_a_repository_that_is_not_there_is_told_apart(
    git: GitServer, tree: WorkTree, mirrors: Mirrors, way: str
) -> None:
    with pytest.raises(RepositoryNotFound, match="has no Git repository at"):
        await mirrors.refs(remote(getattr(git, f"{way}_spec")("others")))


@pytest.mark.parametrize("url", ["https://127.0.0.1:1/x", "ssh://git@127.0.0.1:1/x"])
async def test_a_server_that_takes_no_connections_is_unreachable(
    mirrors: Mirrors, url: str
) -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:1 does not take connections"):
        await mirrors.refs(remote({"type": "git", "url": url}))


async def test_a_token_does_not_follow_a_redirection(mirrors: Mirrors) -> None:
    async def elsewhere(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/y\r\nContent-Length: 0\r\n\r\n"
        writer.write(head.encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(elsewhere, "127.0.0.1", 0) as listening:
        port = listening.sockets[0].getsockname()[1]
        url = f"http://127.0.0.1:{port}/x"
        given = {"type": "git", "url": url, "httpConfig": {"token": "e30.e30.eHg"}}
        with pytest.raises(Unreachable, match="sends to another address"):
            await mirrors.refs(remote(given))


def _visible() -> Iterator[str]:
    """What anybody on the machine, or whoever collects crash reports, sees of processes."""
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != str(os.getpid()):
            for what in ("cmdline", "environ"):
                with contextlib.suppress(OSError):
                    yield (process / what).read_bytes().decode(errors="replace")


@pytest.mark.parametrize("way", ["https", "ssh"])
async def test_no_credential_is_in_a_process_list_an_environment_or_a_file(
    git: GitServer, tree: WorkTree, mirrors: Mirrors, tmp_path: Path, way: str
) -> None:
    source = remote(getattr(git, f"{way}_spec")("fleets"))
    secrets = [*source.secrets(), base64.b64encode(git.private_key.encode()).decode()]
    looking = asyncio.create_task(mirrors.resolve(source, "main"))
    seen_git = 0
    while not looking.done():
        for text in _visible():
            seen_git += "ls-remote" in text or "fetch" in text
            assert not any(secret in text for secret in secrets)
        await asyncio.sleep(0.005)
    assert await looking
    assert seen_git, "git was seen at work"
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert not any(secret.encode() in file.read_bytes() for secret in secrets), file
