"""Server-side apply: who owns which field after a write, and what an applied document leaves. Pure.

Theory. Every field of an object may have owners. Who *updates* (POST, PUT, the other patches) owns
what it changed, and takes it from everybody else. Who *applies* says: these fields are mine, with
these values. Then

- where another owner has one of them with another value, that is a conflict: refused with all of
  them named, or, forced, taken over;
- what it applied last time, and does not now, goes, unless another owner has it too;
- applying the same again changes nothing; appliers of different fields do not see each other.

Those are the laws, and the property tests hold them. The steps are those of Kubernetes' updater
(structured-merge-diff), so that the owners that are written down come out equal to its own. Fields
by which an object is named, and those that the service sets, have no owner; nor has what the
endpoint of the write can't change: status on the object itself, everything else on its status.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from apiserver.wire import fieldset, managed, structure
from apiserver.wire.fieldset import FieldSet, Path
from apiserver.wire.managed import Owned, Owner, Owners
from resources.kind import Json

# What was there before anybody applied, in objects whose owners were not kept.
BEFORE = "before-first-apply"
_METADATA = fieldset.field("metadata")
_NOBODYS: FieldSet = frozenset(
    {
        (fieldset.field("apiVersion"),),
        (fieldset.field("kind"),),
        (_METADATA,),
        *(
            (_METADATA, fieldset.field(name))
            for name in (
                "clusterName", "creationTimestamp", "generation", "managedFields", "name",
                "namespace", "owner", "resourceVersion", "selfLink", "uid",
            )
        ),
    }
)  # fmt: skip


class Conflicts(Exception):
    """Fields that other owners have with other values."""

    def __init__(self, found: dict[Owner, FieldSet]) -> None:
        super().__init__(f"{sum(map(len, found.values()))} conflicts")
        self.found = found

    @property
    def fields(self) -> FieldSet:
        return fieldset.union(self.found.values())


@dataclass(frozen=True, slots=True)
class Writer:
    """One write: who, when, to what. `ignored`: prefixes of what this endpoint can't change."""

    schema: Json
    owner: Owner
    version: str
    time: str
    ignored: tuple[Path, ...] = ()

    def compared(self, old: Json, new: Json) -> structure.Comparison:
        found = structure.compared(self.schema, old, new)
        for prefix in self.ignored:
            found = found.without(prefix)
        return found

    def reached(self, fields: FieldSet) -> FieldSet:
        for prefix in self.ignored:
            fields -= fieldset.below(fields, prefix)
        return fields


def updated(writer: Writer, old: Json, new: Json, owners: Owners) -> dict[Owner, Owned]:
    """The owners after an update from `old` (an object without anything for a create) to `new`."""
    found = writer.compared(old, new)
    left = _lessened(owners, found.changed | found.removed)
    taken = writer.reached(found.changed) - _NOBODYS
    if taken:
        before = left.get(writer.owner)
        fields = taken | (before.fields if before else fieldset.NOTHING)
        left[writer.owner] = Owned(fields, writer.version, writer.time)
    return managed.capped(left)


def applied(
    writer: Writer, live: Json, config: Json, owners: Owners, *, force: bool
) -> tuple[Json, dict[Owner, Owned]]:
    """The live document with `config` applied, and its owners. Raises Conflicts, and
    `structure.Duplicated` for a list in `config` that has one key twice."""
    if not owners:
        before = managed.owner(BEFORE, managed.UPDATE, writer.version)
        owners = updated(replace(writer, owner=before), {}, live, {})
    said = writer.reached(structure.fields_of(writer.schema, config))
    last = owners.get(writer.owner)
    others = {owner: owned for owner, owned in owners.items() if owner != writer.owner}
    new = structure.merged(writer.schema, live, config)
    if last is not None:
        claimed = fieldset.union([said, *(owned.fields for owned in others.values())])
        new = _pruned(writer.schema, new, last.fields, claimed)
    found = writer.compared(live, new)
    conflicts = {
        owner: clash for owner, owned in others.items() if (clash := owned.fields & found.changed)
    }
    if conflicts and not force:
        raise Conflicts(conflicts)
    left = _lessened(others, found.changed | found.removed)
    mine = said - _NOBODYS
    if mine:
        left[writer.owner] = Owned(mine, writer.version, writer.time)
    return new, left


def _pruned(schema: Json, merged: Json, last: FieldSet, claimed: FieldSet) -> Json:
    """`merged` without what was applied last time and nobody claims now. A container that was
    applied goes with all that is in it; what others claim in it comes back with it, and what nobody
    owns outside of it was never in question."""

    def named(fields: FieldSet) -> FieldSet:
        return structure.with_named(schema, fields)

    everything = named(structure.fields_of(schema, merged))
    gone = named(last)
    pruned = structure.without(schema, merged, gone)
    left = named(structure.fields_of(schema, pruned))
    pruned = structure.without(schema, merged, everything - (left | named(claimed)))
    left = named(structure.fields_of(schema, pruned))
    return structure.without(schema, merged, (everything - left) & gone)


def _lessened(owners: Owners, lost: FieldSet) -> dict[Owner, Owned]:
    """The owners without these fields; who has none left is no owner."""
    left = {owner: replace(owned, fields=owned.fields - lost) for owner, owned in owners.items()}
    return {owner: owned for owner, owned in left.items() if owned.fields}


def in_order(conflicts: Conflicts) -> Iterable[tuple[Owner, list[Path]]]:
    """Conflicts by owner, both in an order that does not depend on chance."""
    for owner in sorted(conflicts.found, key=lambda o: (o.manager, o.operation, o.subresource)):
        yield owner, sorted(conflicts.found[owner])
