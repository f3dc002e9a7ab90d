"""One writer thread and a few reader threads, each with a database connection of its own.

The number of threads is the bound on connections. A connection belongs to one thread, so nothing is
locked and nothing is handed around; one on which something went wrong is thrown away by its thread,
which opens another when it needs one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from sqlalchemy import Connection

from apiserver.store.database import Faults

T = TypeVar("T")


class Threads:
    """`connect` opens a connection; it is called in the thread that will use it. `faults` are what
    may go wrong while one is closed that is of no use any more."""

    def __init__(self, connect: Callable[[], Connection], *, readers: int, faults: Faults) -> None:
        self._connect = connect
        self._faults = faults
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="store-writer")
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="store-reader")
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
        return await asyncio.get_running_loop().run_in_executor(self._writer, work)

    async def read(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    async def close(self) -> None:
        """After what runs; then nothing is open."""
        await asyncio.to_thread(self._writer.shutdown)
        await asyncio.to_thread(self._readers.shutdown)
        for connection in self._opened:
            with suppress(*self._faults):
                connection.close()
