"""`patch`: a change of named objects in one of the ways in which changes are written down.

Strategic merge patches are kubectl's default, and no server has them for kinds that are not
Kubernetes' own: here a patch is a merge patch unless something else is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli import threeway
from cli.client import JSON_PATCH, MERGE_PATCH, Client
from cli.problems import Problem
from cli.targets import Target
from cli.writing import Mode, Report

Json = dict[str, Any]

TYPES = {"merge": MERGE_PATCH, "json": JSON_PATCH}


class BadPatch(Problem):
    """The patch is none, or none that can be sent."""


@dataclass(frozen=True, slots=True)
class Patch:
    """`type`: merge or json."""

    type: str
    content: Any
    subresource: str = ""


def read(type_: str, text: str, file: str, subresource: str = "") -> Patch:
    """What was typed, or is in the file, in YAML or JSON. Raises BadPatch."""
    if type_ not in TYPES:
        raise BadPatch(
            f'--type must be one of {", ".join(sorted(TYPES))}, not "{type_}"',
            "strategic merge patches are for Kubernetes' own kinds; with --type=merge a list is "
            "replaced as a whole" if type_ == "strategic" else "",
        )  # fmt: skip
    if bool(text) == bool(file):
        raise BadPatch("must specify --patch or --patch-file containing the contents of the patch")
    try:
        content = _parsed(text or Path(file).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise BadPatch(f"unable to read patch file: {error}") from error
    wanted = dict if type_ == "merge" else list
    if not isinstance(content, wanted):
        shape = "an object" if type_ == "merge" else "a list of operations"
        raise BadPatch(f"a patch of type {type_} is {shape}")
    return Patch(type_, content, subresource)


def _parsed(text: str) -> Any:
    import yaml

    from resources import kubeyaml

    try:
        kubeyaml.bound_events(text)
        return kubeyaml.Loader(text).get_data()
    except (yaml.YAMLError, kubeyaml.Refused) as error:
        raise BadPatch(f"unable to parse the patch: {error}") from error


def patch(
    client: Client, chosen: Sequence[Target], change: Patch, mode: Mode, report: Report
) -> None:
    """Each object in turn."""
    for target in chosen:
        with report.trying():
            path = target.path(change.subresource)
            before = client.ask("GET", path)
            after = _patched(client, path, before, change, mode)
            report.say(target, "patched" if after != before else "patched (no change)", after)


def _patched(client: Client, path: str, before: Json, change: Patch, mode: Mode) -> Json:
    if mode.is_sent:
        media = TYPES[change.type]
        return client.ask(
            "PATCH", path, query=mode.query(), body=change.content, content_type=media
        )
    if change.type != "merge":
        raise BadPatch(
            f"--dry-run=client doesn't work with --type={change.type} "
            "(did you mean --dry-run=server instead?)"
        )
    return threeway.patched(before, change.content)
