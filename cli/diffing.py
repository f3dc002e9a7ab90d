"""`diff`: what `apply` would change, asked from the server, which writes nothing."""

from __future__ import annotations

import difflib
import os
import shlex
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cli import applying, forms, goyaml, threeway
from cli.applying import How
from cli.client import Client
from cli.manifests import Located
from cli.problems import Problem
from cli.writing import fetched

Json = dict[str, Any]

PROGRAM = "KUBECTL_EXTERNAL_DIFF"


class NoDifference(Problem):
    """The program that shows differences failed."""


def pairs(
    client: Client, located: Sequence[Located], how: How, *, managed: bool = False
) -> Iterator[tuple[str, str, str]]:
    """Of each manifest a name, the text of the object now, and of what would become of it."""
    for each in located:
        live = fetched(client, each.target)
        merged = _merged(client, each, how, live)
        name = ".".join(
            [
                each.target.resource.api_version.replace("/", "."),
                each.target.resource.kind,
                each.target.namespace,
                each.target.name,
            ]
        )
        yield name, _text(live, managed=managed), _text(merged, managed=managed)


def show(texts: Sequence[tuple[str, str, str]]) -> bool:
    """Print the differences; whether there are any. Raises NoDifference."""
    from cli import paint

    if command := os.environ.get(PROGRAM):
        code, text = by_program(command, texts)
        paint.write_plain(text)
        return code == 1
    differences = "".join(unified(*each) for each in texts)
    paint.write_plain(paint.painted_difference(differences) if paint.is_wanted() else differences)
    return bool(differences)


def unified(name: str, live: str, merged: str) -> str:
    """A unified diff with three lines around; empty where nothing differs."""
    lines = difflib.unified_diff(
        live.splitlines(keepends=True),
        merged.splitlines(keepends=True),
        f"LIVE/{name}",
        f"MERGED/{name}",
    )
    return "".join(lines)


def by_program(command: str, texts: Sequence[tuple[str, str, str]]) -> tuple[int, str]:
    """What somebody's own program prints of two directories, and how it ends: 0 the same, 1 not.
    Raises NoDifference."""
    with tempfile.TemporaryDirectory(prefix="homeport-diff-") as folder:
        live, merged = Path(folder, "LIVE"), Path(folder, "MERGED")
        live.mkdir()
        merged.mkdir()
        for name, before, after in texts:
            (live / name).write_text(before)
            (merged / name).write_text(after)
        argv = [*shlex.split(command), str(live), str(merged)]
        try:
            ran = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
        except OSError as error:
            raise NoDifference(f"{PROGRAM}: {argv[0]} cannot be run: {error.strerror}") from error
    if ran.returncode > 1:
        raise NoDifference(f"{PROGRAM}: {argv[0]} ended with {ran.returncode}")
    return ran.returncode, ran.stdout


def _merged(client: Client, each: Located, how: How, live: Json | None) -> Json:
    if how.server_side:
        return applying.server_side(client, each, how)
    # Without the note of what is applied: that it would change, too, is no news to anybody.
    if live is None:
        return applying.created(client, each.target, each.document, how.mode)
    patch = applying.patch_of(live, threeway.bare(each.document))
    return applying.patched(client, each.target, patch, how.mode, live) if patch else live


def _text(document: Json | None, *, managed: bool) -> str:
    if document is None:
        return ""
    return goyaml.dump(document if managed else forms.without_managed(document))
