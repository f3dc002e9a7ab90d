"""Which path serves what the user named, asked from the server's own discovery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cli.client import Client, Refused

GROUPS = ("apis/flightctl.io/v1beta1", "apis/homeport.dev/v1alpha1", "api/v1")


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind as the server lists it."""

    base: str
    plural: str
    kind: str
    namespaced: bool

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        middle = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        rest = "/".join(part for part in (self.plural, name, subresource) if part)
        return f"/{self.base}{middle}/{rest}"


def find(client: Client, word: str) -> Resource:
    """By plural, singular, short name or kind. Raises Refused with what there is."""
    known: list[str] = []
    for base in GROUPS:
        try:
            listed = client.ask("GET", f"/{base}")["resources"]
        except Refused as refused:
            if refused.code == 404:
                continue
            raise
        for entry in listed:
            if "/" in entry["name"]:
                continue
            known.append(entry["name"])
            if word.lower() in _names(entry):
                return Resource(base, entry["name"], entry["kind"], entry["namespaced"])
    raise Refused(404, "NotFound", f'there is no kind "{word}"; there are: {", ".join(known)}')


def _names(entry: Any) -> set[str]:
    names = {entry["name"], entry.get("singularName") or "", entry["kind"].lower()}
    return names | set(entry.get("shortNames") or ())
