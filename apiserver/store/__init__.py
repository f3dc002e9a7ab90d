"""The store: the only place that opens the database. Everything durable passes through here."""

from apiserver.store.database import (
    StoreFull,
    StoreLocked,
    StoreTooNew,
    StoreUnavailable,
    StoreUnreachable,
)
from apiserver.store.hub import Hub
from apiserver.store.keyfile import BadKeys, KeyFile
from apiserver.store.sequencer import StoreBusy
from apiserver.store.snapshot import Snapshot, Transaction
from apiserver.store.store import Store

__all__ = [
    "BadKeys",
    "Hub",
    "KeyFile",
    "Snapshot",
    "Store",
    "StoreBusy",
    "StoreFull",
    "StoreLocked",
    "StoreTooNew",
    "StoreUnavailable",
    "StoreUnreachable",
    "Transaction",
]
