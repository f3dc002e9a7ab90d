"""What nobody changes any more: the request that led to a device, and a device that was dismissed.

A request is the record of who let the device in. It goes with the device, and its specification,
which was approved as it is, stays.
"""

from __future__ import annotations

from apiserver import errors
from apiserver.store import Transaction
from resources.kind import Json, Kind
from resources.registry import DEVICE, ENROLLMENT_REQUEST


def guard_deletion(tx: Transaction, kind: Kind, old: Json) -> None:
    """Raises Conflict for the request of a device that exists (contract: service §8.4)."""
    if kind is ENROLLMENT_REQUEST and _has_device(tx, old):
        why = "its device exists: delete the device, and this goes with it"
        raise errors.conflict(kind, old["metadata"]["name"], why)


def guard_change(tx: Transaction, kind: Kind, old: Json, new: Json) -> None:
    """Raises BadRequest, in the reference's words, where another specification would take the place
    of one that led to a device; and Conflict for a device that was dismissed."""
    if kind is DEVICE:
        _guard_dismissed(old, new)
    if kind is ENROLLMENT_REQUEST and old["spec"] != new["spec"] and _has_device(tx, old):
        raise errors.BadRequest(
            "a resource with this name already exists", kind=kind, name=old["metadata"]["name"]
        )


def _has_device(tx: Transaction, request: Json) -> bool:
    metadata = request["metadata"]
    return tx.get(DEVICE, metadata["namespace"], metadata["name"]) is not None


def _guard_dismissed(old: Json, new: Json) -> None:
    """What it is told, and what it is called, are its last."""
    if not old["spec"].get("decommissioning"):
        return
    same_labels = (old["metadata"].get("labels") or {}) == (new["metadata"].get("labels") or {})
    if old["spec"] != new.get("spec") or not same_labels:
        why = "it is being decommissioned; delete it when it is done, and it may enrol again"
        raise errors.conflict(DEVICE, old["metadata"]["name"], why)
