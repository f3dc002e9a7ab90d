"""What surrounds a download: credentials, room on the disk, what is said when it fails.

Credentials that the specification itself brings are used before they are on the disk, from a file
that lasts as long as the download. Room is estimated from what the registry says of the layers that
are not here yet (`room`); where nobody can say, the download is tried. One that filled the disk is
not begun again before there is more room, or less to fetch.

The tool itself runs below `downloading`, which watches it; under a root of its own, where paths
mean something else to a child, it runs alone. All of it is done as whose store it is for
(`destinations`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence

from agent import downloads, errors, podman, pullerrors, room, settings, world
from agent.accounts import Accounts
from agent.destinations import AUTH_FILE, USERS_AUTH_FILE, Auth, Destination, Root, User
from agent.specs import FileSpec
from agent.throttle import Throttle
from resources.records import dataclass

log = logging.getLogger("agent.pulling")

QUICK_S = 60.0
LOOK_UP_S = 60.0
# How often content that is not what its digest says is asked for again. With the pauses between
# attempts that is some minutes: a proxy or a cache in repair has them, a registry gets no better.
WRONG_MAX = 5
# Below the agent's own folder of downloads: for which users something was begun.
USERS = "users"


@dataclass(frozen=True, slots=True)
class Wanted:
    """`auth_file`: where its credentials belong on the device. `element` names it for people.
    `user`: whose store it is for, empty for root's."""

    reference: str
    element: str
    auth_file: str = AUTH_FILE
    is_system: bool = False
    user: str = ""


class Pulling:
    def __init__(
        self, where: world.World, bounds: settings.LoopSettings, throttle: Throttle
    ) -> None:
        self._world = where
        self._bounds = bounds
        self._accounts = Accounts(where)
        self._own = Root(where, bounds.own_dir)
        self.own_dir = bounds.own_dir
        self._brought: Mapping[str, bytes] = {}
        # User -> where their podman keeps what it has.
        self._roots: dict[str, str] = {}
        self._throttle = throttle
        # What -> how often it was not what its digest says, since it last was well.
        self._wrong: dict[Wanted, int] = {}
        # What -> what it lacked, and what room there was for it, when it filled the disk.
        self._stopped: dict[Wanted, tuple[frozenset[str], int]] = {}

    def use(self, files: Iterable[FileSpec]) -> None:
        """The files of the specification that is being made true."""
        self._brought = {f.path: f.content for f in files}

    def wanted(self, reference: str, element: str, user: str) -> Wanted:
        """By an application."""
        account = self._accounts.of(user)
        auth_file = f"{account.home}/{USERS_AUTH_FILE}" if account is not None else AUTH_FILE
        return Wanted(reference, element, auth_file, user=user)

    def pull(self, argv: Sequence[str], wanted: Wanted) -> world.Completed:
        """By podman. Raises Retry where there is no room for it."""
        whither = self._destination(wanted.user)
        if whither is None:
            return _nobody(argv, wanted.user)
        auth = whither.auth(self._brought, wanted.auth_file)
        try:
            lacking, had = self._need_room(wanted, auth, whither)
            whole = [*argv[:-1], *auth.option, argv[-1]]
            store = self._store(wanted.user, whither) if self._bounds.downloader else ""
            watched = [store] if store else []
            answer = self._run(whither, whole, watched, auth.cwd, {}, wanted.reference, auth.path)
        finally:
            whither.drop(auth)
        if answer.ok:
            self._wrong.pop(wanted, None)
        # NB not what is free now: what it had unpacked goes with podman's next command only.
        self._stopped.pop(wanted, None)
        if not answer.ok and "no space left" in answer.stderr and had is not None:
            self._stopped[wanted] = (lacking, had)
        return answer

    def fetch(
        self, argv: Sequence[str], wanted: Wanted, folder: str, env: Mapping[str, str]
    ) -> world.Completed:
        """By another tool, into `folder`, where it is run. Raises Retry."""
        free = _free(self._own, folder)
        if free is not None and (words := room.shortage({folder: free})):
            raise self._no_room(wanted, words)
        answer = self._run(self._own, argv, [folder], folder, env, "", "")
        if answer.ok:
            self._wrong.pop(wanted, None)
        return answer

    def failed(self, answer: world.Completed, wanted: Wanted) -> errors.Retry | errors.Reject:
        """What to make of a download that failed; once for each."""
        found = pullerrors.of(
            answer.words,
            reference=wanted.reference,
            element=wanted.element,
            auth_file=wanted.auth_file,
        )
        if not isinstance(found, pullerrors.Wrong):
            return found
        count = self._wrong[wanted] = self._wrong.get(wanted, 0) + 1
        if count < WRONG_MAX:
            return found
        del self._wrong[wanted]
        return pullerrors.refused(
            answer.words, count, reference=wanted.reference, element=wanted.element
        )

    def look_up(self, argv: Sequence[str], wanted: Wanted, *, limit_s: float) -> world.Completed:
        """Asks a registry with the same credentials."""
        whither = self._destination(wanted.user)
        if whither is None:
            return _nobody(argv, wanted.user)
        auth = whither.auth(self._brought, wanted.auth_file)
        try:
            whole = [*argv[:-1], *auth.option, argv[-1]]
            return whither.run(whole, timeout_s=limit_s, cwd=auth.cwd)
        finally:
            whither.drop(auth)

    def forget(self) -> None:
        """Nothing is to be downloaded any more: what was begun goes."""
        self._stopped, self._wrong = {}, {}
        for uid in self._world.listdir(f"{self._own.folder}/{USERS}"):
            account = self._accounts.of(uid)
            if account is not None:
                User(self._accounts, account).forget()
        self._own.forget()

    # Credentials. ---------------------------------------------------------------------------------

    def auth(self, *files: str) -> Auth:
        """For root, as `Destination.auth`."""
        return self._own.auth(self._brought, *files)

    def secret(self, file: str) -> bytes:
        """What `file` says, or is going to say; empty = nothing."""
        return self._brought.get(file) or self._world.read(file) or b""

    def drop(self, auth: Auth) -> None:
        self._own.drop(auth)

    # Where to. ------------------------------------------------------------------------------------

    def _destination(self, user: str) -> Destination | None:
        """None = there is no such user (any more)."""
        if not user:
            return self._own
        account = self._accounts.of(user)
        if account is None:
            return None
        # Before anything is begun there: who tidies up may be another process.
        self._world.mkdir(f"{self._own.folder}/{USERS}", mode=0o700)
        mark = f"{self._own.folder}/{USERS}/{account.uid}"
        if self._world.stat(mark) is None:
            self._world.write(mark, b"", mode=0o600, uid=0, gid=0)
        return User(self._accounts, account)

    def _store(self, user: str, whither: Destination) -> str:
        """Where podman keeps what it has; empty = it does not say."""
        if not self._roots.get(user):
            answer = whither.run(podman.storage_argv(), timeout_s=QUICK_S)
            self._roots[user] = answer.stdout.strip() if answer.ok else ""
        return self._roots[user]

    # Room. ----------------------------------------------------------------------------------------

    def _need_room(
        self, wanted: Wanted, auth: Auth, whither: Destination
    ) -> tuple[frozenset[str], int | None]:
        """(layers that are not here, room for them in bytes), as far as is known. Raises Retry."""
        layers, is_artifact = self._layers(wanted, auth, whither)
        store = self._store(wanted.user, whither) if layers else ""
        try:
            known = _layers_in(whither, store) if store else None
            free = _free(whither, store) if known is not None else None
        except (ValueError, TypeError, AttributeError, OSError):
            return frozenset(), None
        if known is None or free is None:
            return frozenset(), None
        lacking = room.missing(layers, known)
        begun = whither.begun()
        need = room.needed(
            layers, known, begun, is_system=wanted.is_system, is_artifact=is_artifact
        )
        if need and need + room.RESERVE_BYTES > free:
            words = f"it needs about {need >> 20} MiB, {free >> 20} MiB are free"
            raise self._no_room(wanted, words)
        has = free + sum(begun.get(digest, 0) for digest in lacking)
        before = self._stopped.get(wanted)
        if before is not None and lacking == before[0] and has < before[1] + room.RESERVE_BYTES:
            more = (before[1] + room.RESERVE_BYTES - has) >> 20
            words = f"it filled the disk; tried again when {more} MiB more are free"
            raise self._no_room(wanted, words)
        return lacking, has

    def _layers(
        self, wanted: Wanted, auth: Auth, whither: Destination
    ) -> tuple[dict[str, int], bool]:
        """(digest -> bytes as the registry says, whether it is an artifact); none = nobody can
        say."""
        argv = podman.layers_argv(wanted.reference, auth.option)
        answer = whither.run(argv, timeout_s=LOOK_UP_S, cwd=auth.cwd)
        is_artifact = not answer.ok and podman.is_artifact(answer.stderr)
        if is_artifact:
            argv = podman.raw_manifest_argv(wanted.reference, auth.option)
            answer = whither.run(argv, timeout_s=LOOK_UP_S, cwd=auth.cwd)
        sizes = podman.artifact_sizes if is_artifact else podman.layer_sizes
        try:
            return (sizes(answer.stdout) if answer.ok else {}), is_artifact
        except (ValueError, KeyError, TypeError):
            return {}, False

    def _no_room(self, wanted: Wanted, words: str) -> errors.Retry:
        detail = f"no room for {wanted.reference}: {words}"
        return errors.Retry(
            errors.RESOURCE_EXHAUSTED, detail, component=errors.PREFETCH, element=wanted.element
        )

    # The tool. ------------------------------------------------------------------------------------

    def _run(
        self,
        whither: Destination,
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
                tuple(argv), whither.folder, (*watched, whither.own), reference, auth_file
            )
            argv, stdin = self._bounds.downloader, order.encode()
        return whither.run(
            argv,
            timeout_s=self._bounds.pull_timeout_s,
            stdin=stdin,
            env={**env, **self._throttle.environment()},
            cwd=cwd,
        )


def _nobody(argv: Sequence[str], user: str) -> world.Completed:
    return world.Completed(tuple(argv), world.NOT_STARTED, "", f"there is no user {user}")


def _layers_in(whither: Destination, store: str) -> frozenset[str]:
    """As they were packed."""
    raw = whither.read(f"{store}/overlay-layers/layers.json")
    listed = json.loads(raw) if raw else []
    return frozenset(str(one.get("compressed-diff-digest")) for one in listed)


def _free(whither: Destination, folder: str) -> int | None:
    argv = ["df", "--output=avail", "--block-size=1", "--", "."]
    answer = whither.run(argv, timeout_s=QUICK_S, cwd=folder)
    words = answer.stdout.split()
    return int(words[-1]) if answer.ok and words and words[-1].isdigit() else None
