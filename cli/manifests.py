"""What `-f` names: manifests in files, directories, or standard input.

A document that cannot be read is told by file and number, and then nothing is done: half of a
directory is applied by nobody's wish.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cli.problems import Problem
from cli.targets import Target

if TYPE_CHECKING:
    from cli.reaching import Reach

Json = dict[str, Any]

SUFFIXES = (".yaml", ".yml", ".json")
STDIN = "-"


class BadManifest(Problem):
    """A file, or a document in it, is not what can be applied."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """One object as a person wrote it, and where."""

    document: Json
    source: str


@dataclass(frozen=True, slots=True)
class Located:
    """A manifest and the object that it is about."""

    manifest: Manifest
    target: Target

    @property
    def document(self) -> Json:
        return self.manifest.document


def read(names: Sequence[str], *, recursive: bool = False) -> list[Manifest]:
    """All documents of the files, in order. Raises BadManifest."""
    found = [
        manifest
        for name in names
        for file in _files(name, recursive=recursive)
        for manifest in _documents(file)
    ]
    if not found:
        raise BadManifest(f"no objects passed: {', '.join(names)} has no manifest in it")
    return found


def located(reach: Reach, manifests: Iterable[Manifest]) -> list[Located]:
    """The same with their places: kinds as the server has them, namespaces filled in."""
    return [_located(reach, manifest) for manifest in manifests]


def _located(reach: Reach, manifest: Manifest) -> Located:
    document, source = manifest.document, manifest.source
    api_version, kind = document.get("apiVersion"), document.get("kind")
    if not api_version or not kind:
        raise BadManifest(f"{source} has no {'kind' if api_version else 'apiVersion'}")
    resource = reach.kinds.of(str(api_version), str(kind))
    if resource is None:
        raise BadManifest(
            f'{source}: no matches for kind "{kind}" in version "{api_version}"',
            "homeport api-resources lists what there is",
        )
    metadata = document.get("metadata") or {}
    if not isinstance(metadata, dict) or not (metadata.get("name") or metadata.get("generateName")):
        raise BadManifest(f"{source}: metadata.name is missing")
    if not resource.namespaced:
        return Located(manifest, Target(resource, "", str(metadata.get("name", ""))))
    namespace = str(metadata.get("namespace") or reach.namespace)
    if reach.is_fixed and namespace != reach.namespace:
        raise BadManifest(
            f'{source}: the namespace from the provided object "{namespace}" does not match the '
            f'namespace "{reach.namespace}"',
            f"pass --namespace={namespace}, or none",
        )
    whole = document | {"metadata": metadata | {"namespace": namespace}}
    target = Target(resource, namespace, str(metadata.get("name", "")))
    return Located(Manifest(whole, source), target)


def _files(name: str, *, recursive: bool) -> Iterator[str]:
    if name.startswith(("http://", "https://")):
        raise BadManifest(
            f"{name}: addresses are not fetched here", f"curl -L {name} | homeport ... -f -"
        )
    path = Path(name)
    if name == STDIN or path.is_file():
        yield name
    elif path.is_dir():
        inner = path.rglob("*") if recursive else path.glob("*")
        yield from sorted(str(p) for p in inner if p.suffix in SUFFIXES and p.is_file())
    elif path.exists():
        # A pipe of the shell: `-f <(...)`.
        yield name
    else:
        raise BadManifest(f'the path "{name}" does not exist')


def _documents(name: str) -> Iterator[Manifest]:
    import yaml

    from resources import kubeyaml

    shown = "STDIN" if name == STDIN else name
    try:
        text = sys.stdin.read() if name == STDIN else Path(name).read_text()
        kubeyaml.bound_events(text)
        loader = kubeyaml.Loader(text)
        number = 0
        while loader.check_data():  # type: ignore[no-untyped-call]
            document = loader.get_data()
            number += 1
            if loader.repeated:
                keys = ", ".join(key for keys in loader.repeated.values() for key in keys)
                raise BadManifest(f"error parsing {shown}: said twice: {keys}")
            if document is not None:
                where = shown if number == 1 else f"{shown}, document {number}"
                yield from _flattened(document, where)
    except (OSError, UnicodeDecodeError) as error:
        raise BadManifest(f"{shown} cannot be read: {error}") from error
    except (yaml.YAMLError, kubeyaml.Refused) as error:
        raise BadManifest(f"error parsing {shown}: {error}") from error


def _flattened(document: Any, source: str) -> Iterator[Manifest]:
    if not isinstance(document, dict):
        raise BadManifest(f"{source} is not an object")
    if str(document.get("kind", "")).endswith("List") and isinstance(document.get("items"), list):
        for place, item in enumerate(document["items"], 1):
            yield from _flattened(item, f"{source}, item {place}")
        return
    yield Manifest(document, source)
