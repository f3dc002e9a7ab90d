"""One commit, one update: the files of a fleet that lies in Git come from the commit that it was
read from, where both are in the same repository at the same revision.

Without it a fleet and its files would be followed by two clocks, and a commit that changes both
would reach the devices as two updates, or in the wrong order. The commit is written on the fleet in
the same write as its new template. What a ResourceSync does not take (a manifest that does not
parse) reaches no device by the way of the files either.

Pure.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from resources import render

Json = dict[str, Any]
# (Repository, revision) as a gitRef names them -> commit
Pins = Mapping[tuple[str, str], str]
NONE: Pins = {}

ANNOTATION = "homeport.dev/read-from"


def pinned(fleet: Json, sync: Json, commit: str) -> Json:
    """The fleet with the commit that it was read from, if files of it come from there too."""
    source = sync["spec"]["repository"], sync["spec"]["targetRevision"]
    metadata = dict(fleet["metadata"])
    annotations = dict(metadata.pop("annotations", None) or {})
    annotations.pop(ANNOTATION, None)
    if source in _sources(fleet):
        repository, revision = source
        said = {"repository": repository, "targetRevision": revision, "commit": commit}
        annotations[ANNOTATION] = json.dumps(said)
    if annotations:
        metadata["annotations"] = annotations
    return fleet | {"metadata": metadata}


def source_of(reference: Json) -> tuple[str, str]:
    """Which pin is a gitRef's."""
    return reference["repository"], reference["targetRevision"]


def pins_of(fleet: Json) -> Pins:
    """What the files of a fleet are frozen at; empty for a fleet that no ResourceSync keeps (the
    API server takes the owner away with the ResourceSync)."""
    metadata = fleet["metadata"]
    said = (metadata.get("annotations") or {}).get(ANNOTATION)
    if not said or not metadata.get("owner"):
        return {}
    try:
        found = json.loads(said)
        return {(found["repository"], found["targetRevision"]): found["commit"]}
    except (ValueError, KeyError, TypeError):
        return {}


def _sources(fleet: Json) -> set[tuple[str, str]]:
    template = fleet["spec"]["template"]["spec"]
    found = [provider.get("gitRef") for _, provider in render.outside(template)]
    return {source_of(reference) for reference in found if reference}
