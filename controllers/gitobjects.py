"""What a mirror holds, read through GitPython. Synchronous; called from threads.

A commit, its tree and its blobs never change, so nothing here takes a lock. Each call has a Repo of
its own and closes it, since GitPython keeps a `git cat-file` running behind an open one. What goes
over the network is not done here: `gitprogram` says why.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# Without a git program the service starts all the same; repositories then say what is missing.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

import git
from git.exc import GitCommandError, NoSuchPathError

from controllers.giterrors import RevisionNotFound

READ_S = 60
# The machine's and the user's configuration is not ours, and no path is a pattern.
_ALONE = {
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
}


def create(mirror: Path) -> None:
    """An empty bare repository at `mirror`."""
    # Without the machine's templates, whose hooks would run here; that is our word, not a user's.
    git.Repo.init(mirror, bare=True, template="", allow_unsafe_options=True).close()


def commit_of(mirror: Path, revision: str) -> str | None:
    """The commit that the mirror knows by this id, or by this beginning of one id only."""
    try:
        with _opened(mirror) as repository:
            found: str = repository.git.rev_parse(
                "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}",
                kill_after_timeout=READ_S,
            )  # fmt: skip
    except (GitCommandError, NoSuchPathError, git.InvalidGitRepositoryError):
        return None
    return found


def listing(mirror: Path, commit: str, path: str) -> bytes:
    """`ls-tree` of everything at or below `path` (all of it for ""): mode, type, id, size and path
    of each, ended by NUL. Raises RevisionNotFound for a commit that is not there."""
    below = ["--", path] if path else []
    try:
        with _opened(mirror) as repository:
            found: bytes = repository.git.ls_tree(
                "-r", "-l", "-z", "--full-tree", commit, *below,
                kill_after_timeout=READ_S, stdout_as_string=False, strip_newline_in_stdout=False,
            )  # fmt: skip
    except (GitCommandError, NoSuchPathError, git.InvalidGitRepositoryError) as problem:
        raise _gone(commit[:12]) from problem
    return found


def contents(mirror: Path, blobs: Iterable[str]) -> Mapping[str, bytes]:
    """Contents by blob id. Raises RevisionNotFound for one that is not there."""
    found: dict[str, bytes] = {}
    with _opened(mirror) as repository:
        for blob in blobs:
            try:
                found[blob] = repository.git.get_object_data(blob)[3]
            except ValueError as problem:
                raise _gone(f"the content {blob[:12]}") from problem
    return found


@contextmanager
def _opened(mirror: Path) -> Iterator[git.Repo]:
    with git.Repo(mirror) as repository:
        repository.git.update_environment(**_ALONE)
        yield repository


def _gone(what: str) -> RevisionNotFound:
    # Swept or renewed since it was resolved: resolving again brings it back.
    return RevisionNotFound(f"the mirror no longer has {what}")
