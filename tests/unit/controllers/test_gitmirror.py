"""Mirrors of real repositories on this disk: what a revision is, what a commit holds, what it
costs, and what happens when the remote or the mirror changes underneath."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable
from pathlib import Path
from typing import Any

import pytest

from controllers import gitmirror
from controllers.giterrors import (
    PathNotFound,
    RepositoryNotFound,
    RevisionNotFound,
    Unreachable,
)
from controllers.gitmirror import EntryKind, Mirrors
from controllers.gitprogram import Git, TooMuch
from controllers.gitremote import Remote
from tests.fakes.git_worktree import WorkTree


def remote_of(tree: WorkTree) -> Remote:
    return Remote("default", f"file://{tree.path}")


class Counting(Git):
    """Git that remembers what went outside."""

    asked: list[str]

    def __init__(self, **more: Any) -> None:
        super().__init__(Path("/nonexistent"), protocols=("file",))
        object.__setattr__(self, "asked", [])

    async def outside(self, remote: Remote, *arguments: str, **more: Any) -> bytes:
        self.asked.append(arguments[0])
        return await super().outside(remote, *arguments, **more)


@pytest.fixture
def source(tmp_path: Path) -> WorkTree:
    return WorkTree(tmp_path / "source")


@pytest.fixture
def git() -> Counting:
    return Counting()


@pytest.fixture
def mirrors(tmp_path: Path, git: Counting) -> Mirrors:
    return Mirrors(tmp_path / "mirrors", git)


@pytest.fixture(autouse=True)
def _each_question_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests move branches faster than callers that come together."""
    monkeypatch.setattr(gitmirror, "TOGETHER_S", 0.0)


# --- revisions ----------------------------------------------------------------------------------


async def test_every_way_to_name_a_commit(source: WorkTree, mirrors: Mirrors) -> None:
    first = source.commit(a="1")
    source.git("tag", "light")
    source.git("tag", "--annotate", "--message", "x", "heavy")
    second = source.commit(a="2")
    source.git("branch", "side/way", first)
    for revision, commit in {
        "": second,
        "HEAD": second,
        "main": second,
        "refs/heads/main": second,
        "light": first,
        "heavy": first,
        "side/way": first,
        first: first,
        first[:8]: first,
    }.items():
        assert await mirrors.resolve(remote_of(source), revision) == commit, revision


async def test_a_revision_that_is_not_there_names_the_branches_that_are(
    source: WorkTree, mirrors: Mirrors
) -> None:
    source.commit(a="1")
    for revision in ("mian", "0123abc", "0" * 40):
        with pytest.raises(RevisionNotFound, match=rf'"{revision}"; its branches: main'):
            await mirrors.resolve(remote_of(source), revision)


async def test_an_empty_repository_says_that_it_is_empty(
    source: WorkTree, mirrors: Mirrors
) -> None:
    with pytest.raises(RevisionNotFound, match="is empty"):
        await mirrors.resolve(remote_of(source), "main")


async def test_a_branch_is_where_the_remote_has_it_after_force_push_and_renaming(
    source: WorkTree, mirrors: Mirrors, tmp_path: Path
) -> None:
    source.commit(a="1")
    old = source.commit(a="2")
    assert await mirrors.resolve(remote_of(source), "main") == old
    same_mirror = tmp_path / "mirrors" / remote_of(source).mirror / "same"
    same_mirror.touch()
    source.git("reset", "--quiet", "--hard", "HEAD~1")
    new = source.commit(b="1")
    assert await mirrors.resolve(remote_of(source), "main") == new
    assert [e.path for e in await mirrors.entries(remote_of(source), new)] == ["a", "b"]
    source.git("branch", "--move", "trunk")
    # A branch below the name that one had is possible only if the old name was forgotten.
    source.git("branch", "main/next")
    with pytest.raises(RevisionNotFound, match="its branches: main/next, trunk"):
        await mirrors.resolve(remote_of(source), "main")
    newest = source.commit(c="1")
    assert await mirrors.resolve(remote_of(source), "trunk") == newest
    assert await mirrors.resolve(remote_of(source)) == newest
    assert same_mirror.exists(), "nothing of this needed a new mirror"


async def test_a_known_commit_needs_no_network_and_an_unchanged_branch_one_question(
    source: WorkTree, mirrors: Mirrors, git: Counting
) -> None:
    commit = source.commit(a="1")
    await mirrors.resolve(remote_of(source), "main")
    assert git.asked == ["ls-remote", "fetch"]
    await mirrors.resolve(remote_of(source), commit)
    await mirrors.resolve(remote_of(source), "main")
    assert git.asked == ["ls-remote", "fetch", "ls-remote"]


# --- trees --------------------------------------------------------------------------------------


async def test_entries_tell_files_programs_links_and_submodules_apart(
    source: WorkTree, mirrors: Mirrors
) -> None:
    odd = "über mich\n.txt"
    source.commit(**{"dir/plain": "text", "dir/run": "#!/bin/sh\n", f"dir/{odd}": ""})
    (source.path / "dir" / "run").chmod(0o755)
    (source.path / "dir" / "link").symlink_to("plain")
    inner = source.git("rev-parse", "HEAD")
    source.git("update-index", "--add", "--cacheinfo", f"160000,{inner},dir/module")
    source.git("add", "dir/run", "dir/link")
    source.git("commit", "--quiet", "--message", "kinds")
    commit = await mirrors.resolve(remote_of(source), "main")
    entries = await mirrors.entries(remote_of(source), commit, "/dir/")
    assert {e.path: (e.kind, e.size_bytes) for e in entries} == {
        "dir/link": (EntryKind.SYMLINK, 5),
        "dir/module": (EntryKind.SUBMODULE, 0),
        "dir/plain": (EntryKind.FILE, 4),
        "dir/run": (EntryKind.EXECUTABLE, 10),
        f"dir/{odd}": (EntryKind.FILE, 0),
    }
    contents = await mirrors.read(remote_of(source), entries)
    by_path = {e.path: contents.get(e.blob) for e in entries}
    assert by_path["dir/plain"] == b"text"
    assert by_path["dir/link"] == b"plain"
    assert by_path[f"dir/{odd}"] == b""
    assert by_path["dir/module"] is None


async def test_a_path_is_a_file_a_directory_or_an_error(source: WorkTree, mirrors: Mirrors) -> None:
    commit = source.commit(**{"fleet": "", "fleets/a": "1", "fleets/b/c": "2"})
    await mirrors.resolve(remote_of(source), "main")

    async def at(path: str) -> list[str]:
        return [entry.path for entry in await mirrors.entries(remote_of(source), commit, path)]

    assert await at("") == await at("/") == ["fleet", "fleets/a", "fleets/b/c"]
    assert await at("fleet") == ["fleet"]
    assert await at("./fleets//b/") == ["fleets/b/c"]
    for path in ("flee", "fleets/[a]", "fleet/x", "../source", "fleets/../../x", ":(glob)**"):
        with pytest.raises(PathNotFound):
            await at(path)


async def test_more_than_the_caller_holds_is_refused_before_it_is_read(
    source: WorkTree, mirrors: Mirrors
) -> None:
    commit = source.commit(a="12345", b="12345", c="54321")
    await mirrors.resolve(remote_of(source), "main")
    entries = await mirrors.entries(remote_of(source), commit)
    # The first two are one content.
    assert len(await mirrors.read(remote_of(source), entries, limit_bytes=10)) == 2
    with pytest.raises(TooMuch):
        await mirrors.read(remote_of(source), entries, limit_bytes=9)


async def test_five_thousand_files_are_listed_and_read(source: WorkTree, mirrors: Mirrors) -> None:
    number = 50_000 if os.environ.get("HOMEPORT_SOAK") else 5_000
    stream = ["commit refs/heads/main\ncommitter a <a@example.com> 0 +0000\ndata 0\n"]
    for index in range(number):
        text = f"content of {index}"
        stream.append(f"M 100644 inline many/{index % 100}/{index}\ndata {len(text)}\n{text}\n")
    source.git("fast-import", "--quiet", stdin="".join(stream))
    commit = await mirrors.resolve(remote_of(source), "main")
    entries = await mirrors.entries(remote_of(source), commit, "many")
    contents = await mirrors.read(remote_of(source), entries)
    assert len(entries) == len(contents) == number
    wanted = next(e for e in entries if e.path == f"many/{4321 % 100}/4321")
    assert contents[wanted.blob] == b"content of 4321"


# --- sharing, damage, ends ----------------------------------------------------------------------


async def test_callers_that_come_together_share_one_question_and_one_fetch(
    source: WorkTree, mirrors: Mirrors, git: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gitmirror, "TOGETHER_S", 1.0)
    commit = source.commit(a="1")
    found = await asyncio.gather(*(mirrors.resolve(remote_of(source), "main") for _ in range(20)))
    assert set(found) == {commit}
    assert git.asked == ["ls-remote", "fetch"]


async def test_who_comes_later_does_not_get_an_old_answer(
    source: WorkTree, mirrors: Mirrors, git: Counting
) -> None:
    source.commit(a="1")
    await mirrors.resolve(remote_of(source), "main")
    assert await mirrors.resolve(remote_of(source), "main") != source.commit(a="2")
    assert await mirrors.resolve(remote_of(source), "main") == source.git("rev-parse", "HEAD")


async def test_when_the_first_caller_is_cancelled_the_next_one_asks_again(
    source: WorkTree, mirrors: Mirrors, git: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gitmirror, "TOGETHER_S", 1.0)
    commit = source.commit(a="1")
    first, second = (
        asyncio.create_task(mirrors.resolve(remote_of(source), "main")) for _ in range(2)
    )
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    assert await second == commit
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_those_who_waited_for_a_failed_question_are_told_the_same(
    tmp_path: Path, mirrors: Mirrors, git: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gitmirror, "TOGETHER_S", 1.0)
    gone = Remote("default", f"file://{tmp_path}/gone")
    found = await asyncio.gather(
        *(mirrors.resolve(gone, "main") for _ in range(5)), return_exceptions=True
    )
    assert {type(problem) for problem in found} == {RepositoryNotFound}
    assert git.asked == ["ls-remote"]


async def test_a_mirror_that_a_kill_has_damaged_is_fetched_anew(
    source: WorkTree, mirrors: Mirrors, tmp_path: Path
) -> None:
    source.commit(a="1")
    await mirrors.resolve(remote_of(source), "main")
    mirror = tmp_path / "mirrors" / remote_of(source).mirror
    (mirror / "refs" / "heads" / "main.lock").touch()
    commit = source.commit(a="2")
    assert await mirrors.resolve(remote_of(source), "main") == commit
    assert not (mirror / "refs" / "heads" / "main.lock").exists()
    for file in (mirror / "objects").rglob("*"):
        if file.is_file():
            file.unlink()
    assert await mirrors.resolve(remote_of(source), "main") == commit
    assert [e.path for e in await mirrors.entries(remote_of(source), commit)] == ["a"]


async def test_a_commit_is_there_with_all_that_is_in_it_or_not_at_all(
    source: WorkTree, mirrors: Mirrors, tmp_path: Path
) -> None:
    """Loose objects would come one by one, the commit first: whoever looked then found no tree."""
    for content in ("1", "2"):
        source.commit(a=content)
        await mirrors.resolve(remote_of(source), "main")
    objects = tmp_path / "mirrors" / remote_of(source).mirror / "objects"
    assert {path.parent.name for path in objects.rglob("*") if path.is_file()} == {"pack"}


@pytest.mark.parametrize("missing", ["HEAD^{tree}", "HEAD:a"])
async def test_a_mirror_that_lacks_something_of_a_commit_is_fetched_anew(
    source: WorkTree, mirrors: Mirrors, tmp_path: Path, missing: str
) -> None:
    commit = source.commit(a="1")
    remote = remote_of(source)
    await mirrors.resolve(remote, "main")
    objects = tmp_path / "mirrors" / remote.mirror / "objects"
    for pack in list(objects.glob("pack/*.pack")):
        unpack = ["git", "-C", str(objects.parent), "unpack-objects", "-q"]
        data = pack.read_bytes()
        for file in objects.glob("pack/*"):
            file.unlink()
        subprocess.run(unpack, input=data, check=True)
    gone = source.git("rev-parse", missing)
    (objects / gone[:2] / gone[2:]).unlink()

    async def read() -> list[bytes]:
        resolved = await mirrors.resolve(remote, "main")
        entries = await mirrors.entries(remote, resolved)
        return list((await mirrors.read(remote, entries)).values())

    with pytest.raises(RevisionNotFound):
        await read()
    assert await read() == [b"1"]
    assert await mirrors.resolve(remote, commit) == commit


async def test_mirrors_of_forgotten_repositories_go(
    source: WorkTree, mirrors: Mirrors, tmp_path: Path
) -> None:
    commit = source.commit(a="1")
    other = Remote("other", remote_of(source).url)
    await mirrors.resolve(remote_of(source))
    await mirrors.resolve(other)
    assert len(list((tmp_path / "mirrors").iterdir())) == 2
    await mirrors.forget_others({other.mirror})
    assert [p.name for p in (tmp_path / "mirrors").iterdir()] == [other.mirror]
    with pytest.raises(RevisionNotFound):
        await mirrors.entries(remote_of(source), commit)
    assert await mirrors.resolve(remote_of(source), commit) == commit


async def _within(work: Awaitable[object], least_s: float, most_s: float) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await work
    assert least_s <= loop.time() - began <= most_s


async def test_a_remote_that_never_answers_is_given_up_and_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gitmirror, "ASK_S", 0.5)

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        mirrors = Mirrors(tmp_path / "m", Git(tmp_path / "known_hosts"))
        remote = Remote("default", f"http://127.0.0.1:{port}/x.git")

        async def asked() -> None:
            with pytest.raises(Unreachable, match="did not answer in time"):
                await mirrors.refs(remote)

        await _within(asked(), 0.5, 3)
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True)
    assert f"127.0.0.1:{port}/" not in listed.stdout


# --- together, and anew -------------------------------------------------------------------------


async def test_after_a_push_that_was_told_of_nobody_is_given_an_answer_from_before(
    source: WorkTree, mirrors: Mirrors, git: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither where the branch was, nor, for the new commit, a fetch that did not bring it."""
    monkeypatch.setattr(gitmirror, "TOGETHER_S", 60.0)
    first = source.commit(a="1")
    assert await mirrors.resolve(remote_of(source), "main") == first
    second = source.commit(a="2")
    assert await mirrors.resolve(remote_of(source), "main") == first
    assert git.asked == ["ls-remote", "fetch"], "callers that come together are answered together"
    mirrors.ask_anew("the mirror of another")
    assert await mirrors.resolve(remote_of(source), "main") == first
    mirrors.ask_anew(remote_of(source).mirror)
    assert await mirrors.resolve(remote_of(source), "main") == second
