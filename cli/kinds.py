"""Which path serves what the user named, asked from the server's own discovery: one request for
our kinds, a second one only for those of the core."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cli.client import Client
from cli.problems import Problem

Json = dict[str, Any]

DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class NoSuchKind(Problem):
    """The server has nothing of that name."""

    def __init__(self, word: str, known: list[str]) -> None:
        super().__init__(f'the server doesn\'t have a resource type "{word}"')
        self.hint = f"there are: {', '.join(known)}"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as the server lists it."""

    group: str
    version: str
    plural: str
    singular: str
    kind: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def typed(self) -> str:
        """`fleet.flightctl.io`, as kubectl names an object's kind."""
        return f"{self.kind.lower()}.{self.group}" if self.group else self.kind.lower()

    @property
    def resource(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        middle = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        rest = "/".join(part for part in (self.plural, name, subresource) if part)
        return f"{base}{middle}/{rest}"

    def answers_to(self, word: str) -> bool:
        """By plural, singular, short name or kind, with or without group and version."""
        bare, _, rest = word.lower().partition(".")
        if bare not in {self.plural, self.singular, self.kind.lower(), *self.short_names}:
            return False
        return not rest or rest in (self.group, f"{self.version}.{self.group}")


class Kinds:
    """What the server serves, asked for once and no earlier than somebody wants to know."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._ours: list[Resource] | None = None
        self._core: list[Resource] | None = None

    def find(self, word: str) -> Resource:
        """Raises NoSuchKind with what there is."""
        for resource in self._each():
            if resource.answers_to(word):
                return resource
        raise NoSuchKind(word, [resource.plural for resource in self.all()])

    def several(self, words: str) -> list[Resource]:
        """The kinds of `devices,fleets`, and of a category such as `homeport`."""
        found: list[Resource] = []
        for word in words.split(","):
            members = [each for each in self.ours() if word.lower() in each.categories]
            found += members or [self.find(word)]
        return list(dict.fromkeys(found))

    def of(self, api_version: str, kind: str) -> Resource | None:
        """The kind of a manifest."""
        for resource in self._each():
            if (resource.api_version, resource.kind) == (api_version, kind):
                return resource
        return None

    def all(self) -> list[Resource]:
        return [*self.core(), *self.ours()]

    def ours(self) -> list[Resource]:
        if self._ours is None:
            self._ours = self._asked("/apis")
        return self._ours

    def core(self) -> list[Resource]:
        if self._core is None:
            self._core = self._asked("/api")
        return self._core

    def _each(self) -> Iterator[Resource]:
        yield from self.ours()
        yield from self.core()

    def _asked(self, path: str) -> list[Resource]:
        document = self._client.ask("GET", path, accept=DISCOVERY)
        return [
            _resource(item["metadata"].get("name") or "", version["version"], entry)
            for item in document.get("items") or ()
            for version in item["versions"]
            for entry in version["resources"]
        ]


def _resource(group: str, version: str, entry: Json) -> Resource:
    return Resource(
        group=group,
        version=version,
        plural=entry["resource"],
        singular=entry.get("singularResource") or entry["responseKind"]["kind"].lower(),
        kind=entry["responseKind"]["kind"],
        namespaced=entry["scope"] == "Namespaced",
        short_names=tuple(entry.get("shortNames") or ()),
        categories=tuple(entry.get("categories") or ()),
        verbs=tuple(entry.get("verbs") or ()),
    )
