"""What must be forgotten so that a server can run for years: old log rows, contents, events.

One task, level-triggered: each round looks at what is stored, and a round that fails or is missed
is made up by the next. Rounds are short transactions, so writers hardly notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog

from apiserver.auth.identity import CONTROLLER, Caller
from apiserver.builtins.events import STORED as EVENT
from apiserver.errors import NotFound
from apiserver.operations import ListOptions, Operations
from apiserver.store import compaction
from resources.kind import Json

EVERY_S = 60.0
EVENT_KEPT = timedelta(days=7)
EVENTS_A_PAGE = 500

log = structlog.get_logger()
_CALLER = Caller(name="system:homeport:housekeeping", role=CONTROLLER)


async def keep_house(operations: Operations, now: Callable[[], datetime]) -> None:
    """Runs until it is cancelled."""
    while True:
        await asyncio.sleep(EVERY_S)
        try:
            await tidy(operations, now())
        except Exception:  # the next round tries again; nothing depends on this one
            log.warning("housekeeping failed", exc_info=True)


async def tidy(operations: Operations, now: datetime) -> None:
    """One round."""
    while await operations.store.write(compaction.compact) >= compaction.CHANGE_STEP:
        pass
    await forget_events(operations, now - EVENT_KEPT)


async def forget_events(operations: Operations, before: datetime) -> int:
    """Deletes core/v1 events that happened last before that moment; how many those were."""
    border = before.strftime("%Y-%m-%dT%H:%M:%SZ")
    after: tuple[str, str] | None = None
    gone = 0
    while True:
        options = ListOptions(limit=EVENTS_A_PAGE, after=after)
        page = await operations.list(_CALLER, EVENT, None, options)
        for event in page.items:
            if _last(event) < border:
                gone += await _forget(operations, event)
        if page.after is None:
            return gone
        after = page.after


def _last(event: Json) -> str:
    # RFC 3339 in UTC sorts as text.
    return str(
        (event.get("spec") or {}).get("lastTimestamp") or event["metadata"]["creationTimestamp"]
    )


async def _forget(operations: Operations, event: Json) -> int:
    metadata = event["metadata"]
    try:
        await operations.delete(_CALLER, EVENT, metadata["namespace"], metadata["name"])
    except NotFound:
        return 0
    return 1
