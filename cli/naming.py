"""Which object a person means who does not type 52 characters: a name, or how one begins.

The invariant: what is found is one object, or nothing is done and the candidates are named.
"""

from __future__ import annotations

from typing import Any

from cli.client import Client, Refused
from cli.kinds import Resource
from cli.problems import Problem

Json = dict[str, Any]

SHOWN_MAX = 5


class Unclear(Problem):
    """The word means none of the objects, or several."""


def find(client: Client, resource: Resource, namespace: str, word: str) -> Json:
    """The object named `word`, or the only one whose name begins so, or with that alias. Raises
    Unclear, Refused."""
    try:
        return client.ask("GET", resource.path(namespace, word))
    except Refused as refused:
        if refused.code != 404:
            raise
    listed = client.ask("GET", resource.path(namespace))
    # Items of a list do not say what they are.
    kind = {"apiVersion": resource.api_version, "kind": resource.kind}
    return kind | choose(listed["items"], word, resource.resource)


def choose(items: list[Json], word: str, plural: str) -> Json:
    """Raises Unclear when `word` means none or several of `items`."""
    names = {item["metadata"]["name"]: item for item in items}
    if word in names:
        return names[word]
    found = [name for name, item in names.items() if name.startswith(word) or _alias(item) == word]
    if len(found) == 1:
        return names[found[0]]
    if found:
        raise Unclear(f'{plural} "{word}" means {len(found)}: {_some(found)}', "type more of it")
    raise Unclear(f'{plural} "{word}" not found', f"there are: {_some(list(names))}")


def _alias(item: Json) -> str:
    return str((item["metadata"].get("labels") or {}).get("alias", ""))


def _some(names: list[str]) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - SHOWN_MAX} more" if len(names) > SHOWN_MAX else ""
    return ", ".join(sorted(names)[:SHOWN_MAX]) + more
