"""The seed of a run of simulations, and what a failure says so that it can be had again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

SEED = int(os.environ.get("SIM_SEED", "1"))
# Many times as long, and for nobody who waits.
IS_SOAK = bool(os.environ.get("HOMEPORT_SOAK"))
# Of one test, on a machine that is shared. Nothing is measured by it: it ends what hangs.
LIMIT_S = 7200 if IS_SOAK else 300

# These are older lines: in `make test` a fifth of them, another one for each seed.
PART = 1 if IS_SOAK else 5


def cuts(count: int, kinds: Sequence[str]) -> list[tuple[int, str]]:
    """At which of `count` effects a life is cut off, and how: in soak at each in every way. A fifth
    of that takes the ways in turn, for there are not five of them."""
    every = [(k, kind) for k in range(count) for kind in kinds]
    return every[SEED % PART :: PART]


@contextlib.contextmanager
def naming(*where: object) -> Iterator[None]:
    """A failure says where the life was cut off."""
    try:
        yield
    except BaseException as error:
        error.add_note(f"cut off at {where}, SIM_SEED={SEED}")
        raise
