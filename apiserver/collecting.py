"""What becomes of what a deleted object owned, by the rules of Kubernetes' garbage collector.

    Background   the object goes, and then what it owned
    Foreground   what it owned goes first; what blocks (`blockOwnerDeletion`) and is itself held
                 keeps the object there, held by the finalizer `foregroundDeletion`
    Orphan       what it owned stays, and no longer names it

A dependent with another living owner stays in any case, and no longer names this one. All of it is
in the transaction of the deletion, or of the write that ends the waiting, so nothing is left over
when the process dies between two steps, and no one sees an owner without what it should have taken
along. Owners that are looked for in vain are gone; one of a kind that is not served here can't be
looked for, and counts as living: what we cannot judge we do not delete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from apiserver.store import Transaction, objects
from resources.kind import Json, Kind

BACKGROUND, FOREGROUND, ORPHAN = "Background", "Foreground", "Orphan"
# Kubernetes' names. The second is kept on nothing here, but people may have set it.
HELD = "foregroundDeletion"
ORPHANS = "orphan"

Dependent = tuple[Kind, Json]


def policy(metadata: Json, asked: str | None) -> str:
    """What was asked for, else what the object's finalizers ask for."""
    finalizers = metadata.get("finalizers") or ()
    if asked is not None:
        return asked
    if ORPHANS in finalizers:
        return ORPHAN
    return FOREGROUND if HELD in finalizers else BACKGROUND


def finalizers(metadata: Json, *, waits: bool) -> list[str]:
    """Those of an object that is being deleted: others' stay, ours say whether it waits."""
    others = [f for f in metadata.get("finalizers") or () if f not in (HELD, ORPHANS)]
    return [*others, HELD] if waits else others


def is_waiting(document: Json) -> bool:
    """Whether it is being deleted, and waits for what it owns."""
    metadata = document["metadata"]
    is_held = HELD in (metadata.get("finalizers") or ())
    return bool(metadata.get("deletionTimestamp")) and is_held


def marked(document: Json, finalizers: list[str], now: str) -> Json:
    """The document as it waits for its end: the first time is when it was asked for."""
    metadata = document["metadata"] | {"finalizers": finalizers}
    if not metadata.get("deletionTimestamp"):
        metadata |= {
            "deletionTimestamp": now,
            "deletionGracePeriodSeconds": 0,
            "generation": metadata["generation"] + 1,
        }
    return document | {"metadata": metadata}


def blocked_owners(document: Json) -> list[Json]:
    """The references to owners that may not go before the object."""
    references = document["metadata"].get("ownerReferences") or ()
    return [reference for reference in references if reference.get("blockOwnerDeletion")]


@dataclass(frozen=True, slots=True)
class Family:
    """Owners and dependents of objects, inside a transaction. `above`: uids of objects further up
    whose deletion is at work: they look after themselves, and a circle ends at them. `delete` is
    called with a kind, an object, a policy and what is above it."""

    tx: Transaction
    kinds: Mapping[str, Kind]
    delete: Callable[[Kind, Json, str | None, frozenset[str]], object]
    above: frozenset[str] = frozenset()

    def dependents(self, uid: str) -> Iterator[Dependent]:
        """Each as it is when its turn comes: those before it may have taken it along."""
        for row in objects.owned_by(self.tx.connection, uid):
            kind = self.kinds[row["kind"]]
            found = self.tx.get(kind, row["namespace"], row["name"])
            gone = found is None or found["metadata"]["uid"] != row["uid"]
            if found is not None and not gone and row["uid"] not in {*self.above, uid}:
                yield kind, found

    def is_blocked(self, uid: str) -> bool:
        """Whether something is there that may not outlive its owner."""
        return any(
            reference["uid"] == uid
            for _, document in self.dependents(uid)
            for reference in blocked_owners(document)
        )

    def owner(self, dependent: Json, reference: Json) -> Dependent | None:
        """The owner that a reference names, if it is there."""
        kind = self.kinds.get(reference["kind"])
        if kind is None or kind.api_version != reference["apiVersion"]:
            return None
        namespace = dependent["metadata"].get("namespace", "") if kind.namespaced else ""
        found = self.tx.get(kind, namespace, reference["name"])
        same = found is not None and found["metadata"]["uid"] == reference["uid"]
        return (kind, found) if found is not None and same else None

    def has_other_owner(self, dependent: Json, uid: str) -> bool:
        """Whether somebody but `uid` owns it, and is there to stay."""
        for reference in dependent["metadata"].get("ownerReferences") or ():
            if reference["uid"] in {*self.above, uid}:
                continue
            served = self.kinds.get(reference["kind"])
            if served is None or served.api_version != reference["apiVersion"]:
                return True
            found = self.owner(dependent, reference)
            if found is not None and not is_waiting(found[1]):
                return True
        return False

    def disown(self, kind: Kind, dependent: Json, uid: str) -> None:
        """It stays, and names `uid` as an owner no more."""
        metadata = {k: v for k, v in dependent["metadata"].items() if k != "ownerReferences"}
        left = [r for r in dependent["metadata"]["ownerReferences"] if r["uid"] != uid]
        if left:
            metadata["ownerReferences"] = left
        self.tx.update(kind, dependent, dependent | {"metadata": metadata})

    def orphan(self, uid: str) -> None:
        for kind, dependent in self.dependents(uid):
            self.disown(kind, dependent, uid)

    def take_along(self, uid: str, propagation: str | None = None) -> None:
        """What names `uid` as an owner goes with it, but for what has another one."""
        for kind, found in self.dependents(uid):
            if self.has_other_owner(found, uid):
                self.disown(kind, found, uid)
            elif not found["metadata"].get("deletionTimestamp"):
                self.delete(kind, found, propagation, self.above | {uid})

    def free_owners(self, dependent: Json) -> None:
        """Owners that waited for it go, if nothing else blocks them."""
        for reference in blocked_owners(dependent):
            found = self.owner(dependent, reference)
            if found is None or reference["uid"] in self.above:
                continue
            if is_waiting(found[1]):
                self.delete(*found, FOREGROUND, self.above)
