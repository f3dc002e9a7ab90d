"""What a request path names: group, version, namespace, resource, object, subresource.

The invariant: every path of the Kubernetes face has one reading. `namespaces` is both a resource
and a prefix; a path is read as the prefix exactly if something of a namespaced kind follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

# What follows a namespace's name and is the namespace's own subresource, not a resource within.
_OF_NAMESPACES = frozenset({"status", "finalize"})


@dataclass(frozen=True, slots=True)
class ResourcePath:
    """`namespace` and `name` are "" where the path has none."""

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    namespaced: bool = False


def parse(group: str, version: str, parts: Sequence[str]) -> ResourcePath | None:
    """The reading of the segments after `/api/v1` or `/apis/<group>/<version>`, decoded already;
    None where no resource is named so."""
    if not parts or not all(parts):
        return None
    if parts[0] == "namespaces" and len(parts) >= 3 and parts[2] not in _OF_NAMESPACES:
        rest = parts[2:]
        if len(rest) > 3:
            return None
        name, subresource = _padded(rest[1:])
        return ResourcePath(group, version, rest[0], parts[1], name, subresource, namespaced=True)
    if len(parts) > 3:
        return None
    name, subresource = _padded(parts[1:])
    return ResourcePath(group, version, parts[0], "", name, subresource)


def _padded(parts: Sequence[str]) -> tuple[str, str]:
    name, subresource = (*parts, "", "")[:2]
    return name, subresource
