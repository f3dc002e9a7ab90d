"""Parameters of a template: in which fields they may stand, and what they are for one device. Pure.

Only the strings that the contract names (6.3) are templates; braces anywhere else are text. Content
in base64 is a template in what it encodes, byte for byte.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from resources import formats, templating
from resources.errors import INVALID, FieldError, Invalid
from resources.formats import is_parameterised
from resources.kind import Json
from resources.templating import Template, TemplateError, Used

_PROVIDERS = {
    "gitRef": ("targetRevision", "path"),
    "httpRef": ("suffix", "filePath"),
    "secretRef": ("name", "namespace", "mountPath"),
}
# What is fetched from outside depends on these.
SOURCES = {
    "gitRef": ("targetRevision", "path"),
    "httpRef": ("suffix",),
    "secretRef": ("name", "namespace"),
}


class Unresolved(Invalid):
    """A template cannot be what it should be for one device. The message is what people read in the
    device's status: each field with its complaint."""

    def __str__(self) -> str:
        return "; ".join(f"{error.path}: {error.detail}" for error in self.errors)


@dataclass(frozen=True, slots=True)
class Field:
    """A field that holds parameters: `holder[key]`."""

    path: str
    holder: Json
    key: str
    text: str
    is_base64: bool = False

    def parsed(self) -> Template:
        return templating.parse(self.text)

    def resolve(self, name: str, labels: Mapping[str, str]) -> None:
        """Put what it is for a device in its place. Raises TemplateError."""
        text = self.parsed().evaluate(name, labels)
        if self.is_base64:
            text = base64.b64encode(text.encode(errors="surrogateescape")).decode()
        self.holder[self.key] = text


def fields(template: Json) -> Iterator[Field]:
    """The fields of a DeviceSpec that hold parameters."""
    for path, holder, key in _candidates(template):
        text = holder.get(key)
        if not isinstance(text, str):
            continue
        is_base64 = key == "content" and holder.get("contentEncoding") == "base64"
        if is_base64:
            # What is no base64 has been refused when it was written.
            text = (formats.decoded(text) or b"").decode(errors="surrogateescape")
        if is_parameterised(text):
            yield Field(path, holder, key, text, is_base64)


def _candidates(template: Json) -> Iterator[tuple[str, Json, str]]:
    yield from _in(template.get("os"), "os", ("image",))
    for number, provider in _items(template, "config"):
        here = f"config[{number}]"
        for source, keys in _PROVIDERS.items():
            yield from _in(provider.get(source), f"{here}.{source}", keys)
        yield from _inline(provider, here)
    for number, application in _items(template, "applications"):
        here = f"applications[{number}]"
        yield here + ".image", application, "image"
        yield from _inline(application, here)
        variables = application.get("envVars")
        if isinstance(variables, dict):
            for name in variables:
                yield f"{here}.envVars[{name}]", variables, name
        for place, volume in _items(application, "volumes"):
            at = f"{here}.volumes[{place}].image"
            yield from _in(volume.get("image"), at, ("reference",))


def _inline(holder: Json, path: str) -> Iterator[tuple[str, Json, str]]:
    for place, file in _items(holder, "inline"):
        yield from _in(file, f"{path}.inline[{place}]", ("path", "content"))


def _in(holder: object, path: str, keys: tuple[str, ...]) -> Iterator[tuple[str, Json, str]]:
    if isinstance(holder, dict):
        for key in keys:
            yield f"{path}.{key}", holder, key


def _items(holder: Json, key: str) -> Iterator[tuple[int, Json]]:
    found = holder.get(key)
    for number, item in enumerate(found if isinstance(found, list) else ()):
        if isinstance(item, dict):
            yield number, item


def check(template: Json, root: str = "") -> Iterator[FieldError]:
    """What is wrong with the parameters whatever the device: each template is parsed, and
    evaluated for a device without labels, as the reference does it."""
    prefix = f"{root}." if root else ""
    for field in fields(template):
        try:
            field.parsed().check()
        except TemplateError as problem:
            yield FieldError(prefix + field.path, INVALID, str(problem))


def uses(template: Json) -> Used:
    """What of a device a template looks at; nothing if it has no parameters. Devices that agree in
    it are given the same. Raises Invalid."""
    found, complaints = Used(), []
    for field in fields(template):
        try:
            found |= field.parsed().uses
        except TemplateError as problem:
            complaints.append(FieldError(field.path, INVALID, str(problem)))
    if complaints:
        raise Invalid(complaints)
    return found


def resolve(spec: Json, name: str, labels: Mapping[str, str]) -> list[str]:
    """Put the values for a device in the place of all parameters, and say where there were any.
    Raises Unresolved with all that is wrong."""
    found, complaints = [], []
    for field in fields(spec):
        found.append(field.path)
        try:
            field.resolve(name, labels)
        except TemplateError as problem:
            complaints.append(FieldError(field.path, INVALID, str(problem)))
    if complaints:
        raise Unresolved(complaints)
    return found
