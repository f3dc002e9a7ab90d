"""Work that the loop gives to the threads of a store: in order, to its end, with its own answer."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from apiserver.store.threads import Threads


def never() -> Any:
    raise AssertionError("no connection is asked for here")


@pytest.fixture
def threads() -> Threads:
    return Threads(never, readers=2, faults=(sqlite3.Error,))


async def test_writes_are_done_one_after_the_other_in_the_order_of_their_coming(
    threads: Threads,
) -> None:
    done: list[tuple[int, str]] = []

    def write(number: int) -> Callable[[], None]:
        return lambda: done.append((number, threading.current_thread().name))

    await asyncio.gather(*(threads.write(write(number)) for number in range(50)))
    assert [number for number, _ in done] == list(range(50))
    assert {name for _, name in done} == {"store-writer_0"}
    await threads.close()


async def test_reads_go_on_beside_each_other_in_so_many_threads_and_no_more(
    threads: Threads,
) -> None:
    together = threading.Barrier(2)
    # Each needs another one that runs at the same time.
    names = await asyncio.gather(*(threads.read(lambda: named(together)) for _ in range(6)))
    assert set(names) == {"store-reader_0", "store-reader_1"}
    await threads.close()


def named(together: threading.Barrier) -> str:
    together.wait(30)
    return threading.current_thread().name


async def test_what_is_raised_is_raised_to_whoever_asked_and_kept_by_nobody(
    threads: Threads,
) -> None:
    """A traceback keeps cursors alive, and with them an old state of the database."""

    class Cursor:
        pass

    kept: list[weakref.ref[Cursor]] = []

    def fails() -> None:
        cursor = Cursor()
        kept.append(weakref.ref(cursor))
        raise KeyError("gone")

    gc.disable()
    try:
        with suppress(KeyError):
            await threads.read(fails)
            raise AssertionError("it did not fail")
        # The thread has let go of it when it has done the next thing.
        assert await threads.read(lambda: 1) == 1
        assert [cursor() for cursor in kept] == [None]
    finally:
        gc.enable()
    await threads.close()


async def test_who_went_away_before_the_start_is_not_served_and_who_goes_later_harms_nobody(
    threads: Threads,
) -> None:
    began, go_on = threading.Event(), threading.Event()
    done: list[str] = []

    def first() -> None:
        began.set()
        go_on.wait(30)
        done.append("first")

    running = asyncio.create_task(threads.write(first))
    waiting = asyncio.create_task(threads.write(lambda: done.append("second")))
    await asyncio.to_thread(began.wait, 30)
    for task in (running, waiting):
        task.cancel()
    await asyncio.gather(running, waiting, return_exceptions=True)
    go_on.set()
    await threads.write(lambda: done.append("third"))
    assert done == ["first", "third"]
    await threads.close()


async def test_a_store_that_is_closed_has_done_what_it_was_given_and_takes_no_more(
    threads: Threads,
) -> None:
    done: list[int] = []
    given = [asyncio.create_task(threads.write(lambda n=n: done.append(n))) for n in range(20)]  # type: ignore[misc]
    await asyncio.sleep(0)
    await threads.close()
    await asyncio.gather(*given)
    assert done == list(range(20))
    with pytest.raises(RuntimeError, match="closed"):
        await threads.read(lambda: 1)
