"""Threads of which one runs at a time, in an order of virtual time: the same every time.

A thread of the stage gives the floor by `wait` alone; whoever has waited for something that is true
by then, or else for the shortest time, has it next. So the agent's threads, each written as if it
were alone, run in one process, through a simulated day in a second, without a race that could not
be repeated.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from typing import Protocol

# No wait is so short that adding it to the clock changes nothing.
TICK_S = 1e-6
RUNAWAY = 2_000_000


class Clock(Protocol):
    elapsed_s: float


class _Ended(BaseException):
    """Unwinds a thread of a stage that is over."""


class _Actor:
    def __init__(self, name: str, body: Callable[[], None]) -> None:
        self.name = name
        self.body = body
        self.floor = threading.Semaphore(0)
        self.until_s = 0.0
        self.is_ready: Callable[[], bool] = lambda: False
        self.is_done = False
        self.thread: threading.Thread | None = None


class Stage:
    """One life of a process: `play` runs it until it ends, fails, or the time is over."""

    def __init__(self, clock: Clock, shuffle: random.Random | None = None) -> None:
        """`shuffle`: of several that are ready any may be next, not the first that was added."""
        self._clock = clock
        self._shuffle = shuffle
        self._actors: list[_Actor] = []
        # Who belongs to which thread of the interpreter.
        self._by_thread: dict[int, _Actor] = {}
        self._director = threading.Semaphore(0)
        self._failure: BaseException | None = None
        self._is_over = False
        self.turns = 0

    def add(self, name: str, body: Callable[[], None]) -> None:
        actor = _Actor(name, body)
        actor.until_s = self._clock.elapsed_s
        self._actors.append(actor)

    def wait(self, seconds: float, is_ready: Callable[[], bool] = lambda: False) -> bool:
        """Whether it became ready."""
        if self._is_over:
            raise _Ended
        actor = self._by_thread.get(threading.get_ident())
        if actor is None:
            # Before the play: there is nobody else.
            self._clock.elapsed_s += max(TICK_S, seconds)
            return is_ready()
        actor.until_s = self._clock.elapsed_s + max(TICK_S, seconds)
        actor.is_ready = is_ready
        self._director.release()
        actor.floor.acquire()
        if self._is_over:
            raise _Ended
        return is_ready()

    def play(self, until_s: float, is_enough: Callable[[], bool] = lambda: False) -> None:
        """Raises what a thread has raised; a thread that returns ends the play."""
        try:
            while not is_enough():
                actor = self._next()
                if actor is None or (not actor.is_ready() and actor.until_s > until_s):
                    return
                if not actor.is_ready():
                    self._clock.elapsed_s = max(self._clock.elapsed_s, actor.until_s)
                self._give_floor(actor)
                if self._failure is not None:
                    raise self._failure
                if actor.is_done:
                    return
        finally:
            self._end()

    def _next(self) -> _Actor | None:
        self.turns += 1
        assert self.turns < RUNAWAY, "the threads go round in circles"
        ready = [one for one in self._actors if one.is_ready()]
        if ready and self._shuffle is not None:
            return self._shuffle.choice(ready)
        return ready[0] if ready else min(self._actors, key=lambda one: one.until_s, default=None)

    def _give_floor(self, actor: _Actor) -> None:
        if actor.thread is None:
            actor.thread = threading.Thread(target=self._act, args=(actor,), daemon=True)
            actor.thread.start()
        else:
            actor.floor.release()
        self._director.acquire()

    def _act(self, actor: _Actor) -> None:
        self._by_thread[threading.get_ident()] = actor
        try:
            actor.body()
        except _Ended:
            pass
        except BaseException as error:
            self._failure = error
        actor.is_done = True
        self._director.release()

    def _end(self) -> None:
        self._is_over = True
        for actor in self._actors:
            if actor.thread is not None and not actor.is_done:
                actor.floor.release()
                self._director.acquire()
                actor.thread.join(5)
