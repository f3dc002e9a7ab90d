"""`apply --prune`: delete what was applied before and has left the manifests.

The invariant: nothing goes that nobody applied, that a selector does not match, or whose kind is
neither in the manifests nor named in the list of what may go. Each deletion is of the very object
that was looked at, by its uid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from cli import threeway, watching
from cli.client import Client
from cli.kinds import Kinds, Resource
from cli.manifests import Located
from cli.problems import Problem
from cli.targets import Target
from cli.writing import Mode, Report

Json = dict[str, Any]


class BadList(Problem):
    """--prune-allowlist names no kind."""


def allowed(kinds: Kinds, words: Iterable[str]) -> list[Resource]:
    """The kinds of `flightctl.io/v1beta1/Fleet`. Raises BadList."""
    found = []
    for word in words:
        api_version, _, kind = word.rpartition("/")
        resource = kinds.of(api_version.removeprefix("core/"), kind)
        if resource is None:
            raise BadList(
                f"--prune-allowlist: {word} is no GROUP/VERSION/KIND that the server has",
                "such as flightctl.io/v1beta1/Fleet; homeport api-resources lists them",
            )
        found.append(resource)
    return found


def prunable(
    client: Client, resources: Iterable[Resource], namespaces: Iterable[str], selector: str
) -> list[tuple[Target, Json]]:
    """What somebody applied once, of these kinds, in these namespaces."""
    query = {"labelSelector": selector} if selector else {}
    found: list[tuple[Target, Json]] = []
    for resource in dict.fromkeys(resources):
        for namespace in dict.fromkeys(namespaces if resource.namespaced else ("",)):
            document = watching.listed(
                client, resource.path(namespace or None), query, "application/json"
            )
            found += [
                (Target(resource, namespace, item["metadata"]["name"]), item)
                for item in document.get("items") or ()
                if threeway.note_of(item)
            ]
    return found


def prune(
    client: Client,
    located: Sequence[Located],
    applied: Sequence[Json],
    resources: Sequence[Resource],
    selector: str,
    mode: Mode,
    report: Report,
) -> None:
    """Delete what was applied before and is in no manifest any more."""
    kept = {document["metadata"].get("uid") for document in applied}
    wanted = resources or [each.target.resource for each in located]
    namespaces = [each.target.namespace for each in located if each.target.namespace]
    for target, item in prunable(client, wanted, namespaces, selector):
        if item["metadata"]["uid"] in kept:
            continue
        with report.trying():
            if mode.is_sent:
                options = {"preconditions": {"uid": item["metadata"]["uid"]}}
                query = {"dryRun": "All"} if mode.dry_run == "server" else {}
                client.ask("DELETE", target.path(), query=query, body=options)
            report.say(target, "pruned", item)
