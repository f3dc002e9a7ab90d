"""Threads that nobody waits for: their answers, and their end without one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time

import pytest

from controllers.abandoning import abandonable

# A loop that is told to end while a call of its blocks, in an interpreter that ends after it.
PROGRAM = """
import asyncio, time
from controllers.abandoning import abandonable

async def main():
    call = asyncio.create_task(abandonable(lambda: time.sleep(60), name="slow"))
    await asyncio.sleep(0.1)
    call.cancel()

asyncio.run(main())
print("the loop has ended")
"""


async def test_it_answers_as_the_call_does() -> None:
    assert await abandonable(lambda: 7, name="seven") == 7
    with pytest.raises(ZeroDivisionError):
        await abandonable(lambda: 1 // 0, name="fails")


async def test_an_answer_that_nobody_waits_for_any_more_is_dropped() -> None:
    asked, answered = threading.Event(), threading.Event()

    def work() -> None:
        asked.wait(10)
        answered.set()

    call = asyncio.create_task(abandonable(work, name="late"))
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    asked.set()
    assert await asyncio.to_thread(answered.wait, 10)
    await asyncio.sleep(0.01)


def test_neither_the_loop_nor_the_process_waits_for_it() -> None:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "has ended" in done.stdout
    assert time.monotonic() - began < 45
