"""Labels that a device proposes for itself when it enrols.

From the system information (made to fit, since nobody typed it), then the configured defaults
(checked, not changed: a wrong one is left out and named). Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

VALUE_CHARS_MAX = 63
PREFIX_CHARS_MAX = 253
ALIAS = "alias"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_DOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
# Host names that say nothing about which device it is.
_NAMELESS = {"", "(none)", "127.0.0.1", "::1"}


def proposed(
    system_info: Mapping[str, Any], mapping: Mapping[str, str], defaults: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """The labels, and a sentence for each that was left out."""
    labels: dict[str, str] = {}
    complaints: list[str] = []
    for key, source in mapping.items():
        value = sanitised(_look_up(system_info, source))
        if not is_key(key):
            complaints.append(f"label-from-systeminfo: {key!r} is not a label key")
        elif value:
            labels[key] = value
    if ALIAS not in mapping:
        host = _text(system_info.get("hostname"))
        alias = sanitised(host)
        if alias and host not in _NAMELESS and not host.startswith("localhost"):
            labels[ALIAS] = alias
    for key, value in defaults.items():
        if not is_key(key):
            complaints.append(f"default-labels: {key!r} is not a label key")
        elif not is_value(value):
            complaints.append(f"default-labels: {key}: {value!r} is not a label value")
        else:
            labels[key] = value
    return labels, complaints


def sanitised(value: str) -> str:
    """`value` as a label value: other characters become `-`, the ends are trimmed, 63 at most."""
    replaced = re.sub(r"[^A-Za-z0-9._-]", "-", value).strip("._-")
    return replaced[:VALUE_CHARS_MAX].rstrip("._-")


def is_key(key: str) -> bool:
    prefix, slash, name = key.rpartition("/")
    if slash and not (len(prefix) <= PREFIX_CHARS_MAX and _DOMAIN.fullmatch(prefix)):
        return False
    return bool(_NAME.fullmatch(name))


def is_value(value: str) -> bool:
    return value == "" or bool(_NAME.fullmatch(value))


def _look_up(system_info: Mapping[str, Any], source: str) -> str:
    """A key of systemInfo in any of its spellings, or `customInfo.KEY`."""
    if source.startswith("customInfo."):
        custom = system_info.get("customInfo")
        name = source.removeprefix("customInfo.")
        return _text(custom.get(name)) if isinstance(custom, Mapping) else ""
    if source in system_info:
        return _text(system_info[source])
    # A field of Go's struct: Architecture, BootID, OperatingSystem, AgentVersion.
    return _text(system_info.get(source[:1].lower() + source[1:]))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
