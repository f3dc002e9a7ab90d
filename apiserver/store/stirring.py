"""Waking who waits for the devices of a rollout, in the transaction in which they got there.

A rollout waits for three things that reports bring about: that of the devices which it has given
something none is under way any more, that one of them fails, and, where devices are held, that one
makes room. Such a transaction puts a mark on the Rollout, whose watchers so look at it at once;
what passes no gate wakes nobody, however many devices report.

To know that one device is still under way it is enough to know which: a *witness* for each rollout
is remembered, and only when that one is through the next is looked for, by name, from there on. So
a batch of N costs N steps of an index all together. The witness is no more than a guess that saves
looking; forgetting it costs one look from the first name.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

from apiserver.store.statements import run
from resources import attempts, registry, rollout_plan
from resources.kind import Json

if TYPE_CHECKING:
    from apiserver.store.snapshot import Transaction

WITNESSES = 1_000
# No policy is asked about a device that was bound so lately.
SURELY_IN_TIME_S = 10.0
_ROLLOUT = registry.by_kind("Rollout")
# No person's: what Homeport writes about itself.
STIRRED = "homeport.dev/stirred"

Place = tuple[str, str]  # namespace, Rollout
_OF_ROLLOUT = "namespace = :namespace AND fleet = :fleet AND rollout = :rollout"
_HELD = f"SELECT name FROM device WHERE {_OF_ROLLOUT} AND render_needed = 1 LIMIT 1"
_UNDER_WAY = (
    f"SELECT name, bound_at FROM device WHERE {_OF_ROLLOUT} AND rollout_batch IS NOT NULL"
    " AND candidates IS NULL AND pause = 0 AND decommissioning = 0 AND render_needed = 0"
    " AND reported_version <> rendered_version AND failed_version <> rendered_version"
    " AND bound_at >= :cutoff"
)
# From the one that is known on, itself too; then from the beginning.
_FROM = f"{_UNDER_WAY} AND name >= :known ORDER BY name LIMIT 1"
_BEFORE = f"{_UNDER_WAY} AND name < :known ORDER BY name LIMIT 1"

_MEMBERSHIP = ("fleet", "rollout", "candidates", "pause", "decommissioning")
_ADVANCE = ("reported_version", "failed_version", "rendered_version", "connected", "render_error")


@dataclass(slots=True)
class Stir:
    """What moved of a rollout within one transaction."""

    fleet: str
    is_failure: bool = False


class Witnesses:
    """The name of one device that is under way, for each of the last rollouts that moved. Shared by
    the threads of a process."""

    def __init__(self, limit: int = WITNESSES) -> None:
        self._limit = limit
        self._names: OrderedDict[Place, str] = OrderedDict()
        self._lock = Lock()

    def get(self, place: Place) -> str:
        with self._lock:
            return self._names.get(place, "")

    def put(self, place: Place, name: str) -> None:
        with self._lock:
            self._names[place] = name
            self._names.move_to_end(place)
            while len(self._names) > self._limit:
                self._names.popitem(last=False)


def of_row(old: Mapping[Any, Any], new: Mapping[Any, Any]) -> Stir | None:
    """What a write of one device means to the rollout that it is a member of by `old`: that it got
    to an end, or left."""
    if old["rollout_batch"] is None or not old["fleet"]:
        return None
    if any(old[key] != new[key] for key in _MEMBERSHIP):
        return Stir(old["fleet"])
    if all(old[key] == new[key] for key in _ADVANCE):
        return None
    failed = new["failed_version"] == new["rendered_version"] > 0
    is_failure = failed and old["failed_version"] != new["failed_version"]
    is_back = new["connected"] > old["connected"]
    if is_failure or is_back or new["reported_version"] == new["rendered_version"]:
        return Stir(old["fleet"], is_failure)
    return None


def wake(tx: Transaction, moved: Mapping[Place, Stir], witnesses: Witnesses) -> None:
    """Mark those rollouts that wait for what has moved. The last thing before the commit."""
    for (namespace, name), stir in sorted(moved.items()):
        where = {"namespace": namespace, "fleet": stir.fleet, "rollout": name}
        is_due = (
            stir.is_failure
            or run(tx.connection, _HELD, where).first() is not None
            or not _is_under_way(tx, where, witnesses)
        )
        rollout = _rollout(tx, where) if is_due else None
        if rollout is None or attempts.has_ended(rollout):
            continue
        metadata = rollout["metadata"]
        annotations = (metadata.get("annotations") or {}) | {STIRRED: str(tx.version)}
        tx.update(
            _ROLLOUT, rollout, rollout | {"metadata": metadata | {"annotations": annotations}}
        )


def _is_under_way(tx: Transaction, where: Mapping[str, Any], witnesses: Witnesses) -> bool:
    place = where["namespace"], where["rollout"]
    known = witnesses.get(place)
    found = _witness(tx, where, known, 0.0)
    if found is not None and found.bound_at < tx.now.timestamp() - SURELY_IN_TIME_S:
        # Nobody waits any longer for one that took too long.
        policy = ((_rollout(tx, where) or {}).get("spec") or {}).get("target", {}).get("policy")
        cutoff = tx.now.timestamp() - rollout_plan.timeout_s(policy)
        if found.bound_at < cutoff:
            found = _witness(tx, where, known, cutoff)
    if found is None:
        return False
    witnesses.put(place, str(found.name))
    return True


def _witness(tx: Transaction, where: Mapping[str, Any], known: str, cutoff: float) -> Any:
    for part in (_FROM, _BEFORE) if known else (_FROM,):
        parameters = dict(where) | {"known": known, "cutoff": cutoff}
        found = run(tx.connection, part, parameters).first()
        if found is not None:
            return found
    return None


def _rollout(tx: Transaction, where: Mapping[str, Any]) -> Json | None:
    return tx.get(_ROLLOUT, where["namespace"], where["rollout"])
