"""systemd units in the status: those that match the patterns of `spec.systemd` (globs, as systemctl
takes them) in the system's manager. No patterns, no question. What belongs to a quadlet application
is reported as that, and not here. What systemd says in words that the contract does not know is
`unknown`; a systemctl that fails raises, and the last known list stays in the status."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from agent import quadlet, world

Json = dict[str, Any]

TIMEOUT_S = 30.0
UNITS_MAX = 500
DESCRIPTION_CHARS_MAX = 2048
UNKNOWN = "unknown"
PROPERTIES = "Id,Description,UnitFileState,LoadState,ActiveState,SubState"
_ENABLE = frozenset(
    {
        "enabled",
        "enabled-runtime",
        "linked",
        "linked-runtime",
        "alias",
        "masked",
        "masked-runtime",
        "static",
        "disabled",
        "indirect",
        "generated",
        "transient",
        "bad",
    }
)
_LOAD = frozenset(["stub", "loaded", "not-found", "bad-setting", "error", "merged", "masked"])
_ACTIVE = frozenset(
    {
        "active",
        "reloading",
        "inactive",
        "failed",
        "activating",
        "deactivating",
        "maintenance",
        "refreshing",
    }
)
_SUB = re.compile(r"[a-z0-9-]{1,64}")


class Failed(Exception):
    """systemctl did not answer."""


def patterns_of(spec: Json) -> list[str]:
    section = spec.get("systemd")
    found = section.get("matchPatterns") if isinstance(section, dict) else None
    return [pattern for pattern in found or () if isinstance(pattern, str) and pattern]


def collect(where: world.World, patterns: Iterable[str]) -> list[Json]:
    """`status.systemd`. Raises Failed."""
    wanted = list(patterns)
    if not wanted:
        return []
    argv = ["systemctl", "show", "--all", f"--property={PROPERTIES}", "--", *wanted]
    done = where.run(argv, timeout_s=TIMEOUT_S)
    if not done.ok:
        raise Failed(done.words or f"systemctl: exit status {done.status}")
    ids = map(quadlet.id_of_target, where.listdir(quadlet.UNIT_DIR))
    return without(parse(done.stdout), [one for one in ids if one])


def without(found: Iterable[Json], app_ids: Iterable[str]) -> list[Json]:
    """Those that are of no application; its target and services begin with its identifier."""
    prefixes = tuple(f"{one}-" for one in app_ids)
    return [unit for unit in found if not unit["unit"].startswith(prefixes)]


def parse(text: str) -> list[Json]:
    """Blocks of `Key=Value`, apart by blank lines; sorted, each unit once."""
    found: dict[str, Json] = {}
    for block in text.split("\n\n"):
        values = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if values.get("Id"):
            found[values["Id"]] = _unit(values)
    return [found[name] for name in sorted(found)][:UNITS_MAX]


def _unit(values: dict[str, str]) -> Json:
    sub = values.get("SubState", "")
    return {
        "unit": values["Id"],
        "description": values.get("Description", "")[:DESCRIPTION_CHARS_MAX],
        "enableState": _known(values.get("UnitFileState", ""), _ENABLE),
        "loadState": _known(values.get("LoadState", ""), _LOAD),
        "activeState": _known(values.get("ActiveState", ""), _ACTIVE),
        "subState": sub if _SUB.fullmatch(sub) else UNKNOWN,
    }


def _known(value: str, words: frozenset[str]) -> str:
    return value if value in words else UNKNOWN
