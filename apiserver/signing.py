"""Certificates from signers outside: what is approved and has none is asked for until it has.

Level-triggered: what waits is read off the requests themselves, so a process that dies between the
signer's answer and our storing it leaves a request that still waits, and the next one asks again,
under the same key. One process of several does it, by a lease; should two believe they are the one,
the signer gets an order twice and the store takes one answer.

A signer that can't be asked is left alone as a whole: one request after the other tries it, with
back-off, and the rest wait for that. A request that the signer answers badly waits by itself.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from apiserver import auditing, ordering
from apiserver.approvals import ENROLLMENT_REQUEST
from apiserver.auditing import Act, note
from apiserver.auth.identity import CONTROLLER, Caller
from apiserver.builtins import telling
from apiserver.certifying import SIGNING_REQUEST
from apiserver.operations import Operations
from apiserver.pki import issued, pacing, signers, waiting
from apiserver.pki.issued import Unfit
from apiserver.pki.issuing import Issuing, Outsider
from apiserver.pki.orders import (
    Answer,
    Declined,
    Issued,
    Order,
    Pending,
    Unavailable,
    Unusable,
)
from apiserver.pki.pacing import Pace
from apiserver.pki.requests import Refused
from apiserver.store import Snapshot, Transaction, unissued
from resources import timestamps
from resources.kind import Json, Kind

KINDS = (ENROLLMENT_REQUEST, SIGNING_REQUEST)
LEASE = "signing"
LEASE_S = 15.0
# A look at the latest; a commit wakes us before, but not each of hundreds in a second.
EVERY_S = 5.0
LOOK_S = 0.2
# What a lost wake-up may cost.
RESCAN_S = 600.0
PAGE = 200
# The rest is found when these are done.
KNOWN_MAX = 10_000
ROUND_MAX = 64
AT_ONCE = 8
# How many others are told in one transaction that their signer is down.
TOLD_MAX = 100

Place = tuple[str, str, str]  # kind, namespace, name

log = structlog.get_logger()
# With a source, for who gets a certificate is told in the audit.
_CALLER = Caller(name="system:homeport:signing", role=CONTROLLER, source="service")


@dataclass(slots=True)
class _Waiting:
    """A request that waits, as it was when it was found."""

    kind: Kind
    namespace: str
    name: str
    version: tuple[str, int]  # uid, generation
    signer: str
    pace: Pace = pacing.START


class Signing:
    """What waits, of all signers, in one process."""

    def __init__(
        self,
        operations: Operations,
        issuing: Issuing,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._operations = operations
        self._store = operations.store
        self._issuing = issuing
        self._now = now
        self._monotonic = monotonic
        self._chance = chance
        self._waiting: dict[Place, _Waiting] = {}
        self._seen = -1
        self._scanned_at = float("-inf")
        self._is_more = False
        self._lease_at = float("-inf")
        self._down: dict[str, Pace] = {}
        self._down_since: dict[str, str] = {}

    async def keep(self) -> None:
        """Runs until it is cancelled; where all is signed here, until nothing waits any more."""
        while not self._store.hub.closed:
            try:
                if await self._is_ours():
                    await self.round()
                    if not self._issuing.outsiders and not self._waiting:
                        return
                    await asyncio.sleep(LOOK_S)
                    await self._store.hub.wait(self._seen, self._rest_s())
                    continue
                self._seen = -1  # another process does it; what we knew will be old
            except Exception:  # the next round tries again; nothing depends on this one
                log.warning("signing failed", exc_info=True)
            await asyncio.sleep(EVERY_S)

    async def _is_ours(self) -> bool:
        now = self._monotonic()
        if now < self._lease_at + LEASE_S / 3:
            return True
        is_ours = await self._store.lease(LEASE, LEASE_S)
        self._lease_at = now if is_ours else float("-inf")
        return is_ours

    async def round(self) -> None:
        """Look what waits, and ask for what is due."""
        await self._look()
        due = self._due()
        limit = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for place in due:
                group.create_task(self._in_turn(limit, place))

    def _rest_s(self) -> float:
        """Until something is due, unless a commit comes first."""
        now = self._monotonic()
        times = [
            max(w.pace.next_at, self._pace_of(w.signer).next_at) for w in self._waiting.values()
        ]
        return min([EVERY_S, *(max(0.05, at - now) for at in times)])

    # --- what waits ---------------------------------------------------------------------------

    async def _look(self) -> None:
        now = self._monotonic()
        is_done = self._is_more and not self._waiting
        if self._seen < 0 or is_done or now >= self._scanned_at + RESCAN_S:
            version, found = await self._store.read(self._scan)
            known, self._waiting = self._waiting, {}
            for document in found:
                self._keep(document, known)
            self._scanned_at, self._is_more = now, len(found) >= KNOWN_MAX
        else:
            after = self._seen
            version, changed = await self._store.read(
                lambda snapshot: self._changed(snapshot, after)
            )
            for place, now_there in changed.items():
                was = self._waiting.pop(place, None)
                if now_there is not None:
                    self._keep(now_there, {} if was is None else {place: was})
        self._seen = version

    def _scan(self, snapshot: Snapshot) -> tuple[int, list[Json]]:
        found: list[Json] = []
        for kind in KINDS:
            after: tuple[str, str] | None = None
            while len(found) < KNOWN_MAX:
                page = unissued.page(snapshot, kind, waiting.CONDITION, after=after, limit=PAGE)
                found += filter(waiting.is_waiting, page)
                if len(page) < PAGE:
                    break
                after = page[-1]["metadata"]["namespace"], page[-1]["metadata"]["name"]
        return snapshot.version, found

    def _changed(self, snapshot: Snapshot, after: int) -> tuple[int, dict[Place, Json | None]]:
        if after < snapshot.compacted:
            return -1, {}
        found: dict[Place, Json | None] = {}
        for kind in KINDS:
            for namespace, name in snapshot.changed_names(kind, after):
                document = snapshot.get(kind, namespace, name)
                is_waiting = document is not None and waiting.is_waiting(document)
                found[kind.kind, namespace, name] = document if is_waiting else None
        return snapshot.version, found

    def _keep(self, document: Json, known: dict[Place, _Waiting]) -> None:
        metadata = document["metadata"]
        kind = next(kind for kind in KINDS if kind.kind == document["kind"])
        place = kind.kind, metadata["namespace"], metadata["name"]
        version = metadata["uid"], metadata["generation"]
        signer = signers.DEVICE_ENROLLMENT
        if kind is SIGNING_REQUEST:
            signer = str(document["spec"].get("signerName"))
        was = known.get(place)
        if len(self._waiting) >= KNOWN_MAX:
            self._is_more = True
            return
        pace = was.pace if was is not None and was.version == version else pacing.START
        self._waiting[place] = _Waiting(kind, place[1], place[2], version, signer, pace)

    def _due(self) -> list[Place]:
        """Whose turn it is: of a signer that was down one alone, the longest untried."""
        now = self._monotonic()
        due: list[Place] = []
        probed: set[str] = set()
        for place, each in sorted(self._waiting.items(), key=lambda item: item[1].pace.next_at):
            title = self._title(each.signer)
            down = self._pace_of(each.signer)
            if not each.pace.is_due(now) or not down.is_due(now) or title in probed:
                continue
            if down.tries:
                probed.add(title)
            due.append(place)
            if len(due) >= ROUND_MAX:
                break
        return due

    def _title(self, signer_name: str) -> str:
        outsider = self._issuing.outsider(signer_name)
        return "" if outsider is None else outsider.signer.title

    def _pace_of(self, signer_name: str) -> Pace:
        return self._down.get(self._title(signer_name), pacing.START)

    # --- asking -------------------------------------------------------------------------------

    async def _in_turn(self, limit: asyncio.Semaphore, place: Place) -> None:
        async with limit:
            each = self._waiting[place]
            if not self._pace_of(each.signer).is_due(self._monotonic()):
                return  # it went down while this one waited for its turn
            try:
                await self._ask(place, each)
            except Exception:  # one that we can't handle must not keep the others waiting
                log.warning("request left", place=place, exc_info=True)
                each.pace = self._later(Unusable("our own mistake"), each.pace)

    async def _ask(self, place: Place, each: _Waiting) -> None:
        found = await self._store.read(lambda snapshot: self._read(snapshot, each))
        if found is None:
            self._waiting.pop(place, None)
            return
        document, order = found
        outsider = self._issuing.outsider(each.signer)
        if isinstance(order, Refused):
            await self._settle(place, each, Declined(str(order)), "")
        elif outsider is None:
            # It was asked for when another signed for this name.
            leaf = self._issuing.issue(order.request, order.granted)
            assert leaf is not None, "nobody signs for it outside"
            await self._settle(place, each, Issued(leaf), "the built-in authority")
        else:
            answer = self._judged(await outsider.signer.ask(order), order, outsider)
            if not isinstance(answer, Unavailable):
                self._answers_again(outsider.signer.title)
            if isinstance(answer, Issued | Declined):
                await self._settle(place, each, answer, outsider.signer.title)
                if isinstance(answer, Declined):
                    await outsider.signer.forget(order)
            elif isinstance(answer, Unavailable):
                await self._went_down(place, each, answer, document)
            else:
                await self._put_off(each, answer, outsider.signer.title)

    def _read(self, snapshot: Snapshot, each: _Waiting) -> tuple[Json, Order | Refused] | None:
        document = snapshot.get(each.kind, each.namespace, each.name)
        if document is None or not _is_the_same(document, each):
            return None
        try:
            return document, ordering.order_of(snapshot, document, self._now().timestamp())
        except Refused as refused:
            return document, refused

    def _judged(self, answer: Answer, order: Order, outsider: Outsider) -> Answer:
        """The leaf alone of what came, or what is wrong with it."""
        if not isinstance(answer, Issued):
            return answer
        try:
            return Issued(issued.leaf_of(answer.pem, order, outsider.trust, now=self._now()))
        except Unfit as unfit:
            return Unusable(str(unfit))

    # --- writing down what came of it ---------------------------------------------------------

    async def _settle(
        self, place: Place, each: _Waiting, answer: Issued | Declined, title: str
    ) -> None:
        """The end of a request: its certificate, or that it gets none."""
        is_issued = isinstance(answer, Issued)

        def settle(tx: Transaction) -> bool:
            document = tx.get(each.kind, each.namespace, each.name)
            if document is None or not _is_the_same(document, each):
                return False
            if isinstance(answer, Issued):
                message = f"Signed by {title}."
                changed = waiting.issued(document, answer.pem, message, tx.timestamp)
            else:
                message = f"Not signed: {answer.message}"
                changed = waiting.failed(document, answer.message, tx.timestamp)
            stored = self._operations.update_in(tx, _CALLER, each.kind, document, changed)
            reason = waiting.ISSUED if is_issued else waiting.FAILED
            act = Act(_CALLER, "update", each.kind, each.namespace, each.name, "approval")
            note(tx, act, stored, reason=auditing.ISSUED if is_issued else auditing.FAILED)
            telling.tell(tx, stored, reason, message)
            return True

        if await self._store.write(settle):
            log.info("request settled", place=place, is_issued=is_issued, signer=title)
        self._waiting.pop(place, None)

    async def _put_off(self, each: _Waiting, answer: Pending | Unusable, title: str) -> None:
        each.pace = self._later(answer, each.pace)
        if isinstance(answer, Pending):
            # The same words each time, so that a long decision makes one version of the object.
            within_s = int(max(pacing.PENDING_S_MAX, answer.after_s))
            message = f"{title}: {answer.why}; asked again within {within_s} s."
            await self._note([each], waiting.PENDING, message)
            return
        message = f"{title}: {answer.why}; asked again at {self._at(each.pace)}."
        log.warning("answer not usable", request=each.name, why=answer.why, signer=title)
        await self._note([each], waiting.UNUSABLE, message)

    async def _went_down(
        self, place: Place, each: _Waiting, answer: Unavailable, document: Json
    ) -> None:
        """The signer as a whole waits, and this request with it: next time another one tries, so
        that one which alone brings it down keeps nobody waiting for long."""
        each.pace = self._later(answer, each.pace)
        title = self._title(each.signer)
        before = self._down.get(title, pacing.START)
        if not before.is_due(self._monotonic()):
            return  # several were under way when it went down; it was told by the first
        self._down[title] = pace = self._later(answer, before)
        since = self._down_since.setdefault(
            title, waiting.unavailable_since(document) or timestamps.of(self._now())
        )
        log.warning("signer out of reach", signer=title, since=since, why=answer.why)
        message = f"{title} can't be asked since {since}: {answer.why}; next at {self._at(pace)}."
        others = [w for w in self._waiting.values() if w is not each]
        of_it = [w for w in others if self._title(w.signer) == title]
        await self._note([each, *of_it[: TOLD_MAX - 1]], waiting.UNAVAILABLE, message)

    def _answers_again(self, title: str) -> None:
        if self._down.pop(title, None) is not None:
            log.info("signer answers again", signer=title, since=self._down_since.pop(title))

    async def _note(self, those: Iterable[_Waiting], reason: str, message: str) -> None:
        those = list(those)

        def note(tx: Transaction) -> None:
            for each in those:
                document = tx.get(each.kind, each.namespace, each.name)
                if document is None or not _is_the_same(document, each):
                    continue
                changed = waiting.noted(document, reason, message, tx.timestamp)
                if changed != document:
                    self._operations.update_in(tx, _CALLER, each.kind, document, changed)

        await self._store.write(note)

    def _later(self, answer: Answer, pace: Pace) -> Pace:
        return pacing.after(answer, pace, now=self._monotonic(), chance=self._chance())

    def _at(self, pace: Pace) -> str:
        return timestamps.of(self._now() + timedelta(seconds=pace.next_at - self._monotonic()))


def _is_the_same(document: Json, each: _Waiting) -> bool:
    metadata = document["metadata"]
    is_of_it = (metadata["uid"], metadata["generation"]) == each.version
    return is_of_it and waiting.is_waiting(document)
