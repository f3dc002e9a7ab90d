"""From what was typed to the objects that it means: words, files, selectors, everything.

The invariant: what stands for many objects was typed as such. A verb that changes objects does so
to those that were named, selected, or said to be `--all`, and never to a kind alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli import targets, watching
from cli.client import PARTIAL, Client
from cli.problems import Problem
from cli.targets import Target

if TYPE_CHECKING:
    from cli.reaching import Reach


class BadChoice(Problem):
    """What was typed contradicts itself, or says too little."""


def choose(
    reach: Reach,
    words: Sequence[str],
    *,
    files: Sequence[str] = (),
    recursive: bool = False,
    selector: str = "",
    field_selector: str = "",
    all_namespaces: bool = False,
    every: bool = False,
    needs_choice: bool = False,
) -> list[Target]:
    """Targets by name, or kinds that a selector narrows. Raises Problem."""
    if files:
        if words:
            raise BadChoice("when -f is given, the objects are those of the files; leave out words")
        from cli import manifests

        return [
            each.target
            for each in manifests.located(reach, manifests.read(files, recursive=recursive))
        ]
    chosen = targets.parse(reach.kinds, words, "" if all_namespaces else reach.namespace)
    named = any(target.name for target in chosen)
    if named and (selector or field_selector or every):
        raise BadChoice("name cannot be provided when a selector is specified")
    if named and all_namespaces:
        raise BadChoice("a resource cannot be retrieved by name across all namespaces")
    if every and (selector or field_selector) and needs_choice:
        raise BadChoice("setting --all and a selector at once leaves open which of them is meant")
    if needs_choice and not (named or selector or field_selector or every):
        raise BadChoice(
            "resource(s) were provided, but no name was specified",
            "name them, select them by -l or --field-selector, or say --all",
        )
    return chosen


def expanded(
    client: Client, chosen: Sequence[Target], selector: str = "", field_selector: str = ""
) -> list[Target]:
    """The same, with each kind replaced by its objects."""
    query = {"labelSelector": selector, "fieldSelector": field_selector}
    query = {key: value for key, value in query.items() if value}
    found: list[Target] = []
    for target in chosen:
        if target.name:
            found.append(target)
            continue
        document = watching.listed(client, target.path(), query, PARTIAL)
        for item in document.get("items") or ():
            metadata = item["metadata"]
            found.append(Target(target.resource, metadata.get("namespace") or "", metadata["name"]))
    return found
