"""Manifests out of files: which documents there are, and what is wrong with them, by file and line.

Pure. Everything that is wrong is said at once, so that a person mends a repository with one commit.
A document is right if it would be right in `kubectl apply --validate=strict`: the same rules, asked
before anything is applied, so that a commit is taken whole or not at all.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from resources import kubeyaml, registry, validation
from resources.kubeyaml import Loader, Refused

Json = dict[str, Any]

SUFFIXES = (".yaml", ".yml", ".json")
# A person reads the first ones; a condition holds 32 KB.
TOLD_MAX = 10
_STEP = re.compile(r"\.?([^.\[\]]+)|\[([^\]]*)\]")
# What an exported object carries, and what is not for a manifest to say.
_SERVER_METADATA = (
    "resourceVersion", "uid", "generation", "creationTimestamp", "deletionTimestamp",
    "deletionGracePeriodSeconds", "managedFields", "selfLink", "owner", "ownerReferences",
    "finalizers",
)  # fmt: skip
# Kinds of the other type of sync.
_CATALOG = ("Catalog", "CatalogItem")


class Unparsable(Exception):
    """Files that are not what they should be; `problems` begin with `file:line: `."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        told = list(self.problems[:TOLD_MAX])
        if len(self.problems) > TOLD_MAX:
            told.append(f"and {len(self.problems) - TOLD_MAX} more")
        super().__init__("; ".join(told))


@dataclass(frozen=True, slots=True)
class Manifest:
    """One document, and where it begins."""

    document: Json
    place: str

    @property
    def name(self) -> str:
        return str(self.document["metadata"]["name"])


@dataclass(frozen=True, slots=True)
class _Found:
    """A document before it is judged. `node` is where the lines are; JSON has none."""

    file: str
    line: int
    value: Any
    node: yaml.Node | None = None
    twice: tuple[str, ...] = ()

    def at(self, path: str) -> str:
        """`file:line` of a field."""
        return f"{self.file}:{_line_of(self.node, path) or self.line}"


def is_manifest(path: str) -> bool:
    return path.endswith(SUFFIXES)


def fleets(files: Mapping[str, bytes], namespace: str) -> list[Manifest]:
    """The fleets that the files describe, in order of files. Raises Unparsable."""
    problems: list[str] = []
    found: list[Manifest] = []
    places: dict[str, str] = {}
    for file, raw in sorted(files.items()):
        try:
            documents = list(_documents(file, raw))
        except _Broken as broken:
            problems.append(f"{file}:{broken.line}: {broken}")
            continue
        for document in documents:
            told = list(_problems(document, namespace))
            if told:
                problems += told
                continue
            if document.value["kind"] != "Fleet":
                continue
            manifest = Manifest(_bare(document.value), document.at("metadata.name"))
            first = places.setdefault(manifest.name, manifest.place)
            if first != manifest.place:
                problems.append(f"{manifest.place}: Fleet {manifest.name} is already in {first}")
            found.append(manifest)
    if problems:
        raise Unparsable(problems)
    return found


# --- from bytes to documents ---------------------------------------------------------------------


class _Broken(Exception):
    def __init__(self, line: int, why: str) -> None:
        super().__init__(why)
        self.line = line


def _documents(file: str, raw: bytes) -> Iterator[_Found]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _Broken(raw.count(b"\n", 0, error.start) + 1, "is not UTF-8") from None
    if file.endswith(".json"):
        try:
            yield _Found(file, 1, json.loads(text))
        except json.JSONDecodeError as error:
            raise _Broken(error.lineno, f"is not JSON: {error.msg}") from None
        except (RecursionError, ValueError) as error:
            raise _Broken(1, f"is not JSON: {error}") from None
        return
    yield from _of_yaml(file, text)


def _of_yaml(file: str, text: str) -> Iterator[_Found]:
    loader: Loader | None = None
    line = 1
    try:
        kubeyaml.bound_events(text)
        loader = Loader(text)
        while loader.check_node():
            node = loader.get_node()
            assert node is not None, "check_node said so"
            line = node.start_mark.line + 1
            loader.repeated.clear()
            value = loader.construct_document(node)
            twice = tuple(key for keys in loader.repeated.values() for key in keys)
            if value is not None:
                yield _Found(file, line, value, node, twice)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _Broken(mark.line + 1 if mark else line, f"is not YAML: {error.problem}") from None
    except Refused as error:
        raise _Broken(line, str(error)) from None
    except (yaml.YAMLError, ValueError) as error:
        raise _Broken(line, f"is not YAML: {' '.join(str(error).split())}") from None
    finally:
        if loader is not None:
            loader.dispose()


# --- what is wrong with a document ---------------------------------------------------------------


def _problems(found: _Found, namespace: str) -> Iterator[str]:
    value = found.value
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(kind, str) or not kind:
        yield f"{found.at('kind')}: is no manifest: apiVersion, kind and metadata.name are needed"
        return
    metadata = value.get("metadata")
    if not isinstance(metadata, dict) or not metadata.get("name"):
        yield f"{found.at('metadata')}: {kind}: metadata.name is missing"
        return
    if kind in _CATALOG:
        yield f"{found.at('kind')}: a {kind} does not belong into a ResourceSync of type fleet"
        return
    if kind != "Fleet":
        return
    for key in found.twice:
        yield f'{found.at("")}: Fleet {metadata["name"]}: the field "{key}" is there twice'
    said = metadata.get("namespace") or namespace
    if said != namespace:
        yield (
            f"{found.at('metadata.namespace')}: Fleet {metadata['name']}: is for namespace "
            f"{said}, and this ResourceSync is in {namespace}"
        )
    for complaint in validation.validate(registry.by_kind("Fleet"), _bare(value)):
        yield f"{found.at(complaint.path)}: Fleet {metadata['name']}: {complaint}"


def _bare(document: Json) -> Json:
    """The document as a manifest, without what only the service says of an object."""
    metadata = {k: v for k, v in document["metadata"].items() if k not in _SERVER_METADATA}
    kept = {key: value for key, value in document.items() if key != "status"}
    return kept | {"metadata": metadata}


def _line_of(node: yaml.Node | None, path: str) -> int:
    """The line of a field, or of the innermost object around it that there is; 0 without lines."""
    if node is None:
        return 0
    line = node.start_mark.line + 1
    for name, index in _STEP.findall(path):
        if isinstance(node, yaml.MappingNode):
            pairs = [(key, inner) for key, inner in node.value if key.value == (name or index)]
            if not pairs:
                break
            key, node = pairs[-1]
            line = key.start_mark.line + 1
        elif isinstance(node, yaml.SequenceNode) and index.isdigit():
            if int(index) >= len(node.value):
                break
            node = node.value[int(index)]
            line = node.start_mark.line + 1
        else:
            break
    return line
