"""A data directory belongs to one process: the kernel's lock on a file, which ends with it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from apiserver.store.database import StoreLocked


def lock(path: Path) -> IO[str]:
    """The open file; closing it gives the lock up. Raises StoreLocked, which names the holder."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    held = os.fdopen(descriptor, "r+")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = held.read().strip() or "another process"
        held.close()
        raise StoreLocked(f"{path.parent} is in use by {holder}; stop it first") from error
    held.truncate(0)
    held.write(f"process {os.getpid()}\n")
    held.flush()
    return held
