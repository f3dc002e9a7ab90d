"""From a frozen template to a device's specification, and to what its agent is given. Pure.

What comes out depends on the template, and on what its outside sources gave when they were frozen,
alone; then one render serves every device of the fleet. A source that is not frozen is refused by
name, and so is a string with parameters, whose evaluation comes with issue 7; a device keeps its
last good specification meanwhile.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from resources import configproviders, manifest
from resources.copying import copied
from resources.errors import FORBIDDEN, NOT_SUPPORTED, FieldError, Invalid
from resources.manifest import Frozen

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
    text. Raises NotFrozen and Unsupported with the paths of what stands in the way.
    """
    check(template, templated=templated, frozen=frozen.files)
    spec = {key: copied(value) for key, value in template.items() if key not in BESIDE}
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


# Of a TemplateVersion's status: what is not template.
BESIDE = frozenset(("conditions", "updatedAt", "inputs"))


def outside(template: Json) -> list[tuple[str, Json]]:
    """(`config[0].gitRef`, provider) of each provider whose content is not in the template."""
    return [
        (f"config[{number}].{source}", provider)
        for number, provider in enumerate(template.get("config") or ())
        if (source := configproviders.source_of(provider)) in OUTSIDE
    ]


def check(
    template: Json, root: str = "", *, templated: bool = True, frozen: Container[str] = ()
) -> None:
    """Raise NotFrozen or Unsupported, with all complaints of the sort, if it cannot be rendered.
    `frozen` are the names of the providers from outside whose content is there."""
    prefix = f"{root}." if root else ""
    parameters = [
        FieldError(prefix + path, NOT_SUPPORTED, "parameters in templates are not rendered yet")
        for path in (parameterised(template) if templated else ())
    ]
    if parameters:
        raise Unsupported(parameters)
    unsupported = [
        FieldError(prefix + path, NOT_SUPPORTED, why) for path, why in _unsupported(template)
    ]
    if unsupported:
        raise Unsupported(unsupported)
    missing = [
        FieldError(prefix + path, FORBIDDEN, "its content has not been fetched")
        for path, provider in outside(template)
        if provider["name"] not in frozen
    ]
    if missing:
        raise NotFrozen(missing)


def parameterised(template: Json) -> list[str]:
    """Paths of the strings that hold a parameter, as `os.image`. Only the strings that the contract
    names (6.3) are templates; braces anywhere else are text."""
    encoded = {
        f"{path}.content": file.get("content")
        for path, file in _inline(template)
        if file.get("contentEncoding") == "base64"
    }
    return [
        path
        for path, text in _strings(template, "")
        if _TEMPLATED.fullmatch(path)
        and (_decoded(text) if path in encoded else text).find("{{") >= 0
    ]


_TEMPLATED = re.compile(
    r"os\.image"
    r"|config\[\d+\]\.(gitRef\.(targetRevision|path)|httpRef\.(suffix|filePath)"
    r"|secretRef\.(name|namespace|mountPath)|inline\[\d+\]\.(path|content))"
    r"|applications\[\d+\]\.(image|inline\[\d+\]\.(path|content)|envVars\..+"
    r"|volumes\[\d+\]\.image\.reference)",
    re.DOTALL,
)


def _inline(template: Json) -> Iterator[tuple[str, Json]]:
    for part in ("config", "applications"):
        for number, holder in enumerate(template.get(part) or ()):
            for position, file in enumerate(holder.get("inline") or ()):
                yield f"{part}[{number}].inline[{position}]", file


def _decoded(text: str) -> str:
    try:
        return base64.b64decode(text, validate=True).decode("latin-1")
    except ValueError:
        # Not base64 after all; validation has said so, and there is nothing in it to evaluate.
        return ""


def _strings(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from _strings(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _strings(inner, f"{path}[{number}]")


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
