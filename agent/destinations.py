"""Where a download goes: into root's store, or into that of a user of the device.

As whom a registry is asked, whose credentials count, where what has come so far is kept and how
much room there is: all of that is a question to the destination. What is a user's is asked and done
as that user (ADR 36), so a download for one lies in a folder of their home, which root never
touches, and takes room where their store is.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Protocol

from agent import downloads, world
from agent.accounts import Accounts, runtime_of
from resources.records import dataclass

AUTH_FILE = "/root/.config/containers/auth.json"
# Of a user: below the home; and where those that a specification brings are for a moment.
USERS_AUTH_FILE, USERS_PULL_AUTH = ".config/containers/auth.json", "homeport-pull-auth.json"
# What may go at any time, below the home.
USERS_FOLDER = f".cache/homeport/{downloads.FOLDER}"
QUICK_S = 60.0


@dataclass(frozen=True, slots=True)
class Auth:
    """`option` for podman and skopeo, to be run in `cwd`; both may be empty. `path`: the same,
    whole."""

    option: tuple[str, ...] = ()
    cwd: str | None = None
    path: str = ""


class Destination(Protocol):
    """`folder` is for what is under way; `own` the folder that must not be filled up by it."""

    folder: str
    own: str

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> world.Completed: ...

    def auth(self, brought: Mapping[str, bytes], *files: str) -> Auth:
        """Of the first of `files` that the specification brings, or else that is there. `drop` it
        afterwards."""

    def drop(self, auth: Auth) -> None: ...

    def read(self, path: str) -> bytes | None: ...

    def begun(self) -> dict[str, int]:
        """Digest of a layer -> how many bytes of it are on the disk."""

    def forget(self) -> None:
        """What was begun goes."""


class Root:
    def __init__(self, where: world.World, own_dir: str) -> None:
        self._world = where
        self.run = where.run
        self.own = own_dir
        self.folder = f"{own_dir}/{downloads.FOLDER}"

    def auth(self, brought: Mapping[str, bytes], *files: str) -> Auth:
        # NB a name relative to the folder: below a root of its own podman sees other paths than we.
        content = next((brought[file] for file in files if file in brought), None)
        if content is not None:
            path = f"{self.own}/{downloads.AUTH}"
            self._world.write(path, content, mode=0o600, uid=0, gid=0)
        else:
            path = next((file for file in files if self._world.stat(file) is not None), "")
        if not path:
            return Auth()
        return Auth(("--authfile", posixpath.basename(path)), posixpath.dirname(path), path)

    def drop(self, auth: Auth) -> None:
        own = f"{self.own}/{downloads.AUTH}"
        if auth.path == own:
            self._world.remove(own)

    def read(self, path: str) -> bytes | None:
        return self._world.read(path)

    def begun(self) -> dict[str, int]:
        found = {}
        folder = f"{self.folder}/{downloads.BLOBS}"
        for name in self._world.listdir(folder):
            stat = self._world.stat(f"{folder}/{name}")
            if stat is not None:
                found[f"sha256:{name}"] = stat.size
        return found

    def forget(self) -> None:
        if self._world.stat(self.folder) is not None:
            argv = ["rm", "-rf", "--", downloads.FOLDER]
            self._world.run(argv, timeout_s=QUICK_S, cwd=self.own)


class User:
    """Every question is a command of the user's; podman finds by itself what credentials are in
    the home."""

    def __init__(self, accounts: Accounts, account: world.Account) -> None:
        self.run = partial(accounts.run, account.name)
        self._auth_file = f"{account.home}/{USERS_AUTH_FILE}"
        self._auth_brought = f"{runtime_of(account)}/{USERS_PULL_AUTH}"
        self.own = account.home
        self.folder = f"{account.home}/{USERS_FOLDER}"

    def auth(self, brought: Mapping[str, bytes], *files: str) -> Auth:
        content = brought.get(self._auth_file)
        if content is None:
            return Auth()
        argv = ["sh", "-c", 'umask 077 && cat > "$0"', self._auth_brought]
        self.run(argv, timeout_s=QUICK_S, stdin=content)
        return Auth(("--authfile", self._auth_brought), None, self._auth_brought)

    def drop(self, auth: Auth) -> None:
        if auth.path:
            self.run(["rm", "-f", "--", auth.path], timeout_s=QUICK_S)

    def read(self, path: str) -> bytes | None:
        answer = self.run(["cat", "--", path], timeout_s=QUICK_S)
        return answer.stdout.encode() if answer.ok else None

    def begun(self) -> dict[str, int]:
        argv = ["find", f"{self.folder}/{downloads.BLOBS}", "-type", "f", "-printf", r"%f %s\n"]
        rows = _rows(self.run(argv, timeout_s=QUICK_S).stdout)
        return {f"sha256:{name}": int(size) for name, size in rows if size.isdigit()}

    def forget(self) -> None:
        self.run(["rm", "-rf", "--", self.folder], timeout_s=QUICK_S)


def _rows(text: str) -> Iterable[tuple[str, str]]:
    for line in text.splitlines():
        name, _, size = line.partition(" ")
        yield name, size
