"""Template versions of a fleet: which is the newest, does it say the same, how is the next named.

Pure.

A changed template is named after the fleet's generation, `web.v3`. What changed outside, under the
same template, is named `web.v3-1a2b3c4d`: after what is new and after the version before, so that
outside content which goes back to what it was (A, B, A) is a version of its own each time, and two
controllers that see the same make the same name.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from resources import attempts, digest, render

Json = dict[str, Any]


def template_of(version: Json) -> Json:
    """The frozen template of a TemplateVersion."""
    return {k: v for k, v in (version.get("status") or {}).items() if k not in render.BESIDE}


def inputs_of(version: Json | None) -> dict[str, Json]:
    """What the outside sources of a version gave, by the provider's name."""
    return {
        found["name"]: found for found in ((version or {}).get("status") or {}).get("inputs") or ()
    }


def has_template(template: Json, version: Json | None) -> bool:
    return version is not None and digest.of(template) == digest.of(template_of(version))


def is_same(template: Json, inputs: Sequence[Json], version: Json | None) -> bool:
    """Whether a version holds this template and the same content from outside. Where the content
    stood (a commit, a resourceVersion) may have moved without changing it."""
    return has_template(template, version) and are_same(inputs, inputs_of(version).values())


def are_same(one: Iterable[Json], other: Iterable[Json]) -> bool:
    """Whether two lists of inputs hold the same content."""
    return _manifests(one) == _manifests(other)


def _manifests(inputs: Iterable[Json]) -> dict[str, str]:
    return {found["name"]: found["manifest"] for found in inputs}


def next_name(fleet: Json, template: Json, inputs: Sequence[Json], newest: Json | None) -> str:
    """The name of the version that comes after `newest`."""
    metadata = fleet["metadata"]
    plain = f"{metadata['name']}.v{metadata['generation']}"
    if newest is None or not has_template(template, newest):
        return plain
    new = digest.of([newest["metadata"]["uid"], _manifests(inputs)])
    return f"{plain}-{new.removeprefix(digest.PREFIX)[:8]}"


def newest(heads: Iterable[Json]) -> str | None:
    """The name of the version that was made last, from the metadata of a fleet's versions. Those of
    one generation are told apart by when they were stored."""
    return max(heads, key=_order, default={}).get("name")


def _order(metadata: Json) -> tuple[int, str, int]:
    stored = metadata.get("creationTimestamp") or "", int(metadata.get("resourceVersion") or 0)
    return attempts.version_number(metadata["name"]), *stored
