"""What the inline files of an application must hold: Compose, Quadlet, virtual machine.

The invariant: what passes here is complete in itself (every reference resolves inside the set)
and names every image with its registry, so that an agent can fetch everything beforehand and
needs no search list. Names that would collide with another application's are refused.

A file whose text or path holds a parameter is unknown until it is bound, so its content is left
alone here; the file still counts as being there.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from resources import formats, unitfile
from resources.errors import FORBIDDEN, INVALID, NOT_FOUND, NOT_SUPPORTED, REQUIRED, FieldError
from resources.formats import is_parameterised, shown
from resources.kind import Json
from resources.meta import Complaints, Unique, complain, mapping

# libyaml reads a megabyte in the time that the Python one reads a page.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class File:
    """One inline file: where it stands in the document, and its text, if that is known."""

    at: str
    path: str
    text: str | None


def readable(inline: object, at: str, *, templated: bool) -> list[File]:
    """The files whose path is a string; text is None where it is not known or not text."""
    files = []
    for index, item in enumerate(inline if isinstance(inline, list) else ()):
        if not isinstance(item, dict) or not isinstance(item.get("path"), str):
            continue
        files.append(File(f"{at}[{index}]", item["path"], _text(item, templated=templated)))
    return files


def _text(item: Json, *, templated: bool) -> str | None:
    content = item.get("content") or ""
    if not isinstance(content, str) or len(content) > formats.MAX_CONTENT_BYTES:
        return None
    if item.get("contentEncoding") == "base64":
        blob = formats.decoded(content)
        if blob is None:
            return None
        try:
            content = blob.decode()
        except UnicodeDecodeError:
            return None
    return None if templated and is_parameterised(content) else content


def _parse_yaml(file: File) -> tuple[Any, str | None]:
    """The one document in the file, or what is wrong with it."""
    try:
        return yaml.load(file.text or "", Loader=_LOADER), None  # noqa: S506 — a safe loader
    except yaml.MarkedYAMLError as error:
        line = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        return None, f"is not YAML: {error.problem}{line}"
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        return None, f"is not YAML: {type(error).__name__}"


# --- Compose -------------------------------------------------------------------------------------

_COMPOSE_FAMILIES = ("docker-compose", "podman-compose")
_COMPOSE_BASES = tuple(f"{f}.{e}" for f in _COMPOSE_FAMILIES for e in ("yaml", "yml"))
_COMPOSE_OVERRIDES = tuple(f"{f}.override.{e}" for f in _COMPOSE_FAMILIES for e in ("yaml", "yml"))


def check_compose(files: list[File], at: str) -> Complaints:
    names = {file.path.removeprefix("./"): file for file in files}
    bases = [name for name in names if name in _COMPOSE_BASES]
    overrides = [name for name in names if name in _COMPOSE_OVERRIDES]
    for name, file in names.items():
        if name not in (*_COMPOSE_BASES, *_COMPOSE_OVERRIDES) and not is_parameterised(name):
            allowed = ", ".join(_COMPOSE_BASES)
            detail = f"{shown(name)} is no Compose file; allowed: {allowed} and one override"
            yield FieldError(f"{file.at}.path", NOT_SUPPORTED, detail)
    if not bases:
        yield FieldError(at, REQUIRED, f"add one base file: {' or '.join(_COMPOSE_BASES)}")
    for name in (*bases[1:], *overrides[1:]):
        detail = "only one base file and one override; put the services into one"
        yield FieldError(f"{names[name].at}.path", FORBIDDEN, detail)
    if bases and overrides and bases[0].partition(".")[0] != overrides[0].partition(".")[0]:
        detail = f"an override of {bases[0]} begins with {bases[0].partition('.')[0]}."
        yield FieldError(f"{names[overrides[0]].at}.path", INVALID, detail)
    for name in (*bases, *overrides):
        if names[name].text is not None:
            yield from _compose_file(names[name])


def _compose_file(file: File) -> Complaints:
    at = f"{file.at}.content"
    document, problem = _parse_yaml(file)
    if problem:
        yield FieldError(at, INVALID, problem)
        return
    services = mapping(document, "services")
    if not services:
        yield FieldError(at, INVALID, "has no services: a Compose file needs at least one")
    for name, service in services.items():
        if not isinstance(service, dict):
            yield FieldError(at, INVALID, f"service {name}: must be an object with an image")
            continue
        image = service.get("image")
        if not isinstance(image, str):
            yield FieldError(at, INVALID, f"service {name}: needs an image")
        elif problem := formats.image(image, strict=True):
            yield FieldError(at, INVALID, f"service {name}: image {problem}")
        if "container_name" in service:
            detail = (
                f"service {name}: remove container_name, which would collide between applications"
            )
            yield FieldError(at, FORBIDDEN, detail)


# --- Quadlet -------------------------------------------------------------------------------------

SECTIONS: Mapping[str, str] = {
    ".container": "Container",
    ".volume": "Volume",
    ".network": "Network",
    ".image": "Image",
    ".pod": "Pod",
    ".kube": "Kube",
}
_WORKLOADS = (".container", ".pod", ".kube")
_REFUSED_UNITS = (".build", ".artifact")
# Which keys may name another unit, and of what kind.
_REFERENCES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    ".container": {
        "Image": (".image",),
        "Network": (".network",),
        "Pod": (".pod",),
        "Volume": (".volume",),
        "Mount": (".volume", ".image"),
    },
    ".pod": {"Network": (".network",), "Volume": (".volume",)},
    ".kube": {"Network": (".network",)},
    ".volume": {"Image": (".image",)},
}
# Podman gives containers and pods names from one space.
_NAME_KEYS: Mapping[str, tuple[str, str]] = {
    ".container": ("ContainerName", "container"),
    ".pod": ("PodName", "container"),
    ".network": ("NetworkName", "network"),
    ".volume": ("VolumeName", "volume"),
}


@dataclass(frozen=True, slots=True)
class Unit:
    """A parsed unit: its file, its extension, and the keys of each section in order."""

    file: File
    extension: str
    sections: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def values(self, key: str) -> Iterator[str]:
        for name, value in self.sections.get(SECTIONS[self.extension], ()):
            if name == key and value:
                yield value


def check_quadlet(files: list[File], at: str) -> Complaints:
    units: list[Unit] = []
    for file in files:
        extension = file.path[file.path.rfind(".") :] if "." in file.path else ""
        if extension in _REFUSED_UNITS:
            detail = f"{extension} units cannot be used: images are built before, not on devices"
            yield FieldError(f"{file.at}.path", NOT_SUPPORTED, detail)
        elif extension in SECTIONS:
            if "/" in file.path.removeprefix("./"):
                yield FieldError(
                    f"{file.at}.path", INVALID, "units stand at the root: no directory"
                )
            units.append((yield from _parsed(file, extension)))
    if any(is_parameterised(file.path) for file in files):
        return
    if not any(unit.extension in _WORKLOADS for unit in units):
        yield FieldError(at, REQUIRED, "add a unit that runs: .container, .pod or .kube")
    yield from _check_references(units, files)
    yield from _check_unit_names(units)


def _parsed(file: File, extension: str) -> Generator[FieldError, None, Unit]:
    if file.text is None:
        return Unit(file, extension)
    at = f"{file.at}.content"
    try:
        sections = unitfile.parse(file.text)
    except ValueError as error:
        yield FieldError(at, INVALID, f"is no unit file: {error}")
        return Unit(File(file.at, file.path, None), extension)
    wanted = SECTIONS[extension]
    if wanted not in sections:
        found = ", ".join(f"[{name}]" for name in sections) or "no section"
        yield FieldError(at, INVALID, f"a {extension} unit needs a section [{wanted}], has {found}")
    for name in sections:
        if name != wanted and name in SECTIONS.values():
            detail = f"a section [{name}] does not belong into a {extension} unit"
            yield FieldError(at, INVALID, detail)
    return Unit(file, extension, sections)


def _check_references(units: list[Unit], files: list[File]) -> Complaints:
    present = {file.path.removeprefix("./") for file in files}
    for unit in units:
        at = f"{unit.file.at}.content"
        if unit.file.text is None or SECTIONS[unit.extension] not in unit.sections:
            continue
        if unit.extension in (".container", ".image"):
            yield from _check_image(unit, at)
        for key, extensions in _REFERENCES.get(unit.extension, {}).items():
            for value in unit.values(key):
                for name in _referred(key, value):
                    if name.endswith(extensions) and name not in present:
                        detail = f"{key}={value}: there is no {name} among the inline files"
                        yield FieldError(at, NOT_FOUND, detail)
        if unit.extension == ".kube":
            yield from _check_kube(unit, files, at)


def _referred(key: str, value: str) -> Iterator[str]:
    if key == "Mount":
        for part in value.split(","):
            name, _, source = part.partition("=")
            if name.strip() in ("source", "src"):
                yield source.strip()
    else:
        yield value.partition(":")[0] if key in ("Volume", "Network") else value


def _check_image(unit: Unit, at: str) -> Complaints:
    image = next(unit.values("Image"), None)
    if image is None:
        section = SECTIONS[unit.extension]
        yield FieldError(at, REQUIRED, f"the section [{section}] needs Image=")
    elif not (unit.extension == ".container" and image.endswith(".image")):
        yield from complain(at, formats.image(image, strict=True))


def _check_kube(unit: Unit, files: list[File], at: str) -> Complaints:
    name = next(unit.values("Yaml"), None)
    manifest = next((f for f in files if f.path.removeprefix("./") == name), None)
    if name is None:
        yield FieldError(at, REQUIRED, "the section [Kube] needs Yaml=")
    elif manifest is None:
        yield FieldError(at, NOT_FOUND, f"Yaml={name}: there is no {name} among the inline files")
    elif manifest.text is not None:
        document, problem = _parse_yaml(manifest)
        right = mapping(document).get("kind") == "Pod" and mapping(document).get("apiVersion")
        if problem or not right:
            detail = problem or "must be a manifest with an apiVersion and kind: Pod"
            yield FieldError(f"{manifest.at}.content", INVALID, detail)


def _check_unit_names(units: list[Unit]) -> Complaints:
    spaces: dict[str, Unique] = {}
    for unit in units:
        if unit.extension in _NAME_KEYS:
            key, space = _NAME_KEYS[unit.extension]
            unique = spaces.setdefault(space, Unique(f"{space} name"))
            for name in unit.values(key):
                yield from unique.check(f"{unit.file.at}.content", name)


# --- Virtual machine -----------------------------------------------------------------------------


def check_vm(files: list[File], at: str, name: str | None) -> Complaints:
    if len(files) != 1 or files[0].path not in ("vm.yaml", "./vm.yaml"):
        yield FieldError(at, INVALID, "give exactly one file: vm.yaml")
        return
    if files[0].text is None:
        return
    here = f"{files[0].at}.content"
    document, problem = _parse_yaml(files[0])
    if problem:
        yield FieldError(here, INVALID, problem)
        return
    manifest = mapping(document)
    wanted = {"kind": "VirtualMachine", "apiVersion": "kubevirt.io/v1"}
    for key, value in wanted.items():
        if manifest.get(key) != value:
            yield FieldError(here, INVALID, f"must say {key}: {value}")
    if mapping(manifest, "metadata").get("name") != name:
        detail = f"metadata.name must be the name of the application, {shown(name or '')}"
        yield FieldError(here, INVALID, detail)


CHECKS: Mapping[str, Callable[[list[File], str, str | None], Complaints]] = {
    "compose": lambda files, at, _: check_compose(files, at),
    "quadlet": lambda files, at, _: check_quadlet(files, at),
    "vm": check_vm,
}
