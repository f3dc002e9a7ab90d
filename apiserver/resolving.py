"""What a template with parameters is for each device: rendered once for each set of values.

On a snapshot, outside the store lock. The invariant: what is kept between two chunks depends on
nothing but the values that the template uses; who takes what it gave into a transaction asks there
whether the device's inputs are still the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import orjson

from apiserver.stock import VALUES_MAX, Stock
from apiserver.store import Snapshot, Transaction, wants
from apiserver.store.givens import Given
from apiserver.store.wants import Wanted
from resources import digest, parameters, references, registry, render
from resources.errors import Invalid
from resources.kind import Json
from resources.manifest import Frozen
from resources.references import Reference

# What one transaction stores, and how many sets of values are remembered.
CHUNK_BYTES = 32 << 20
REMEMBERED = 10_000

_FULL = (
    f"what its parameters come to is more than {VALUES_MAX} different things for the devices of "
    "this version"
)

_Values: TypeAlias = tuple[str | None, ...]
_Needed: TypeAlias = Sequence[Reference] | Invalid


@dataclass(frozen=True, slots=True)
class Chunk:
    """What the template is for devices, the contents that it points at, and what some of them need
    from outside that nobody has asked for yet. `last` is the last one's name; `asked` for so many,
    of which no more are here than are stored at once."""

    devices: list[Given]
    blobs: Mapping[str, bytes]
    wanted: Mapping[str, Wanted]
    last: str
    asked: int


@dataclass(frozen=True, slots=True)
class Draft:
    """What a template became: two digests and an image, or why it became nothing; with `waits_for`
    something from outside is missing, whose mark that is."""

    spec_digest: str = ""
    rendered_digest: str = ""
    os_image: str = ""
    error: str | None = None
    waits_for: str | None = None


def drafted(
    snapshot: Snapshot, rendered: render.Rendered, frozen: Frozen
) -> tuple[Draft, dict[str, bytes]]:
    """With the contents to store."""
    spec, body = digest.canonical(rendered.spec), digest.canonical(rendered.rendered)
    spec_digest = snapshot.digest_of(spec)
    # What holds a secret has a digest that nobody can test a guess against.
    body_digest = snapshot.digest_of(body, is_secret=frozen.is_secret)
    image = (rendered.spec.get("os") or {}).get("image") or ""
    return Draft(spec_digest, body_digest, image), {spec_digest: spec, body_digest: body}


class Resolver:
    """Renders the template of the version with the uid `version`, which has passed `render.check`,
    for the devices of a bind. `frozen` is what it takes from outside for all of them."""

    def __init__(self, version: str, template: Json, frozen: Frozen) -> None:
        self._version, self._template = version, template
        self._frozen = replace(frozen, blobs=dict(frozen.blobs))
        self._used = parameters.uses(template)
        self._labels = sorted(self._used.labels)
        self._known: dict[_Values, Draft] = {}
        self.is_open = references.are_open(template)

    def resolve(self, snapshot: Snapshot, find: Callable[[Snapshot], Sequence[Any]]) -> Chunk:
        """For the devices that `find` gives, by uid, name, labels and inputs_version; not for all
        of them where much is to be stored."""
        if len(self._known) >= REMEMBERED:
            # Before it is asked, and not in between: who is known here is not looked up anew.
            self._known.clear()
        rows = [(row, orjson.loads(row.labels)) for row in find(snapshot)]
        look = _Look(snapshot, self._needed(rows), self._version)
        found: list[Given] = []
        size, last = 0, ""
        for row, labels in rows:
            if size > CHUNK_BYTES:
                break
            outcome, made = self._outcome(look, row.name, labels)
            look.blobs |= made
            size += sum(map(len, made.values()))
            found.append(
                Given(
                    uid=row.uid,
                    inputs_version=row.inputs_version,
                    spec_digest=outcome.spec_digest,
                    rendered_digest=outcome.rendered_digest,
                    os_image=outcome.os_image,
                    render_error=outcome.error,
                    waits_for=outcome.waits_for,
                )
            )
            last = row.name
        return Chunk(found, look.blobs, look.wanted, last, len(rows))

    def _needed(self, rows: Sequence[tuple[Any, Mapping[str, str]]]) -> dict[_Values, _Needed]:
        """What sets of values that are new need from outside, or why they can't be rendered."""
        found: dict[_Values, _Needed] = {}
        if not self.is_open:
            return found
        for row, labels in rows:
            values = self._values(row.name, labels)
            if values in self._known or values in found:
                continue
            try:
                found[values] = render.needed(self._template, name=row.name, labels=labels)
            except Invalid as problem:
                found[values] = problem
        return found

    def _outcome(
        self, look: _Look, name: str, labels: Mapping[str, str]
    ) -> tuple[Draft, Mapping[str, bytes]]:
        """With the contents to store, if nobody before had the same values."""
        values = self._values(name, labels)
        known = self._known.get(values) or look.left.get(values)
        if known is not None:
            return known, {}
        blobs: dict[str, bytes] = {}
        try:
            needed = look.needed.get(values, ())
            if isinstance(needed, Invalid):
                raise needed
            if (draft := look.left_for(needed)) is not None:
                # Only here: what is missing may be there when the next chunk is looked at.
                look.left[values] = draft
                return draft, {}
            frozen = look.stock.frozen(self._frozen, needed) if needed else self._frozen
            rendered = render.evaluate(self._template, name=name, labels=labels, frozen=frozen)
        except Invalid as problem:
            outcome = Draft(error=str(problem))
        else:
            outcome, blobs = drafted(look.snapshot, rendered, frozen)
        self._known[values] = outcome
        return outcome, blobs

    def _values(self, name: str, labels: Mapping[str, str]) -> _Values:
        """What the template can see of a device."""
        seen: list[str | None] = [name if self._used.name else None]
        if self._used.every_label:
            for label in sorted(labels.items()):
                seen += label
        else:
            seen += map(labels.get, self._labels)
        return tuple(seen)


class _Look:
    """One chunk of devices, on one snapshot: what they need from outside, and what is there."""

    def __init__(self, snapshot: Snapshot, needed: Mapping[_Values, _Needed], version: str) -> None:
        self.snapshot, self.needed = snapshot, needed
        self.blobs: dict[str, bytes] = {}
        self.wanted: dict[str, Wanted] = {}
        self.left: dict[_Values, Draft] = {}
        some = [need for need in needed.values() if not isinstance(need, Invalid) and need]
        self.stock = Stock(snapshot, version, some, CHUNK_BYTES)

    def left_for(self, needed: Sequence[Reference]) -> Draft | None:
        """What becomes of a device for now, for which not all is there. What nobody has tried to
        get comes first: then all that is wrong is said together."""
        told: list[str] = []
        asked = failing = waiting = ""
        for reference in needed:
            value = self.stock.value(reference)
            if value is None and self.stock.is_full:
                return Draft(error=f"{reference.path}: {_FULL}")
            if value is None or not (value.manifest or value.problem):
                wanted = self.stock.wanted(reference)
                self.wanted[wanted.key] = wanted
                asked = asked or wants.first_mark(wanted.key)
            elif not value.manifest:
                told.append(value.problem)
                if value.is_passing:
                    waiting = waiting or value.mark
                else:
                    failing = failing or value.mark
        if asked:
            return Draft(waits_for=asked)
        if not told:
            return None
        return Draft(error="; ".join(told), waits_for=failing or waiting)


def looks_at(tx: Transaction, row: Mapping[str, Any], old: Json, new: Json) -> bool:
    """Whether what its fleet gave a device depends on a label that changes from one metadata to the
    other; or might now be given, where it could not be before, or need not wait for what it did."""
    if not row["fleet"] or row["render_error"] or row["waits_for"]:
        return bool(row["fleet"])
    version = row["template_version"] and tx.get(
        registry.by_kind("TemplateVersion"), row["namespace"], row["template_version"]
    )
    if not version:
        return False
    try:
        used = parameters.uses(version.get("status") or {})
    except Invalid:
        # It could not be rendered, whatever the labels.
        return False
    was, now = old.get("labels") or {}, new.get("labels") or {}
    changed = {key for key in was.keys() | now.keys() if was.get(key) != now.get(key)}
    return used.every_label or not used.labels.isdisjoint(changed)
