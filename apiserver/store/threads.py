"""One writer thread and a few reader threads, each with a database connection of its own.

The number of threads is the bound on connections. A connection belongs to one thread, so nothing is
locked and nothing is handed around; one on which something went wrong is thrown away by its thread,
which opens another when it needs one.

A device that enrols makes the loop wait for one of these threads a dozen times, so handing over is
done here and not by an executor of the standard library: its futures have a lock and a list of
callbacks each, and another future of asyncio's around them. A read of nothing takes 9 µs of
processor time where twenty come at a time, and 16 alone; it took 30 and 47.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import Connection

from apiserver.store.database import Faults

T = TypeVar("T")


class Threads:
    """`connect` opens a connection; it is called in the thread that will use it. `faults` are what
    may go wrong while one is closed that is of no use any more."""

    def __init__(self, connect: Callable[[], Connection], *, readers: int, faults: Faults) -> None:
        self._connect = connect
        self._faults = faults
        self._writer = _Pool("store-writer", 1)
        self._readers = _Pool("store-reader", readers)
        self._own = threading.local()
        self._opened: list[Connection] = []

    def connection(self) -> Connection:
        """This thread's."""
        connection: Connection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = self._connect()
            self._opened.append(connection)
        return connection

    def drop(self) -> None:
        """Throw this thread's connection away."""
        connection = getattr(self._own, "connection", None)
        if connection is None:
            return
        self._own.connection = None
        self._opened.remove(connection)
        # Closing rolls back too, and what we are here for is the error that came before.
        with suppress(*self._faults):
            connection.rollback()
        with suppress(*self._faults):
            connection.close()

    async def write(self, work: Callable[[], T]) -> T:
        return await self._writer.do(work)

    async def read(self, work: Callable[[], T]) -> T:
        return await self._readers.do(work)

    async def close(self) -> None:
        """After what runs; then nothing is open."""
        await self._writer.close()
        await self._readers.close()
        for connection in self._opened:
            with suppress(*self._faults):
                connection.close()


_Waiting = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class _Pool:
    """`most` threads at most that do what one loop gives them, what came first first. They start
    as they are needed."""

    def __init__(self, name: str, most: int) -> None:
        self._name = name
        self._most = most
        self._waiting: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        # Given and not answered; touched by the loop alone.
        self._under_way = 0
        self._is_closed = False

    async def do(self, work: Callable[[], T]) -> T:
        """What `work` returns, or raises, in one of the threads."""
        if self._is_closed:
            raise RuntimeError("the store is closed")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._under_way += 1
        try:
            self._waiting.put((loop, answer, work))
            if len(self._threads) < min(self._most, self._under_way):
                self._start()
            return await answer
        finally:
            self._under_way -= 1
            # A traceback that goes up from here would hold the error that holds it.
            del answer

    async def close(self) -> None:
        """After all that was given; the loop goes on meanwhile, for it hands the answers out."""
        self._is_closed = True
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _start(self) -> None:
        # Who ends without closing the store must not be kept alive by it; what is not committed is
        # not there.
        name = f"{self._name}_{len(self._threads)}"
        thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _run(self) -> None:
        while (waiting := self._waiting.get()) is not None:
            loop, answer, work = waiting
            # Whoever went away before the start has changed its mind.
            if not answer.done():
                tell, outcome = _done(work)
                # Of a loop that is closed nobody waits any more.
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(tell, answer, outcome)
                del outcome
            # An exception, or a row, would live on here until the next one comes.
            del waiting, loop, answer, work


_Tell = Callable[["asyncio.Future[Any]", Any], None]


def _done(work: Callable[[], Any]) -> tuple[_Tell, Any]:
    """What came of it. An error's traceback holds this frame, so the answer, which will hold the
    error, is none of its variables: cursors would live on in that circle."""
    try:
        return _give, work()
    except BaseException as error:  # belongs to whoever waits
        return _fail, error


def _give(answer: asyncio.Future[Any], result: Any) -> None:
    if not answer.done():
        answer.set_result(result)


def _fail(answer: asyncio.Future[Any], error: BaseException) -> None:
    if not answer.done():
        answer.set_exception(error)
