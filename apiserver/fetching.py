"""What the controllers are to fetch for single devices of a template version, and what came of it.

The list is in the store: whoever fetches may die at any moment, and the next one asks what is still
missing. What came first under a key stays; to say it again, or to say something else, changes
nothing, so two who fetch the same give all devices one content.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from apiserver import errors, inputs
from apiserver.store import Snapshot, Store, Transaction, rolling, wants
from apiserver.store.wants import Wanted
from resources import manifest, registry
from resources.errors import Invalid
from resources.kind import Json

OUTCOMES_MAX = 500
PROBLEM_MAX = 4_000
_VERSION = registry.by_kind("TemplateVersion")


def want(tx: Transaction, target: rolling.Target, wanted: Iterable[Wanted]) -> None:
    """Some devices need this. Raises NotFound when the version is gone, which would forget it."""
    uid = _uid(tx, target.namespace, target.template_version)
    wants.want(tx, uid, wanted)


async def page(
    store: Store, namespace: str, name: str, *, is_open: bool, after: str, limit: int
) -> Json:
    """By key: what is missing (`is_open`), each with why, or what is there."""

    def look(snapshot: Snapshot) -> list[Json]:
        uid = _uid(snapshot, namespace, name)
        return wants.page(snapshot, uid, is_open=is_open, after=after, limit=limit)

    found = await store.read(look)
    return {"items": found, "after": found[-1]["key"] if len(found) == limit else ""}


async def settle(store: Store, namespace: str, name: str, request: Json) -> Json:
    """What came of fetching, in `outcomes`: each has the `key`, and either `manifest` and
    `revision` (also `etag`, `files`), or `problem`, a sentence for those who wait, and `isPassing`
    where nobody has to do anything. Answers {changed}: how many of it were news. 422 with what is
    not stored."""
    outcomes = request.get("outcomes")
    if not isinstance(outcomes, list) or len(outcomes) > OUTCOMES_MAX:
        raise errors.BadRequest(f"outcomes must be a list, of {OUTCOMES_MAX} at most")
    for outcome in outcomes:
        _check(outcome)

    def write(tx: Transaction) -> Json:
        return {"changed": _settled(tx, _uid(tx, namespace, name), name, outcomes)}

    return await store.write(write)


def _check(outcome: object) -> None:
    if not isinstance(outcome, dict) or not isinstance(outcome.get("key"), str):
        raise errors.BadRequest("each outcome needs the key that it is for")
    problem = outcome.get("problem")
    if problem is not None:
        is_right = isinstance(problem, str) and 0 < len(problem) <= PROBLEM_MAX
        if not (is_right and isinstance(outcome.get("isPassing", False), bool)):
            raise errors.BadRequest(f"problem must be a sentence, of {PROBLEM_MAX} characters")
        return
    texts = outcome.get("revision"), outcome.get("etag", "")
    is_right = all(isinstance(text, str) for text in texts)
    if not (is_right and manifest.is_digest(outcome.get("manifest"))):
        raise errors.BadRequest("each outcome needs a manifest and a revision, or a problem")
    if not isinstance(outcome.get("files", 0), int):
        raise errors.BadRequest("files must be a number")


def _settled(tx: Transaction, uid: str, name: str, outcomes: Sequence[Json]) -> int:
    still = wants.open_keys(tx, uid, {outcome["key"] for outcome in outcomes})
    news = [outcome for outcome in outcomes if outcome["key"] in still]
    here = [outcome for outcome in news if outcome.get("problem") is None]
    try:
        inputs.keep(tx, uid, here, "outcomes")
    except Invalid as problem:
        raise errors.unprocessable(_VERSION, name, problem) from problem
    changed = len(here)
    for outcome in news:
        if outcome.get("problem") is None:
            wants.came(tx, outcome["key"], outcome)
        else:
            old, is_passing = still[outcome["key"]], outcome.get("isPassing", False)
            changed += wants.failed(tx, old, outcome["problem"], is_passing=is_passing)
    return changed


def _uid(snapshot: Snapshot, namespace: str, name: str) -> str:
    version = snapshot.get(_VERSION, namespace, name)
    if version is None:
        raise errors.not_found(_VERSION, name)
    return str(version["metadata"]["uid"])
