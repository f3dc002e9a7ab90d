"""How often somebody may ask, by who it is and never by address: who shares an address with a flood
is not to suffer for it, and a flood from many addresses under one name is one.

Each has a bucket that holds some requests and fills evenly. It is one number, the time at which it
will be full again; of buckets that are full nothing is kept, so memory follows those who are busy.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from apiserver.errors import TooManyRequests

# What a bucket holds, as seconds of its rate.
BURST_S = 10
# Full buckets are looked for when there are so many, and then twice as many as were busy.
SWEPT_FROM = 1_024


@dataclass(slots=True)
class Buckets:
    """`per_s` requests a second for each, and BURST_S times that at once; 0 for no bound. `what`
    is the word for them in a refusal."""

    per_s: float
    what: str = "requests"
    monotonic: Callable[[], float] = time.monotonic
    _full_at: dict[int | str, float] = field(default_factory=dict)
    _swept_at: int = SWEPT_FROM

    def take(self, who: int | str, name: str = "") -> None:
        """One request of `who`, which a refusal calls `name`. Raises TooManyRequests."""
        if not self.per_s:
            return
        now = self.monotonic()
        full_at = max(now, self._full_at.get(who, now)) + 1 / self.per_s
        wait_s = full_at - now - max(BURST_S, 1 / self.per_s)
        # Less than any clock can tell is none.
        if wait_s > 1e-6:
            after_s = max(1, math.ceil(wait_s))
            raise TooManyRequests(
                f"{name or who} may have {self.per_s:g} {self.what} a second; "
                f"try again in {after_s} s",
                retry_after_s=after_s,
            )
        self._full_at[who] = full_at
        if len(self._full_at) > self._swept_at:
            self._full_at = {key: at for key, at in self._full_at.items() if at > now}
            self._swept_at = max(SWEPT_FROM, 2 * len(self._full_at))
