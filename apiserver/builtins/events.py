"""Events, of core/v1 and of events.k8s.io: one row, two APIs, so that each shows the other's.

They are kept with what they say under `spec`, as the store keeps every object, in the words of
core/v1.

They are bystanders: an event belongs to nobody, so owner references are dropped (a deletion must
not have to look through them), and old ones are forgotten by housekeeping.
"""

from __future__ import annotations

from dataclasses import replace

from pydantic import Field

from apiserver.builtins import view
from apiserver.builtins.kinds import CORE_VERSION, EVENT, NEWER_EVENT, EventBody
from apiserver.builtins.view import Turning
from resources.kind import Json, Kind
from resources.meta import Document
from resources.selectors import FieldSelector

_OUTER = ("apiVersion", "kind", "metadata")


class StoredEvent(Document):
    """An event as it is stored."""

    spec: EventBody = Field(description="What it says.")


STORED = Kind(
    group="",
    version=CORE_VERSION,
    # The product has an Event of its own; rows are told apart by this name.
    kind="CoreEvent",
    plural=EVENT.plural,
    singular=EVENT.singular,
    model=StoredEvent,
    description="An event as it is stored.",
    selectable=tuple(f"spec.{path}" for path in EVENT.selectable),
)


def to_event(stored: Json) -> Json:
    """The Event that is shown; of a bookmark, which says nothing, its metadata."""
    metadata = stored["metadata"]
    if "managedFields" in metadata:
        metadata = metadata | {"managedFields": view.owners_lifted(metadata["managedFields"])}
    outer: Json = {"apiVersion": EVENT.api_version, "kind": EVENT.kind, "metadata": metadata}
    said: Json = stored.get("spec", {})
    return outer | said


def to_stored(event: Json, was: Json | None) -> Json:
    """The form in which an event is kept."""
    metadata = event.get("metadata")
    if isinstance(metadata, dict):
        metadata = {k: v for k, v in metadata.items() if k != "ownerReferences"}
        if "managedFields" in metadata:
            metadata["managedFields"] = view.owners_lowered(metadata["managedFields"])
    return {
        "apiVersion": STORED.api_version,
        "kind": STORED.kind,
        "metadata": metadata,
        "spec": {k: v for k, v in event.items() if k not in _OUTER and v is not None},
    }


# --- the same in the words of events.k8s.io ------------------------------------------------------

_NEWER = {
    "involvedObject": "regarding",
    "message": "note",
    "reportingComponent": "reportingController",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
}
_OLDER = {newer: older for older, newer in _NEWER.items()}


def to_newer_event(stored: Json) -> Json:
    """The event as events.k8s.io shows it. Who owns its fields is told in core/v1 only."""
    metadata = {k: v for k, v in stored["metadata"].items() if k != "managedFields"}
    outer: Json = {
        "apiVersion": NEWER_EVENT.api_version,
        "kind": NEWER_EVENT.kind,
        "metadata": metadata,
    }
    return outer | {_NEWER.get(key, key): value for key, value in stored.get("spec", {}).items()}


def of_newer_event(event: Json, was: Json | None) -> Json:
    """The form in which it is kept."""
    turned = {_OLDER.get(key, key): value for key, value in event.items()}
    stored = to_stored(turned, None)
    owners = ((was or {}).get("metadata") or {}).get("managedFields")
    if owners and isinstance(stored["metadata"], dict):
        stored["metadata"]["managedFields"] = owners
    return stored


def _select_newer(fields: FieldSelector) -> FieldSelector:
    def older(key: str) -> str:
        head, dot, rest = key.partition(".")
        return f"{_OLDER.get(head, head)}{dot}{rest}"

    return _select(FieldSelector(tuple(replace(r, key=older(r.key)) for r in fields.requirements)))


def _select(fields: FieldSelector) -> FieldSelector:
    return FieldSelector(
        tuple(
            r if r.key.startswith("metadata.") else replace(r, key=f"spec.{r.key}")
            for r in fields.requirements
        )
    )


TURNING = Turning(shown=EVENT, stored=STORED, show=to_event, store=to_stored, select=_select)
NEWER_TURNING = Turning(
    shown=NEWER_EVENT,
    stored=STORED,
    show=to_newer_event,
    store=of_newer_event,
    select=_select_newer,
)
