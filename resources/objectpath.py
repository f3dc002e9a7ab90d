"""Dotted paths into documents, as columns, selectors and immutability rules write them."""

from __future__ import annotations

from typing import Any


def get_path(document: Any, path: str) -> Any:
    """The value at `spec.target.fleet` (a leading dot is fine), or None where it is missing."""
    value = document
    for part in path.lstrip(".").split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(part)
    return value


def set_default(document: Any, path: str, value: Any) -> None:
    """Put `value` at `path` where nothing is, if there is an object to put it into."""
    *outer, last = path.split(".")
    holder = get_path(document, ".".join(outer)) if outer else document
    if isinstance(holder, dict):
        holder.setdefault(last, value)
