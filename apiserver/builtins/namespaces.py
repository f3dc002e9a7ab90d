"""Namespaces as a view of organisations: one row, two names, so the pair can never disagree.

An organisation *is* a namespace; creating, labelling or deleting the one is doing it to the other,
with the same uid and the same resourceVersion. The view has the surface of the operations, and
turns documents on the way in and out. The organisation's own spec is kept by writes that come
through here, since a Namespace has no place for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from apiserver.builtins.kinds import NAMESPACE
from apiserver.errors import StatusError
from apiserver.operations import (
    Caller,
    Deleted,
    ListOptions,
    Operations,
    Page,
    WatchEvent,
    WatchOptions,
    WriteOptions,
    Written,
)
from resources.kind import Json, Kind
from resources.registry import ORGANIZATION
from resources.selectors import EVERYTHING, FieldSelector, LabelSelector


def to_namespace(organization: Json) -> Json:
    """The Namespace that an Organization is."""
    metadata = {k: v for k, v in organization["metadata"].items() if k != "owner"}
    phase = "Terminating" if metadata.get("deletionTimestamp") else "Active"
    return {
        "apiVersion": NAMESPACE.api_version,
        "kind": NAMESPACE.kind,
        "metadata": metadata,
        "spec": {},
        "status": {"phase": phase},
    }


def to_organization(namespace: Json, was: Json | None = None) -> Json:
    """The Organization behind a Namespace that is written; `was` is the stored one."""
    document: Json = {
        "apiVersion": ORGANIZATION.api_version,
        "kind": ORGANIZATION.kind,
        "metadata": namespace.get("metadata"),
    }
    if was is None:
        metadata = namespace.get("metadata")
        name = metadata.get("name") if isinstance(metadata, dict) else None
        document["spec"] = {"displayName": name} if isinstance(name, str) else {}
    elif "spec" in was:
        document["spec"] = was["spec"]
    return document


class Namespaces:
    """The operations, for the kind Namespace alone."""

    def __init__(self, operations: Operations) -> None:
        self._operations = operations

    async def get(self, caller: Caller, kind: Kind, namespace: str, name: str) -> Json:
        with _in_our_words():
            return to_namespace(await self._operations.get(caller, ORGANIZATION, "", name))

    async def list(
        self, caller: Caller, kind: Kind, namespace: str | None, options: ListOptions
    ) -> Page:
        with _in_our_words():
            page = await self._operations.list(caller, ORGANIZATION, None, options)
        return replace(page, items=[to_namespace(item) for item in page.items])

    async def create(
        self, caller: Caller, kind: Kind, namespace: str, document: Json, options: WriteOptions
    ) -> Written:
        document, warnings = self._operations.decode(NAMESPACE, document, options)
        with _in_our_words():
            written = await self._operations.create(
                caller, ORGANIZATION, "", to_organization(document), options
            )
        return _turned(written, warnings)

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
                NAMESPACE, change(to_namespace(was)), options
            )
            return to_organization(document, was)

        with _in_our_words():
            written = await self._operations.patch(caller, ORGANIZATION, "", name, changed, options)
        return _turned(written, warnings)

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
        with _in_our_words():
            deleted = await self._operations.delete(
                caller, ORGANIZATION, "", name,
                preconditions=preconditions, propagation=propagation, dry_run=dry_run,
            )  # fmt: skip
        return replace(deleted, document=to_namespace(deleted.document))

    async def delete_collection(
        self,
        caller: Caller,
        kind: Kind,
        namespace: str | None,
        labels: LabelSelector = EVERYTHING,
        fields: FieldSelector | None = None,
        dry_run: bool = False,
    ) -> Sequence[Json]:
        with _in_our_words():
            gone = await self._operations.delete_collection(
                caller, ORGANIZATION, None, labels, fields, dry_run
            )
        return [to_namespace(document) for document in gone]

    async def watch(
        self, caller: Caller, kind: Kind, namespace: str | None, options: WatchOptions
    ) -> AsyncIterator[WatchEvent]:
        with _in_our_words():
            async for event in self._operations.watch(caller, ORGANIZATION, None, options):
                yield replace(event, document=to_namespace(event.document))


def _turned(written: Written, warnings: tuple[str, ...]) -> Written:
    return Written(to_namespace(written.document), written.created, warnings + written.warnings)


@contextmanager
def _in_our_words() -> Iterator[None]:
    """What is said of an organisation is said of the namespace that was asked for."""
    try:
        yield
    except StatusError as error:
        if error.kind is not ORGANIZATION:
            raise
        error.kind = NAMESPACE
        error.message = error.message.replace(ORGANIZATION.resource, NAMESPACE.resource).replace(
            f"{ORGANIZATION.kind}.{ORGANIZATION.group}", NAMESPACE.kind
        )
        raise
