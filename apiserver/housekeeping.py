"""What lets a server run for years: old log rows, contents, events, versions, rollouts, revocations
and renewals are forgotten, and counters are counted again.

One task, level-triggered: each round looks at what is stored, and a round that fails or is missed
is made up by the next. Rounds are short transactions, so writers hardly notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial

import structlog

from apiserver import acting
from apiserver.auth.identity import CONTROLLER, Caller
from apiserver.builtins.events import STORED as EVENT
from apiserver.errors import NotFound
from apiserver.operations import Operations
from apiserver.store import Transaction, auditlog, compaction, recount, retiring
from resources import revocation, timestamps
from resources.kind import Json, Kind
from resources.registry import CERTIFICATE_REVOCATION as REVOCATION
from resources.registry import CERTIFICATE_SIGNING_REQUEST as SIGNING_REQUEST
from resources.registry import TEMPLATE_VERSION as VERSION
from resources.registry import by_kind

EVERY_S = 60.0
LEASE = "housekeeping"
EVENT_KEPT = timedelta(days=7)
ROLLOUT_KEPT = timedelta(days=90)
AUDIT_KEPT = timedelta(days=90)
RENEWAL_KEPT = timedelta(days=90)
EVENTS_A_PAGE = 500
RENEWALS_A_ROUND = 1000
# Fleets whose counters are looked at in one round; then it is the next ones' turn.
RECOUNTED_A_ROUND = 20

log = structlog.get_logger()
_CALLER = Caller(name="system:homeport:housekeeping", role=CONTROLLER)
ROLLOUT = by_kind("Rollout")


async def keep_house(
    operations: Operations, now: Callable[[], datetime], audit_kept: timedelta = AUDIT_KEPT
) -> None:
    """Runs until it is cancelled."""
    place: recount.Place = ("", "")
    while True:
        await asyncio.sleep(EVERY_S)
        try:
            if not await operations.store.lease(LEASE, 3 * EVERY_S):
                continue  # another process does it
            await tidy(operations, now())
            await acting.hand_down_all(operations.store)
            await forget_audit(operations, now() - audit_kept)
            place = await recount_some(operations, place)
        except Exception:  # the next round tries again; nothing depends on this one
            log.warning("housekeeping failed", exc_info=True)


async def tidy(operations: Operations, now: datetime) -> None:
    """One round."""
    while await operations.store.write(compaction.compact) >= compaction.CHANGE_STEP:
        pass
    await forget_events(operations, now - EVENT_KEPT)
    await forget_versions(operations)
    await forget_rollouts(operations, now - ROLLOUT_KEPT)
    await forget_revocations(operations, now)
    await forget_renewals(operations, now - RENEWAL_KEPT)


async def forget_renewals(operations: Operations, before: datetime) -> int:
    """Deletes requests that devices made before that moment; how many those were. A fleet that
    renewed in one hour is worked off in some rounds."""
    border = timestamps.of(before)
    old = await operations.store.read(lambda s: retiring.renewals(s, border, RENEWALS_A_ROUND))
    return sum([await _forget(operations, SIGNING_REQUEST, *place) for place in old])


async def forget_revocations(operations: Operations, now: datetime) -> int:
    """Deletes those of certificates that have expired; how many those were."""
    kept = await operations.store.read(lambda snapshot: snapshot.list(REVOCATION, None))
    old = [each["metadata"] for each in kept if revocation.ends_at(each) < now.timestamp()]
    return sum([await _forget(operations, REVOCATION, m["namespace"], m["name"]) for m in old])


async def forget_audit(operations: Operations, before: datetime) -> int:
    """Forgets what was done before that moment, and the oldest of too many; how many entries."""
    border, gone = int(before.timestamp()), 0
    while number := await operations.store.write(lambda tx: auditlog.forget(tx, border)):
        gone += number
    return gone


async def forget_rollouts(operations: Operations, before: datetime) -> int:
    """Deletes the records of rollouts that ended before that moment; how many those were."""
    border = timestamps.of(before)
    old = await operations.store.read(lambda snapshot: retiring.rollouts(snapshot, border))
    return sum([await _forget(operations, ROLLOUT, *place) for place in old])


async def forget_versions(operations: Operations) -> int:
    """Deletes template versions that no one needs any more; how many those were. What only they
    named is swept later."""
    old = await operations.store.read(retiring.versions)
    return sum([await _forget(operations, VERSION, *place) for place in old])


async def recount_some(operations: Operations, after: recount.Place) -> recount.Place:
    """Look at the counters of the next fleets, and repair what is wrong. Returns where to go on."""
    store = operations.store
    places = await store.read(lambda s: recount.places(s, after, RECOUNTED_A_ROUND))
    for place in places:
        if await store.read(partial(recount.difference, place=place)):
            wrong = await store.write(partial(recount.repair, place=place))
            namespace, fleet = place
            log.error("counters repaired", namespace=namespace, fleet=fleet, wrong=wrong)
    return places[-1] if len(places) == RECOUNTED_A_ROUND else ("", "")


async def forget_events(operations: Operations, before: datetime) -> int:
    """Deletes core/v1 events that happened last before that moment; how many those were. What
    somebody still wants to see gone himself (a finalizer) stays."""
    border = timestamps.of(before)
    after, gone = ("", ""), 0

    def forget(tx: Transaction) -> tuple[int, tuple[str, str], bool]:
        found = retiring.events(tx, EVENT, border, EVENTS_A_PAGE, after)
        old = [e for e in found if _last(e) < border and not e["metadata"].get("finalizers")]
        if old:
            tx.delete_all(EVENT, old)
        last = found[-1]["metadata"] if found else None
        place = (last["creationTimestamp"], last["uid"]) if last else after
        return len(old), place, len(found) == EVENTS_A_PAGE

    while True:
        number, after, is_more = await operations.store.write(forget)
        gone += number
        if not is_more:
            return gone


def _last(event: Json) -> str:
    return str(
        (event.get("spec") or {}).get("lastTimestamp") or event["metadata"]["creationTimestamp"]
    )


async def _forget(operations: Operations, kind: Kind, namespace: str, name: str) -> int:
    try:
        await operations.delete(_CALLER, kind, namespace, name, is_told=False)
    except NotFound:
        return 0
    return 1
