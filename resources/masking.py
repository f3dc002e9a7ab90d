"""Secrets inside documents: hidden from everybody who reads, kept by who writes the mask back.

Which fields are secret is said where they are declared (`format: password`), and nowhere else. The
rule is contract 3.4: a read shows `*****`, and a write that sends `*****` means what is stored,
as long as the document is still of the same type. Where nothing is stored the mask is refused, or
five stars would become somebody's password.

Patches are applied to the masked document, never to the stored one: a `test` of a password would
be an oracle, and a `copy` of it into a label would show it to all.

kubectl keeps what was applied in an annotation; there it is masked when it is written.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

from resources import schema
from resources.errors import FieldError, Invalid
from resources.kind import Json, Kind

MASK = "*****"
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

Path = tuple[str, ...]


@functools.cache
def secret_paths(model: type[BaseModel]) -> tuple[Path, ...]:
    """Where a kind's secrets are."""
    return tuple(_secrets(schema.structural(model), ()))


def _secrets(node: Json, here: Path) -> Iterator[Path]:
    if node.get("format") == "password":
        yield here
    for name, inner in node.get("properties", {}).items():
        yield from _secrets(inner, (*here, name))


def masked(kind: Kind, document: Json) -> Json:
    """The document as it may be shown; itself if it holds no secret."""
    return replaced_secrets(kind, document, lambda _secret, _path: MASK)


def replaced_secrets(kind: Kind, document: Json, by: Callable[[Any, Path], Any]) -> Json:
    """The document with `by` in the place of each secret; itself if it holds none."""
    for path in secret_paths(kind.model):
        if found := _at(document, path):
            document = _replaced(document, path, by(found, path))
    return document


def restored(kind: Kind, document: Json, old: Json | None) -> Json:
    """The document with what its masks stand for in `old`. Raises Invalid where that is nothing."""
    problems = []
    for path in secret_paths(kind.model):
        if _at(document, path) != MASK:
            continue
        stored = _at(old, path) if _is_same_type(document, old) else None
        if stored:
            document = _replaced(document, path, stored)
        else:
            detail = f"{MASK} stands for a stored value, and none is stored here: write the value"
            problems.append(FieldError(_written(path), "FieldValueInvalid", detail))
    if problems:
        raise Invalid(problems)
    return document


def without_copies(kind: Kind, document: Json) -> Json:
    """The document without the secrets that kubectl noted in its annotation."""
    metadata = document.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    noted = annotations.get(LAST_APPLIED) if isinstance(annotations, dict) else None
    if not isinstance(noted, str) or not secret_paths(kind.model):
        return document
    return _replaced(document, ("metadata", "annotations", LAST_APPLIED), _masked_note(kind, noted))


def _masked_note(kind: Kind, noted: str) -> str:
    try:
        applied = json.loads(noted)
    except ValueError:
        applied = None
    if not isinstance(applied, dict):
        # Whatever it is, it is not what kubectl writes; it may hold anything.
        return "{}"
    return json.dumps(masked(kind, applied), separators=(",", ":"), ensure_ascii=False) + "\n"


def _is_same_type(document: Json, old: Json | None) -> bool:
    return old is not None and _at(document, ("spec", "type")) == _at(old, ("spec", "type"))


def _at(document: Any, path: Path) -> Any:
    for name in path:
        document = document.get(name) if isinstance(document, dict) else None
    return document


def _replaced(document: Json, path: Path, value: Any) -> Json:
    """A copy with another value at `path`, which exists; what lies beside it is shared."""
    name, *rest = path
    inner = _replaced(document[name], tuple(rest), value) if rest else value
    return document | {name: inner}


def _written(path: Path) -> str:
    """As complaints write paths: names with a dot in brackets."""
    parts = (f"[{name}]" if "." in name else f".{name}" for name in path)
    return "".join(parts).lstrip(".")
