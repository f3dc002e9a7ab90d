"""What of a template's outside is there for some devices of a bind: which values came, which did
not, and the bytes of those that did.

On one snapshot, for one chunk of devices: a few statements, however many values they need. The
bytes are held together as long as they are as few as one transaction may store; more of them are
read when their turn comes.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import cast

from apiserver import inputs
from apiserver.store import Snapshot, contents, wants
from apiserver.store.wants import Value, Wanted
from resources.errors import NOT_FOUND, FieldError, Invalid
from resources.manifest import File, Frozen
from resources.references import Reference

# Of a fleet whose every device needs something of its own. Each is asked for at its source.
VALUES_MAX = 20_000


class Stock:
    """Of the template version with the uid `version`. `bytes_max`: what is held together."""

    def __init__(
        self,
        snapshot: Snapshot,
        version: str,
        needed: Iterable[Sequence[Reference]],
        bytes_max: int,
    ) -> None:
        self._snapshot, self._version = snapshot, version
        keys = {reference.key(version) for some in needed for reference in some}
        self._values = wants.by_key(snapshot, keys)
        names = sorted({value.manifest for value in self._values.values() if value.manifest})
        bodies = contents.read(snapshot.connection, snapshot.keys, names)
        self._files: dict[str, tuple[File, ...]] = {
            name: inputs.files_of(body, "values") for name, body in bodies.items()
        }
        size = sum(file.size for files in self._files.values() for file in files)
        self._held = self._blobs(names) if size <= bytes_max else None

    def value(self, reference: Reference) -> Value | None:
        """What is known of it; None if nobody has asked for it yet."""
        return self._values.get(reference.key(self._version))

    @cached_property
    def is_full(self) -> bool:
        """Whether the version needs so much already that nothing more is asked for."""
        return wants.count(self._snapshot, self._version) >= VALUES_MAX

    def wanted(self, reference: Reference) -> Wanted:
        return Wanted(reference.key(self._version), reference.input, reference.values)

    def frozen(self, fixed: Frozen, needed: Sequence[Reference]) -> Frozen:
        """What is frozen for everybody, with what of `needed` came: all of it has come."""
        files: dict[str, Sequence[File]] = dict(fixed.files)
        names = []
        for reference in needed:
            name = self._values[reference.key(self._version)].manifest
            if name not in self._files:
                raise Invalid([FieldError(reference.path, NOT_FOUND, f"{name} is not stored")])
            files[reference.input] = self._files[name]
            names.append(name)
        held = self._blobs(names) if self._held is None else self._held
        if any(file.digest not in held for name in names for file in self._files[name]):
            # Somebody changed the list after it was accepted: only an administrator can.
            raise Invalid([FieldError("values", NOT_FOUND, "what they name is not kept here")])
        # Neither is ever written to; a copy for each value would be most of the work.
        blobs = ChainMap(held, cast("dict[str, bytes]", fixed.blobs))
        return replace(fixed, files=files, blobs=blobs)

    def _blobs(self, names: Sequence[str]) -> dict[str, bytes]:
        if not names:
            return {}
        return contents.children(self._snapshot.connection, self._snapshot.keys, names)
