"""The commit sequencer: one writer, consecutive resource versions, group commit.

Theory of operation. Mutations are synchronous functions over an open Transaction. The sequencer
takes what waits (64 at most), opens one transaction, takes the store lock, runs them one after the
other, writes the log and the new version, commits, answers the callers, and publishes. While one
batch is being made durable the next one gathers, so a busy store commits in groups and an idle one
commits at once. Because versions are given out under the lock and become visible in the order in
which the lock is released, commit order is version order, and "everything above N" is a complete
question on both databases.

Nobody is answered before the commit. A mutation that refuses before it wrote is answered alone; one
that fails after it wrote, a fault of the database, or a commit that fails, rolls the batch back,
and its members are run again one by one, so that a stranger's fault costs nobody else anything.
Mutations may therefore run twice, and must have no effect outside their transaction.

A database that is another process may be lost. Before the commit nothing was kept: the batch is run
once more, on a new connection, and then refused as a whole. In the commit it is unknown: each batch
leaves its number in its transaction, so the next connection says whether it is there (`commits`);
then it is answered as committed, else it is run again. Only if no connection can be had for a while
the callers are told that it is not known.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import structlog

from apiserver.store.database import (
    CommitUnanswered,
    Database,
    StoreUnavailable,
    StoreUnreachable,
)
from apiserver.store.hub import Hub

T = TypeVar("T")

BATCH = 64
QUEUE = 4_096
# How long it is tried to find out whether a commit happened: a database that restarts is back, and
# clients still wait.
ASKING_S = 15.0
ASK_AGAIN_S = 0.25

log = structlog.get_logger()


class StoreBusy(Exception):
    """The queue is full: come back in a second."""


class OpenTransaction(Protocol):
    """What the sequencer needs to know of a transaction."""

    writes: int
    version: int

    def finish(self, writer: str, number: int) -> int: ...


Begin = Callable[[Any], OpenTransaction]
# Whether the batch of that writer and number is in the database.
IsThere = Callable[[Any, str, int], bool]


@dataclass(slots=True)
class _Mutation:
    work: Callable[[Any], Any]
    answer: asyncio.Future[Any] = field(repr=False)


@dataclass(slots=True)
class _Outcome:
    version: int
    answers: list[tuple[bool, Any]]


class _Tainted(Exception):
    """A member failed after it wrote, or the database failed: the batch is worthless as a whole."""


class Sequencer:
    """The one writer of a process, which `writer` names among others."""

    def __init__(
        self, database: Database, begin: Begin, hub: Hub, *, writer: str, is_there: IsThere
    ) -> None:
        self._database = database
        self._begin = begin
        self._hub = hub
        self._writer = writer
        self._is_there = is_there
        self._numbers = itertools.count(1)
        self._waiting: deque[_Mutation] = deque()
        self._work = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name="sequencer")

    async def close(self) -> None:
        """Commits what waits, then ends."""
        self._closing = True
        self._work.set()
        if self._task is not None:
            await self._task

    async def submit(self, work: Callable[[Any], T], *, is_urgent: bool = False) -> T:
        """The result of `work` after its commit. What is urgent goes before all that waits, and is
        to be rare: one that waits for many. Raises what it raised, StoreBusy, or the database's
        error."""
        if len(self._waiting) >= QUEUE or self._closing:
            raise StoreBusy("too many writes are waiting")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        wait = self._waiting.appendleft if is_urgent else self._waiting.append
        wait(_Mutation(work, answer))
        self._work.set()
        return await answer

    async def rehearse(self, work: Callable[[Any], T]) -> T:
        """The result of `work` as it would be; nothing stays (dryRun)."""
        transact = self._database.transact
        try:
            return await transact(lambda c: work(self._begin(c)), commit=False)
        except StoreUnreachable:
            return await transact(lambda c: work(self._begin(c)), commit=False)

    async def _run(self) -> None:
        while not (self._closing and not self._waiting):
            await self._work.wait()
            self._work.clear()
            while self._waiting:
                size = min(BATCH, len(self._waiting))
                await self._batch([self._waiting.popleft() for _ in range(size)])

    async def _batch(self, batch: list[_Mutation]) -> None:
        # A caller who went away (cancelled) before the start has changed its mind.
        batch = [mutation for mutation in batch if not mutation.answer.done()]
        if not batch:
            return
        try:
            outcome = await self._commit(batch)
        except (StoreUnreachable, CommitUnanswered) as error:
            # Nobody is tried alone: there is no database, or they may be in it already.
            for mutation in batch:
                _answer(mutation, False, error)
            return
        except Exception as error:
            if len(batch) == 1:
                cause = error.__cause__ if isinstance(error, _Tainted) else error
                _answer(batch[0], False, cause)
                return
            log.warning("batch replayed", size=len(batch), error=str(error))
            for mutation in batch:
                await self._batch([mutation])
            return
        for mutation, (good, value) in zip(batch, outcome.answers, strict=True):
            _answer(mutation, good, value)
        self._hub.publish(outcome.version)

    async def _commit(self, batch: list[_Mutation]) -> _Outcome:
        """The outcome of a batch that is in the database."""
        try:
            return await self._attempt(batch)
        except StoreUnreachable:
            # Nothing was kept; perhaps the database was only started again.
            return await self._attempt(batch)

    async def _attempt(self, batch: list[_Mutation]) -> _Outcome:
        number = next(self._numbers)
        applied: list[_Outcome] = []

        def work(connection: Any) -> _Outcome:
            applied.append(self._apply(connection, batch, number))
            return applied[-1]

        try:
            return await self._database.transact(work)
        except CommitUnanswered as unanswered:
            if not await self._was_committed(number, unanswered):
                log.warning("commit lost, batch run again", number=number, size=len(batch))
                raise StoreUnreachable("the database was lost; nothing was changed") from unanswered
            log.warning("answer of a commit lost, commit found", number=number, size=len(batch))
            return applied[-1]

    async def _was_committed(self, number: int, unanswered: CommitUnanswered) -> bool:
        """Raises `unanswered` when nobody is there to say."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + ASKING_S
        while True:
            try:
                # With the store lock, so after the end of the transaction that it is about.
                return await self._database.transact(
                    lambda c: self._is_there(c, self._writer, number), commit=False
                )
            except StoreUnavailable:
                if loop.time() >= deadline:
                    raise unanswered from None
                await asyncio.sleep(ASK_AGAIN_S)

    def _apply(self, connection: Any, batch: list[_Mutation], number: int) -> _Outcome:
        transaction = self._begin(connection)
        answers: list[tuple[bool, Any]] = []
        for mutation in batch:
            before = transaction.writes
            try:
                answers.append((True, mutation.work(transaction)))
            except self._database.faults as fault:
                # The database may have undone the whole transaction by itself; who goes on would
                # write outside of any.
                raise _Tainted from fault
            except Exception as error:
                if transaction.writes != before:
                    raise _Tainted from error
                answers.append((False, error))
        return _Outcome(transaction.finish(self._writer, number), answers)


def _answer(mutation: _Mutation, good: bool, value: Any) -> None:
    if mutation.answer.done():
        return
    if good:
        mutation.answer.set_result(value)
    else:
        mutation.answer.set_exception(value)
