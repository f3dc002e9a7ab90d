"""Values are sealed by the first key, whatever they were sealed by before: one process does it.

A round looks whether a key other than the first is still needed; mostly none is, and it ends. It
begins at the start, so that values from before there were keys are plain no longer than needed.
"""

from __future__ import annotations

import asyncio
from functools import partial

import structlog

from apiserver.store import Store, keys, resealing

EVERY_S = 60.0
LEASE = "resealing"
# How often who does it says so to the others; after three times another goes on.
RENEWED_S = 2.0
# Between two steps, so that writers come in.
PAUSE_S = 0.02

log = structlog.get_logger()


async def keep_sealed(store: Store) -> None:
    """Runs until it is cancelled."""
    while True:
        is_done = False
        try:
            is_done = await reseal(store)
        except Exception:  # the next round tries again; until then old keys stay needed
            log.warning("encryption failed", exc_info=True)
        await asyncio.sleep(EVERY_S if is_done else RENEWED_S)


async def reseal(store: Store, pause_s: float = PAUSE_S) -> bool:
    """One round. Whether all values are sealed by the first key at its end."""
    others = await store.read(keys.others)
    if not others:
        return True
    if not await store.lease(LEASE, 3 * RENEWED_S):
        return False  # another process does it
    loop = asyncio.get_running_loop()
    names = [name or "(plain)" for name in others]
    log.info("encryption started", left=await store.read(resealing.left), replaced=names)
    after, done, renewed = "", 0, loop.time()
    while True:
        step = await store.write(partial(resealing.step, after=after))
        after, done = step.after, done + step.done
        if step.is_last:
            log.info("encryption completed", done=done, replaced=names)
            await store.lease(LEASE, 0)
            return True
        if loop.time() - renewed >= RENEWED_S:
            renewed = loop.time()
            log.info("encryption goes on", done=done, left=await store.read(resealing.left))
            if not await store.lease(LEASE, 3 * RENEWED_S):
                return False
        await asyncio.sleep(pause_s)
