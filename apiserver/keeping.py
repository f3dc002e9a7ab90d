"""Fleets that a ResourceSync keeps: whose they are, who may change them, when they are free.

`metadata.owner` says `ResourceSync/<name>`, and is written by the controllers alone, with the
document that they bring. There is no ownerReference beside it, since a fleet outlives its sync
(contract 3.5). All rules hold inside the transaction that writes, so two syncs that claim one
fleet can't both have it, whatever their controllers believed.
"""

from __future__ import annotations

from apiserver import errors
from apiserver.auth.identity import CONTROLLER, Caller
from apiserver.store import Transaction
from resources import registry, selectors
from resources.kind import Json, Kind

_SYNC = "ResourceSync"
KEPT = ("Fleet",)


def owner_of(sync: str) -> str:
    return f"{_SYNC}/{sync}"


def keeper_of(document: Json) -> str:
    """The name of the ResourceSync that keeps the object, or ""."""
    kind, _, name = str(document["metadata"].get("owner") or "").partition("/")
    return name if kind == _SYNC else ""


def claim(
    tx: Transaction, caller: Caller, kind: Kind, said: Json, old: Json | None, ready: Json
) -> None:
    """Puts the owner that the controllers say into `ready`. Raises Conflict for another's, and for
    one that is gone: its controller may not have noticed, and nobody could free the fleet again."""
    owner = (said.get("metadata") or {}).get("owner")
    if kind.kind not in KEPT or caller.role != CONTROLLER or not owner:
        return
    metadata = ready["metadata"]
    keeper = keeper_of(old) if old else ""
    if keeper and owner != owner_of(keeper):
        raise errors.conflict(
            kind, metadata["name"], f"it is kept by {_SYNC} {keeper}, and not by {owner}"
        )
    name = str(owner).partition("/")[2]
    if (
        owner != owner_of(name)
        or tx.get(registry.by_kind(_SYNC), metadata["namespace"], name) is None
    ):
        raise errors.conflict(kind, metadata["name"], f"there is no {owner} that could keep it")
    metadata["owner"] = owner


def guard_change(tx: Transaction, caller: Caller, kind: Kind, old: Json, new: Json) -> None:
    """Raises Conflict when a person changes the spec or the labels of what a sync keeps."""
    if caller.role == CONTROLLER or kind.kind not in KEPT or not keeper_of(old):
        return
    same_labels = (old["metadata"].get("labels") or {}) == (new["metadata"].get("labels") or {})
    if not same_labels or old.get("spec") != new.get("spec"):
        raise _refusal(tx, kind, old, "change")


def guard_deletion(tx: Transaction, caller: Caller, kind: Kind, old: Json) -> None:
    """Raises Conflict when a person deletes what a sync keeps, and Forbidden when the controllers
    delete anything else: whatever they get wrong, what people made is safe from them."""
    if kind.kind not in KEPT:
        return
    if caller.role != CONTROLLER and keeper_of(old):
        raise _refusal(tx, kind, old, "delete")
    if caller.role == CONTROLLER and not keeper_of(old):
        raise errors.Forbidden(
            f'no {_SYNC} keeps "{old["metadata"]["name"]}", so {caller.name} may not delete it',
            kind=kind,
            name=old["metadata"]["name"],
        )


def _refusal(tx: Transaction, kind: Kind, old: Json, verb: str) -> errors.Conflict:
    metadata, name = old["metadata"], keeper_of(old)
    sync = tx.get(registry.by_kind(_SYNC), metadata["namespace"], name)
    spec = (sync or {}).get("spec") or {}
    where = ""
    if spec:
        where = (
            f' as "{spec.get("path")}" at "{spec.get("targetRevision")}" of Repository '
            f"{spec.get('repository')} describes it"
        )
    return errors.conflict(
        kind,
        metadata["name"],
        f"it is kept by {_SYNC} {name}{where}; {verb} it there, or delete the {_SYNC}, whose "
        "fleets then stay and are yours",
    )


def release(tx: Transaction, kind: Kind, gone: Json) -> None:
    """What a deleted ResourceSync kept stays, and belongs to nobody."""
    if kind.kind != _SYNC:
        return
    metadata = gone["metadata"]
    owner = owner_of(metadata["name"])
    kept_by_it = selectors.parse_fields(f"metadata.owner={owner}", ("metadata.owner",))
    for plural in KEPT:
        of = registry.by_kind(plural)
        for document in tx.list(of, metadata["namespace"], fields=kept_by_it):
            left = {k: v for k, v in document["metadata"].items() if k != "owner"}
            tx.update(of, document, document | {"metadata": left})
