"""Copies of documents. Of dicts, lists and what cannot change, so a tenth of `copy.deepcopy`'s
work: that looks for cycles and for objects that copy themselves, and JSON has neither."""

from __future__ import annotations

from typing import Any, TypeVar

T = TypeVar("T")


def copied(value: T) -> T:
    """`value` with every dict and list of its own. RecursionError where it is nested too deeply."""
    copy: Any = value
    if isinstance(value, dict):
        copy = {key: copied(inner) for key, inner in value.items()}
    elif isinstance(value, list):
        copy = [copied(inner) for inner in value]
    return copy  # type: ignore[no-any-return]
