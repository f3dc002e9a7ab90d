"""Events: what happened to an object, told once, for `kubectl describe`.

They are courtesy: what counts is in conditions, so an event that cannot be written is let go.
"""

from __future__ import annotations

from typing import Any

import structlog

from controllers.client import ApiError, Client, Unreachable
from resources import event

Json = dict[str, Any]

COMPONENT = "homeport-controllers"
# Whom nobody has to look at; all others are warnings.
NORMAL = frozenset(
    {
        "RepositoryAccessible",
        # The reference says so.
        "RepositoryInaccessible",
        "FleetValid",
        "DependencyChangeDetected",
        "ResourceSyncCommitDetected",
        "ResourceSyncAccessible",
        "ResourceSyncParsed",
        "ResourceSyncSynced",
    }
)

log = structlog.get_logger()


async def tell(client: Client, about: Json, reason: str, message: str, *, now: str) -> None:
    """Write one event about an object."""
    metadata = about["metadata"]
    document = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "generateName": f"{metadata['name'][:50]}.",
            "namespace": metadata["namespace"],
        },
    } | event.told(
        about, reason, message, is_warning=reason not in NORMAL, component=COMPONENT, at=now
    )
    try:
        await client.post_event(metadata["namespace"], document)
    except (ApiError, Unreachable) as problem:
        log.info("event let go", reason=reason, about=metadata["name"], error=repr(problem))
