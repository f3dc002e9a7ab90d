"""What a client is told when the store cannot: the same on every face."""

from __future__ import annotations

from apiserver.errors import InsufficientStorage, ServiceUnavailable, StatusError
from apiserver.store import StoreBusy, StoreFull, StoreUnavailable

BUSY_RETRY_S, UNAVAILABLE_RETRY_S = 1, 5


def of_store(problem: Exception) -> StatusError | None:
    """The refusal that a problem of the store is; None for everything else."""
    match problem:
        case StoreBusy():
            return ServiceUnavailable(str(problem), retry_after_s=BUSY_RETRY_S)
        case StoreFull():
            return InsufficientStorage(str(problem))
        case StoreUnavailable():
            return ServiceUnavailable(str(problem), retry_after_s=UNAVAILABLE_RETRY_S)
        case _:
            return None
