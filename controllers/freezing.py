"""From a fleet's template to what a TemplateVersion holds. Pure; this stage freezes inline content.

A template that points outside, or that has parameters, is refused with the field that does it; the
fleet then says so in its condition `Valid`, and its devices keep what they have.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from resources import digest, render

Json = dict[str, Any]

# What of a TemplateVersion's status is not the template.
_BESIDE = ("conditions", "updatedAt")


def frozen(fleet: Json) -> Json:
    """The template with nothing left to fetch. Raises resources.errors.Invalid."""
    template: Json = fleet["spec"]["template"]["spec"]
    render.check(template, "spec.template.spec")
    return template


def template_of(version: Json) -> Json:
    """The frozen template of a TemplateVersion."""
    return {k: v for k, v in (version.get("status") or {}).items() if k not in _BESIDE}


def is_same(template: Json, version: Json | None) -> bool:
    return version is not None and digest.of(template) == digest.of(template_of(version))


def number_of(name: str) -> int:
    """3 of `web.v3`, for putting versions in order; 0 for names that are not ours."""
    text = name.rpartition(".v")[2]
    return int(text) if text.isdigit() else 0


def newest(names: Iterable[str]) -> str | None:
    """The name of the version that was made last."""
    return max(names, key=number_of, default=None)


def latest_attempt(rollouts: Iterable[Json], version: str | None) -> Json | None:
    """Of the rollouts of one fleet, the last that brings `version`: `web.v3-2` after `web.v3-1`."""
    attempts = [r for r in rollouts if r["spec"]["target"]["templateVersion"] == version]
    return max(attempts, key=lambda r: _attempt(r["metadata"]["name"]), default=None)


def _attempt(name: str) -> int:
    text = name.rpartition("-")[2]
    return int(text) if text.isdigit() else 0
