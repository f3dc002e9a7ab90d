"""Template versions that no one needs any more, for who follows a busy source makes many; and the
records of rollouts that ended, of renewals that devices asked for, and of what happened, long ago.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import orjson
from sqlalchemy import exists, or_, select

from apiserver.store import objects
from apiserver.store.tables import DEVICE, OBJECT
from resources import attempts
from resources.kind import Json, Kind

if TYPE_CHECKING:
    from apiserver.store.snapshot import Snapshot

VERSIONS_KEPT = 10
# Of those whose rollout ended well: the current one, perhaps, and one to go back to.
GOOD_KEPT = 2

Place = tuple[str, str]  # namespace, name


def versions(snapshot: Snapshot, keep: int = VERSIONS_KEPT) -> list[Place]:
    """Of each fleet, the versions before its last `keep` that no device has, no rollout under way
    brings, and nobody would go back to. They are few in a round, since they go in each."""
    query = (
        select(OBJECT.c.namespace, OBJECT.c.name, OBJECT.c.spec)
        .where(OBJECT.c.kind == "TemplateVersion")
        .order_by(OBJECT.c.resource_version.desc())
    )
    seen: dict[Place, int] = {}
    old: list[tuple[str, str, str]] = []
    for row in snapshot.connection.execute(query):
        fleet = str(orjson.loads(row.spec)["fleet"])
        place = row.namespace, fleet
        seen[place] = seen.get(place, 0) + 1
        if seen[place] > keep:
            old.append((row.namespace, row.name, fleet))
    brought = _brought(snapshot) | _good(snapshot) if old else set[Place]()
    return [
        (namespace, name)
        for namespace, name, fleet in old
        if (namespace, name) not in brought and not _is_had(snapshot, namespace, name, fleet)
    ]


def rollouts(snapshot: Snapshot, before: str) -> list[Place]:
    """Those that ended before that moment, in RFC 3339, but for those of the version that their
    fleet has now, or that take it back: devices that come late are bound by them; and for those of
    versions that somebody would go back to, which know that they ended well."""
    query = select(
        OBJECT.c.namespace, OBJECT.c.name, OBJECT.c.spec, OBJECT.c.status, OBJECT.c.created_at
    ).where(OBJECT.c.kind == "Rollout", OBJECT.c.created_at < before)
    old = []
    for row in snapshot.connection.execute(query):
        status = orjson.loads(row.status or "{}")
        ended_at = status.get("finishedAt") or row.created_at
        if status.get("phase") in attempts.ENDED and ended_at < before:
            target = orjson.loads(row.spec)["target"]
            of = {target["templateVersion"], str(target.get("reverts") or "").rpartition("-")[0]}
            old.append((row.namespace, row.name, of))
    kept = _newest_versions(snapshot) | _good(snapshot) if old else set[Place]()
    return [
        (namespace, name)
        for namespace, name, of in old
        if not any((namespace, version) in kept for version in of)
    ]


def events(
    snapshot: Snapshot, kind: Kind, before: str, limit: int, after: tuple[str, str]
) -> list[Json]:
    """Those that were told first before that moment, in RFC 3339, and after the one that was told
    at `after` with that uid, in the order of both, so many at most: among them are all that
    happened last before it. The order is that of an index: in any other, each look would go through
    all objects that there are."""
    moment, uid = after
    query = (
        select(OBJECT)
        .where(
            OBJECT.c.about.is_not(None),
            OBJECT.c.created_at < before,
            OBJECT.c.created_at >= moment,
            or_(OBJECT.c.created_at > moment, OBJECT.c.uid > uid),
        )
        .order_by(OBJECT.c.created_at, OBJECT.c.uid)
        .limit(limit)
    )
    return [objects.document_of(kind, row) for row in snapshot.connection.execute(query).mappings()]


def renewals(snapshot: Snapshot, before: str, limit: int) -> list[Place]:
    """Requests for certificates that devices made before that moment, so many at most. Each device
    makes one whenever it renews, and reads it within minutes."""
    query = select(OBJECT.c.namespace, OBJECT.c.name).where(
        OBJECT.c.kind == "CertificateSigningRequest",
        OBJECT.c.created_at < before,
        OBJECT.c.meta.contains('"owner":"Device/', autoescape=True),
    )
    return [(row.namespace, row.name) for row in snapshot.connection.execute(query.limit(limit))]


def _newest_versions(snapshot: Snapshot) -> set[Place]:
    """Of each fleet the version that was made last; of those made in one second, each."""
    query = (
        select(OBJECT.c.namespace, OBJECT.c.name, OBJECT.c.spec, OBJECT.c.created_at)
        .where(OBJECT.c.kind == "TemplateVersion")
        .order_by(OBJECT.c.created_at)
    )
    made: dict[Place, tuple[str, set[Place]]] = {}
    for row in snapshot.connection.execute(query):
        fleet = row.namespace, str(orjson.loads(row.spec)["fleet"])
        when, together = made.get(fleet, ("", set()))
        others = together if when == row.created_at else set()
        made[fleet] = row.created_at, others | {(row.namespace, row.name)}
    return {place for _, together in made.values() for place in together}


def _is_had(snapshot: Snapshot, namespace: str, name: str, fleet: str) -> bool:
    # Also of devices that left the fleet since: they keep what they have.
    had = select(DEVICE.c.uid).where(
        DEVICE.c.namespace == namespace,
        DEVICE.c.fleet.in_((fleet, "")),
        or_(DEVICE.c.template_version == name, DEVICE.c.rendered_template_version == name),
    )
    return bool(snapshot.connection.execute(select(exists(had))).scalar())


def _brought(snapshot: Snapshot) -> set[Place]:
    """What the rollouts that have not ended bring."""
    return {
        (namespace, target["templateVersion"])
        for namespace, target, status in _targets(snapshot)
        if status.get("phase") not in attempts.ENDED
    }


def _good(snapshot: Snapshot) -> set[Place]:
    """Of each fleet the last versions whose rollouts ended well."""
    found: dict[Place, list[tuple[str, str]]] = {}
    for namespace, target, status in _targets(snapshot):
        if status.get("phase") == "Completed":
            ended = str(status.get("finishedAt") or ""), str(target["templateVersion"])
            found.setdefault((namespace, str(target["fleet"])), []).append(ended)
    good: set[Place] = set()
    for (namespace, _), well in found.items():
        last = dict.fromkeys(version for _, version in sorted(well, reverse=True))
        good |= {(namespace, version) for version in list(last)[:GOOD_KEPT]}
    return good


def _targets(snapshot: Snapshot) -> Iterator[tuple[str, Json, Json]]:
    """namespace, target and status of every rollout."""
    query = select(OBJECT.c.namespace, OBJECT.c.spec, OBJECT.c.status)
    for row in snapshot.connection.execute(query.where(OBJECT.c.kind == "Rollout")):
        spec, status = orjson.loads(row.spec), orjson.loads(row.status or "{}")
        yield row.namespace, spec["target"], status
