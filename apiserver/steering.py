"""What people may ask of a Rollout, and how they are told that they may not.

Judged in the transaction that writes, so that what was true when it was asked is true when it is
done. The controllers carry it out from what is stored; nothing here does.
"""

from __future__ import annotations

from collections.abc import Iterator

from apiserver import errors
from apiserver.store import Snapshot
from resources import attempts, registry, selectors
from resources.errors import FORBIDDEN, FieldError, Invalid
from resources.kind import Json, Kind

_FIELDS = ("paused", "approved", "aborted", "retry", "revert")
# What may be asked of an attempt that has ended: another one does it.
_AFTERWARDS = ("retry", "revert")


def guard_change(snapshot: Snapshot, kind: Kind, old: Json, new: Json) -> None:
    """Raises Unprocessable where `spec.control` asks for what cannot be."""
    if kind.kind != "Rollout" or old["spec"] == new["spec"]:
        return
    problems = list(_problems(snapshot, old, new))
    if problems:
        raise errors.unprocessable(kind, attempts.name_of(old), Invalid(problems))


def _problems(snapshot: Snapshot, old: Json, new: Json) -> Iterator[FieldError]:
    was, is_ = (document["spec"].get("control") or {} for document in (old, new))
    changed = [key for key in _FIELDS if (was.get(key) or 0) != (is_.get(key) or 0)]
    if attempts.has_ended(old):
        phase = old["status"]["phase"]
        for key in changed:
            if key not in _AFTERWARDS:
                yield _no(key, f"the rollout has ended ({phase}); retry and revert are left")
    for key in ("aborted", "revert"):
        if key in changed and was.get(key):
            yield _no(key, "it cannot be taken back")
    if (is_.get("retry") or 0) < (was.get("retry") or 0):
        yield _no("retry", "it can only be raised")
    asked = [key for key in _AFTERWARDS if key in changed and is_.get(key)]
    if asked:
        yield from _judged(snapshot, old, asked)


def _judged(snapshot: Snapshot, rollout: Json, asked: list[str]) -> Iterator[FieldError]:
    """What depends on the fleet's other rollouts."""
    namespace, fleet = rollout["metadata"]["namespace"], rollout["spec"]["target"]["fleet"]
    kind = registry.by_kind("Rollout")
    of_fleet = selectors.parse_fields(f"spec.target.fleet={fleet}", kind.selectable)
    rollouts = list(snapshot.list(kind, namespace, fields=of_fleet))
    current = attempts.current(rollouts)
    if current is not None and attempts.name_of(current) != attempts.name_of(rollout):
        for key in asked:
            yield _no(key, f"{attempts.name_of(current)} has taken its place")
        return
    if "revert" in asked and not _good(snapshot, namespace, rollouts, attempts.brings(rollout)):
        yield _no(
            "revert",
            f"fleet {fleet} has no other version whose rollout ended well; change its template",
        )


def _good(snapshot: Snapshot, namespace: str, rollouts: list[Json], but: str) -> str:
    kind, gone = registry.by_kind("TemplateVersion"), set[str]()
    while version := attempts.last_good(
        [r for r in rollouts if attempts.brings(r) not in gone], but
    ):
        if snapshot.get(kind, namespace, version) is not None:
            return version
        gone.add(version)
    return ""


def _no(key: str, why: str) -> FieldError:
    return FieldError(f"spec.control.{key}", FORBIDDEN, why)
