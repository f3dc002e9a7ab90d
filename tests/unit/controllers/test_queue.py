"""The keyed queue: one worker a key, asked again while running, backing off, never losing a key."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from controllers.queue import Key, KeyedQueue, Terminal
from tests.fakes.waiting import until

A, B = ("Fleet", "default", "a"), ("Fleet", "default", "b")


@asynccontextmanager
async def running(worker: Callable[[Key], Awaitable[float | None]]) -> AsyncIterator[KeyedQueue]:
    queue = KeyedQueue(worker, parallel=2)
    task = asyncio.create_task(queue.run())
    try:
        yield queue
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_asking_many_times_works_once() -> None:
    seen: list[Key] = []

    async def work(key: Key) -> None:
        seen.append(key)

    queue = KeyedQueue(work)
    for _ in range(10):
        queue.add(A)
    task = asyncio.create_task(queue.run())
    await until(lambda: bool(seen))
    await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen == [A]


async def test_a_key_is_never_worked_on_twice_at_once_and_runs_again_if_asked_meanwhile() -> None:
    busy: set[Key] = set()
    runs: list[Key] = []
    go = asyncio.Event()

    async def work(key: Key) -> None:
        assert key not in busy
        busy.add(key)
        await go.wait()
        busy.discard(key)
        runs.append(key)

    async with running(work) as queue:
        queue.add(A)
        await until(lambda: A in busy)
        queue.add(A)
        queue.add(A)
        go.set()
        await until(lambda: len(runs) == 2)
        await asyncio.sleep(0.02)
    assert runs == [A, A]


async def test_keys_do_not_wait_for_each_other() -> None:
    done: list[Key] = []
    forever = asyncio.Event()

    async def work(key: Key) -> None:
        if key == A:
            await forever.wait()
        done.append(key)

    async with running(work) as queue:
        queue.add(A)
        queue.add(B)
        await until(lambda: done == [B])


async def test_a_failure_is_tried_again_and_a_terminal_one_is_not() -> None:
    tries: dict[Key, int] = {A: 0, B: 0}

    async def work(key: Key) -> None:
        tries[key] += 1
        if key == B:
            raise Terminal("no")
        if tries[key] == 1:
            raise RuntimeError("not yet")

    async with running(work) as queue:
        queue.add(A)
        queue.add(B)
        await until(lambda: tries[A] == 2)
    assert tries == {A: 2, B: 1}


async def test_a_worker_says_when_it_wants_to_look_again() -> None:
    seen: list[float] = []

    async def work(_key: Key) -> float | None:
        seen.append(asyncio.get_running_loop().time())
        return 0.05 if len(seen) == 1 else None

    async with running(work) as queue:
        queue.add(A)
        await until(lambda: len(seen) == 2)
    assert seen[1] - seen[0] >= 0.045


async def test_an_earlier_appointment_wins() -> None:
    seen: list[Key] = []

    async def work(key: Key) -> None:
        seen.append(key)

    async with running(work) as queue:
        queue.add(A, after_s=60)
        queue.add(A)
        await until(lambda: seen == [A])
        queue.add(A, after_s=0.01)
        await until(lambda: seen == [A, A])


async def test_what_changes_all_the_time_is_not_looked_at_all_the_time() -> None:
    """Between two looks that were asked for lies a rest, as long as some of them."""
    looks: list[tuple[float, float]] = []

    async def work(_key: Key) -> None:
        began = asyncio.get_running_loop().time()
        await asyncio.sleep(0.02)
        looks.append((began, asyncio.get_running_loop().time()))

    async with running(work) as queue:
        while len(looks) < 4:
            queue.add(A)
            await asyncio.sleep(0.001)
    for (began, ended), (again, _) in itertools.pairwise(looks):
        assert again - ended >= (ended - began) * 3.9
