"""What events are about, and which writes of a device are told as some: those that Python draws a
row at a time. What a set change makes of ten thousand devices is told once, of their fleet
(ADR 38)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from resources import conditions, devicenews, registry
from resources.devicenews import State
from resources.kind import Json
from resources.news import News
from resources.ownernews import Claims

if TYPE_CHECKING:
    from apiserver.store.snapshot import Transaction

Row = Mapping[Any, Any]


# Of so many devices a set change is told to each: it was one person's change of some. Of more the
# fleet tells it, by its own change and its condition OverlappingSelectors.
TOLD_OF_EACH_MAX = 100


class About(NamedTuple):
    """The object that something is told of."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    resource_version: str

    def reference(self) -> Json:
        """As an ObjectReference."""
        return {
            "apiVersion": self.api_version,
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "uid": self.uid,
            "resourceVersion": self.resource_version,
        }


# What something is told of, each with what.
Announced = Sequence[tuple[About, News]]
Announce = Callable[["Transaction", Announced], None]

# Of a write that moves none of these nothing is told.
_MOVING = frozenset(
    (
        "summary_status",
        "updated_status",
        "applications_status",
        "failed_version",
        "spec_valid",
        "agent_status",
    )
)
# A device that was not there: nothing was known of it.
_NOTHING = State(("Unknown", ""), ("Unknown", ""), ("Unknown", ""))


def of(old: Row | None, row: Row, moved: Sequence[str], said: Json | None) -> list[News]:
    """What a write of `moved` columns is told as. `said`: the agent's status, if it is parsed."""
    if _MOVING.isdisjoint(moved):
        return []
    speaks = "agent_status" in moved
    was = _NOTHING if old is None else _state(old, None, speaks=speaks)
    return devicenews.of(was, _state(row, said, speaks=speaks))


def _state(row: Row, said: Json | None, *, speaks: bool) -> State:
    monitors, image = None, ""
    if speaks:
        status = orjson.loads(row["agent_status"]) if said is None else said
        monitors, image = devicenews.said_by(status)
    has_failed = row["failed_version"] and row["failed_version"] == row["rendered_version"]
    return State(
        summary=(row["summary_status"], row["summary_info"]),
        updated=(row["updated_status"], row["updated_info"]),
        applications=(row["applications_status"], row["applications_info"]),
        failure=(row["failed_reason"] or "") if has_failed else "",
        spec_valid=(row["spec_valid"] or "", _why_invalid(row)),
        monitors=monitors,
        image=image,
    )


def about(document: Json) -> About:
    metadata = document["metadata"]
    return About(
        document["apiVersion"],
        document["kind"],
        metadata.get("namespace", ""),
        metadata["name"],
        metadata["uid"],
        metadata["resourceVersion"],
    )


def about_device(row: Row, version: int) -> About:
    """The device of a row, as it is in `version`."""
    where = row["namespace"], row["name"], row["uid"], str(version)
    return About(registry.DEVICE.api_version, registry.DEVICE.kind, *where)


def claims(owner: str | None, candidates: str | None) -> Claims:
    return Claims(owner, tuple(candidates.split(",")) if candidates else ())


def _why_invalid(row: Row) -> str:
    if row["spec_valid"] != "False":
        return ""
    found = conditions.get(orjson.loads(row["conditions"]), "SpecValid")
    return str((found or {}).get("message") or "")
