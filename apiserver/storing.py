"""What follows from a write: storing, changing and removing one object inside an open transaction.

Whatever must be true together with an object is written here, with it: ownership of devices by
fleets, what is bound and rendered, what goes or is freed with an owner, an organisation and its
namespace. So no crash leaves one without the other, and no face can store around it. Who may write
was asked before; what the document may say is `strategy`'s and the kind's.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from functools import partial
from uuid import UUID, uuid4

from apiserver import (
    bindings,
    collecting,
    enrolled,
    errors,
    keeping,
    owning,
    rivals,
    steering,
    strategy,
    vouching,
)
from apiserver.auth.identity import Caller
from apiserver.store import Snapshot, Transaction, devices, newsworthy, objects
from apiserver.verbs import OWN_WRITE, Deleted, WriteOptions
from resources import objectnews, ownernews, registry, rolloutnews
from resources.kind import Json, Kind

# Their maker knows the status at once: the frozen template, the first phase.
BORN_WITH_STATUS = ("TemplateVersion", "Rollout")
DEFAULT_NAMESPACE = "default"
# Objects that a namespace may hold when it is deleted: what one transaction can take away in time.
EMPTIED_MAX = 1000
# Events that it may hold, which go as a set.
FORGOTTEN_MAX = 20_000


class Storing:
    """Stateless; each method is one verb on one object of a transaction that its caller opened."""

    def __init__(self, kinds: Mapping[str, Kind]) -> None:
        """`kinds`: all that may own something, or be owned, and so go with an owner."""
        self._kinds = kinds

    def insert(
        self,
        tx: Transaction,
        caller: Caller,
        kind: Kind,
        document: Json,
        namespace: str = "",
        options: WriteOptions = OWN_WRITE,
    ) -> Json:
        """Create inside an open transaction: rules, storage, and what follows from it."""
        namespace = namespace or (document.get("metadata") or {}).get("namespace", "")
        if not kind.namespaced:
            namespace = ""
        elif not tx.has_namespace(namespace):
            raise errors.NotFound(f'namespaces "{namespace}" not found', name=namespace)
        ready = strategy.for_create(
            kind, namespace, document, now=tx.timestamp, uid=str(uuid4()), suffix=_suffix
        )
        name = ready["metadata"]["name"]
        if tx.get(kind, namespace, name) is not None:
            raise errors.already_exists(kind, name)
        ready = _with_own_notes(kind, vouching.mark(caller, kind, None, ready), None)
        rivals.guard(tx, kind, None, ready)
        keeping.claim(tx, caller, kind, document, None, ready)
        ready = owning.created(kind, ready, options, tx.timestamp)
        if kind.kind == "Device":
            # Only an approval brings a status along; people's was dropped on the way in.
            if caller.role in ("controller", "approval") and document.get("status"):
                ready["status"] = document["status"]
            row = bindings.insert_device(tx, ready)
            told = ownernews.several(newsworthy.claims(row["owner"], row["candidates"]))
            about = newsworthy.about_device(row, row["resource_version"])
            tx.announce(about, (*objectnews.created(kind), *told))
            return tx.device_of(kind, row)
        # An EnrollmentRequest's is the agent API's; people's was dropped on the way in.
        if kind.kind in (*BORN_WITH_STATUS, "EnrollmentRequest") and "status" in document:
            ready["status"] = document["status"]
        if kind.kind == "Organization":
            return self.pair(tx, name, str(uuid4()), ready)
        stored = tx.insert(kind, ready)
        tx.announce(newsworthy.about(stored), objectnews.created(kind))
        if kind.kind == "Fleet":
            bindings.fleet_changed(tx, namespace, name)
        if kind.kind == "TemplateVersion":
            bindings.version_created(tx, namespace, stored)
        if kind.kind == "Rollout":
            _tell_of_rollout(tx, None, stored)
        return stored

    def update(self, tx: Transaction, caller: Caller, kind: Kind, old: Json, new: Json) -> Json:
        """Store a change that `strategy.for_update` has made ready, and what follows from it."""
        new = _with_own_notes(kind, vouching.mark(caller, kind, old, new), old)
        rivals.guard(tx, kind, old, new)
        metadata = new["metadata"]
        keeping.guard_change(tx, caller, kind, old, new)
        enrolled.guard_change(tx, kind, old, new)
        steering.guard_change(tx, kind, old, new)
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            return self._remove(tx, kind, new)
        if kind.kind == "Device":
            row = devices.row_by_name(tx.connection, metadata["namespace"], metadata["name"])
            assert row is not None, "read in this transaction"
            stored = tx.device_of(kind, bindings.update_device(tx, row, old, new))
            tx.announce(newsworthy.about(stored), objectnews.updated(kind, old, new))
            return stored
        stored = tx.update(kind, old, new)
        tx.announce(newsworthy.about(stored), objectnews.updated(kind, old, stored))
        if kind.kind == "Fleet" and objects.match_labels(old) != objects.match_labels(new):
            bindings.fleet_changed(tx, metadata["namespace"], metadata["name"])
        if kind.kind == "Rollout":
            _tell_of_rollout(tx, old, stored)
        if collecting.blocked_owners(old) != collecting.blocked_owners(new):
            self._family(tx).free_owners(old)
        return stored

    def delete(
        self,
        tx: Transaction,
        kind: Kind,
        old: Json,
        propagation: str | None,
        above: frozenset[str] = frozenset(),
        *,
        is_told: bool = True,
    ) -> Deleted:
        """`above`: uids of objects whose deletion brought this one about. `is_told`: as an event,
        once it is gone."""
        metadata = old["metadata"]
        uid = metadata["uid"]
        family = self._family(tx, above)
        policy = collecting.policy(metadata, propagation)
        waits = False
        if policy == collecting.ORPHAN:
            family.orphan(uid)
        elif policy == collecting.FOREGROUND:
            family.take_along(uid, policy)
            waits = family.is_blocked(uid)
        finalizers = collecting.finalizers(metadata, waits=waits)
        if not finalizers:
            return Deleted(self._remove(tx, kind, old, above, is_told=is_told), gone=True)
        marked = collecting.marked(old, finalizers, tx.timestamp)
        if marked == old:
            return Deleted(old, gone=False)
        caller = Caller(name="system:homeport", role="controller")
        return Deleted(self.update(tx, caller, kind, old, marked), gone=False)

    def _remove(
        self,
        tx: Transaction,
        kind: Kind,
        document: Json,
        above: frozenset[str] = frozenset(),
        *,
        is_told: bool = True,
    ) -> Json:
        metadata = document["metadata"]
        namespace = metadata.get("namespace", "")
        if kind.kind == "Organization" and metadata["name"] == DEFAULT_NAMESPACE:
            raise errors.Forbidden(f'"{DEFAULT_NAMESPACE}" cannot be deleted', kind=kind)
        if kind.kind == "Organization":
            self._empty(tx, kind, metadata["name"])
        last = tx.delete(kind, document)
        if is_told:
            tx.announce(newsworthy.about(last), objectnews.deleted(kind))
        keeping.release(tx, kind, document)
        if kind.kind == "Fleet":
            bindings.fleet_changed(tx, namespace, metadata["name"])
        if kind.kind == "Device":
            request = registry.by_kind("EnrollmentRequest")
            found = tx.get(request, namespace, metadata["name"])
            # So that the agent may enrol again (contract 3.5).
            if found is not None:
                tx.delete(request, found)
        family = self._family(tx, above)
        family.take_along(metadata["uid"])
        family.free_owners(document)
        return last

    def _empty(self, tx: Transaction, kind: Kind, namespace: str) -> None:
        """What is in a namespace goes with it, in the same transaction; so it may not be too much
        for one, and nothing in it may have to wait. Raises Conflict."""
        kinds = [k for k in self._kinds.values() if k.namespaced]
        held = {each.kind: tx.count(each, namespace) for each in kinds}
        told = held.pop(objects.EVENTS, 0)
        if sum(held.values()) > EMPTIED_MAX:
            total = sum(held.values())
            why = f"it holds {total} objects; delete its devices first, then the namespace"
            raise errors.conflict(kind, namespace, why)
        if told > FORGOTTEN_MAX:
            why = f"it holds {told} events of the last week; try again when those are forgotten"
            raise errors.conflict(kind, namespace, why)
        self._forget_told(tx, namespace)
        for each in kinds:
            for document in tx.list(each, namespace):
                if document["metadata"].get("finalizers"):
                    name = document["metadata"]["name"]
                    why = f"finalizers hold {each.resource} {name} in it; delete that first"
                    raise errors.conflict(kind, namespace, why)
                # An owner that went before may have taken it along.
                if tx.get(each, namespace, document["metadata"]["name"]) is not None:
                    self._remove(tx, each, document)

    def _forget_told(self, tx: Transaction, namespace: str) -> None:
        """The events of a namespace, but for those that somebody wants to see gone himself."""
        events = self._kinds.get(objects.EVENTS)
        found = tx.list(events, namespace) if events is not None else ()
        free = [each for each in found if not each["metadata"].get("finalizers")]
        if events is not None and free:
            tx.delete_all(events, free)

    def _family(self, tx: Transaction, above: frozenset[str] = frozenset()) -> collecting.Family:
        return collecting.Family(tx, self._kinds, partial(self.delete, tx), above)

    def pair(
        self, tx: Transaction, name: str, organization: str, document: Json | None = None
    ) -> Json:
        """An organisation is a namespace: one makes the other, an immutable pair."""
        kind = registry.by_kind("Organization")
        ready = document or strategy.for_create(
            kind,
            "",
            {"metadata": {"name": name}, "spec": {"displayName": name}},
            now=tx.timestamp,
            uid=organization,
            suffix=_suffix,
        )
        ready["metadata"]["uid"] = organization
        return tx.insert(kind, ready)


_FLEETS_OWN = (devices.FLEETS_OVERRIDES, devices.TEMPLATE_VERSION)


def _with_own_notes(kind: Kind, new: Json, old: Json | None) -> Json:
    """A fleet whose newest version, and what is asked of its applications (`acting`), are as the
    service has noted them: whoever writes the fleet neither makes them up nor takes them away."""
    if kind.kind != "Fleet":
        return new
    kept = ((old or {}).get("metadata") or {}).get("annotations") or {}
    said = new["metadata"].get("annotations") or {}
    own = {key: kept[key] for key in _FLEETS_OWN if key in kept}
    if {key: said[key] for key in _FLEETS_OWN if key in said} == own:
        return new
    annotations = {key: value for key, value in said.items() if key not in _FLEETS_OWN} | own
    return new | {"metadata": new["metadata"] | {"annotations": annotations}}


def _suffix() -> str:
    return "".join(secrets.choice(strategy.SUFFIX_ALPHABET) for _ in range(5))


def organization_of(snapshot: Snapshot, namespace: str) -> UUID:
    """The organisation that a namespace is paired with."""
    found = snapshot.get(registry.by_kind("Organization"), "", namespace)
    if found is None:
        raise errors.NotFound(f'namespaces "{namespace}" not found', name=namespace)
    return UUID(found["metadata"]["uid"])


def _tell_of_rollout(tx: Transaction, old: Json | None, new: Json) -> None:
    """Its steps are told of its fleet, if that is there still."""
    news = rolloutnews.of(old, new)
    namespace, kind = new["metadata"]["namespace"], registry.by_kind("Fleet")
    fleet = tx.get(kind, namespace, new["spec"]["target"]["fleet"]) if news else None
    if fleet is not None:
        tx.announce(newsworthy.about(fleet), news)
