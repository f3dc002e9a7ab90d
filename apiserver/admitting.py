"""Lets machines in by EnrollmentPolicies: no person decides, and it is told which policy did.

Level-triggered: what counts is which requests wait and which policies there are, so a request that
came before its policy is let in too, and a crash costs nothing. All that wait are looked at when
the policies change and every LOOK_ALL_S (one that could not be let in is tried again then); in
between those that came since. One process does it, by a lease; if two ever do, the transaction of
an approval decides: it looks at the policy again and counts in the same commit, so no limit is
passed.

A request that somebody denied stays denied: a policy never overrules a person. And it lets in new
devices only: whether one that was away past its certificate's end may come back, a person decides.
Nor does it let in whoever sends a TPM's bundle before, and unless, the TPM has answered.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from apiserver import approvals, attesting, returning
from apiserver.approvals import ENROLLMENT_REQUEST
from apiserver.auth.identity import CONTROLLER, Caller
from apiserver.errors import StatusError
from apiserver.operations import Operations
from apiserver.pki.issuing import Issuing
from apiserver.store import Snapshot, Transaction
from resources import conditions, enrollmentpolicy
from resources.kind import Json
from resources.registry import ENROLLMENT_POLICY as POLICY

LEASE = "enrollment-policies"
LEASE_S = 30.0
# Commits come by the hundred; nobody who waits for a device to come notices a second.
GAP_S = 1.0
WAIT_S = 10.0
# All requests that ever led to a device are read for it: seconds of work where there are 100 000.
LOOK_ALL_S = 1800.0
PAGE = 500
# Approvals under way at once, which share their commits.
AT_ONCE = 16

Marks = frozenset[tuple[str, int]]
Place = tuple[str, str]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Look:
    """What one look found: policies, requests that might be let in, and where the next one begins:
    at a version of the log, or still inside the list of all."""

    policies: Sequence[Json]
    requests: Sequence[Json]
    seen: int
    after: Place | None = None


class Admitting:
    """The policies at work, in one process."""

    def __init__(
        self,
        operations: Operations,
        issuing: Issuing,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._operations = operations
        self._issuing = issuing
        self._monotonic = monotonic
        self._is_ours, self._asked_at = False, float("-inf")
        self._forget()

    def _forget(self) -> None:
        """All that wait are looked at next."""
        self._marks: Marks | None = None
        self._seen = 0
        self._after: Place | None = None
        self._all_at = self._monotonic()

    async def run(self) -> None:
        """Until it is cancelled."""
        hub = self._operations.store.hub
        while True:
            version = hub.version
            try:
                is_done = await self.round()
            except Exception:  # the next round tries again; until then people can approve
                log.warning("enrollment policies failed", exc_info=True)
                is_done = True
            if is_done:
                await hub.wait(version, WAIT_S)
                await asyncio.sleep(GAP_S)

    async def round(self) -> bool:
        """Let in who is found in one look; whether there is no more to look at now."""
        store = self._operations.store
        if self._monotonic() - self._all_at > LOOK_ALL_S:
            self._forget()
        if not await store.read(lambda snapshot: snapshot.count(POLICY, None)):
            self._forget()
            return True
        if not await self._is_our_turn():
            # Who does it next begins with all.
            self._forget()
            return True
        look = await store.read(self._look)
        await self._admit(look)
        self._marks, self._seen, self._after = _marks(look.policies), look.seen, look.after
        return look.after is None and len(look.requests) < PAGE

    async def _is_our_turn(self) -> bool:
        """Asked anew well before the lease ends, and not for each commit."""
        if self._monotonic() - self._asked_at > LEASE_S / 3:
            self._is_ours = await self._operations.store.lease(LEASE, LEASE_S)
            self._asked_at = self._monotonic()
        return self._is_ours

    def _look(self, snapshot: Snapshot) -> Look:
        policies = list(snapshot.list(POLICY, None))
        is_new = self._marks != _marks(policies) or self._seen < snapshot.compacted
        if is_new or self._after is not None:
            after = None if is_new else self._after
            # What comes while the list is gone through, is looked at after it.
            seen = snapshot.version if is_new else self._seen
            page = list(snapshot.list(ENROLLMENT_REQUEST, None, after=after, limit=PAGE))
            last = page[-1]["metadata"] if len(page) == PAGE else None
            place = (last["namespace"], last["name"]) if last else None
            return Look(policies, _waiting(page), seen, place)
        rows = snapshot.changes(ENROLLMENT_REQUEST, None, self._seen, PAGE)
        found = snapshot.current(ENROLLMENT_REQUEST, {row.uid for row in rows})
        seen = rows[-1].version if len(rows) == PAGE else snapshot.version
        return Look(policies, _waiting(document for document, _ in found.values()), seen)

    async def _admit(self, look: Look) -> None:
        """Each request by the first policy that lets it in, in order of their names."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def admit(request: Json) -> None:
            async with turns:
                for policy in look.policies:
                    if _fits(policy, request) and await self._approve(policy, request):
                        return

        async with asyncio.TaskGroup() as group:
            for request in look.requests:
                group.create_task(admit(request))

    async def _approve(self, policy: Json, request: Json) -> bool:
        """Whether nobody has to look at this request any more."""
        spec, metadata = policy["spec"], request["metadata"]
        who = f"{POLICY.kind}/{policy['metadata']['name']}"
        approval = {
            "approved": True,
            "labels": spec.get("labels") or {},
            "replaceLabels": bool(spec.get("replaceLabels")),
        }
        try:
            await approvals.approve_enrollment(
                self._operations,
                self._issuing,
                Caller(name=who, role=CONTROLLER, source="policy"),
                metadata["namespace"],
                metadata["name"],
                approval,
                partial(self._grounds, policy),
            )
        except (approvals.Withdrawn, approvals.AlreadyDecided):
            return False
        except StatusError as refused:
            log.warning(
                "request not let in", request=metadata["name"], policy=who, why=refused.message
            )
            return True
        log.info("request let in", request=metadata["name"], policy=who)
        return True

    def _grounds(self, policy: Json, tx: Transaction, request: Json) -> None:
        """In the transaction that lets it in: the policy still does, and counts it."""
        name, namespace = policy["metadata"]["name"], policy["metadata"]["namespace"]
        current = tx.get(POLICY, namespace, name)
        if current is None or not _fits(current, request) or _mark(current) != _mark(policy):
            raise approvals.Withdrawn("the policy lets it in no more", kind=POLICY, name=name)
        status = dict(current.get("status") or {})
        status |= {
            "admitted": (status.get("admitted") or 0) + 1,
            "lastAdmitted": request["metadata"]["name"],
            "lastAdmittedAt": tx.timestamp,
        }
        tx.update(POLICY, current, current | {"status": status})


def _waiting(requests: Iterable[Json]) -> list[Json]:
    """Those that nobody has decided on."""
    return [each for each in requests if not _is_decided(each)]


def _is_decided(request: Json) -> bool:
    status = request.get("status") or {}
    denied = conditions.is_true(status.get("conditions"), "Denied")
    return denied or bool((status.get("approval") or {}).get("approved"))


def _fits(policy: Json, request: Json) -> bool:
    if policy["metadata"]["namespace"] != request["metadata"]["namespace"]:
        return False
    said = (request.get("status") or {}).get("conditions")
    if _is_decided(request) or conditions.is_true(said, returning.EXPIRED):
        return False
    if attesting.integrity_of(request)["status"] == "Failed":
        # It says that it has a TPM, and has not shown it, or not yet.
        return False
    return enrollmentpolicy.admits(policy, request, partial(attesting.endorsement_of, request))


def _mark(policy: Json) -> tuple[str, int]:
    """Moves with what it says, and not with what it has done."""
    return policy["metadata"]["uid"], policy["metadata"]["generation"]


def _marks(policies: Iterable[Json]) -> Marks:
    return frozenset(_mark(policy) for policy in policies)
