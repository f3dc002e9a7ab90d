"""What the verbs take and give, whichever face asks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from apiserver.auth.identity import Caller
from apiserver.store import Transaction
from resources.kind import Json
from resources.selectors import EVERYTHING, FieldSelector, LabelSelector

BOOKMARK_S = 50.0


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """A write without a `field_manager` is the service's own, and changes no ownership.
    `is_applied`: the document is what an apply came to; `force`: it takes what others own."""

    dry_run: bool = False
    field_validation: str = "Warn"
    field_manager: str = ""
    force: bool = False
    is_applied: bool = False


# What the service writes of its own accord.
OWN_WRITE = WriteOptions()


class Judge(Protocol):
    """What a kind makes of a write beyond its form, in the transaction that stores it."""

    def asked(self, caller: Caller, old: Json | None, document: Json) -> Json:
        """The document with what the service says in it. Raises StatusError."""
        ...

    def judged(
        self, tx: Transaction, caller: Caller, old: Json | None, stored: Json, options: WriteOptions
    ) -> Json:
        """What comes of one that was just made, or whose specification changed; it is stored too.
        Raises StatusError, and then nothing is."""
        ...


@dataclass(frozen=True, slots=True)
class ListOptions:
    """`version` is the first page's, which every further page carries."""

    labels: LabelSelector = EVERYTHING
    fields: FieldSelector | None = None
    limit: int = 0
    after: tuple[str, str] | None = None
    version: int | None = None
    resource_version: int | None = None
    match: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    items: list[Json]
    version: int
    after: tuple[str, str] | None = None
    remaining: int | None = None


@dataclass(frozen=True, slots=True)
class Written:
    document: Json
    created: bool = False
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Deleted:
    document: Json
    gone: bool


@dataclass(frozen=True, slots=True)
class WatchOptions:
    labels: LabelSelector = EVERYTHING
    fields: FieldSelector | None = None
    resource_version: int | None = None
    send_initial: bool = False
    bookmarks: bool = False
    timeout_s: float = 1800.0
    bookmark_s: float = BOOKMARK_S


@dataclass(frozen=True, slots=True)
class WatchEvent:
    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    document: Json
    initial_end: bool = False


@dataclass(frozen=True, slots=True)
class WatchBatch:
    """Events that follow each other. Watchers that ask for the same get the same batch, and leave
    what they have written of it, by shape, for the next of them."""

    events: Sequence[WatchEvent]
    written: dict[str, Sequence[bytes]] = field(default_factory=dict, compare=False)
