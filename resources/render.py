"""From a frozen template to a device's specification, and to what its agent is given. Pure.

What comes out depends on the template, on what its outside sources gave when they were frozen, and
on what of the device `parameters.uses` names, alone: one render serves every device that agrees in
that. What cannot be rendered is refused by name; a device keeps its last good specification
meanwhile. What comes out of parameters is checked as if somebody had written it, so that no label
leads a file to where none may go.
"""

from __future__ import annotations

import base64
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from resources import configproviders, device, formats, manifest, parameters, references
from resources.copying import copied
from resources.errors import FORBIDDEN, INVALID, NOT_SUPPORTED, FieldError, Invalid
from resources.manifest import File, Frozen
from resources.parameters import Unresolved
from resources.references import Reference

Json = dict[str, Any]

OUTSIDE = ("gitRef", "httpRef", "secretRef")
_PARTS = ("os", "resources", "systemd", "updatePolicy", "decommissioning")


class NotFrozen(Invalid):
    """The template points at something outside that has not been fetched and frozen."""


class Unsupported(Invalid):
    """The template uses something that this version does not render."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """`spec` is what users see as the device's spec, `rendered` what the agent is given."""

    spec: Json
    rendered: Json


def render(
    template: Json,
    *,
    name: str,
    labels: Mapping[str, str],
    templated: bool = True,
    frozen: Frozen = manifest.NOTHING,
) -> Rendered:
    """Render a DeviceSpec or a frozen template. `name` and `labels` are the device's.

    Only a fleet's template has parameters: in a device's own spec (`templated` false) braces are
    text. Raises NotFrozen and Unsupported with the paths of what stands in the way, and Unresolved
    if only this device's name or labels do.
    """
    check(template, templated=templated, frozen=frozen.files)
    return evaluate(template, name=name, labels=labels, templated=templated, frozen=frozen)


def evaluate(
    template: Json,
    *,
    name: str,
    labels: Mapping[str, str],
    templated: bool = True,
    frozen: Frozen = manifest.NOTHING,
) -> Rendered:
    """`render` of what has passed `check`, for who has many devices. `frozen` holds what the
    device's own references gave, too. Raises Unresolved."""
    spec, resolved = _resolved(template, name, labels, templated=templated)
    if resolved:
        frozen = _relocated(template, spec, frozen)
        if complaints := list(_together(template, spec, frozen, resolved)):
            raise Unresolved(complaints)
    rendered: Json = {key: spec[key] for key in _PARTS if key in spec}
    image = (spec.get("os") or {}).get("image")
    if image:
        rendered["os"] = {"image": image}
    else:
        rendered.pop("os", None)
    files = list(_files(spec.get("config") or (), frozen))
    rendered["config"] = [{"name": "", "inline": files}] if files else []
    rendered["applications"] = [_application(a) for a in spec.get("applications") or ()]
    rendered["consoles"] = spec.get("consoles") or []
    return Rendered(spec, rendered)


def needed(template: Json, *, name: str, labels: Mapping[str, str]) -> list[Reference]:
    """What a device needs of the template's open providers, if it could be rendered then. Raises
    Unresolved with all that is wrong already."""
    spec, _ = _resolved(template, name, labels)
    found = references.of(template, spec)
    if complaints := list(references.too_long(found)):
        raise Unresolved(complaints)
    return found


def _resolved(
    template: Json, name: str, labels: Mapping[str, str], *, templated: bool = True
) -> tuple[Json, list[str]]:
    """The specification of a device, and the fields that held parameters. Raises Unresolved for
    what nobody may have written."""
    spec = {key: copied(value) for key, value in template.items() if key not in BESIDE}
    resolved = parameters.resolve(spec, name, labels) if templated else []
    if resolved and (complaints := list(device.check_spec(spec, ""))):
        raise Unresolved(replace(error, path=error.path.removeprefix(".")) for error in complaints)
    return spec, resolved


# Of a TemplateVersion's status: what is not template.
BESIDE = frozenset(("conditions", "updatedAt", "inputs"))


def outside(template: Json) -> list[tuple[str, Json]]:
    """(`config[0].gitRef`, provider) of each provider whose content is not in the template."""
    return [
        (f"config[{number}].{source}", provider)
        for number, provider in enumerate(template.get("config") or ())
        if (source := configproviders.source_of(provider)) in OUTSIDE
    ]


def fixed(template: Json, *, templated: bool = True) -> list[tuple[str, Json]]:
    """Those whose content is the same for every device: in a device's own spec, all."""
    return [
        (path, provider)
        for path, provider in outside(template)
        if not (templated and references.is_open(provider))
    ]


def check(
    template: Json, root: str = "", *, templated: bool = True, frozen: Container[str] = ()
) -> None:
    """Raise NotFrozen, Unsupported, or Invalid for parameters that no device can have, with all
    complaints of the sort, if it cannot be rendered.
    `frozen` are the names of the providers from outside whose content is there; of a template,
    that of open ones is known for a device only."""
    prefix = f"{root}." if root else ""
    if templated and (complaints := list(parameters.check(template, root))):
        raise Invalid(complaints)
    unsupported = [
        FieldError(prefix + path, NOT_SUPPORTED, why) for path, why in _unsupported(template)
    ]
    if unsupported:
        raise Unsupported(unsupported)
    missing = [
        FieldError(prefix + path, FORBIDDEN, "its content has not been fetched")
        for path, provider in fixed(template, templated=templated)
        if provider["name"] not in frozen
    ]
    if missing:
        raise NotFrozen(missing)


def _relocated(template: Json, spec: Json, frozen: Frozen) -> Frozen:
    """The frozen files where they go on this device, for they were frozen before that was known.
    Raises Unresolved."""
    files: dict[str, Sequence[File]] = dict(frozen.files)
    complaints: list[FieldError] = []
    for number, (was, now) in enumerate(
        zip(template.get("config") or (), spec.get("config") or (), strict=True)
    ):
        for source, key in (("httpRef", "filePath"), ("secretRef", "mountPath")):
            if source not in was or was[source][key] == now[source][key]:
                continue
            old = references.standing(was)[source][key].rstrip("/")
            new = now[source][key].rstrip("/")
            moved = [
                replace(file, path=new + file.path.removeprefix(old)) for file in files[was["name"]]
            ]
            files[was["name"]] = moved
            path = f"config[{number}].{source}.{key}"
            wrong = filter(None, (formats.target_path(file.path) for file in moved))
            complaints += [FieldError(path, INVALID, problem) for problem in wrong]
    if complaints:
        raise Unresolved(complaints)
    return replace(frozen, files=files)


_PATHS = (".path", ".filePath", ".mountPath")


def _together(
    template: Json, spec: Json, frozen: Frozen, resolved: Sequence[str]
) -> Iterator[FieldError]:
    """What is wrong with all files of a device, where that was not known before."""
    is_open = references.are_open(template)
    if not (is_open or any(path.endswith(_PATHS) for path in resolved)):
        return
    files = [file for some in frozen.files.values() for file in some]
    paths, size = [file.path for file in files], sum(file.size for file in files)
    for provider in spec.get("config") or ():
        for entry in provider.get("inline") or ():
            paths.append(entry["path"])
            size += len(entry.get("content") or "")
    if problem := manifest.check_whole(paths, size if is_open else 0):
        yield FieldError("config", INVALID, problem)


def _unsupported(template: Json) -> Iterator[tuple[str, str]]:
    if "catalogItemRef" in (template.get("os") or {}):
        yield "os.catalogItemRef", _NO_CATALOGS
    for number, application in enumerate(template.get("applications") or ()):
        if "catalogItemRef" in application:
            yield f"applications[{number}].catalogItemRef", _NO_CATALOGS
        if application.get("appType") == "vm":
            yield f"applications[{number}].appType", "virtual machines are not rendered yet"


_NO_CATALOGS = "catalogs are not served"


def _files(providers: Any, frozen: Frozen) -> Iterator[Json]:
    """Every file, in list order; a later one of the same path takes the first one's place."""
    by_path: dict[str, Json] = {}
    for provider in providers:
        if configproviders.source_of(provider) in OUTSIDE:
            for file in frozen.files[provider["name"]]:
                by_path[file.path] = _frozen_file(file, frozen.blobs[file.digest])
            continue
        for entry in provider.get("inline") or ():
            by_path[entry["path"]] = _file(entry)
    return iter(by_path.values())


def _frozen_file(file: manifest.File, blob: bytes) -> Json:
    entry = {"path": file.path, "mode": file.mode, "user": file.user, "group": file.group}
    content = base64.b64encode(blob).decode()
    return _file(entry | {"content": content, "contentEncoding": "base64"})


def _file(entry: Json) -> Json:
    content = entry.get("content") or ""
    if entry.get("contentEncoding") != "base64":
        content = base64.b64encode(content.encode()).decode()
    file: Json = {
        "path": entry["path"],
        "content": content,
        "contentEncoding": "base64",
        "mode": entry.get("mode") if entry.get("mode") is not None else manifest.DEFAULT_MODE,
        "user": entry.get("user") or manifest.DEFAULT_USER,
    }
    if entry.get("group"):
        file["group"] = entry["group"]
    return file


def _application(application: Json) -> Json:
    result = copied(application)
    if result.get("appType") == "container":
        result.setdefault("runAs", "")
    return result
