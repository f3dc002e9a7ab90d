"""A bounded memory of answers, each with the moment at which it was asked for."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Memory(Generic[K, V]):
    """Losing an entry costs asking again and nothing else."""

    def __init__(self, most: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._most = most
        self._monotonic = monotonic
        self._entries: OrderedDict[K, tuple[float, V]] = OrderedDict()

    def get(self, key: K, within_s: float = float("inf")) -> V | None:
        """The answer, if it was asked for no longer ago."""
        found = self._entries.get(key)
        if found is None or found[0] <= self._monotonic() - within_s:
            return None
        return found[1]

    def put(self, key: K, answer: V, *, asked: float | None = None) -> None:
        """`asked`: when the question went out, if not now; the answer may have been old already."""
        self._entries[key] = (self._monotonic() if asked is None else asked, answer)
        self._entries.move_to_end(key)
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)

    def drop(self, key: K) -> None:
        self._entries.pop(key, None)

    def clear(self) -> None:
        self._entries.clear()
