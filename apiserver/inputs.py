"""What template versions and devices were frozen from: checked, kept alive, and loaded.

The invariant: what has been accepted can be rendered, for as long as what it was accepted for
exists. Accepting looks for every digest in the transaction that notes who points at what, so no
sweep can come in between; what is missing is told all at once, and the caller sends it and asks
again.
"""

from __future__ import annotations

from collections.abc import Sequence

from apiserver.store import Snapshot, Transaction, contents
from resources import manifest, render
from resources.errors import INVALID, NOT_FOUND, REQUIRED, FieldError, Invalid
from resources.kind import Json
from resources.manifest import File, Frozen

# Somebody who sends a thousand files again needs no thousand lines to know it.
NAMED = 20


def accept(
    tx: Transaction,
    parent: str,
    template: Json,
    inputs: Sequence[Json],
    path: str,
    *,
    templated: bool = True,
) -> None:
    """Check that `inputs` freeze `template` and are all here, and keep them while `parent` (a uid,
    or a digest) is there. Raises Invalid, with the digests that are missing."""
    complaints = [
        FieldError(f"{path}.inputs", REQUIRED, f"{where} is not frozen")
        for where, provider in render.fixed(template, templated=templated)
        if all(provider["name"] != found["name"] for found in inputs)
    ]
    if complaints:
        raise Invalid(complaints)
    keep(tx, parent, inputs, f"{path}.inputs")


def keep(tx: Transaction, parent: str, found: Sequence[Json], path: str) -> None:
    """Check that the `manifest` of each of `found`, and what it names, is here, and keep them while
    `parent` is there. Raises Invalid, with the digests that are missing."""
    complaints: list[FieldError] = []
    pairs: list[tuple[str, str]] = []
    bodies = contents.read(tx.connection, tx.keys, [each["manifest"] for each in found])
    for number, each in enumerate(found):
        here, name = f"{path}[{number}].manifest", each["manifest"]
        if name not in bodies:
            complaints.append(FieldError(here, NOT_FOUND, f"{name} is not stored"))
            continue
        pairs.append((parent, name))
        files = files_of(bodies[name], here)
        pairs += [(name, file.digest) for file in files]
        missing = contents.missing(tx.connection, (file.digest for file in files))
        complaints += [
            FieldError(here, NOT_FOUND, f"{digest} is not stored") for digest in missing[:NAMED]
        ]
        if len(missing) > NAMED:
            more = f"{len(missing) - NAMED} more are not stored"
            complaints.append(FieldError(here, NOT_FOUND, more))
    if complaints:
        raise Invalid(complaints)
    tx.refer(pairs)


def load(snapshot: Snapshot, inputs: Sequence[Json]) -> Frozen:
    """The files of accepted inputs and their bytes: two statements, however many files."""
    if not inputs:
        return manifest.NOTHING
    names = list(dict.fromkeys(found["manifest"] for found in inputs))
    bodies = contents.read(snapshot.connection, snapshot.keys, names)
    files: dict[str, tuple[File, ...]] = {}
    for number, found in enumerate(inputs):
        here, name = f"inputs[{number}].manifest", found["manifest"]
        if name not in bodies:
            raise Invalid([FieldError(here, NOT_FOUND, f"{name} is not stored")])
        files[found["name"]] = files_of(bodies[name], here)
    every = [file for some in files.values() for file in some]
    if problem := manifest.check_whole((), sum(file.size for file in every)):
        raise Invalid([FieldError("inputs", INVALID, problem)])
    blobs = contents.children(snapshot.connection, snapshot.keys, names)
    if any(file.digest not in blobs for file in every):
        # Somebody changed the list after it was accepted: only an administrator can.
        raise Invalid([FieldError("inputs", NOT_FOUND, "what they name is not kept here")])
    return Frozen(files, blobs)


def files_of(body: bytes, path: str) -> tuple[File, ...]:
    """The files of a manifest. Raises Invalid."""
    try:
        return manifest.parse(body)
    except Invalid as problem:
        found = [FieldError(path, error.reason, error.detail) for error in problem.errors[:NAMED]]
        raise Invalid(found) from problem
