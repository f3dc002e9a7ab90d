"""`metadata.managedFields`: who owns which fields, read and written. Pure.

An owner is a manager by one operation (Apply or Update) on one subresource; Update also through one
apiVersion. The invariant: what is written here can be read here, in an order that does not depend
on how it came about; what clients send is read as Kubernetes reads it, and nonsense counts as
nothing, so that a client without understanding can't take ownership away by accident.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from apiserver.wire import fieldset
from apiserver.wire.fieldset import FieldSet
from resources.kind import Json

APPLY: Literal["Apply"] = "Apply"
UPDATE: Literal["Update"] = "Update"
# More owners by Update than these are merged, the oldest first, into one of this name.
UPDATERS_MAX = 10
ANCIENT = "ancient-changes"
_FIELDS_TYPE = "FieldsV1"
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")


@dataclass(frozen=True, slots=True)
class Owner:
    """`version` is "" for Apply: an applier stays itself when it moves to another apiVersion."""

    manager: str
    operation: str
    subresource: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Owned:
    fields: FieldSet
    version: str
    time: str = ""


Owners = Mapping[Owner, Owned]


def owner(manager: str, operation: str, version: str, subresource: str = "") -> Owner:
    return Owner(manager, operation, subresource, "" if operation == APPLY else version)


def decode(entries: Any) -> dict[Owner, Owned]:
    """The owners in `managedFields`. Raises ValueError for what Kubernetes would not read."""
    if not isinstance(entries, list):
        raise ValueError("managedFields is a list")
    found = {}
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("operation") not in (APPLY, UPDATE):
            raise ValueError("the operation of an owner is Apply or Update")
        if entry.get("fieldsType") != _FIELDS_TYPE or not entry.get("apiVersion"):
            raise ValueError("an owner has an apiVersion, and fields of type FieldsV1")
        texts = [entry.get(name) or "" for name in ("manager", "subresource", "time")]
        if not all(isinstance(text, str) for text in (*texts, entry["apiVersion"])):
            raise ValueError("names, times and versions of owners are texts")
        manager, subresource, time = texts
        if time and not _TIME.fullmatch(time):
            raise ValueError(f"{time!r} is not a time")
        key = owner(manager, entry["operation"], entry["apiVersion"], subresource)
        fields = fieldset.from_fields_v1(entry.get("fieldsV1") or {})
        found[key] = Owned(fields, entry["apiVersion"], time)
    return found


def encode(owners: Owners) -> list[Json]:
    """The entries: appliers first, then by time and name."""
    return [
        _entry(owner, owners[owner])
        for owner in sorted(
            owners,
            key=lambda o: (
                o.operation,
                owners[o].time,
                o.manager,
                owners[o].version,
                o.subresource,
            ),
        )
    ]


def _entry(owner: Owner, owned: Owned) -> Json:
    entry: Json = {
        "manager": owner.manager,
        "operation": owner.operation,
        "apiVersion": owned.version,
        "time": owned.time,
        "fieldsType": _FIELDS_TYPE,
        "fieldsV1": fieldset.to_fields_v1(owned.fields),
        "subresource": owner.subresource,
    }
    return {key: value for key, value in entry.items() if value != ""}


def live_or_sent(live: Any, sent: Any, *, subresource: str) -> dict[Owner, Owned]:
    """The owners that a write starts from: those that the client sent, if it did and they make
    sense; no one, if it resets them with `[]` or `[{}]`; else those that are stored. Through a
    subresource nobody changes them by hand."""
    if not subresource:
        if sent in ([], [{}]):
            return {}
        found = _readable(sent)
        if found:
            return found
    return _readable(live)


def _readable(entries: Any) -> dict[Owner, Owned]:
    try:
        return decode(entries)
    except ValueError:
        return {}


def capped(owners: Owners) -> dict[Owner, Owned]:
    """At most ten owners by Update, the oldest of one apiVersion merged into one."""
    kept = dict(owners)
    updaters = [owner for owner in kept if owner.operation == UPDATE]
    excess = len(updaters) - UPDATERS_MAX
    updaters.sort(key=lambda owner: (kept[owner].time, owner.manager))
    first: dict[str, Owner] = {}
    for each in updaters:
        if excess <= 0:
            break
        version = kept[each].version
        bucket = Owner(ANCIENT, UPDATE, "", version)
        if version not in first:
            first[version] = each
            continue
        if bucket not in kept:
            kept[bucket] = kept.pop(first[version])
        merged = kept[bucket].fields | kept[each].fields
        kept[bucket] = replace(kept[each], fields=merged)
        if each != bucket:
            del kept[each]
        excess -= 1
    return kept


def same_but_for_times(left: Any, right: Any) -> bool:
    """Whether two lists of entries say the same of who owns what."""

    def timeless(entries: Any) -> list[Any]:
        without = [{k: v for k, v in e.items() if k != "time"} for e in entries or []]
        return sorted(without, key=fieldset.canonical)

    return timeless(left) == timeless(right)
