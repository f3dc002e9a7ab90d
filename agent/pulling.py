"""What surrounds a download: credentials, room on the disk, what is said when it fails.

Credentials that the specification itself brings are used before they are on the disk, from a file
of the agent's own that lasts as long as the download. Room is estimated from what the registry says
of the layers that are not here yet (`room`); where nobody can say, the download is tried. One that
filled the disk is not begun again before there is more room, or less to fetch.

The tool itself runs below `downloading`, which watches it; under a root of its own, where paths
mean something else to a child, it runs alone.
"""

from __future__ import annotations

import json
import logging
import posixpath
from collections.abc import Iterable, Mapping, Sequence

from agent import downloads, errors, podman, pullerrors, room, settings, world
from agent.accounts import Accounts, runtime_of
from agent.specs import FileSpec
from agent.throttle import Throttle
from resources.records import dataclass

log = logging.getLogger("agent.pulling")

AUTH_FILE = "/root/.config/containers/auth.json"
# Of a user: below the home; and where those that a specification brings are for a moment.
USERS_AUTH_FILE, USERS_PULL_AUTH = ".config/containers/auth.json", "homeport-pull-auth.json"
QUICK_S = 60.0
LOOK_UP_S = 60.0


@dataclass(frozen=True, slots=True)
class Auth:
    """`option` for podman and skopeo, to be run in `cwd`; both may be empty. `path`: the same,
    whole."""

    option: tuple[str, ...] = ()
    cwd: str | None = None
    path: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """`auth_file`: where its credentials belong on the device. `element` names it for people."""

    reference: str
    element: str
    auth_file: str = AUTH_FILE
    is_system: bool = False


class Pulling:
    def __init__(
        self, where: world.World, bounds: settings.LoopSettings, throttle: Throttle
    ) -> None:
        self._world = where
        self._bounds = bounds
        self.own_dir = bounds.own_dir
        self._folder = f"{bounds.own_dir}/{downloads.FOLDER}"
        self._brought: Mapping[str, bytes] = {}
        self._root = ""
        self._throttle = throttle
        # Reference -> what it lacked and what was free when the disk had been filled.
        self._stopped: dict[str, tuple[frozenset[str], int]] = {}

    def use(self, files: Iterable[FileSpec]) -> None:
        """The files of the specification that is being made true."""
        self._brought = {f.path: f.content for f in files}

    def pull(self, argv: Sequence[str], wanted: Wanted) -> world.Completed:
        """By podman. Raises Retry where there is no room for it."""
        auth = self.auth(wanted.auth_file)
        try:
            lacking, free = self._need_room(wanted, auth)
            whole = [*argv[:-1], *auth.option, argv[-1]]
            watched = [self._store()] if self._bounds.downloader and self._store() else []
            answer = self._run(whole, watched, auth.cwd, {}, wanted.reference, auth.path)
        finally:
            self.drop(auth)
        self._learn(wanted.reference, answer, lacking, free)
        return answer

    def pull_as(self, accounts: Accounts, user: str, argv: Sequence[str]) -> world.Completed:
        """Into the store of a user, as that user; podman finds what credentials are in the home.
        Not watched, and begun anew where it broke off: both are root's to do."""
        account = accounts.of(user)
        path = f"{account.home}/{USERS_AUTH_FILE}" if account is not None else ""
        brought = self._brought.get(path)
        limit_s, env = self._bounds.pull_timeout_s, self._throttle.environment()
        if account is None or brought is None:
            return accounts.run(user, argv, timeout_s=limit_s, env=env)
        place = f"{runtime_of(account)}/{USERS_PULL_AUTH}"
        write = ["sh", "-c", 'umask 077 && cat > "$0"', place]
        accounts.run(user, write, timeout_s=QUICK_S, stdin=brought)
        try:
            whole = [*argv[:-1], "--authfile", place, argv[-1]]
            return accounts.run(user, whole, timeout_s=limit_s, env=env)
        finally:
            accounts.run(user, ["rm", "-f", "--", place], timeout_s=QUICK_S)

    def fetch(
        self, argv: Sequence[str], wanted: Wanted, folder: str, env: Mapping[str, str]
    ) -> world.Completed:
        """By another tool, into `folder`, where it is run. Raises Retry."""
        free = self._free(folder)
        if free is not None and (words := room.shortage({folder: free})):
            raise self._no_room(wanted, words)
        return self._run(argv, [folder], folder, env, "", "")

    def failed(self, answer: world.Completed, wanted: Wanted) -> errors.Retry | errors.Reject:
        """What to make of a download that failed."""
        return pullerrors.of(
            answer.words,
            reference=wanted.reference,
            element=wanted.element,
            auth_file=wanted.auth_file,
        )

    def look_up(self, argv: Sequence[str], auth_file: str, *, limit_s: float) -> world.Completed:
        """Asks a registry with the same credentials."""
        auth = self.auth(auth_file)
        try:
            whole = [*argv[:-1], *auth.option, argv[-1]]
            return self._world.run(whole, timeout_s=limit_s, cwd=auth.cwd)
        finally:
            self.drop(auth)

    def forget(self) -> None:
        """Nothing is to be downloaded any more: what was begun goes."""
        self._stopped = {}
        if self._world.stat(self._folder) is not None:
            self._world.run(["rm", "-rf", "--", downloads.FOLDER], timeout_s=QUICK_S,
                            cwd=self.own_dir)  # fmt: skip

    # Credentials. ---------------------------------------------------------------------------------

    def auth(self, *files: str) -> Auth:
        """Of the first of `files` that the specification brings, or else that is there. `drop` it
        afterwards."""
        # NB a name relative to the folder: below a root of its own podman sees other paths than we.
        brought = next((self._brought[file] for file in files if file in self._brought), None)
        if brought is not None:
            path = f"{self.own_dir}/{downloads.AUTH}"
            self._world.write(path, brought, mode=0o600, uid=0, gid=0)
        else:
            path = next((file for file in files if self._world.stat(file) is not None), "")
        if not path:
            return Auth()
        return Auth(("--authfile", posixpath.basename(path)), posixpath.dirname(path), path)

    def secret(self, file: str) -> bytes:
        """What `file` says, or is going to say; empty = nothing."""
        return self._brought.get(file) or self._world.read(file) or b""

    def drop(self, auth: Auth) -> None:
        own = f"{self.own_dir}/{downloads.AUTH}"
        if auth.path == own:
            self._world.remove(own)

    # Room. ----------------------------------------------------------------------------------------

    def _need_room(self, wanted: Wanted, auth: Auth) -> tuple[frozenset[str], int | None]:
        """(layers that are not here, free bytes), as far as is known. Raises Retry."""
        argv = podman.layers_argv(wanted.reference, auth.option)
        answer = self._world.run(argv, timeout_s=LOOK_UP_S, cwd=auth.cwd)
        try:
            layers = podman.layer_sizes(answer.stdout) if answer.ok else {}
            known = self._layers_here() if layers else None
            free = self._free(self._store()) if known is not None else None
        except (ValueError, KeyError, TypeError, AttributeError, OSError):
            return frozenset(), None
        if known is None or free is None:
            return frozenset(), None
        lacking = room.missing(layers, known)
        need = room.needed(layers, known, self._begun(lacking), is_system=wanted.is_system)
        if need and need + room.RESERVE_BYTES > free:
            words = f"it needs about {need >> 20} MiB, {free >> 20} MiB are free"
            raise self._no_room(wanted, words)
        before = self._stopped.get(wanted.reference)
        if before is not None and lacking == before[0] and free < before[1] + room.RESERVE_BYTES:
            more = (before[1] + room.RESERVE_BYTES - free) >> 20
            words = f"it filled the disk; tried again when {more} MiB more are free"
            raise self._no_room(wanted, words)
        return lacking, free

    def _learn(
        self,
        reference: str,
        answer: world.Completed,
        lacking: frozenset[str],
        free: int | None,
    ) -> None:
        self._stopped.pop(reference, None)
        if not answer.ok and "no space left" in answer.stderr and free is not None:
            after = self._free(self._store())
            self._stopped[reference] = (lacking, free if after is None else after)

    def _no_room(self, wanted: Wanted, words: str) -> errors.Retry:
        detail = f"no room for {wanted.reference}: {words}"
        return errors.Retry(
            errors.RESOURCE_EXHAUSTED, detail, component=errors.PREFETCH, element=wanted.element
        )

    def _layers_here(self) -> frozenset[str] | None:
        """As they were packed; None = nobody knows."""
        if not self._store():
            return None
        raw = self._world.read(f"{self._store()}/overlay-layers/layers.json")
        listed = json.loads(raw) if raw else []
        return frozenset(str(one.get("compressed-diff-digest")) for one in listed)

    def _store(self) -> str:
        """Where podman keeps what it has; empty = it does not say."""
        if not self._root:
            answer = self._world.run(podman.storage_argv(), timeout_s=QUICK_S)
            self._root = answer.stdout.strip() if answer.ok else ""
        return self._root

    def _begun(self, lacking: frozenset[str]) -> dict[str, int]:
        found = {}
        for digest in lacking:
            stat = self._world.stat(f"{self._folder}/{downloads.BLOBS}/{digest.partition(':')[2]}")
            if stat is not None:
                found[digest] = stat.size
        return found

    def _free(self, folder: str) -> int | None:
        argv = ["df", "--output=avail", "--block-size=1", "--", "."]
        answer = self._world.run(argv, timeout_s=QUICK_S, cwd=folder)
        words = answer.stdout.split()
        return int(words[-1]) if answer.ok and words and words[-1].isdigit() else None

    # The tool. ------------------------------------------------------------------------------------

    def _run(
        self,
        argv: Sequence[str],
        watched: Sequence[str],
        cwd: str | None,
        env: Mapping[str, str],
        reference: str,
        auth_file: str,
    ) -> world.Completed:
        stdin = b""
        if self._bounds.downloader:
            order = downloads.Order(
                tuple(argv), self._folder, (*watched, self.own_dir), reference, auth_file
            )
            argv, stdin = self._bounds.downloader, order.encode()
        return self._world.run(
            argv,
            timeout_s=self._bounds.pull_timeout_s,
            stdin=stdin,
            env={**env, **self._throttle.environment()},
            cwd=cwd,
        )
