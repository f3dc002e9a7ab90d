"""What becomes of an object is told as: that it was made, changed or removed, by whatever verb and
face; the events of flightctl's vocabulary. Pure.

Told of the kinds that flightctl has. A change is one of labels or specification: of a status the
conditions tell, and notes in the metadata are for programs. Who owns a device is told for itself
(`ownernews`), since labels, a fleet's selector and a fleet's end all decide it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from resources.kind import Json, Kind
from resources.news import News

TOLD: Final = frozenset(
    {
        *("Device", "EnrollmentRequest", "CertificateSigningRequest", "Fleet", "TemplateVersion"),
        *("Repository", "ResourceSync", "AuthProvider"),
    }
)
_FAILED: Final = {
    "create": "ResourceCreationFailed",
    "update": "ResourceUpdateFailed",
    "patch": "ResourceUpdateFailed",
    "delete": "ResourceDeletionFailed",
}
_FAILED_THERE: Final = {
    ("Device", "decommission"): "DeviceDecommissionFailed",
    ("EnrollmentRequest", "approval"): "EnrollmentRequestApprovalFailed",
}


def created(kind: Kind) -> Iterable[News]:
    if kind.kind in TOLD:
        yield News("ResourceCreated", f"{kind.kind} was created.", same_by="none")


def deleted(kind: Kind) -> Iterable[News]:
    if kind.kind in TOLD:
        yield News("ResourceDeleted", f"{kind.kind} was deleted.", same_by="none")


def updated(kind: Kind, old: Json, new: Json) -> Iterable[News]:
    if kind.kind not in TOLD:
        return
    fields = [*_owner(kind, old, new), *_labels(old, new), *_specification(kind, old, new)]
    if fields:
        yield change(kind.kind, fields, _owner_of(old), _owner_of(new))


def change(kind: str, fields: list[str], was: str | None, is_: str | None) -> News:
    """That of these fields; the owners are told where they are among them."""
    moved = (was, is_) if "owner" in fields else (None, None)
    details = {
        "detailType": "ResourceUpdated",
        "updatedFields": fields,
        "previousOwner": moved[0],
        "newOwner": moved[1],
    }
    said = f"{kind} was updated ({', '.join(fields)})"
    if "owner" in fields:
        said += f": its owner was {was or 'nobody'} and is {is_ or 'nobody'}"
    return News("ResourceUpdated", f"{said}.", details)


def failed(kind: str, verb: str, subresource: str) -> str | None:
    """The reason for a write that the service itself failed at; None where none is told."""
    if kind not in TOLD:
        return None
    if subresource:
        return _FAILED_THERE.get((kind, subresource))
    return _FAILED.get(verb)


def _owner(kind: Kind, old: Json, new: Json) -> Iterable[str]:
    if kind.kind != "Device" and _owner_of(old) != _owner_of(new):
        yield "owner"


def _owner_of(document: Json) -> str | None:
    return document["metadata"].get("owner") or None


def _labels(old: Json, new: Json) -> Iterable[str]:
    if (old["metadata"].get("labels") or {}) != (new["metadata"].get("labels") or {}):
        yield "labels"


def _specification(kind: Kind, old: Json, new: Json) -> Iterable[str]:
    was, is_ = old.get("spec") or {}, new.get("spec") or {}
    if was is is_ or was == is_:
        return
    # Of fleets it is told which part, for the rest follows from it.
    parts = [part for part in ("selector", "template") if was.get(part) != is_.get(part)]
    if kind.kind == "Fleet" and parts:
        yield from (f"spec.{part}" for part in parts)
    else:
        yield "spec"
