"""Values are sealed by the first key, whatever they were sealed by before: one process does it.

A round looks whether a key other than the first is still needed; mostly none is, and it ends. It
begins at the start, so that values from before there were keys are plain no longer than needed.

That it began and that it is done are events; the second is committed with the end itself. A round
that goes on where another process died tells its beginning too. A new database has nothing to seal,
and nothing is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from apiserver.auth.identity import CONTROLLER, Caller
from apiserver.builtins import telling
from apiserver.operations import Operations
from apiserver.store import Store, Transaction, keys, resealing

EVERY_S = 60.0
LEASE = "resealing"
STARTED, COMPLETED = "EncryptionMigrationStarted", "EncryptionMigrationCompleted"
# How often who does it says so to the others; after three times another goes on.
RENEWED_S = 2.0
# Between two steps, so that writers come in.
PAUSE_S = 0.02

log = structlog.get_logger()
_CALLER = Caller(name="system:homeport:encryption", role=CONTROLLER)


# In an open transaction: the reason of an event, and its message.
Told = Callable[[Transaction, str, str], None]


def _to_nobody(tx: Transaction, reason: str, message: str) -> None:
    pass


async def keep_sealed(operations: Operations) -> None:
    """Runs until it is cancelled."""

    def told(tx: Transaction, reason: str, message: str) -> None:
        telling.tell(tx, telling.system("encryption"), reason, message)

    while True:
        is_done = False
        try:
            is_done = await reseal(operations.store, told=told)
        except Exception:  # the next round tries again; until then old keys stay needed
            log.warning("encryption failed", exc_info=True)
        await asyncio.sleep(EVERY_S if is_done else RENEWED_S)


async def reseal(store: Store, pause_s: float = PAUSE_S, told: Told = _to_nobody) -> bool:
    """One round. Whether all values are sealed by the first key at its end."""
    others = await store.read(keys.others)
    if not others:
        return True
    if not await store.lease(LEASE, 3 * RENEWED_S):
        return False  # another process does it
    loop = asyncio.get_running_loop()
    names = [name or "(plain)" for name in others]
    left = await store.read(resealing.left)
    log.info("encryption started", left=left, replaced=names)
    is_told = bool(left) or any(others)
    first = await store.read(lambda snapshot: snapshot.keys.first)
    if is_told:
        what = f"{left} values are encrypted with the key {first}, instead of {', '.join(names)}"
        await store.write(lambda tx: told(tx, STARTED, f"{what}."))
    after, done, renewed = "", 0, loop.time()

    def take(tx: Transaction) -> resealing.Step:
        step = resealing.step(tx, after)
        if step.is_last and is_told:
            old = ", ".join(names)
            told(tx, COMPLETED, f"All values are encrypted with the key {first}, none with {old}.")
        return step

    while True:
        step = await store.write(take)
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
