"""Git repositories as the controllers read them: one bare mirror on disk for each, kept by fetches.

What is asked of a mirror is immutable (a commit, its tree, its blobs), so it is read without a
lock. What is asked of the remote is shared: whoever asks while, or just before, the same question
is on its way takes the answer of that attempt, good or bad, so a hundred ResourceSyncs of one
repository cost one connection. There is no task behind this: an attempt is run by the caller that
came first, and if that one is cancelled the next in line runs it again.

A fetch brings branches and tags and forgets those that are gone; a branch that was force-pushed or
renamed is nothing special, since revisions are looked up at the remote and never trusted from the
last time. A mirror is a cache: one that is damaged (a kill in the middle, a full disk) or lacks
something is removed and fetched anew. The directory belongs to one process.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import (
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from controllers import gitobjects
from controllers.giterrors import GitError, PathNotFound, RevisionNotFound, Unreachable
from controllers.gitprogram import SOURCE, Failed, Git, TooMuch
from controllers.gitremote import Remote

T = TypeVar("T")

# The first fetch of a big repository takes long; a question to the remote does not.
ASK_S, FETCH_S = 30.0, 300.0
# Callers that come together are answered together, though one began a little earlier.
TOGETHER_S = 1.0
READ_BYTES_MAX = 64 << 20
# Between the question where a branch is and the fetch it may have been moved.
TRIES = 3

_COMMIT = re.compile(r"[0-9a-f]{40}")
_ABBREVIATED = re.compile(r"[0-9a-f]{4,39}")
_EVERYTHING = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")

log = structlog.get_logger()


class EntryKind(Enum):
    """What an entry of a tree is."""

    FILE = 0o100644
    EXECUTABLE = 0o100755
    SYMLINK = 0o120000
    SUBMODULE = 0o160000


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of a commit. `path` is from the root of the repository; `blob` is the id of its
    content, of a symlink that of its target, of a submodule its commit."""

    path: str
    kind: EntryKind
    size_bytes: int
    blob: str


@dataclass(slots=True)
class _Attempt(Generic[T]):
    """The last answer to one question, and when its asking began."""

    began: float = float("-inf")
    answer: T | None = None
    problem: GitError | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Mirrors:
    """The mirrors below `directory`. Every method raises GitError and is bounded in time."""

    def __init__(
        self, directory: Path, git: Git, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._directory = directory
        self._git = git
        self._monotonic = monotonic
        self._asked: dict[Remote, _Attempt[Mapping[str, str]]] = {}
        self._fetched: dict[Remote, _Attempt[None]] = {}
        # Two Remotes may share a mirror: same URL, other credentials.
        self._busy: dict[str, asyncio.Lock] = {}
        # Mirrors that lack something.
        self._torn: set[str] = set()

    async def refs(self, remote: Remote, *, together_s: float | None = None) -> Mapping[str, str]:
        """What the remote has: `HEAD`, `refs/heads/…`, `refs/tags/…` to commits. An annotated tag
        is given as the commit that it names. An answer may have been asked for `together_s` ago."""
        attempt = self._asked.setdefault(remote, _Attempt())
        return await self._shared(attempt, lambda: self._ask(remote), together_s)

    def ask_anew(self, mirror: str) -> None:
        """What was asked of these remotes until now, and is on its way, is no answer any more."""
        self._asked = {key: last for key, last in self._asked.items() if key.mirror != mirror}

    async def resolve(self, remote: Remote, revision: str = "") -> str:
        """The commit that a branch, a tag or a beginning of a commit's id is at the remote now;
        without a revision, of its default branch. The commit is in the mirror then."""
        await self._mend(remote)
        if _COMMIT.fullmatch(revision) and await self._has(remote, revision):
            return revision
        # Answers that others just got may be older than what they are held against here.
        for together_s in (None, *repeat(0.0, TRIES - 1)):
            commit = await self._named(remote, revision, together_s)
            if await self._has(remote, commit):
                return commit
            await self._fetch(remote, together_s)
            if await self._has(remote, commit):
                return commit
        raise Unreachable(f'"{revision or "HEAD"}" of {remote.url} moves faster than it is fetched')

    async def entries(self, remote: Remote, commit: str, path: str = "") -> Sequence[Entry]:
        """Everything at or below `path`, in git's order; of a file, itself. Commit as `resolve`
        gave it. Raises PathNotFound, also for a path that leaves the repository."""
        inside = normalised(path)
        with self._whole(remote):
            folder = self._directory / remote.mirror
            listed = await asyncio.to_thread(gitobjects.listing, folder, commit, inside)
            lines = listed.decode(errors="surrogateescape").split("\0")[:-1]
            found = [_entry(line) for line in lines]
        if not found and inside:
            raise PathNotFound(f'there is no "{inside}" in {remote.url} at {commit[:12]}')
        return found

    async def read(
        self, remote: Remote, entries: Iterable[Entry], *, limit_bytes: int = READ_BYTES_MAX
    ) -> Mapping[str, bytes]:
        """The contents of entries, by blob id; of a symlink its target. Submodules have none.
        Raises TooMuch if they are more than `limit_bytes` together."""
        wanted = {e.blob: e.size_bytes for e in entries if e.kind is not EntryKind.SUBMODULE}
        if not wanted:
            return {}
        total = sum(wanted.values())
        if total > limit_bytes:
            raise TooMuch(limit_bytes)
        with self._whole(remote):
            folder = self._directory / remote.mirror
            return await asyncio.to_thread(gitobjects.contents, folder, wanted)

    @contextmanager
    def _whole(self, remote: Remote) -> Iterator[None]:
        """Of what the mirror was seen to have, a part is missing: whoever comes next begins anew,
        for that the commit is there says nothing then."""
        try:
            yield
        except RevisionNotFound:
            self._torn.add(remote.mirror)
            raise

    async def forget_others(self, kept: Collection[str]) -> None:
        """Remove mirrors, and what is remembered, of all but those with these names."""
        self._asked = {key: last for key, last in self._asked.items() if key.mirror in kept}
        self._fetched = {key: last for key, last in self._fetched.items() if key.mirror in kept}
        for folder in await asyncio.to_thread(_folders, self._directory):
            if folder.name not in kept:
                async with self._lock(folder.name):
                    await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    # --- at the remote ----------------------------------------------------------------------

    async def _shared(
        self,
        attempt: _Attempt[T],
        ask: Callable[[], Awaitable[T]],
        together_s: float | None = None,
    ) -> T:
        oldest = self._monotonic() - (TOGETHER_S if together_s is None else together_s)
        async with attempt.lock:
            if attempt.began < oldest:
                began = self._monotonic()
                answer, problem = None, None
                try:
                    answer = await ask()
                except GitError as error:
                    problem = error
                # Only now: an attempt that was cancelled is nobody's answer.
                attempt.began, attempt.answer, attempt.problem = began, answer, problem
            if attempt.problem is not None:
                # A copy, since each caller's traceback is its own.
                raise type(attempt.problem)(*attempt.problem.args)
            return attempt.answer  # type: ignore[return-value]

    async def _ask(self, remote: Remote) -> Mapping[str, str]:
        out = await self._git.outside(
            remote, "ls-remote", "--quiet", SOURCE, "HEAD", "refs/heads/*", "refs/tags/*",
            within_s=ASK_S,
        )  # fmt: skip
        found: dict[str, str] = {}
        for line in out.decode(errors="replace").splitlines():
            commit, _, name = line.partition("\t")
            # The peeled line of an annotated tag comes after the tag's own.
            found[name.removesuffix("^{}")] = commit
        return found

    async def _named(self, remote: Remote, revision: str, together_s: float | None) -> str:
        """The commit that the remote means by `revision`."""
        refs = await self.refs(remote, together_s=together_s)
        names = (revision, f"refs/heads/{revision}", f"refs/tags/{revision}")
        for name in names if revision else ("HEAD",):
            if name in refs:
                return refs[name]
        commit = await self._abbreviated(remote, revision)
        if commit is not None:
            return commit
        if not refs:
            raise RevisionNotFound(f"{remote.url} is empty: nothing was pushed to it yet")
        known = sorted(n.removeprefix("refs/heads/") for n in refs if n.startswith("refs/heads/"))
        hint = ", ".join(known[:10]) + (", …" if len(known) > 10 else "")
        raise RevisionNotFound(
            f'{remote.url} has no branch, tag or commit "{revision}"; its branches: {hint}'
        )

    async def _abbreviated(self, remote: Remote, revision: str) -> str | None:
        """The whole id of a commit that is given by its id or the beginning of it."""
        if _COMMIT.fullmatch(revision):
            # What no branch holds has to be asked for by its id; not every server gives that.
            try:
                await self._fetch_once(remote, revision)
            except GitError:
                await self._fetch(remote)
            return await self._parsed(remote, revision)
        if not _ABBREVIATED.fullmatch(revision):
            return None
        if (commit := await self._parsed(remote, revision)) is None:
            await self._fetch(remote)
            commit = await self._parsed(remote, revision)
        return commit

    async def _fetch(self, remote: Remote, together_s: float | None = None) -> None:
        attempt = self._fetched.setdefault(remote, _Attempt())
        await self._shared(attempt, lambda: self._fetch_once(remote, *_EVERYTHING), together_s)

    async def _fetch_once(self, remote: Remote, *what: str) -> None:
        folder = self._directory / remote.mirror
        began = self._monotonic()
        async with self._lock(remote.mirror):
            try:
                await self._fetch_into(folder, remote, *what)
            except Failed as problem:
                await self._drop(remote, problem.said[:300])
                try:
                    await self._fetch_into(folder, remote, *what)
                except Failed as again:
                    raise Unreachable(
                        f"the mirror of {remote.url} cannot be kept: {again}"
                    ) from again
        log.info("repository fetched", url=remote.url, took_s=round(self._monotonic() - began, 2))

    async def _mend(self, remote: Remote) -> None:
        if remote.mirror not in self._torn:
            return
        async with self._lock(remote.mirror):
            # Who waited finds that another has done it, and may have fetched already.
            if remote.mirror in self._torn:
                self._torn.discard(remote.mirror)
                await self._drop(remote, "something is missing in it")

    async def _drop(self, remote: Remote, why: str) -> None:
        """Remove a mirror, with its lock held: the next fetch makes it anew."""
        log.warning("mirror renewed", url=remote.url, error=why)
        folder = self._directory / remote.mirror
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _fetch_into(self, folder: Path, remote: Remote, *what: str) -> None:
        if not (folder / "HEAD").exists():
            make = partial(self._directory.mkdir, mode=0o700, parents=True, exist_ok=True)
            await asyncio.to_thread(make)
            await asyncio.to_thread(gitobjects.create, folder)
        await self._git.outside(
            remote, "fetch", "--quiet", "--force", "--no-tags", "--no-write-fetch-head", "--prune",
            SOURCE, *what, within_s=FETCH_S, mirror=folder,
        )  # fmt: skip

    def _lock(self, mirror: str) -> asyncio.Lock:
        return self._busy.setdefault(mirror, asyncio.Lock())

    # --- in the mirror ----------------------------------------------------------------------

    async def _has(self, remote: Remote, commit: str) -> bool:
        return await self._parsed(remote, commit) == commit

    async def _parsed(self, remote: Remote, revision: str) -> str | None:
        """The commit that the mirror knows by this id, or by this beginning of one id only."""
        folder = self._directory / remote.mirror
        return await asyncio.to_thread(gitobjects.commit_of, folder, revision)


def normalised(path: str) -> str:
    """A path as git writes it: from the root, without slashes at its ends; "" is the root. Raises
    PathNotFound for one that leaves the repository."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise PathNotFound(f'"{path}" leaves the repository')
    return "/".join(parts)


def _entry(line: str) -> Entry:
    facts, _, path = line.partition("\t")
    mode, _, blob, size = facts.split()
    if size == "BAD":
        # git's word where the content is missing.
        raise RevisionNotFound(f"the mirror no longer has the content {blob[:12]}")
    number = int(mode, 8)
    if number in (EntryKind.SYMLINK.value, EntryKind.SUBMODULE.value):
        kind = EntryKind(number)
    else:
        # Old repositories have 100664.
        kind = EntryKind.EXECUTABLE if number & 0o111 else EntryKind.FILE
    return Entry(path, kind, 0 if size == "-" else int(size), blob)


def _folders(directory: Path) -> list[Path]:
    return [path for path in directory.iterdir() if path.is_dir()] if directory.exists() else []
