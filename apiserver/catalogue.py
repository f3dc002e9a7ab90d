"""The kinds that this server serves, and how paths find them: one object that faces share.

The registry of `resources` has the kinds of the product; standalone mode adds its few of core/v1.
Who serves what is decided once, where the process is composed.
"""

from __future__ import annotations

from collections.abc import Iterable

from resources.kind import Kind

GroupVersion = tuple[str, str]


class Catalogue:
    """An immutable set of kinds, in the order in which discovery lists them."""

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self.kinds = tuple(kinds)
        self._by_path = {(k.group, k.version, k.plural): k for k in self.kinds}
        assert len(self._by_path) == len(self.kinds), "two kinds with one path"

    def by_path(self, group: str, version: str, plural: str) -> Kind | None:
        return self._by_path.get((group, version, plural))

    @property
    def group_versions(self) -> tuple[GroupVersion, ...]:
        return tuple(dict.fromkeys((kind.group, kind.version) for kind in self.kinds))

    @property
    def groups(self) -> tuple[str, ...]:
        """API groups with a name; the first is the most prominent."""
        return tuple(dict.fromkeys(kind.group for kind in self.kinds if kind.group))

    def of_group(self, group: str) -> tuple[Kind, ...]:
        return tuple(kind for kind in self.kinds if kind.group == group)

    def of(self, group: str, version: str) -> tuple[Kind, ...]:
        return tuple(k for k in self.kinds if (k.group, k.version) == (group, version))
