"""Calls that block and cannot be ended: run in a thread that nobody waits for.

`asyncio.to_thread` is for calls that come to their end soon, for a loop that ends, and the
interpreter after it, wait for all of its threads. Here the caller may be cancelled, and what the
thread was doing goes on without anybody listening, until it ends or the process does.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def abandonable(work: Callable[[], T], *, name: str) -> T:
    """What `work` returns or raises. How many run at a time is for the caller to limit."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(answer: Callable[[], None]) -> None:
        # The loop may have been closed meanwhile: then nobody is left to tell.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if future.done() else answer())

    def run() -> None:
        try:
            found = work()
        except BaseException as problem:
            # The name of a caught exception ends with its clause.
            error = problem
            settle(lambda: future.set_exception(error))
        else:
            settle(lambda: future.set_result(found))

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future
