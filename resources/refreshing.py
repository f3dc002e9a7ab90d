"""Asking the controllers to look at once: a note on the object, which is stored like anything else,
so that it cannot be lost between two processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from resources.kind import Json

# Moves whenever somebody asks.
NOTE = "homeport.dev/refresh-requested"


def asked(document: Json) -> Json:
    """The document with the note: the version that it had then, so that each asking is another."""
    metadata = document["metadata"]
    annotations = (metadata.get("annotations") or {}) | {NOTE: metadata["resourceVersion"]}
    return document | {"metadata": metadata | {"annotations": annotations}}


def note(document: Mapping[str, Any]) -> str:
    """The last asking's; "" if nobody asked yet."""
    return str((document["metadata"].get("annotations") or {}).get(NOTE) or "")
