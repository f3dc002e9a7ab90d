"""What a template takes from outside only once it is known for which device. Pure.

A provider is *open* where parameters decide what is fetched: the branch, the path, the suffix, the
Secret. What they come to for a device is a reference; devices that come to the same share what was
fetched, however their labels differ. A reference counts within one template version: there it means
the same bytes for ever.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from resources import configproviders, digest
from resources.errors import TOO_LONG, FieldError
from resources.formats import is_parameterised
from resources.parameters import SOURCES

Json = dict[str, Any]

VALUE_MAX = 2048
# Where files stand while they are frozen, if where they go depends on the device: what the template
# says then need be no path.
STAND_IN = "/-"
_PLACES = {"httpRef": "filePath", "secretRef": "mountPath"}


@dataclass(frozen=True, slots=True)
class Reference:
    """What the provider `input`, at `path` (`config[0].gitRef`), is to fetch for some devices."""

    input: str
    path: str
    values: Mapping[str, str]

    def key(self, version: str) -> str:
        """Its name within the store; `version` is the uid of the template version."""
        return digest.of([version, self.input, dict(self.values)])

    def told(self, field: str, cause: str) -> str:
        """Why it can't be had, as people read it on the devices that need it. `field` is the
        provider's that is to blame, such as `gitRef.path`."""
        source, _, name = field.partition(".")
        if not name or not self.path.endswith("." + source):
            return f"{self.path} {self}: {cause}"
        return f"{self.path}.{name} {self._shown(name)}: {cause}"

    def _shown(self, name: str) -> str:
        return _quoted(self.values[name]) if name in self.values else str(self)

    def __str__(self) -> str:
        return "(" + ", ".join(f"{k} {_quoted(v)}" for k, v in self.values.items()) + ")"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def is_open(provider: Any) -> bool:
    """Whether what the provider gives depends on the device."""
    source = configproviders.source_of(provider) or ""
    keys = SOURCES.get(source, ())
    return any(is_parameterised(provider[source].get(key)) for key in keys)


def are_open(template: Json) -> bool:
    """Whether some provider is."""
    return any(True for _ in opened(template))


def opened(template: Json) -> Iterator[tuple[int, str, Json]]:
    """(place in config, source, provider) of each open one."""
    for number, provider in enumerate(template.get("config") or ()):
        if is_open(provider):
            yield number, configproviders.source_of(provider) or "", provider


def of(template: Json, spec: Json) -> list[Reference]:
    """What a device needs of the template's open providers; `spec` is the template with the
    device's values in it."""
    found = []
    for number, source, provider in opened(template):
        reference = spec["config"][number][source]
        values = {key: reference[key] for key in SOURCES[source] if key in reference}
        found.append(Reference(provider["name"], f"config[{number}].{source}", values))
    return found


def too_long(found: list[Reference]) -> Iterator[FieldError]:
    """A field of a reference may be as long as the same field without parameters, and no longer."""
    for reference in found:
        for key, value in reference.values.items():
            if len(value) > VALUE_MAX:
                detail = f"{len(value)} characters; {VALUE_MAX} at most"
                yield FieldError(f"{reference.path}.{key}", TOO_LONG, detail)


def standing(provider: Json) -> Json:
    """The provider as its files are frozen."""
    source = configproviders.source_of(provider) or ""
    key = _PLACES.get(source)
    if key is None or not is_parameterised(provider[source].get(key)):
        return provider
    return provider | {source: provider[source] | {key: STAND_IN}}


def is_standing_in(path: str) -> bool:
    """Whether a frozen file has no place of its own yet."""
    return path == STAND_IN or path.startswith(STAND_IN + "/")


def filled(template: Json, name: str, values: Mapping[str, str]) -> tuple[str, Json] | None:
    """The open provider `name` as it is fetched for `values`, with its path; None if the template
    has no such one."""
    for number, source, provider in opened(template):
        if provider["name"] == name:
            reference = provider[source] | dict(values)
            return f"config[{number}].{source}", standing(provider | {source: reference})
    return None
