"""What a template with parameters is for each device: rendered once for each set of values.

On a snapshot, outside the store lock. The invariant: what is kept between two chunks depends on
nothing but the values that the template uses; who takes what it gave into a transaction asks there
whether the device's inputs are still the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import orjson

from apiserver.store import Snapshot, Transaction
from apiserver.store.givens import Given
from resources import digest, parameters, registry, render
from resources.errors import Invalid
from resources.kind import Json
from resources.manifest import Frozen

# What one transaction stores, and how many sets of values are remembered.
CHUNK_BYTES = 32 << 20
REMEMBERED = 10_000

_Values: TypeAlias = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """What the template is for devices, and the contents that it points at. `last` is the last
    one's name; `asked` for so many, of which no more are here than are stored at once."""

    devices: list[Given]
    blobs: Mapping[str, bytes]
    last: str
    asked: int


@dataclass(frozen=True, slots=True)
class Draft:
    """What a template became: two digests and an image, or why it became nothing."""

    spec_digest: str = ""
    rendered_digest: str = ""
    os_image: str = ""
    error: str | None = None


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
    """Renders one template, which has passed `render.check`, for the devices of a bind."""

    def __init__(self, template: Json, frozen: Frozen) -> None:
        self._template, self._frozen = template, frozen
        self._used = parameters.uses(template)
        self._labels = sorted(self._used.labels)
        self._known: dict[_Values, Draft] = {}

    def resolve(self, snapshot: Snapshot, find: Callable[[Snapshot], Sequence[Any]]) -> Chunk:
        """For the devices that `find` gives, by uid, name, labels and inputs_version; not for all
        of them where much is to be stored."""
        rows = find(snapshot)
        found: list[Given] = []
        blobs: dict[str, bytes] = {}
        size, last = 0, ""
        for row in rows:
            if size > CHUNK_BYTES:
                break
            outcome, made = self._outcome(snapshot, row.name, orjson.loads(row.labels))
            blobs |= made
            size += sum(map(len, made.values()))
            found.append(
                Given(
                    uid=row.uid,
                    inputs_version=row.inputs_version,
                    spec_digest=outcome.spec_digest,
                    rendered_digest=outcome.rendered_digest,
                    os_image=outcome.os_image,
                    render_error=outcome.error,
                )
            )
            last = row.name
        return Chunk(found, blobs, last, len(rows))

    def _outcome(
        self, snapshot: Snapshot, name: str, labels: Mapping[str, str]
    ) -> tuple[Draft, Mapping[str, bytes]]:
        """With the contents to store, if nobody before had the same values."""
        values = self._values(name, labels)
        if (known := self._known.get(values)) is not None:
            return known, {}
        blobs: dict[str, bytes] = {}
        try:
            rendered = render.evaluate(
                self._template, name=name, labels=labels, frozen=self._frozen
            )
        except Invalid as problem:
            outcome = Draft(error=str(problem))
        else:
            outcome, blobs = drafted(snapshot, rendered, self._frozen)
        if len(self._known) >= REMEMBERED:
            self._known.clear()
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


def looks_at(tx: Transaction, row: Mapping[str, Any], old: Json, new: Json) -> bool:
    """Whether what its fleet gave a device depends on a label that changes from one metadata to the
    other; or might now be given, where it could not be before."""
    if not row["fleet"] or row["render_error"]:
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
