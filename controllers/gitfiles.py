"""Files from Git, as they land on a device.

A directory's content lands below `/`, a file lands at `/<its name>`; executables stay executable,
and everything belongs to root. A symlink is resolved here, for a device is given files and no
links: where it leads, through other links too, there must be a file of the same tree, whose bytes
and mode then stand at the link's path. A link that leads anywhere else is refused, and so is a
submodule: what a commit does not hold cannot be frozen with it.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence

from controllers import gitmirror
from controllers.giterrors import GitError, PathNotFound, RevisionNotFound, Unreachable
from controllers.gitmirror import Entry, EntryKind, Mirrors
from controllers.gitprogram import TooMuch
from controllers.gitremote import Remote
from controllers.sources import Content, Unusable, check_size
from resources import formats

PATH, REPOSITORY, REVISION = "gitRef.path", "gitRef.repository", "gitRef.targetRevision"
LINKS_MAX = 8
_MODES = {EntryKind.FILE: 0o644, EntryKind.EXECUTABLE: 0o755}


def unusable(problem: GitError) -> Unusable:
    """Which field is to blame for what went wrong at a repository."""
    match problem:
        case RevisionNotFound():
            return Unusable(REVISION, str(problem))
        case PathNotFound():
            return Unusable(PATH, str(problem))
        case Unreachable():
            return Unusable(REPOSITORY, str(problem), is_passing=True)
        case _:
            return Unusable(REPOSITORY, str(problem))


async def read(mirrors: Mirrors, remote: Remote, commit: str, path: str) -> list[Content]:
    """The files at or below `path` of a commit that is in the mirror. Raises Unusable."""
    try:
        entries = await mirrors.entries(remote, commit, path)
        if not entries:
            raise Unusable(PATH, f"there is no file in {remote.url} at {commit[:12]}")
        links = [entry for entry in entries if entry.kind is EntryKind.SYMLINK]
        check_size(PATH, len(entries), sum(entry.size_bytes for entry in entries))
        targets = await mirrors.read(remote, links)
        standing = resolved(entries, {e.path: targets[e.blob] for e in links})
        blobs = await mirrors.read(remote, standing.values())
    except GitError as problem:
        raise unusable(problem) from problem
    except TooMuch as problem:
        raise Unusable(PATH, f"the tree holds {problem}") from problem
    root = gitmirror.normalised(path)
    return [
        Content(placed(name, root), blobs[entry.blob], _MODES[entry.kind])
        for name, entry in standing.items()
    ]


def placed(name: str, root: str) -> str:
    """Where an entry lands: relative to the directory that was asked for, or by its own name."""
    return "/" + (
        posixpath.basename(name) if name == root else posixpath.relpath(name, root or ".")
    )


def resolved(entries: Sequence[Entry], targets: Mapping[str, bytes]) -> dict[str, Entry]:
    """path → the file whose bytes stand there; `targets` are those of the symlinks. Pure."""
    by_path = {entry.path: entry for entry in entries}
    found: dict[str, Entry] = {}
    for entry in entries:
        try:
            entry.path.encode()
        except UnicodeEncodeError:
            raise Unusable(PATH, f"the name {entry.path!r} is not UTF-8") from None
        if entry.kind is EntryKind.SUBMODULE:
            raise Unusable(
                PATH, f"{formats.shown(entry.path)} is a submodule; only files are taken"
            )
        found[entry.path] = _followed(entry, by_path, targets)
    return found


def _followed(link: Entry, by_path: Mapping[str, Entry], targets: Mapping[str, bytes]) -> Entry:
    entry: Entry | None = link
    for _ in range(LINKS_MAX):
        if entry is None or entry.kind is EntryKind.SUBMODULE:
            break
        if entry.kind is not EntryKind.SYMLINK:
            return entry
        target = targets[entry.path].decode(errors="surrogateescape")
        entry = by_path.get(
            posixpath.normpath(posixpath.join(posixpath.dirname(entry.path), target))
        )
    target = targets[link.path].decode(errors="replace")
    raise Unusable(
        PATH,
        f"{formats.shown(link.path)} is a symlink to {formats.shown(target)}, where the tree has "
        "no file; only links to files of the same tree are taken",
    )
