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
log = structlog.get_logger()


async def tell(
    client: Client, about: Json, reason: str, message: str, details: Json | None = None, *, now: str
) -> None:
    """Write one event about an object."""
    metadata = about["metadata"]
    of = {key: about[key] for key in ("apiVersion", "kind")} | {
        key: metadata[key] for key in ("namespace", "name", "uid", "resourceVersion")
    }
    named = {"generateName": f"{metadata['name'][:50]}.", "namespace": metadata["namespace"]}
    document = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": named | event.noted(details),
    } | event.told(of, reason, message, component=COMPONENT, at=now)
    try:
        await client.post_event(metadata["namespace"], document)
    except (ApiError, Unreachable) as problem:
        log.info("event let go", reason=reason, about=metadata["name"], error=repr(problem))
