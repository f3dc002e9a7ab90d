"""What the garbage collector need not look at, again and again, in a process that serves."""

from __future__ import annotations

import gc

# Requests leave hardly any cycles behind; with Python's 700 the collector took 7 % of a busy
# server's time. A cycle lives a little longer instead.
YOUNG, MIDDLE, OLD = 20_000, 20, 50


def settle() -> None:
    """Once, when everything is started: what is there now stays for as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
