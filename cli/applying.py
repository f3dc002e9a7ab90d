"""`apply`: make objects what their manifests say.

Client-side, as kubectl does it by default, the manifest leaves a note in an annotation, and the
next apply takes away what has left the manifest since. The annotation is kubectl's and so is the
name in managedFields, since people use both tools on one object (docs/decisions/0016). Server-side,
the server keeps that account by field.

Nothing is deleted here; that is `pruning`, which has to be asked for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cli import manifests, threeway
from cli.client import APPLY_PATCH, MERGE_PATCH, Client, Refused
from cli.manifests import Located
from cli.problems import Problem
from cli.targets import Target
from cli.writing import Mode, Report, fetched

if TYPE_CHECKING:
    from cli.reaching import Reach

Json = dict[str, Any]

CLIENT_MANAGER, SERVER_MANAGER = "kubectl-client-side-apply", "kubectl"
CONFLICTS = """Please review the fields above--they currently have other managers. Here
are the ways you can resolve this warning:
* If you intend to manage all of these fields, please re-run the apply
  command with the `--force-conflicts` flag.
* If you do not intend to manage all of the fields, please edit your
  manifest to remove references to the fields that should keep their
  current managers.
* You may co-own fields by updating your manifest to match the existing
  value; in this case, you'll become the manager if the other manager(s)
  stop managing the field (remove it from their configuration).
See https://kubernetes.io/docs/reference/using-api/server-side-apply/#conflicts"""


class BadNote(Problem):
    """The object's note of what was applied last cannot be read."""


class Unclear(Problem):
    """What was asked for contradicts itself, or says too little."""


@dataclass(frozen=True, slots=True)
class How:
    """One way of applying."""

    mode: Mode
    server_side: bool = False
    force: bool = False


def apply(client: Client, located: Sequence[Located], how: How, report: Report) -> list[Json]:
    """Each manifest in turn. Returns the objects that came of it."""
    applied: list[Json] = []
    for each in located:
        doing = "applying patch" if how.server_side else "creating"
        with report.trying(doing, each.manifest.source):
            word, document = _applied(client, each, how)
            report.say(each.target, word, document)
            applied.append(document)
    return applied


def _applied(client: Client, each: Located, how: How) -> tuple[str, Json]:
    if how.server_side:
        return "serverside-applied", server_side(client, each, how)
    current = fetched(client, each.target)
    modified = threeway.noted(each.document)
    if current is None:
        return "created", created(client, each.target, modified, how.mode)
    if not threeway.note_of(current):
        _warn_of_missing_note(each.target)
    patch = patch_of(current, modified)
    if not patch:
        return "unchanged", current
    return "configured", patched(client, each.target, patch, how.mode, current)


def patch_of(current: Json, modified: Json) -> Json:
    """What apply sends; empty where nothing is to be done. Raises BadNote."""
    note = threeway.note_of(current)
    try:
        original = json.loads(note) if note else {}
    except ValueError as error:
        raise BadNote(
            f"the annotation {threeway.LAST_APPLIED} is no JSON: {error}",
            f"take it away, and apply again: homeport annotate TYPE NAME {threeway.LAST_APPLIED}-",
        ) from error
    return threeway.three_way(original, modified, current)


def created(client: Client, target: Target, document: Json, mode: Mode) -> Json:
    if not mode.is_sent:
        return document
    path = target.resource.path(target.namespace or None)
    return client.ask("POST", path, query=mode.query(), body=document)


def patched(client: Client, target: Target, patch: Json, mode: Mode, current: Json) -> Json:
    if not mode.is_sent:
        return current
    return client.ask(
        "PATCH", target.path(), query=mode.query(), body=patch, content_type=MERGE_PATCH
    )


def server_side(client: Client, each: Located, how: How) -> Json:
    """Raises Refused; of a conflict with the ways out."""
    query = how.mode.query() | {"force": "true" if how.force else "false"}
    if not how.mode.is_sent:
        raise Unclear(
            "--dry-run=client doesn't work with --server-side "
            "(did you mean --dry-run=server instead?)"
        )
    try:
        return client.ask(
            "PATCH", each.target.path(), query=query, body=each.document, content_type=APPLY_PATCH
        )
    except Refused as refused:
        if refused.code == 409:
            raise Conflicted(f"{refused}\n{CONFLICTS}") from refused
        raise


class Conflicted(Problem):
    """Fields belong to somebody else."""


def _warn_of_missing_note(target: Target) -> None:
    print(
        f"Warning: resource {target.resource.plural}/{target.name} is missing the "
        f"{threeway.LAST_APPLIED} annotation, by which apply knows what has left the manifest. "
        "It was created without apply; the missing annotation will be patched automatically.",
        file=sys.stderr,
    )


def read(
    reach: Reach, files: Sequence[str], *, recursive: bool, selector: str = ""
) -> list[Located]:
    """The manifests of `-f`, each with its place, of which `selector` keeps those that it matches.
    Raises Problem before anything is done."""
    if not files:
        raise Unclear("must specify -f: a file, a directory, or - for standard input")
    located = manifests.located(reach, manifests.read(files, recursive=recursive))
    if not selector:
        return located
    return [each for each in located if _matches(selector, each.document)]


def _matches(selector: str, document: Json) -> bool:
    from resources import selectors
    from resources.errors import Invalid

    try:
        parsed = selectors.parse_labels(selector)
    except (Invalid, ValueError) as error:
        raise Unclear(f"-l: {error}") from error
    return parsed.matches((document.get("metadata") or {}).get("labels") or {})
