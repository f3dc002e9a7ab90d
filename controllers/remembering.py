"""A bounded memory of answers, each with the moment at which it was asked for.

What was asked before something was dropped, and is answered after that, is not remembered: the
answer may be the very one that was to be forgotten.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Question:
    """One that is on its way: since when, and how often something had been dropped by then."""

    at: float
    drops: int


class Memory(Generic[K, V]):
    """Losing an entry costs asking again and nothing else."""

    def __init__(self, most: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._monotonic = monotonic
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._drops = 0

    def get(self, key: K, within_s: float = float("inf")) -> V | None:
        """The answer, if it was asked for no longer ago."""
        found = self._entries.get(key)
        if found is None or found[0] <= self._monotonic() - within_s:
            return None
        return found[1]

    def asking(self) -> Question:
        """To be called when a question goes out: its answer may have been old already."""
        return Question(self._monotonic(), self._drops)

    def put(self, key: K, answer: V, question: Question | None = None) -> None:
        """Remember the answer to a question, by default to one that went out just now."""
        question = question or self.asking()
        if question.drops != self._drops:
            return
        self._entries[key] = (question.at, answer)
        self._entries.move_to_end(key)
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def drop(self, key: K) -> None:
        self._drops += 1
        self._entries.pop(key, None)

    def drop_if(self, is_dropped: Callable[[K], bool]) -> None:
        self._drops += 1
        for key in [key for key in self._entries if is_dropped(key)]:
            del self._entries[key]

    def clear(self) -> None:
        self._drops += 1
        self._entries.clear()
