"""A Git repository with a working tree, as somebody has it who writes manifests and pushes them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

# Nothing of whoever runs the tests: no settings, no signing, no hooks.
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Ada",
    "GIT_AUTHOR_EMAIL": "ada@example.com",
    "GIT_COMMITTER_NAME": "Ada",
    "GIT_COMMITTER_EMAIL": "ada@example.com",
}


def git(path: Path, *arguments: str, stdin: str | None = None) -> str:
    """One command; its standard output. Its standard error is in the exception if it fails."""
    done = subprocess.run(
        ["git", "-C", str(path), *arguments],
        env=ENVIRONMENT, input=stdin, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    if done.returncode:
        raise AssertionError(f"git {arguments}: {done.stderr}")
    return done.stdout.strip()


class WorkTree:
    """A working tree on branch `main`. With `bare`, the repository that `push` pushes to."""

    def __init__(self, path: Path, bare: Path | None = None) -> None:
        self.path = path
        self.bare = bare
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")
        if bare is not None:
            self.git("remote", "add", "origin", str(bare))

    def git(self, *arguments: str, stdin: str | None = None) -> str:
        return git(self.path, *arguments, stdin=stdin)

    def write(self, files: Mapping[str, str]) -> None:
        for name, content in files.items():
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def remove(self, *names: str) -> None:
        for name in names:
            path = self.path / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def commit(self, message: str = "change", /, **files: str) -> str:
        """Write files and commit everything; the commit's id."""
        self.write(files)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", message)
        return self.git("rev-parse", "HEAD")

    def push(self, **files: str) -> str:
        """Commit, and make every branch and tag of the bare repository what it is here."""
        commit = self.commit(**files)
        self.git("push", "--quiet", "--force", "--prune", "origin",
                 "refs/heads/*:refs/heads/*", "refs/tags/*:refs/tags/*")  # fmt: skip
        return commit
