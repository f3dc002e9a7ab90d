"""Manifests: what an outside source gave at one moment, file by file, under one digest. Pure.

A frozen template holds no bytes from outside. It names a manifest for each provider that points
outside, and a manifest names the bytes of each file by digest, so equal content has one digest
however it came: a commit that touches none of the files makes no new version.

Files stand in order of their paths, and a path stands once. What a file of a secret holds is named
by a keyed digest, which nobody without the key of the store can test a guess against.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resources import digest, formats
from resources.errors import DUPLICATE, INVALID, TOO_LONG, TOO_MANY, FieldError, Invalid

Json = dict[str, Any]

DEFAULT_MODE = 0o644
DEFAULT_USER = "root"
FILE_BYTES_MAX = 8 << 20
# All files of one specification together. In base64 they stay below what an agent takes (64 MiB).
SPEC_BYTES_MAX = 32 << 20
FILES_MAX = 20_000

_DIGEST = re.compile(rf"({digest.PREFIX}|{digest.KEYED_PREFIX})[0-9a-f]{{64}}")
_KEYS = frozenset(("path", "digest", "size", "mode", "user", "group"))


@dataclass(frozen=True, slots=True)
class File:
    """One file: where it goes, whose it is, and under which digest its bytes are."""

    path: str
    digest: str
    size: int
    mode: int = DEFAULT_MODE
    user: str = DEFAULT_USER
    group: str = ""


@dataclass(frozen=True, slots=True)
class Frozen:
    """What outside sources gave: files by the provider's name, bytes by digest."""

    files: Mapping[str, Sequence[File]]
    blobs: Mapping[str, bytes]

    @property
    def is_secret(self) -> bool:
        return any(is_keyed(file.digest) for files in self.files.values() for file in files)


NOTHING = Frozen({}, {})


def is_digest(text: object) -> bool:
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


def is_keyed(text: str) -> bool:
    """Whether the bytes under this digest are a secret's."""
    return text.startswith(digest.KEYED_PREFIX)


def document(files: Iterable[File]) -> bytes:
    """The canonical bytes of the manifest of `files`; what is the default is not written."""
    return digest.canonical({"files": [_entry(f) for f in sorted(files, key=lambda f: f.path)]})


def _entry(file: File) -> Json:
    entry: Json = {"path": file.path, "digest": file.digest, "size": file.size}
    if file.mode != DEFAULT_MODE:
        entry["mode"] = file.mode
    if file.user != DEFAULT_USER:
        entry["user"] = file.user
    if file.group:
        entry["group"] = file.group
    return entry


def parse(body: bytes) -> tuple[File, ...]:
    """The files of a manifest. Raises Invalid for what `document` could not have written."""
    try:
        found = json.loads(body)
        files = tuple(_file(entry) for entry in found["files"])
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise Invalid([FieldError("files", INVALID, "this is not a manifest")]) from problem
    complaints = list(check(files))
    if complaints:
        raise Invalid(complaints)
    return files


def _file(entry: Json) -> File:
    if not entry.keys() <= _KEYS:
        raise ValueError(entry)
    file = File(**entry)
    texts = (file.path, file.digest, file.user, file.group)
    numbers = (file.size, file.mode)
    is_right = all(isinstance(t, str) for t in texts) and all(isinstance(n, int) for n in numbers)
    if not is_right or not is_digest(file.digest):
        raise ValueError(entry)
    return file


def check(files: Sequence[File]) -> Iterator[FieldError]:
    """What is wrong with the files of one source; the path of a complaint is that of the file."""
    if len(files) > FILES_MAX:
        yield FieldError("files", TOO_MANY, f"{len(files)} files; {FILES_MAX} at most")
        return
    seen: set[str] = set()
    for file in files:
        if problem := formats.target_path(file.path):
            yield FieldError("files", INVALID, problem)
        elif file.path in seen:
            yield FieldError("files", DUPLICATE, f"{formats.shown(file.path)} is there twice")
        if problem := formats.mode(file.mode):
            yield FieldError("files", INVALID, f"{formats.shown(file.path)}: {problem}")
        if file.size > FILE_BYTES_MAX:
            detail = f"{formats.shown(file.path)} has {file.size} bytes; {FILE_BYTES_MAX} at most"
            yield FieldError("files", TOO_LONG, detail)
        seen.add(file.path)


def check_whole(paths: Iterable[str], size: int) -> str | None:
    """What is wrong with all files of a specification together, as a sentence.

    Two providers may both give a path: the later one overrides. But what is a file for one cannot
    be a directory for another.
    """
    if size > SPEC_BYTES_MAX:
        return f"the files have {size} bytes together; {SPEC_BYTES_MAX} at most"
    known = set(paths)
    for path in sorted(known):
        above = path.rpartition("/")[0]
        while above:
            if above in known:
                return f"{formats.shown(above)} is both a file and the directory of {path}"
            above = above.rpartition("/")[0]
    return None
