"""Further certificates that this device is to have, as `certs.yaml` and `certs.d` name them. Pure.

For what runs beside the agent (a collector of telemetry, say) and shows the service a certificate
of its own. The file format is flightctl's: a document, or a list of them, an entry each. An entry
that cannot be used is named and left out, and costs the others nothing.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from typing import Any

from agent import durations
from resources.records import dataclass

Json = dict[str, Any]

FILE, FOLDER = "certs.yaml", "certs.d"
ENDS = (".yaml", ".yml")
ENTRIES_MAX = 50
USAGES = ("clientAuth", "CA:false")
# Of the lifetime, where an entry says nothing of when.
RENEW_BEFORE = 1 / 3
_DEVICE = re.compile(r"\{\{-?\s*\.DEVICE_ID\s*-?\}\}")
# As the service takes names.
_NAME_CHARS_MAX = 253


class Invalid(ValueError):
    """What is wrong with an entry, for people."""


@dataclass(frozen=True, slots=True)
class Provision:
    """`before_s` or `before_share` of the lifetime: what is left when it is due for renewal."""

    name: str
    signer: str
    common_name: str
    certificate: str
    key: str
    usages: tuple[str, ...] = USAGES
    lifetime_s: int = 0
    before_s: float = 0.0
    before_share: float = RENEW_BEFORE

    def is_due(self, *, begin: float, end: float, now: float, chance: float) -> bool:
        """`chance`, in [0, 1), spreads a fleet over a tenth of the time that is left."""
        before = self.before_s or (end - begin) * self.before_share
        return now >= end - before * (1 - chance / 10)


def read(documents: Iterable[tuple[str, Any]], device: str) -> tuple[list[Provision], list[str]]:
    """From (path, parsed YAML): the entries, and a sentence for each that was left out."""
    found: dict[str, Provision] = {}
    places: dict[str, str] = {}
    complaints: list[str] = []
    for path, document in documents:
        entries = document if isinstance(document, list) else [document]
        for at, entry in enumerate(entry for entry in entries if entry is not None):
            where = f"{path}[{at}]"
            try:
                one = _entry(entry, device)
                if one.name in found:
                    raise Invalid(f"name: there is a {one.name} before")
                for place in (one.certificate, one.key):
                    if place in places:
                        raise Invalid(f"storage: {place} is that of {places[place]}")
                if len(found) == ENTRIES_MAX:
                    raise Invalid(f"there are more than {ENTRIES_MAX}")
            except Invalid as error:
                complaints.append(f"{where}: {error}")
                continue
            found[one.name] = one
            places |= {one.certificate: one.name, one.key: one.name}
    return list(found.values()), complaints


def _entry(entry: Any, device: str) -> Provision:
    if not isinstance(entry, dict):
        raise Invalid("not an object")
    name = _text(entry, "name")
    if not name:
        raise Invalid("name is missing")
    how = _section(entry, "provisioner", "csr")
    where = _section(entry, "storage", "filesystem")
    signer = _text(how, "signer", at="provisioner.config.")
    if not signer:
        raise Invalid("provisioner.config.signer is missing")
    kind = _text(how, "identity-type", at="provisioner.config.")
    if kind not in ("", "software"):
        raise Invalid(f"provisioner.config.identity-type: {kind} is not supported, only software")
    certificate, key = _path(where, "cert-path"), _path(where, "key-path")
    if certificate == key:
        raise Invalid(f"storage.config.key-path: {key} is no place of its own")
    before_s, share = _before(entry)
    return Provision(
        name,
        signer,
        _common_name(_text(how, "common-name", at="provisioner.config.") or name, device),
        certificate,
        key,
        _usages(how),
        _seconds(how),
        before_s,
        share,
    )


def _section(entry: Json, key: str, kind: str) -> Json:
    section = entry.get(key)
    if not isinstance(section, dict):
        raise Invalid(f"{key} is missing")
    if section.get("type") != kind:
        raise Invalid(f"{key}.type: {section.get('type')!r} is not known, only {kind}")
    config = section.get("config")
    if not isinstance(config, dict):
        raise Invalid(f"{key}.config is missing")
    return config


def _text(section: Json, key: str, *, at: str = "") -> str:
    value = section.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Invalid(f"{at}{key}: not a text")
    return value


def _common_name(template: str, device: str) -> str:
    text = _DEVICE.sub(device, template)
    if "{{" in text:
        raise Invalid("provisioner.config.common-name: there is {{.DEVICE_ID}} and nothing else")
    if len(text) > _NAME_CHARS_MAX - 9:
        raise Invalid("provisioner.config.common-name is too long")
    return text


def _path(section: Json, key: str) -> str:
    path = _text(section, key, at="storage.config.")
    if not path.startswith("/") or posixpath.normpath(path) != path or path == "/":
        raise Invalid(f"storage.config.{key}: {path!r} is no absolute path of a file")
    return path


def _usages(section: Json) -> tuple[str, ...]:
    found = section.get("usages") or []
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise Invalid("provisioner.config.usages: not a list of texts")
    return tuple(dict.fromkeys((*USAGES, *found)))


def _seconds(section: Json) -> int:
    value = section.get("expiration-seconds")
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise Invalid("provisioner.config.expiration-seconds: not a number of seconds")
    return value


def _before(entry: Json) -> tuple[float, float]:
    """`renewBefore` wins over `renewBeforePercentage`, which is of the lifetime that is left."""
    text, percent = entry.get("renewBefore"), entry.get("renewBeforePercentage")
    if text is not None:
        try:
            seconds = durations.parse(str(text))
        except ValueError as error:
            raise Invalid(f"renewBefore: {error}") from error
        if seconds <= 0:
            raise Invalid("renewBefore: must be more than nothing")
        return seconds, RENEW_BEFORE
    if percent is None:
        return 0.0, RENEW_BEFORE
    if not isinstance(percent, int) or isinstance(percent, bool) or not 0 < percent < 100:
        raise Invalid("renewBeforePercentage: must be from 1 to 99")
    return 0.0, percent / 100
