"""`edit`: one object after the other in the person's editor, and what was changed sent as a patch.

What somebody typed is never lost: what the server refuses is opened again with its reason on top,
and what is given up is kept in a file whose name is told.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli import forms, gojson, goyaml, threeway
from cli.client import MERGE_PATCH, Client, Refused
from cli.problems import Problem
from cli.targets import Target
from cli.writing import Mode, Report

Json = dict[str, Any]

# More than a person needs, and an end for an editor that is a script.
TRIES_MAX = 20
EDITORS = ("KUBE_EDITOR", "VISUAL", "EDITOR")
PREAMBLE = """\
# Please edit the object below. Lines beginning with a '#' will be ignored,
# and an empty file will abort the edit. If an error occurs while saving this file will be
# reopened with the relevant failures.
#
"""


class NotEdited(Problem):
    """Nothing was changed, or what was changed could not be used."""


def edit(
    client: Client, chosen: Sequence[Target], mode: Mode, report: Report, *, as_json: bool
) -> bool:
    """Whether any object was changed."""
    changed = False
    for target in chosen:
        with report.trying():
            current = client.ask("GET", target.path())
            document = _edited(client, target, current, mode, as_json=as_json)
            if document is not None:
                changed = True
                report.say(target, "edited", document)
    return changed


def _edited(
    client: Client, target: Target, current: Json, mode: Mode, *, as_json: bool
) -> Json | None:
    shown = forms.without_managed(current)
    text = gojson.indented(shown) + "\n" if as_json else goyaml.dump(shown)
    suffix = ".json" if as_json else ".yaml"
    preamble, tried = PREAMBLE, False
    for _ in range(TRIES_MAX):
        after = _by_hand(preamble + text, target, suffix)
        bare = _bare(after)
        if not bare.strip() or bare == _bare(text):
            if tried:
                raise _kept(after, suffix, "it is what was refused before")
            return None
        text, tried = bare, True
        try:
            patch = threeway.difference(shown, _read(bare, target))
            if not patch:
                return None
            return client.ask(
                "PATCH", target.path(), query=mode.query(), body=patch, content_type=MERGE_PATCH
            )
        except Refused as refused:
            if refused.code not in (400, 409, 422):
                raise _kept(after, suffix, str(refused)) from refused
            preamble = _with_reason(target, str(refused))
        except NotEdited as problem:
            preamble = _with_reason(target, str(problem))
    raise _kept(after, suffix, f"it was refused {TRIES_MAX} times")


def _by_hand(text: str, target: Target, suffix: str) -> str:
    with tempfile.NamedTemporaryFile(
        "w+", prefix=f"homeport-edit-{target.name}-", suffix=suffix
    ) as file:
        file.write(text)
        file.flush()
        argv = [*editor(), file.name]
        try:
            code = subprocess.run(argv, check=False).returncode
        except OSError as error:
            raise NotEdited(
                f"the editor {argv[0]} cannot be run: {error.strerror}",
                f"name one in {' or '.join(EDITORS)}",
            ) from error
        if code:
            raise NotEdited(f"the editor {argv[0]} ended with {code}; nothing was changed")
        # Editors may write a new file in place of the old one.
        return Path(file.name).read_text()


def editor() -> list[str]:
    """The person's own, by the variables that kubectl and everybody else looks at."""
    for name in EDITORS:
        if chosen := os.environ.get(name):
            return shlex.split(chosen)
    return ["vi"]


def _read(text: str, target: Target) -> Json:
    import yaml

    from resources import kubeyaml

    try:
        kubeyaml.bound_events(text)
        document = kubeyaml.Loader(text).get_data()
    except (yaml.YAMLError, kubeyaml.Refused) as error:
        raise NotEdited(f"it cannot be read: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("metadata"), dict):
        raise NotEdited("it is no object with metadata")
    if document["metadata"].get("name") != target.name:
        raise NotEdited("metadata.name cannot be changed")
    return document


def _bare(text: str) -> str:
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith("#"))


def _with_reason(target: Target, reason: str) -> str:
    lines = "".join(f"# {line}\n" for line in reason.splitlines())
    return f'{PREAMBLE}# {target.resource.plural} "{target.name}" was not valid:\n{lines}#\n'


def _kept(text: str, suffix: str, why: str) -> NotEdited:
    descriptor, name = tempfile.mkstemp(prefix="homeport-edit-", suffix=suffix)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    return NotEdited(f"edit cancelled: {why}", f"what you typed is kept in {name}")
