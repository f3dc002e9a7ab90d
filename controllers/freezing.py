"""Freezing: everything that a specification takes from outside, fetched once and named by digest.

Theory of operation. For each provider that points outside: find out where the source stands (a
commit, an ETag, a resourceVersion); if that is where it stood last, what was frozen then is the
answer, and nothing is read. Otherwise its files are read, their bytes sent to the API server one by
one, then their manifest. What comes out is a list of inputs, digests and origins, small enough for
a template version. Nothing here is durable and nothing is order: a crash between two steps leaves
bytes that nobody points at, which the API server forgets, and the next look does it all again to
the same digests.

All providers are tried, so that a person reads everything that is wrong at once. One that failed is
not asked again for a while that grows, however many ask for it; a change of its Repository ends the
while. Which template has which inputs is decided elsewhere (`versions`, `fleets`, `followers`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from controllers import gitfiles, httpfiles, pinning
from controllers.blobs import Blobs
from controllers.client import ApiError, Client
from controllers.giterrors import BadRemote, GitError
from controllers.gitmirror import Mirrors
from controllers.gitremote import Remote
from controllers.pinning import Pins
from controllers.remembering import Memory
from controllers.remotes import Known, Remotes
from controllers.secretfiles import HostCluster
from controllers.sources import Content, Fetched, Unusable
from resources import configproviders, digest, manifest, references, render
from resources.manifest import File

Json = dict[str, Any]

# As many as one template version may need for its devices.
REMEMBERED = 20_000
# A source that fails is asked again after as long as between two polls, then ever more rarely.
RETRY_S_MAX = 300.0
# Of the time between two polls, how long an answer serves everybody who asks for the same.
FRESH = 0.8

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with one provider, and at which field of the specification."""

    provider: str
    path: str
    cause: str
    is_passing: bool = False


class Unfrozen(Exception):
    """Some provider could not be frozen. The message is what people read in the condition, in the
    reference's form; credentials and contents are in none of its parts."""

    def __init__(self, troubles: Sequence[Trouble]) -> None:
        first = troubles[0]
        names = ", ".join(dict.fromkeys(trouble.provider for trouble in troubles))
        many = len(troubles) > 1
        super().__init__(
            f"{len(troubles)} invalid configuration{'s' if many else ''}: {names}. "
            f"{'First error' if many else 'Error'}: {first.path}: {first.cause}"
        )
        self.is_passing = all(trouble.is_passing for trouble in troubles)
        self.first = first


@dataclass(frozen=True, slots=True)
class Failed:
    """A source that could not be used, so many times in a row."""

    problem: Unusable
    times: int


@dataclass(frozen=True, slots=True)
class Kept:
    """What is stored of a source that stood at `revision`: its manifest, the paths and the size of
    its files."""

    manifest: str
    revision: str
    paths: tuple[str, ...]
    size: int
    etag: str = ""


class Freezer:
    """Freezes for everybody in this process. `poll_s`: how often each of them asks; what one was
    told serves the others of the same round."""

    def __init__(
        self,
        client: Client,
        remotes: Remotes,
        mirrors: Mirrors,
        host: HostCluster,
        *,
        poll_s: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._remotes = remotes
        self._mirrors = mirrors
        self._host = host
        self._blobs = Blobs(client, monotonic=monotonic)
        self._poll_s, self._fresh_s = poll_s, poll_s * FRESH
        self._monotonic = monotonic
        self._commits: Memory[tuple[Remote, str], str] = Memory(REMEMBERED, monotonic=monotonic)
        self._failed: Memory[tuple[str, str], Failed] = Memory(REMEMBERED, monotonic=monotonic)
        self._kept: Memory[tuple[Hashable, ...], Kept] = Memory(REMEMBERED, monotonic=monotonic)
        # Of a template version with many values: up to which its sources were asked, and what was
        # wrong with each page of them. See `values`.
        self.turns: Memory[str, tuple[str, Mapping[str, str]]]
        self.turns = Memory(REMEMBERED, monotonic=monotonic)

    async def freeze(
        self,
        namespace: str,
        template: Json,
        root: str,
        known: Mapping[str, Json],
        *,
        now: str,
        pins: Pins = pinning.NONE,
        templated: bool = True,
    ) -> list[Json]:
        """The inputs of the providers from outside that give every device the same, in order.
        `root` is where the template stands (`spec.template.spec`), `known` what they were before,
        `pins` the commits that are not asked for. Of the others only whether their Repository can
        be used is looked at. Raises Unfrozen, Invalid, and what the client raises."""
        found: list[Json] = []
        kept: dict[str, Kept] = {}
        troubles: list[Trouble] = []
        for where, provider in render.outside(template):
            name = provider["name"]
            try:
                if templated and references.is_open(provider):
                    await self._usable(namespace, provider)
                    continue
                stands = references.standing(provider) if templated else provider
                one = await self.one(namespace, stands, pins)
                kept[name] = one
                found.append(_input(name, one, known.get(name), now))
            except Unusable as problem:
                path = f"{root}.{where.partition('.')[0]}.{problem.field}"
                troubles.append(Trouble(name, path, problem.cause, problem.is_passing))
        if troubles:
            raise Unfrozen(troubles)
        if cause := _whole(template, kept):
            raise Unfrozen([Trouble(", ".join(kept), f"{root}.config", cause)])
        return found

    def forget(self) -> None:
        """The API server lacks something that we took for stored: send everything again."""
        self._kept.clear()
        self._blobs.forget()

    def ask_anew(self, mirror: str) -> None:
        """Where the branches of these remotes are is no longer known."""
        self._commits.drop_if(lambda key: key[0].mirror == mirror)
        self.try_again()

    def try_again(self) -> None:
        """Something has changed that may be what sources failed for."""
        self._failed.clear()

    async def one(self, namespace: str, provider: Json, pins: Pins) -> Kept:
        """What a provider gives, whose reference holds no parameters (any more), unless it failed
        just now. Raises Unusable, and what the client raises."""
        pin = ""
        if reference := provider.get("gitRef"):
            pin = pins.get(pinning.source_of(reference), "")
        key = namespace, digest.of([pin, {k: v for k, v in provider.items() if k != "name"}])
        last = self._failed.get(key)
        times = last.times if last else 0
        retry_s = min(RETRY_S_MAX, self._poll_s * 2.0 ** min(times - 1, 16)) * FRESH
        if last is not None and self._failed.get(key, retry_s) is not None:
            raise last.problem.again()
        try:
            kept = await self._one(namespace, provider, pin)
        except Unusable as problem:
            log.warning("source not frozen", namespace=namespace, error=str(problem))
            self._failed.put(key, Failed(problem.again(), times + 1))
            raise
        self._failed.drop(key)
        return kept

    # --- one provider -------------------------------------------------------------------------

    async def _one(self, namespace: str, provider: Json, pin: str) -> Kept:
        match configproviders.source_of(provider):
            case "gitRef":
                return await self._git(namespace, provider["gitRef"], pin)
            case "httpRef":
                return await self._http(namespace, provider["httpRef"])
            case "secretRef":
                return await self._secret(namespace, provider["secretRef"])
        raise AssertionError(provider)

    async def _usable(self, namespace: str, provider: Json) -> None:
        """Whether its Repository is one to ask. Raises Unusable."""
        source = configproviders.source_of(provider) or ""
        if source == "gitRef":
            await self._remote(namespace, provider[source])
        elif source == "httpRef":
            known = await self._repository(namespace, provider[source], source)
            httpfiles.remote_of(known.repository)

    async def _remote(self, namespace: str, reference: Json) -> Remote:
        known = await self._repository(namespace, reference, "gitRef")
        try:
            return known.remote
        except BadRemote as problem:
            cause = f'Repository "{reference["repository"]}": {problem}'
            raise Unusable(gitfiles.REPOSITORY, cause) from problem

    async def _git(self, namespace: str, reference: Json, pin: str) -> Kept:
        remote, path = await self._remote(namespace, reference), reference["path"]
        try:
            commit = await self._commit(remote, pin or reference["targetRevision"])
        except GitError as problem:
            raise gitfiles.unusable(problem) from problem
        # By the branch, for other devices may be given another one; what it was before is not kept.
        key = (namespace, remote.mirror, path, reference["targetRevision"])
        kept = self._kept.get(key)
        if kept is None or kept.revision != commit:
            contents = await gitfiles.read(self._mirrors, remote, commit, path)
            fetched = Fetched(contents, commit, is_secret=bool(remote.secrets()))
            kept = await self._keep(namespace, fetched, gitfiles.PATH)
            self._kept.put(key, kept)
        return kept

    async def _commit(self, remote: Remote, revision: str) -> str:
        commit = self._commits.get((remote, revision), self._fresh_s)
        if commit is None:
            question = self._commits.asking()
            commit = await self._mirrors.resolve(remote, revision)
            self._commits.put((remote, revision), commit, question)
        return commit

    async def _http(self, namespace: str, reference: Json) -> Kept:
        known = await self._repository(namespace, reference, "httpRef")
        remote = httpfiles.remote_of(known.repository)
        suffix, path = reference.get("suffix") or "", reference["filePath"]
        key = (remote, suffix, path)
        if (kept := self._kept.get(key, self._fresh_s)) is not None:
            return kept
        last, question = self._kept.get(key), self._kept.asking()
        answer = await httpfiles.get(remote, suffix, etag=last.etag if last else "")
        if answer.blob is None:
            assert last is not None, "only then an ETag was sent"
            kept = last
        else:
            is_secret = bool(remote.secrets())
            fetched = Fetched([Content(path, answer.blob)], answer.revision, answer.etag, is_secret)
            kept = await self._keep(namespace, fetched, "httpRef.filePath")
        self._kept.put(key, kept, question)
        return kept

    async def _secret(self, namespace: str, reference: Json) -> Kept:
        key = (namespace, *sorted(reference.items()))
        if (kept := self._kept.get(key, self._fresh_s)) is not None:
            return kept
        last, question = self._kept.get(key), self._kept.asking()
        fetched = await self._host.fetch(reference)
        if last is not None and last.revision == fetched.revision:
            kept = last
        else:
            kept = await self._keep(namespace, fetched, "secretRef.mountPath")
        self._kept.put(key, kept, question)
        return kept

    async def _repository(self, namespace: str, reference: Json, source: str) -> Known:
        name = reference["repository"]
        found = await self._remotes.of(namespace, name)
        if found is None:
            cause = f'Repository "{name}" does not exist in this namespace: create it'
            raise Unusable(f"{source}.repository", cause)
        return found

    async def _keep(self, namespace: str, fetched: Fetched, field: str) -> Kept:
        """Store the files and their manifest with the API server."""
        drafts = tuple(_file(content, "") for content in fetched.contents)
        for complaint in manifest.check(drafts):
            raise Unusable(field, complaint.detail)
        blobs = [content.blob for content in fetched.contents]
        names = await self._blobs.keep_all(namespace, blobs, is_secret=fetched.is_secret)
        files = tuple(map(_file, fetched.contents, names))
        name = await self._blobs.keep(namespace, manifest.document(files))
        paths, size = tuple(file.path for file in files), sum(file.size for file in files)
        return Kept(name, fetched.revision, paths, size, fetched.etag)


def checked(template: Json, root: str, *, templated: bool = True) -> Json:
    """The template, if all that is inside it can be rendered. Raises Invalid."""
    frozen = {provider["name"] for _, provider in render.fixed(template, templated=templated)}
    render.check(template, root, templated=templated, frozen=frozen)
    return template


def _file(content: Content, name: str) -> File:
    return File(content.path, name, len(content.blob), content.mode, content.user, content.group)


def _input(name: str, kept: Kept, known: Json | None, now: str) -> Json:
    """One entry of `status.inputs`. Content that did not change keeps its first date and origin."""
    if known is not None and known["manifest"] == kept.manifest:
        return known
    made: Json = {
        "name": name,
        "manifest": kept.manifest,
        "revision": kept.revision,
        "files": len(kept.paths),
        "updatedAt": now,
    }
    return made | ({"etag": kept.etag} if kept.etag else {})


def _whole(template: Json, kept: Mapping[str, Kept]) -> str | None:
    """What is wrong with all files together."""
    paths = [path for one in kept.values() for path in one.paths]
    paths = [path for path in paths if not references.is_standing_in(path)]
    size = sum(one.size for one in kept.values())
    for provider in template.get("config") or ():
        for entry in provider.get("inline") or ():
            paths.append(entry["path"])
            size += len(entry.get("content") or "")
    return manifest.check_whole(paths, size)


def is_missing(error: ApiError) -> bool:
    """Whether the API server refused because something is not stored there (any more)."""
    return error.code == 422 and "is not stored" in error.message
