"""`python -m apiserver`, that kills itself around its next commit when it is told to.

SIGUSR1: before the commit, so that nothing of the transaction is there. SIGUSR2: after it, when all
of it is there and nobody has been answered. The database is the real one.
"""

from __future__ import annotations

import signal
import sys

from apiserver import logs
from apiserver.__main__ import main
from apiserver.store import postgres, store
from tests.fakes.dying_store import Dying, DyingPostgres, DyingSqlite

WHEN = {signal.SIGUSR1: "before-commit", signal.SIGUSR2: "after-commit"}


def arm(number: int, _frame: object) -> None:
    Dying.armed = WHEN[signal.Signals(number)]


if __name__ == "__main__":
    for each in WHEN:
        signal.signal(each, arm)
    store.SqliteDatabase = DyingSqlite  # type: ignore[misc]
    postgres.PostgresDatabase = DyingPostgres  # type: ignore[misc]
    logs.configure()
    sys.exit(main())
