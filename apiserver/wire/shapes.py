"""The shapes in which documents leave: lists, metadata only, watch events, Success.

These are the few forms that every client of the Kubernetes protocol knows; each is made in one
place so that handlers only choose. Nothing here copies a document: what goes out is not changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from resources.kind import Json, Kind

META_VERSION = "meta.k8s.io/v1"
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


def partial(document: Json) -> Json:
    """PartialObjectMetadata: what garbage collectors and quotas watch."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": META_VERSION,
        "metadata": document.get("metadata", {}),
    }


def list_metadata(version: int, continue_token: str = "", remaining: int | None = None) -> Json:
    """ListMeta. An empty `continue` is left out, as a client may take presence for more pages."""
    metadata: Json = {"resourceVersion": str(version)}
    if continue_token:
        metadata["continue"] = continue_token
        if remaining is not None:
            metadata["remainingItemCount"] = remaining
    return metadata


def listed(kind: Kind, items: list[Json], metadata: Json) -> Json:
    return {
        "kind": f"{kind.kind}List",
        "apiVersion": kind.api_version,
        "metadata": metadata,
        "items": items,
    }


def partial_list(items: Iterable[Json], metadata: Json) -> Json:
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": META_VERSION,
        "metadata": metadata,
        "items": [partial(item) for item in items],
    }


def bookmark(kind: Kind, version: str, *, initial_end: bool) -> Json:
    """The object of a BOOKMARK: a version and nothing else; after the initial events of a
    WatchList it says that they are complete."""
    metadata: Json = {"resourceVersion": version, "creationTimestamp": None}
    if initial_end:
        metadata["annotations"] = {INITIAL_EVENTS_END: "true"}
    return {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": metadata}


def success(kind: Kind, name: str, uid: str) -> Json:
    """The Status that answers a delete after which the object is gone."""
    details: dict[str, Any] = {"name": name, "kind": kind.plural, "uid": uid}
    if kind.group:
        details["group"] = kind.group
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    }
