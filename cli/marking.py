"""`label` and `annotate`: keys and values on objects, added, changed, and taken away."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cli import selecting
from cli.client import MERGE_PATCH, Client
from cli.problems import Problem
from cli.targets import Target
from cli.writing import Mode, Report

if TYPE_CHECKING:
    from cli.reaching import Reach

Json = dict[str, Any]


class BadMark(Problem):
    """A word is neither key=value nor key-, or would overwrite what is there."""


@dataclass(frozen=True, slots=True)
class Part:
    """Which part of metadata it is about, and the words for it."""

    field: str
    noun: str
    done: str
    undone: str


LABELS = Part("labels", "label", "labeled", "unlabeled")
ANNOTATIONS = Part("annotations", "annotation", "annotated", "annotated")
PARTS = {"labels": LABELS, "annotations": ANNOTATIONS}


@dataclass(frozen=True, slots=True)
class Marks:
    """What is wanted; None takes a key away."""

    wanted: Mapping[str, str | None]

    @property
    def removed(self) -> list[str]:
        return [key for key, value in self.wanted.items() if value is None]


@dataclass(frozen=True, slots=True)
class Request:
    """What was typed, as it was typed."""

    part: Part
    words: Sequence[str]
    files: Sequence[str] = ()
    recursive: bool = False
    overwrite: bool = False
    show: bool = False
    selector: str = ""
    field_selector: str = ""
    every: bool = False
    all_namespaces: bool = False


def run(
    reach: Reach, request: Request, mode: Mode, report: Report, write: Callable[[str], None]
) -> None:
    """Each object in turn. Raises Problem where the words mean nothing."""
    words, marked = split(["", *request.words]) if request.files else split(request.words)
    marks = parse(marked)
    if not marks.wanted and not request.show:
        raise BadMark(f"at least one {request.part.noun} update is required")
    chosen = selecting.choose(
        reach,
        [word for word in words if word],
        files=request.files,
        recursive=request.recursive,
        selector=request.selector,
        field_selector=request.field_selector,
        all_namespaces=request.all_namespaces,
        every=request.every,
        needs_choice=True,
    )
    for target in selecting.expanded(
        reach.client, chosen, request.selector, request.field_selector
    ):
        with report.trying():
            if request.show:
                current = reach.client.ask("GET", target.path())
                write(listed(current["metadata"].get(request.part.field) or {}))
                continue
            word, document, missing = mark(
                reach.client, target, request.part, marks, mode, overwrite=request.overwrite
            )
            if request.part is LABELS:
                for key in missing:
                    write(f'label "{key}" not found.\n')
            report.say(target, word, document)


def split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words that name objects, and the marks after them: no name has "=" or ends in "-"."""
    for place, word in enumerate(words):
        if place and ("=" in word or word.endswith("-")):
            return list(words[:place]), list(words[place:])
    return list(words), []


def parse(words: Iterable[str]) -> Marks:
    """Raises BadMark."""
    wanted: dict[str, str | None] = {}
    for word in words:
        key, equals, text = word.partition("=")
        value = text if equals else None
        if value is None:
            key = word.removesuffix("-")
            if key == word:
                raise BadMark(f'"{word}" is neither KEY=VALUE nor KEY-')
        if not key:
            raise BadMark(f'"{word}" has no key')
        if wanted.get(key, value) != value:
            raise BadMark(f'"{key}" is to be set to two values, or set and taken away')
        wanted[key] = value
    return Marks(wanted)


def mark(
    client: Client, target: Target, part: Part, marks: Marks, mode: Mode, *, overwrite: bool
) -> tuple[str, Json, list[str]]:
    """What happened in a word, the object, and the keys that were not there to be taken away.
    Raises BadMark, Refused."""
    current = client.ask("GET", target.path())
    has: Json = current["metadata"].get(part.field) or {}
    # As with kubectl: a label may be set again to what it is, an annotation may not.
    taken = [
        key
        for key, value in marks.wanted.items()
        if value is not None and key in has and (part is ANNOTATIONS or has[key] != value)
    ]
    if taken and not overwrite:
        raise BadMark(_refusal(part, taken, has), "--overwrite replaces what is there")
    missing = [key for key in marks.removed if key not in has]
    changed = {k: v for k, v in marks.wanted.items() if has.get(k) != v}
    if not changed:
        word = part.done if part is ANNOTATIONS else f"not {part.done}"
        return word, current, missing
    document = current
    if mode.is_sent:
        body: Json = {"metadata": {part.field: changed}}
        if not overwrite:
            # What was looked at is what is changed.
            body["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
        document = client.ask(
            "PATCH", target.path(), query=mode.query(), body=body, content_type=MERGE_PATCH
        )
    only_removed = all(value is None for value in changed.values())
    return part.undone if only_removed else part.done, document, missing


def listed(items: Json) -> str:
    return "".join(f"{key}={items[key]}\n" for key in sorted(items))


def _refusal(part: Part, taken: Sequence[str], has: Json) -> str:
    found = [f"'{key}' already has a value ({has[key]})" for key in taken]
    if part is LABELS:
        return f"{found[0]}, and --overwrite is false"
    told = "; ".join(found)
    return f"--overwrite is false but found the following declared annotation(s): {told}"
