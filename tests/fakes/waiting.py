"""Waiting for what happens. How long that takes on a machine that others use too is no claim of any
test: a limit is there so that what never happens is said by its own test, and soon enough."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

# Below the limit that any test has.
PATIENCE_S = 45.0
EVERY_S = 0.02


async def until(happens: Callable[[], Any]) -> Any:
    """What it answers, at once or when awaited, as soon as that is something."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = happens()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(EVERY_S)


def until_so(happens: Callable[[], Any]) -> Any:
    """The same, for tests without a loop."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := happens()):
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(EVERY_S)
    return found
