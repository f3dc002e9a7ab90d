"""ResourceSync: fleets are what a path of a Git repository describes.

One look: where is the branch? If it, the sync, or what came of the last look gives a reason: read
the files of that commit, judge all of them, then apply. The rules that keep people's fleets safe:

- A commit is taken whole or not at all: one document that is wrong, or claimed by another sync, and
  nothing is touched. What was applied last stays.
- What left the repository is deleted, but only after everything else was applied without an error,
  and never because nothing at all is found: an empty path is taken for a mistake unless
  `spec.allowEmpty` says otherwise.
- `status.observedCommit` is what was applied, never what was tried.

A fleet that nobody keeps is taken over; whose a fleet is, the API server decides as it writes.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog

from controllers import manifests, pinning, recording
from controllers.client import FLIGHTCTL, ApiError, Client
from controllers.giterrors import GitError, PathNotFound
from controllers.gitmirror import EntryKind, Mirrors
from controllers.gitprogram import TooMuch
from controllers.gitremote import Remote
from controllers.manifests import Manifest, Unparsable
from controllers.remotes import Remotes
from resources import conditions, readiness, refreshing

Json = dict[str, Any]
Now = Callable[[], str]

# Everything is compared again so often, though nothing seems to have changed.
WHOLE_S = 300.0
# A repository that cannot be read is asked for less and less often, down to this.
SLOWEST_S = 60.0
FILES_MAX = 50_000
TOLD_MAX = 5

ACCESSIBLE, PARSED, SYNCED = "Accessible", "ResourceParsed", "Synced"
# The reference's words for the reasons.
SUCCESS, FAIL = "success", "fail"
ACCESSIBLE_REASON = "accessible"
NO_REPOSITORY = "repository resource not found"
NO_CLONE = "failed to clone repository"
NO_PATH = "path not found in repository"
NEW_HASH = "NewHashDetected"
NO_CATALOGS = (
    "spec.type: catalogs are not served yet, so nothing was applied; for fleets, make another "
    "ResourceSync with spec.type: fleet"
)

_EVENTS = {
    ACCESSIBLE: ("ResourceSyncAccessible", "ResourceSyncInaccessible"),
    PARSED: ("ResourceSyncParsed", "ResourceSyncParsingFailed"),
    SYNCED: ("ResourceSyncSynced", "ResourceSyncSyncFailed"),
}

log = structlog.get_logger()


class Stuck(Exception):
    """The look ends here: this condition is False, for this reason. `passes` by itself, maybe."""

    def __init__(self, type_: str, reason: str, message: str, *, passes: bool = False) -> None:
        super().__init__(message)
        self.type = type_
        self.reason = reason
        self.passes = passes


@dataclass(frozen=True, slots=True)
class _Look:
    """What is remembered of a look: of what, at which commit, and when the next one is due.
    `commit` is the one that needs nothing more for a while, `tried` the one that was looked at."""

    asked: Json
    commit: str
    tried: str
    whole_at: float
    due: float
    failures: int


@dataclass(slots=True)
class ResourceSyncs:
    """The looks of one process. All that it remembers may be lost: then it looks again."""

    client: Client
    mirrors: Mirrors
    remotes: Remotes
    poll_s: float
    now: Now
    monotonic: Callable[[], float]
    _looks: dict[tuple[str, str], _Look] = field(default_factory=dict)

    async def reconcile(self, namespace: str, name: str) -> float | None:
        """One look. Seconds until the next one; None if the sync is gone."""
        key = (namespace, name)
        sync = await self.client.get(FLIGHTCTL, namespace, "resourcesyncs", name)
        if sync is None or sync["metadata"].get("deletionTimestamp"):
            self._looks.pop(key, None)
            return None
        asked, before = _asked(sync), self._looks.get(key)
        if before is not None and before.asked != asked:
            before = None
        if before is not None and before.due > self.monotonic():
            # Woken by what we wrote ourselves, or by something that is no reason to look.
            return before.due - self.monotonic()
        look = await self._look(sync, asked, before)
        self._looks[key] = look
        return max(0.0, look.due - self.monotonic())

    def changed(self, namespace: str, repository: str) -> list[str]:
        """The syncs that read a Repository which changed; their next look is due, and takes it for
        another."""
        return self._due(namespace, repository, commit="")

    def pushed(self, namespace: str, repository: str) -> list[str]:
        """The syncs that read a Repository which was pushed to; their next look is due."""
        return self._due(namespace, repository)

    def _due(self, namespace: str, repository: str, **changes: Any) -> list[str]:
        found = [
            key
            for key, look in self._looks.items()
            if key[0] == namespace and look.asked["repository"] == repository
        ]
        for key in found:
            self._looks[key] = replace(self._looks[key], due=-math.inf, **changes)
        return [name for _, name in found]

    async def _look(self, sync: Json, asked: Json, before: _Look | None) -> _Look:
        commit, phase, failures = "", 0.0, before.failures if before else 0
        tried = before.tried if before else ""
        whole_at = before.whole_at if before else -math.inf
        try:
            remote = await self._remote(sync)
            phase = int(remote.mirror[:8], 16) / 2**32
            commit = await self._commit(remote, sync["spec"]["targetRevision"])
            is_new = before is None or before.commit != commit
            if is_new or self.monotonic() - whole_at > WHOLE_S:
                whole_at = self.monotonic()
                is_first, tried = tried != commit, commit
                await self._take(sync, remote, commit, is_first=is_first)
            failures = 0
        except Stuck as stuck:
            failures += 1
            if stuck.passes:
                # The next look tries everything again.
                commit = ""
            await self._tell(sync, {stuck.type: ("False", stuck.reason, str(stuck))})
        wait_s = self.poll_s
        if failures and not commit:
            wait_s = max(wait_s, min(SLOWEST_S, wait_s * 2.0 ** (failures - 1)))
        return _Look(
            asked, commit, tried, whole_at, _tick(self.monotonic(), wait_s, phase), failures
        )

    # --- what there is ------------------------------------------------------------------------

    async def _remote(self, sync: Json) -> Remote:
        spec, namespace = sync["spec"], sync["metadata"]["namespace"]
        try:
            known = await self.remotes.of(namespace, spec["repository"])
            if known is not None:
                return known.remote
        except GitError as problem:
            message = f"Repository {spec['repository']}: {problem}"
            raise Stuck(ACCESSIBLE, NO_CLONE, message) from problem
        message = (
            f"spec.repository: there is no Repository {spec['repository']} in namespace "
            f"{namespace}: create it, or name another"
        )
        raise Stuck(ACCESSIBLE, NO_REPOSITORY, message)

    async def _commit(self, remote: Remote, revision: str) -> str:
        try:
            return await self.mirrors.resolve(remote, revision)
        except GitError as problem:
            raise Stuck(ACCESSIBLE, NO_CLONE, str(problem), passes=True) from problem

    async def _files(self, sync: Json, remote: Remote, commit: str) -> Mapping[str, bytes]:
        """The manifests' files at the path. Symbolic links and submodules are not followed."""
        path, status = sync["spec"]["path"], sync.get("status") or {}
        try:
            entries = await self.mirrors.entries(remote, commit, path)
        except PathNotFound as problem:
            if sync["spec"].get("allowEmpty") and status.get("observedCommit"):
                # Git keeps no empty directories: with its last file the path is gone.
                return {}
            raise Stuck(ACCESSIBLE, NO_PATH, f"spec.path: {problem}") from problem
        except GitError as problem:
            raise Stuck(ACCESSIBLE, NO_CLONE, str(problem), passes=True) from problem
        regular = (EntryKind.FILE, EntryKind.EXECUTABLE)
        wanted = [e for e in entries if e.kind in regular and manifests.is_manifest(e.path)]
        try:
            if len(wanted) > FILES_MAX:
                raise Stuck(PARSED, FAIL, f"spec.path: {len(wanted)} files; {FILES_MAX} at most")
            contents = await self.mirrors.read(remote, wanted)
        except TooMuch as problem:
            raise Stuck(PARSED, FAIL, f"spec.path: the manifests are {problem}") from problem
        except GitError as problem:
            raise Stuck(ACCESSIBLE, NO_CLONE, str(problem), passes=True) from problem
        return {entry.path: contents[entry.blob] for entry in wanted}

    # --- making it so -------------------------------------------------------------------------

    async def _take(self, sync: Json, remote: Remote, commit: str, *, is_first: bool) -> None:
        """Bring the fleets to what `commit` describes. Raises Stuck."""
        metadata, status = sync["metadata"], sync.get("status") or {}
        files = await self._files(sync, remote, commit)
        reached = {ACCESSIBLE: ("True", ACCESSIBLE_REASON, f"{remote.url} can be read.")}
        if sync["spec"].get("type") == "catalog":
            await self._tell(sync, reached | {SYNCED: ("False", FAIL, NO_CATALOGS)})
            return
        try:
            wanted = await asyncio.to_thread(manifests.fleets, files, metadata["namespace"])
        except Unparsable as problem:
            reached[PARSED] = ("False", FAIL, f"commit {commit[:12]}: {problem}")
            reached[SYNCED] = ("False", FAIL, _stays(status))
            await self._tell(sync, reached)
            return
        reached[PARSED] = ("True", SUCCESS, f"{len(wanted)} fleets in {len(files)} files")
        if is_first and status.get("observedCommit") != commit:
            said = f"commit {commit[:12]} is being applied"
            await self._tell(sync, reached | {SYNCED: ("False", NEW_HASH, said)})
        try:
            await self._apply(sync, wanted, commit)
        except Stuck as stuck:
            await self._tell(sync, reached)
            raise stuck
        said = f"{len(wanted)} fleets are as commit {commit[:12]} describes them"
        reached[SYNCED] = ("True", SUCCESS, said)
        observed = {"observedCommit": commit, "observedGeneration": metadata["generation"]}
        await self._tell(sync, reached, observed)

    async def _apply(self, sync: Json, wanted: Sequence[Manifest], commit: str) -> None:
        namespace, owner = sync["metadata"]["namespace"], f"ResourceSync/{sync['metadata']['name']}"
        there = {
            fleet["metadata"]["name"]: fleet
            for fleet in await self.client.list_in(FLIGHTCTL, namespace, "fleets")
        }
        _check_claims(wanted, there, owner)
        names = {manifest.name for manifest in wanted}
        left = [
            fleet
            for name, fleet in there.items()
            if fleet["metadata"].get("owner") == owner and name not in names
        ]
        if left and not wanted and not sync["spec"].get("allowEmpty"):
            raise Stuck(SYNCED, FAIL, _empty(sync, len(left)))
        problems = []
        for manifest in wanted:
            try:
                old = there.get(manifest.name)
                fleet = pinning.pinned(merged(manifest.document, old, owner), sync, commit)
                await self._put(namespace, manifest.name, fleet, old)
            except ApiError as error:
                problems.append(f"{manifest.place}: {error.message}")
        if problems:
            kept = f"; {len(left)} that left the repository were not deleted" if left else ""
            raise Stuck(SYNCED, FAIL, _some(problems) + kept, passes=True)
        try:
            for fleet in left:
                await self.client.delete(FLIGHTCTL, namespace, "fleets", fleet)
        except ApiError as error:
            raise Stuck(SYNCED, FAIL, error.message, passes=True) from error

    async def _put(self, namespace: str, name: str, wanted: Json, there: Json | None) -> None:
        if there is None:
            await self.client.create(FLIGHTCTL, namespace, "fleets", wanted)
        elif wanted != there:
            await self.client.update(FLIGHTCTL, namespace, "fleets", name, wanted)

    # --- telling ------------------------------------------------------------------------------

    async def _tell(
        self, sync: Json, reached: Mapping[str, tuple[str, str, str]], more: Json | None = None
    ) -> None:
        """Write what was reached, if it says something new; `sync` is what is stored then."""
        metadata, now = sync["metadata"], self.now()
        known = readiness.own((sync.get("status") or {}).get("conditions"))
        status = (sync.get("status") or {}) | {"conditions": known}
        said = known
        for type_, (state, reason, message) in reached.items():
            said = conditions.set_condition(
                said, type_, state, reason, message, now, metadata["generation"]
            )
        new = status | {"conditions": said} | (more or {})
        if new == status:
            return
        namespace, name = metadata["namespace"], metadata["name"]
        try:
            await self.client.patch_status(FLIGHTCTL, namespace, "resourcesyncs", name, new)
        except ApiError as error:
            if error.code != 404:
                raise
            return
        sync["status"] = new
        for reason, message in _events(known, said):
            log.info("resource sync told", namespace=namespace, sync=name, reason=reason)
            await recording.tell(self.client, sync, reason, message, now=now)


def _asked(sync: Json) -> Json:
    """What a person asks for: another spec, or a refresh."""
    metadata = sync["metadata"]
    return {
        "uid": metadata["uid"],
        "generation": metadata["generation"],
        "refresh": refreshing.note(sync),
        "repository": sync["spec"]["repository"],
    }


def _tick(now: float, every_s: float, phase: float) -> float:
    """The next moment of a rhythm that all syncs of one repository share, so that one question
    answers them all, and that other repositories have elsewhere."""
    beats = math.floor(now / every_s - phase) + 1
    return (beats + phase) * every_s


def merged(manifest: Json, there: Json | None, owner: str) -> Json:
    """The fleet that the manifest means, over the one that is there: spec and labels are the
    manifest's; of annotations, those that it does not name are others' and stay."""
    said = manifest["metadata"]
    was: Json = dict(there["metadata"]) if there else {}
    metadata: Json = was | {"name": said["name"], "owner": owner}
    for key, value in (
        ("labels", said.get("labels") or {}),
        ("annotations", (was.get("annotations") or {}) | (said.get("annotations") or {})),
    ):
        metadata.pop(key, None)
        if value:
            metadata[key] = value
    return {**(there or {}), **manifest, "metadata": metadata}


def _check_claims(wanted: Sequence[Manifest], there: Mapping[str, Json], owner: str) -> None:
    problems = []
    for manifest in wanted:
        other = (there.get(manifest.name) or {"metadata": {}})["metadata"].get("owner")
        if other and other != owner:
            problems.append(f"{manifest.place}: Fleet {manifest.name} is already kept by {other}")
    if problems:
        hint = "; nothing was applied: take it out of one of the two"
        # The other one may let go of it.
        raise Stuck(SYNCED, FAIL, _some(problems) + hint, passes=True)


def _some(problems: Sequence[str]) -> str:
    more = len(problems) - TOLD_MAX
    return "; ".join(problems[:TOLD_MAX]) + (f"; and {more} more" if more > 0 else "")


def _empty(sync: Json, number: int) -> str:
    return (
        f'there is no manifest any more at "{sync["spec"]["path"]}", which would delete all '
        f"{number} fleets of this ResourceSync; nothing was deleted. If that is meant, set "
        "spec.allowEmpty: true; to keep the fleets and free them, delete the ResourceSync"
    )


def _stays(status: Json) -> str:
    commit = status.get("observedCommit")
    if not commit:
        return "nothing was applied: see ResourceParsed"
    return f"the fleets stay as commit {commit[:12]} describes them: see ResourceParsed"


def _events(known: Sequence[Json], said: Sequence[Json]) -> list[tuple[str, str]]:
    """(reason, message) of what is worth telling: a condition that became another one."""
    found = []
    for condition in said:
        type_, was = condition["type"], conditions.get(known, condition["type"])
        told = ("status", "reason", "message")
        if was is not None and all(was.get(key) == condition[key] for key in told):
            continue
        good, bad = _EVENTS[type_]
        if condition["reason"] == NEW_HASH:
            found.append(("ResourceSyncCommitDetected", condition["message"]))
        elif condition["status"] == conditions.TRUE:
            if type_ == SYNCED or was is None or was["status"] != conditions.TRUE:
                found.append((good, condition["message"]))
        else:
            found.append((bad, condition["message"]))
    return found
