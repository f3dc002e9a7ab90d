"""`create` and `replace`: whole documents, as they are, and no account of what was there before.

A note of what was applied, where a manifest brings one, is brought up to date, so that `apply` can
go on from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cli import threeway
from cli.applying import created
from cli.client import Client, Refused
from cli.manifests import Located
from cli.writing import Mode, Report

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class How:
    """`note`: with the note of what was applied. `subresource`: the part that is replaced."""

    mode: Mode
    note: bool = False
    subresource: str = ""


def create(client: Client, located: Sequence[Located], how: How, report: Report) -> None:
    """Each manifest in turn."""
    for each in located:
        with report.trying("creating", each.manifest.source):
            document = created(client, each.target, _noted(each.document, how), how.mode)
            # The server gives the name where the manifest has only its beginning.
            name = str(document["metadata"].get("name") or "")
            report.say(replace(each.target, name=name), "created", document)


def replaced(client: Client, located: Sequence[Located], how: How, report: Report) -> None:
    """Each manifest in turn, in place of what is there."""
    for each in located:
        with report.trying("replacing", each.manifest.source):
            report.say(each.target, "replaced", _replaced(client, each, how))


def _replaced(client: Client, each: Located, how: How) -> Json:
    document = _noted(each.document, how)
    if not how.mode.is_sent:
        return document
    metadata = document["metadata"]
    path = each.target.path(how.subresource)
    if not metadata.get("resourceVersion"):
        # Whoever says no version means to replace whatever there is now.
        try:
            current = client.ask("GET", path)["metadata"]["resourceVersion"]
            document = document | {"metadata": metadata | {"resourceVersion": current}}
        except Refused as refused:
            if refused.code != 404:
                raise
    return client.ask("PUT", path, query=how.mode.query(), body=document)


def _noted(document: Json, how: How) -> Json:
    return threeway.noted(document) if how.note or threeway.note_of(document) else document
