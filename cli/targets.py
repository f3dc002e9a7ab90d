"""Which objects a person means: `devices`, `device a b`, `device/a fleet/b`, `devices,fleets`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cli.kinds import Kinds, Resource
from cli.problems import Problem


class BadTarget(Problem):
    """The words name no objects in any of the ways that there are."""


@dataclass(frozen=True, slots=True)
class Target:
    """One object, or without a name all of a kind; without a namespace those of all of them."""

    resource: Resource
    namespace: str = ""
    name: str = ""

    def path(self, subresource: str = "") -> str:
        return self.resource.path(self.namespace or None, self.name, subresource)

    @property
    def shown(self) -> str:
        """`fleet.flightctl.io/web`."""
        return f"{self.resource.typed}/{self.name}"


def parse(kinds: Kinds, words: Sequence[str], namespace: str) -> list[Target]:
    """Raises BadTarget, NoSuchKind."""
    if not words:
        raise BadTarget("you must specify the type of resource: homeport api-resources lists them")
    if any("/" in word for word in words):
        return [_slashed(kinds, word, namespace) for word in words]
    resources = kinds.several(words[0])
    if len(words) == 1:
        return [Target(resource, namespace) for resource in resources]
    return [Target(resource, namespace, name) for resource in resources for name in words[1:]]


def _slashed(kinds: Kinds, word: str, namespace: str) -> Target:
    kind, _, name = word.partition("/")
    if not kind or not name or "/" in name:
        raise BadTarget(
            f'"{word}" is not TYPE/NAME: there is no need to write a type before names in that '
            "form, and all of them must be in it"
        )
    return Target(kinds.find(kind), namespace, name)
