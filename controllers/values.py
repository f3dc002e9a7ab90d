"""What a template takes from outside for single devices: fetched once for each value, and followed.

The API server knows what is missing, for it renders; it is asked for the list, each of it is
fetched, and what came is named there, or why nothing came, which those devices then say. Nothing is
kept here but what saves asking twice: whoever dies between a fetch and its naming leaves bytes that
nobody points at, and the list as it was. What failed is tried again by itself, ever more rarely
(`freezing`), and at once when its Repository changes.

All values of one branch come from the commit that the first of them came from, so that devices of
one version do not get files of two commits; but where a file is not there, it is looked for where
the branch stands now. A commit that a ResourceSync has not taken is never looked at.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from controllers import freezing, pinning, versions
from controllers.client import FLIGHTCTL, HOMEPORT, ApiError, Client
from controllers.freezing import Freezer, Kept
from controllers.pinning import Pins
from controllers.sources import Unusable
from resources import attempts, references
from resources.references import Reference

Json = dict[str, Any]
Tell = Callable[[Sequence[Json]], Awaitable[None]]

PARALLEL = 8
TOLD_S = 1.0
# Where a branch stood is no part of why something is missing: with each commit all who wait for it
# would be told anew.
_COMMIT = re.compile(r" at [0-9a-f]{12}$")
# What devices have is asked for again so many at a time, for a server is asked for each.
FOLLOWED = 200
# Of one provider that does not answer so often in a row, no more is asked in this look.
SILENT_AFTER = 3

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Look:
    """What came of looking for what is missing. `rollouts` are to be looked at, since devices that
    waited need wait no more."""

    is_missing: bool = False
    changed: int = 0
    rollouts: Sequence[str] = ()


async def fetch(client: Client, namespace: str, name: str, *, freezer: Freezer) -> Look:
    """Fetch what devices miss of the template version `name`, if that is what its fleet's current
    rollout brings."""
    version = await client.get(FLIGHTCTL, namespace, "templateversions", name)
    template = versions.template_of(version or {})
    if version is None or not references.are_open(template):
        return Look()
    owner = version["spec"]["fleet"]
    fleet = await client.get(FLIGHTCTL, namespace, "fleets", owner)
    heads = await client.heads(FLIGHTCTL, namespace, "templateversions", f"spec.fleet={owner}")
    rollouts = await client.list_in(HOMEPORT, namespace, "rollouts", f"spec.target.fleet={owner}")
    rollout = attempts.current(rollouts, versions.newest(heads))
    if fleet is None or rollout is None or attempts.brings(rollout) != name:
        return Look()
    fetching = _Fetching(freezer, namespace, template, pinning.pins_of(fleet), _pins(version))
    left = changed = 0
    after = ""

    async def settle(outcomes: Sequence[Json]) -> None:
        nonlocal left, changed
        left -= sum("manifest" in outcome for outcome in outcomes)
        changed += await _settled(client, namespace, name, outcomes, freezer)

    while True:
        page = await client.values(namespace, name, state="missing", after=after)
        left += len(page["items"])
        await fetching.look(page["items"], settle)
        after = page["after"]
        if not after:
            break
    if not changed:
        return Look(left > 0)
    log.info("values fetched", version=name, changed=changed, missing=left)
    return Look(
        left > 0, changed, () if attempts.has_ended(rollout) else [attempts.name_of(rollout)]
    )


async def _settled(
    client: Client, namespace: str, name: str, outcomes: Sequence[Json], freezer: Freezer
) -> int:
    try:
        return await client.settle(namespace, name, outcomes)
    except ApiError as error:
        if freezing.is_missing(error):
            # Swept while we were busy elsewhere; the next attempt sends all of it again.
            freezer.forget()
        raise


def _pins(version: Json) -> dict[tuple[str, str], str]:
    """The commits that the version's other files came from."""
    known = versions.inputs_of(version)
    found = {}
    for provider in versions.template_of(version).get("config") or ():
        reference, frozen = provider.get("gitRef"), known.get(provider["name"])
        if reference and frozen:
            found[pinning.source_of(reference)] = frozen["revision"]
    return found


# --- what is there already ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moved:
    """Of the values that devices have, those that their sources give otherwise now, as inputs; and
    why others are not known."""

    inputs: Sequence[Json] = ()
    problem: str = ""


async def moved(client: Client, fleet: Json, version: Json, *, freezer: Freezer) -> Moved:
    """Look at the sources of a page of the version's values; at the next page the next time."""
    template, metadata = versions.template_of(version), version["metadata"]
    if not references.are_open(template):
        return Moved()
    namespace, uid = fleet["metadata"]["namespace"], metadata["uid"]
    after, known_problems = freezer.turns.get(uid) or ("", {})
    page = await client.values(
        namespace, metadata["name"], state="frozen", after=after, limit=FOLLOWED
    )
    fetching = _Fetching(freezer, namespace, template, pinning.pins_of(fleet))
    outcomes: list[Json] = []

    async def note(some: Sequence[Json]) -> None:
        outcomes.extend(some)

    await fetching.look(page["items"], note)
    known = {item["key"]: item["manifest"] for item in page["items"]}
    problems = [outcome["problem"] for outcome in outcomes if "problem" in outcome]
    changed = [
        {"name": outcome["key"], "manifest": outcome["manifest"]}
        for outcome in outcomes
        if "manifest" in outcome and outcome["manifest"] != known[outcome["key"]]
    ]
    # What is wrong with one page holds until its next turn: a condition must not come and go.
    told = dict(known_problems) | {after: _first_of(problems)}
    freezer.turns.put(uid, (page["after"], told))
    return Moved(changed, next(filter(None, (told[start] for start in sorted(told))), ""))


def _first_of(problems: Sequence[str]) -> str:
    if len(problems) < 2:
        return "".join(problems)
    return f"{problems[0]} (and {len(problems) - 1} more)"


# --- fetching -------------------------------------------------------------------------------


@dataclass(slots=True)
class _Fetching:
    """One look. `pins`: commits that are not asked for, since a ResourceSync says so; `first`:
    commits to look at first."""

    freezer: Freezer
    namespace: str
    template: Json
    pins: Pins
    first: dict[tuple[str, str], str] = field(default_factory=dict)
    _silent: dict[str, list[Unusable]] = field(default_factory=dict)

    async def look(self, items: Sequence[Json], tell: Tell) -> None:
        """What came of each, as the API server is told it, is told as it comes: one source that is
        slow keeps nobody else waiting. Of a commit one value goes first."""
        ahead: list[Json] = []
        others: list[Json] = []
        seen = set(self.first)
        for item in items:
            source = self._commit_of(item)
            if source is not None and "pin" in item:
                self.first.setdefault(source, item["pin"])
                seen.add(source)
            (others if source in seen else ahead).append(item)
            if source is not None:
                seen.add(source)
        for some in (ahead, others):
            await _told(self._outcome, some, tell)

    def _commit_of(self, item: Json) -> tuple[str, str] | None:
        filled = references.filled(self.template, item["input"], item["values"])
        reference = filled[1].get("gitRef") if filled else None
        return pinning.source_of(reference) if reference else None

    async def _outcome(self, item: Json) -> Json | None:
        filled = references.filled(self.template, item["input"], item["values"])
        if filled is None:
            # Of a version that somebody has rewritten; only an administrator can.
            return None
        path, provider = filled
        reference = Reference(item["input"], path, item["values"])
        try:
            kept = await self._kept(provider)
        except Unusable as problem:
            told = reference.told(problem.field, _COMMIT.sub("", problem.cause))
            if (told, problem.is_passing) == (item.get("problem"), item.get("isPassing")):
                return None
            return {"key": item["key"], "problem": told, "isPassing": problem.is_passing}
        made: Json = {"key": item["key"], "manifest": kept.manifest, "revision": kept.revision}
        return made | {"files": len(kept.paths)} | ({"etag": kept.etag} if kept.etag else {})

    async def _kept(self, provider: Json) -> Kept:
        silent = self._silent.setdefault(provider["name"], [])
        if len(silent) >= SILENT_AFTER:
            raise silent[-1].again()
        try:
            kept = await self._fetched(provider)
        except Unusable as problem:
            if problem.is_passing:
                silent.append(problem)
            raise
        silent.clear()
        return kept

    async def _fetched(self, provider: Json) -> Kept:
        reference = provider.get("gitRef")
        source = pinning.source_of(reference) if reference else None
        if source is not None and source in self.first:
            try:
                return await self.freezer.one(self.namespace, provider, self.first)
            except Unusable as problem:
                if problem.is_passing or self.first[source] == self.pins.get(source):
                    raise
        kept = await self.freezer.one(self.namespace, provider, self.pins)
        if source is not None:
            self.first.setdefault(source, kept.revision)
        return kept


async def _told(
    do: Callable[[Json], Awaitable[Json | None]], items: Sequence[Json], tell: Tell
) -> None:
    """`do` for each, some at a time, and tell what came of it about once a second. Raises what the
    first that failed raised."""
    few = asyncio.Semaphore(PARALLEL)

    async def one(item: Json) -> Json | None:
        async with few:
            return await do(item)

    try:
        async with asyncio.TaskGroup() as group:
            left = {group.create_task(one(item)) for item in items}
            while left:
                done, left = await asyncio.wait(left, timeout=TOLD_S)
                if found := [came for task in done if (came := task.result()) is not None]:
                    await tell(found)
    except ExceptionGroup as problems:
        raise problems.exceptions[0] from None
