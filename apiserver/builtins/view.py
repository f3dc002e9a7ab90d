"""A kind that is another kind underneath: the surface of the operations, turned in and out.

What is stored has one form; a view shows it in the words of another API. Validation happens in the
shown form, so complaints name the fields that people wrote, and everything else (versions,
selectors, transactions, watches) is that of the stored kind, with the same uid and version.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from apiserver.errors import StatusError
from apiserver.operations import (
    Caller,
    Deleted,
    ListOptions,
    Operations,
    Page,
    WatchBatch,
    WatchOptions,
    WriteOptions,
    Written,
)
from resources.kind import Json, Kind
from resources.selectors import EVERYTHING, FieldSelector, LabelSelector

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Turning:
    """How one kind is another. `show` makes the shown document of a stored one; `store` makes the
    stored of a shown one, given the stored one that it replaces; `select` turns field selectors."""

    shown: Kind
    stored: Kind
    show: Callable[[Json], Json]
    store: Callable[[Json, Json | None], Json]
    select: Callable[[FieldSelector], FieldSelector]


class View:
    """The operations, for one shown kind."""

    def __init__(self, operations: Operations, turning: Turning) -> None:
        self._operations = operations
        self._turning = turning

    async def get(self, caller: Caller, kind: Kind, namespace: str, name: str) -> Json:
        with self._in_shown_words():
            return self._turning.show(
                await self._operations.get(caller, self._turning.stored, namespace, name)
            )

    async def list_as(
        self,
        caller: Caller,
        kind: Kind,
        namespace: str | None,
        options: ListOptions,
        write: Callable[[Page], T],
    ) -> T:
        def turned(page: Page) -> T:
            return write(replace(page, items=[self._turning.show(item) for item in page.items]))

        with self._in_shown_words():
            options = replace(options, fields=self._fields(options.fields))
            return await self._operations.list_as(
                caller, self._turning.stored, namespace, options, turned
            )

    async def create(
        self, caller: Caller, kind: Kind, namespace: str, document: Json, options: WriteOptions
    ) -> Written:
        document, warnings = self._operations.decode(self._turning.shown, document, options)
        with self._in_shown_words():
            written = await self._operations.create(
                caller,
                self._turning.stored,
                namespace,
                self._turning.store(document, None),
                options,
            )
        return self._written(written, warnings)

    async def update(
        self,
        caller: Caller,
        kind: Kind,
        namespace: str,
        name: str,
        document: Json,
        options: WriteOptions,
        *,
        subresource: str = "",
        create_missing: bool = False,
    ) -> Written:
        return await self.patch(caller, kind, namespace, name, lambda _: document, options)

    async def patch(
        self,
        caller: Caller,
        kind: Kind,
        namespace: str,
        name: str,
        change: Callable[[Json], Json],
        options: WriteOptions,
        *,
        subresource: str = "",
    ) -> Written:
        warnings: tuple[str, ...] = ()

        def changed(was: Json) -> Json:
            nonlocal warnings
            document, warnings = self._operations.decode(
                self._turning.shown, change(self._turning.show(was)), options
            )
            return self._turning.store(document, was)

        with self._in_shown_words():
            written = await self._operations.patch(
                caller, self._turning.stored, namespace, name, changed, options
            )
        return self._written(written, warnings)

    async def apply(
        self,
        caller: Caller,
        kind: Kind,
        namespace: str,
        name: str,
        config: Json,
        options: WriteOptions,
        *,
        subresource: str = "",
    ) -> Written:
        known, warnings = self._operations.known(self._turning.shown, config, options)
        with self._in_shown_words():
            written = await self._operations.apply(
                caller, self._turning.stored, namespace, name,
                self._turning.store(known, {}), options,
            )  # fmt: skip
        return self._written(written, warnings)

    async def delete(
        self,
        caller: Caller,
        kind: Kind,
        namespace: str,
        name: str,
        *,
        preconditions: Json | None = None,
        propagation: str | None = None,
        dry_run: bool = False,
    ) -> Deleted:
        with self._in_shown_words():
            deleted = await self._operations.delete(
                caller, self._turning.stored, namespace, name,
                preconditions=preconditions, propagation=propagation, dry_run=dry_run,
            )  # fmt: skip
        return replace(deleted, document=self._turning.show(deleted.document))

    async def delete_collection(
        self,
        caller: Caller,
        kind: Kind,
        namespace: str | None,
        labels: LabelSelector = EVERYTHING,
        fields: FieldSelector | None = None,
        *,
        propagation: str | None = None,
        dry_run: bool = False,
    ) -> Sequence[Json]:
        with self._in_shown_words():
            gone = await self._operations.delete_collection(
                caller, self._turning.stored, namespace, labels, self._fields(fields),
                propagation=propagation, dry_run=dry_run,
            )  # fmt: skip
        return [self._turning.show(document) for document in gone]

    async def reach(self, version: int, timeout_s: float) -> int:
        return await self._operations.reach(version, timeout_s)

    async def watch(
        self, caller: Caller, kind: Kind, namespace: str | None, options: WatchOptions
    ) -> AsyncIterator[WatchBatch]:
        with self._in_shown_words():
            async for batch in self._operations.watch(
                caller,
                self._turning.stored,
                namespace,
                replace(options, fields=self._fields(options.fields)),
            ):
                show = self._turning.show
                yield WatchBatch([replace(e, document=show(e.document)) for e in batch.events])

    def _fields(self, fields: FieldSelector | None) -> FieldSelector | None:
        return None if fields is None else self._turning.select(fields)

    def _written(self, written: Written, warnings: tuple[str, ...]) -> Written:
        document = self._turning.show(written.document)
        return Written(document, written.created, warnings + written.warnings)

    @contextmanager
    def _in_shown_words(self) -> Iterator[None]:
        """What is said of the stored kind is said of the shown one."""
        shown, stored = self._turning.shown, self._turning.stored
        try:
            yield
        except StatusError as error:
            if error.kind is stored:
                error.kind = shown
                error.message = error.message.replace(stored.resource, shown.resource)
                error.message = error.message.replace(f"{stored.kind}.{stored.group}", shown.kind)
            raise


# --- managedFields in the words of the shown kind ------------------------------------------------

_SPEC = "f:spec"
_METADATA = "f:metadata"


def owners_without(entries: Any, name: str) -> list[Json]:
    """The entries without a part that the shown kind has not; who owned only that is not shown."""

    def without(fields: Json) -> Json:
        return {key: value for key, value in fields.items() if key != f"f:{name}"}

    return [entry for entry in _turned(entries, without) if entry.get("fieldsV1")]


def owners_lifted(entries: Any) -> list[Json]:
    """For a kind without spec: what is stored under `spec` stands at the top of what is shown."""

    def lifted(fields: Json) -> Json:
        inner: Json = fields.get(_SPEC, {})
        rest = {key: value for key, value in fields.items() if key != _SPEC}
        return rest | {key: value for key, value in inner.items() if key != "."}

    return _turned(entries, lifted)


def owners_lowered(entries: Any) -> list[Json]:
    """The way back."""

    def lowered(fields: Json) -> Json:
        inner = {key: value for key, value in fields.items() if key != _METADATA}
        outer = {key: value for key, value in fields.items() if key == _METADATA}
        return outer | ({_SPEC: inner} if inner else {})

    return _turned(entries, lowered)


def _turned(entries: Any, turn: Callable[[Json], Json]) -> list[Json]:
    """Entries that make no sense stay as they are: they will be read as none."""
    if not isinstance(entries, list):
        return []
    return [
        entry | {"fieldsV1": turn(entry["fieldsV1"])}
        if isinstance(entry, dict) and isinstance(entry.get("fieldsV1"), dict)
        else entry
        for entry in entries
    ]
