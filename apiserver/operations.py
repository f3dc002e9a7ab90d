"""The registry operations: the one way in for every face, with one validation and one order.

A write is prepared on nothing, judged inside the transaction that stores it: the document read
there is the one that is changed, so there is no window between looking and writing, and a patch
without a version needs no retry loop. Each caller was authorised by its face before it came here.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

import structlog

from apiserver import (
    bindings,
    enrolled,
    errors,
    keeping,
    owning,
    rollouts,
    showing,
    strategy,
    watching,
)
from apiserver.auditing import Act, noted
from apiserver.auth.identity import Caller
from apiserver.store import Snapshot, Store, Transaction, delivering
from apiserver.storing import BORN_WITH_STATUS, DEFAULT_NAMESPACE, Storing
from apiserver.verbs import (
    OWN_WRITE,
    Deleted,
    Judge,
    ListOptions,
    Page,
    WatchBatch,
    WatchEvent,
    WatchOptions,
    WriteOptions,
    Written,
)
from resources import masking, refreshing, registry, validation
from resources.errors import Invalid
from resources.kind import Json, Kind
from resources.selectors import EVERYTHING, FieldSelector, LabelSelector

T = TypeVar("T")

log = structlog.get_logger()

# How long a version is waited for that another process has told the client of.
REACH_S = 3.0
DEFAULT_ORGANIZATION = "00000000-0000-0000-0000-000000000000"


class Operations:
    """Every verb on every kind. Documents in and out are plain JSON, complete and in our hands:
    callers may change what they get."""

    def __init__(
        self,
        store: Store,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        kinds: Iterable[Kind] = registry.KINDS,
    ) -> None:
        """`kinds`: all that may own something, or be owned, and so go with an owner."""
        self.store = store
        self._storing = Storing({kind.kind: kind for kind in kinds})
        # For those who write more than one thing in a transaction of their own.
        self.insert_in = self._storing.insert
        self.update_in = self._storing.update
        self._judges: dict[str, Judge] = {}
        self._monotonic = monotonic
        self._looks = watching.Looks(store)
        store.keep_backlog(bindings.keep_backlog)

    def judge_by(self, kind: Kind, judge: Judge) -> None:
        """Have `judge` look at each write of this kind, by whatever verb and face it comes."""
        self._judges[kind.kind] = judge

    async def prepare(self) -> None:
        """What must exist before the first request: the default namespace and its organisation."""

        def ensure(tx: Transaction) -> None:
            kind = registry.by_kind("Organization")
            if tx.get(kind, "", DEFAULT_NAMESPACE) is None:
                self._storing.pair(tx, DEFAULT_NAMESPACE, DEFAULT_ORGANIZATION)

        await self.store.write(ensure)

    # --- reading --------------------------------------------------------------------------

    async def get(self, caller: Caller, kind: Kind, namespace: str, name: str) -> Json:
        def read(snapshot: Snapshot) -> Json | None:
            found = snapshot.get(kind, namespace, name)
            return found and showing.shown(snapshot, kind, found)

        document = await self.store.read(read)
        if document is None:
            raise errors.not_found(kind, name)
        return document

    async def list(
        self, caller: Caller, kind: Kind, namespace: str | None, options: ListOptions
    ) -> Page:
        """A page, at the latest state. `Exact` of another version than the current one answers
        410: no history is kept for lists."""
        return await self.list_as(caller, kind, namespace, options, lambda page: page)

    async def list_as(
        self,
        caller: Caller,
        kind: Kind,
        namespace: str | None,
        options: ListOptions,
        write: Callable[[Page], T],
    ) -> T:
        """What `write` makes of the page. It runs in the thread that read: the event loop stays
        free, and documents stay in the cache of one processor."""
        await self._not_older(options)
        return await self.store.read(lambda s: write(showing.page(s, kind, namespace, options)))

    async def _not_older(self, options: ListOptions) -> None:
        wanted = options.resource_version
        if wanted is None or options.match == "Exact":
            return
        if await self.reach(wanted, REACH_S) < wanted:
            raise errors.Timeout("Too large resource version", retry_after_s=1)

    # --- writing --------------------------------------------------------------------------

    async def create(
        self, caller: Caller, kind: Kind, namespace: str, document: Json, options: WriteOptions
    ) -> Written:
        document, warnings = self._understood(caller, kind, document, None, options)

        def apply(tx: Transaction) -> Written:
            made = self._made(tx, caller, kind, document, namespace, options)
            return showing.answered(tx, kind, made, None, options, warnings)

        act = Act(caller, "create", kind, namespace)
        return await self.store.write(noted(act, apply), dry_run=options.dry_run)

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
        def apply(tx: Transaction) -> Written:
            old = tx.get(kind, namespace, name)
            if old is None and (not create_missing or subresource):
                raise errors.not_found(kind, name)
            ready, warnings = self._understood(caller, kind, document, old, options, subresource)
            if old is None:
                made = self._made(tx, caller, kind, ready, namespace, options)
                return showing.answered(tx, kind, made, None, options, warnings)
            new = strategy.for_update(kind, namespace, old, ready, subresource=subresource)
            new = owning.updated(kind, old, new, options, tx.timestamp, subresource)
            keeping.claim(tx, caller, kind, ready, old, new)
            stored = self._changed(tx, caller, kind, old, new, options)
            return showing.answered(tx, kind, stored, old, options, warnings)

        act = Act(caller, "update", kind, namespace, name, subresource)
        return await self.store.write(noted(act, apply), dry_run=options.dry_run)

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
        """`change` is pure and leaves what it is given alone; it is applied inside the transaction
        that stores the object, to what a person sees of it."""

        def apply(tx: Transaction) -> Written:
            old = tx.get(kind, namespace, name)
            if old is None:
                raise errors.not_found(kind, name)
            changed = change(masking.masked(kind, old))
            if not isinstance(changed, dict):
                raise errors.BadRequest("the patch does not leave an object")
            changed, warnings = self._understood(caller, kind, changed, old, options, subresource)
            new = strategy.for_update(kind, namespace, old, changed, subresource=subresource)
            new = owning.updated(kind, old, new, options, tx.timestamp, subresource)
            stored = self._changed(tx, caller, kind, old, new, options)
            return showing.answered(tx, kind, stored, old, options, warnings)

        act = Act(caller, "patch", kind, namespace, name, subresource)
        return await self.store.write(noted(act, apply), dry_run=options.dry_run)

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
        """Server-side apply: `config` says all that its manager wants, and nothing else. It is
        merged with what a person sees of the object, so that a secret is no oracle."""
        config, warnings = self.known(kind, config, options)
        options = replace(options, is_applied=True)

        def apply(tx: Transaction) -> Written:
            old = tx.get(kind, namespace, name)
            if old is None and subresource:
                raise errors.not_found(kind, name)
            live = None if old is None else masking.masked(kind, old)
            found = owning.applied(kind, live, config, options, tx.timestamp, subresource)
            ready, _ = self._understood(caller, kind, found, old, options, subresource)
            if old is None:
                made = self._made(tx, caller, kind, ready, namespace, options)
                return showing.answered(tx, kind, made, None, options, warnings)
            new = strategy.for_update(kind, namespace, old, ready, subresource=subresource)
            new["metadata"]["managedFields"] = found["metadata"].get("managedFields", [])
            new = owning.settled(old, new)
            stored = self._changed(tx, caller, kind, old, new, options)
            return showing.answered(tx, kind, stored, old, options, warnings)

        act = Act(caller, "patch", kind, namespace, name, subresource)
        return await self.store.write(noted(act, apply), dry_run=options.dry_run)

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
        is_told: bool = True,
    ) -> Deleted:
        """`is_told`: as an event, which what the service forgets by itself is not."""

        def apply(tx: Transaction) -> Deleted:
            old = tx.get(kind, namespace, name)
            if old is None:
                raise errors.not_found(kind, name)
            for key, value in (preconditions or {}).items():
                if value and str(old["metadata"].get(key)) != str(value):
                    raise errors.conflict(
                        kind, name, f"the {key} in the precondition ({value}) does not match"
                    )
            keeping.guard_deletion(tx, caller, kind, old)
            enrolled.guard_deletion(tx, kind, old)
            return self._storing.delete(tx, kind, old, propagation, is_told=is_told)

        act = Act(caller, "delete", kind, namespace, name)
        deleted = await self.store.write(noted(act, apply), dry_run=dry_run)
        return replace(deleted, document=masking.masked(kind, deleted.document))

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
        def apply(tx: Transaction) -> Sequence[Json]:
            found = tx.list(kind, namespace, labels=labels, fields=fields)
            for document in found:
                keeping.guard_deletion(tx, caller, kind, document)
                enrolled.guard_deletion(tx, kind, document)
            gone = []
            for document in found:
                metadata = document["metadata"]
                # One before it may have taken it along, or was named by it as an owner.
                now = tx.get(kind, metadata.get("namespace", ""), metadata["name"])
                gone.append(
                    self._storing.delete(tx, kind, now, propagation).document if now else document
                )
            return [masking.masked(kind, document) for document in gone]

        act = Act(caller, "deletecollection", kind, namespace or "")
        return await self.store.write(noted(act, apply), dry_run=dry_run)

    # --- watching -------------------------------------------------------------------------

    async def reach(self, version: int, timeout_s: float) -> int:
        """The newest version, as soon as it is `version` or above, at the latest after that."""
        return await self.store.reach(version, timeout_s)

    async def watch(
        self, caller: Caller, kind: Kind, namespace: str | None, options: WatchOptions
    ) -> AsyncIterator[WatchBatch]:
        """Events until the timeout or the drain. Raises Expired when the log no longer reaches
        back to `resource_version`, at the start or later."""
        deadline = self._monotonic() + options.timeout_s
        cursor = options.resource_version
        if not cursor or options.send_initial:
            page = await self.list(
                caller, kind, namespace, ListOptions(options.labels, options.fields)
            )
            for start in range(0, len(page.items), watching.PAGE):
                some = page.items[start : start + watching.PAGE]
                yield WatchBatch([WatchEvent("ADDED", document) for document in some])
            cursor = page.version
            if options.send_initial:
                last = WatchEvent("BOOKMARK", showing.bookmark(kind, cursor), initial_end=True)
                yield WatchBatch([last])
        bookmarked = self._monotonic()
        told = cursor
        step = await self._looks.look(kind, namespace, options, cursor)
        while True:
            if step.batch.events:
                yield step.batch
            cursor = step.cursor
            now = self._monotonic()
            ending = now >= deadline or self.store.hub.closed
            due = now - bookmarked >= options.bookmark_s or (ending and cursor != told)
            if step.caught_up and options.bookmarks and due:
                yield WatchBatch([WatchEvent("BOOKMARK", showing.bookmark(kind, cursor))])
                bookmarked, told = now, cursor
            if ending:
                return
            if not step.caught_up:
                step = await self._looks.look(kind, namespace, options, cursor)
                continue
            next_s = min(deadline - now, max(0.05, bookmarked + options.bookmark_s - now))
            step = await self._looks.following(kind, namespace, options, cursor, next_s)

    # --- our own verbs --------------------------------------------------------------------

    async def bind(self, caller: Caller, namespace: str, fleet: str, request: Json) -> Json:
        return await rollouts.bind(self.store, namespace, fleet, request)

    async def progress(self, caller: Caller, namespace: str, fleet: str, rollout: str) -> Json:
        return await rollouts.progress(self.store, namespace, fleet, rollout)

    async def rendered(self, caller: Caller, namespace: str, name: str) -> Json:
        """The Device as its agent gets it."""
        kind = registry.by_kind("Device")
        found = await self.store.read(
            lambda s: delivering.rendered_device(s, kind, namespace, name)
        )
        if found is None:
            raise errors.not_found(kind, name)
        if "spec" not in found:
            raise errors.Conflict("no rendered version for device", kind=kind, name=name)
        return found

    async def credentials(self, caller: Caller, kind: Kind, namespace: str, name: str) -> Json:
        """The object with its secrets; the roles let the controllers alone come here."""
        document = await self.store.read(lambda snapshot: snapshot.get(kind, namespace, name))
        if document is None:
            raise errors.not_found(kind, name)
        log.info("credentials read", kind=kind.kind, namespace=namespace, name=name, by=caller.name)
        return document

    async def refresh(self, caller: Caller, kind: Kind, namespace: str, name: str) -> Written:
        """Ask the controllers to look at once: a note on the object, so that it can't be lost."""
        return await self.patch(caller, kind, namespace, name, refreshing.asked, OWN_WRITE)

    # --- helpers --------------------------------------------------------------------------

    def _understood(
        self,
        caller: Caller,
        kind: Kind,
        document: Json,
        old: Json | None,
        options: WriteOptions,
        subresource: str = "",
    ) -> tuple[Json, tuple[str, ...]]:
        """What a person sent, as it is meant, and the warnings about it. Raises StatusError."""
        document = showing.revealed(kind, _without_status(kind, document, subresource), old)
        document, warnings = self.decode(kind, document, options, old)
        judge = self._judges.get(kind.kind)
        if judge is not None and not subresource:
            document = judge.asked(caller, old, document)
        return document, warnings

    def _made(
        self,
        tx: Transaction,
        caller: Caller,
        kind: Kind,
        document: Json,
        namespace: str,
        options: WriteOptions,
    ) -> Json:
        made = self.insert_in(tx, caller, kind, document, namespace, options)
        judge = self._judges.get(kind.kind)
        return made if judge is None else judge.judged(tx, caller, None, made, options)

    def _changed(
        self,
        tx: Transaction,
        caller: Caller,
        kind: Kind,
        old: Json,
        new: Json,
        options: WriteOptions,
    ) -> Json:
        stored = self.update_in(tx, caller, kind, old, new)
        judge = self._judges.get(kind.kind)
        if judge is None or stored.get("spec") == old.get("spec"):
            return stored
        return judge.judged(tx, caller, old, stored, options)

    def decode(
        self, kind: Kind, document: Json, options: WriteOptions, old: Json | None = None
    ) -> tuple[Json, tuple[str, ...]]:
        """Validated, without unknown fields, and the warnings about those. What was wrong in `old`
        already and has not changed is let through. Raises StatusError."""
        # A document that says nothing of its kind is of the kind that it was sent to.
        own: Json = {"apiVersion": kind.api_version, "kind": kind.kind}
        document, warnings = self.known(kind, own | document, options)
        complaints = validation.validate(kind, document, old=old)
        if complaints:
            metadata = document.get("metadata")
            name = str(metadata.get("name") or "") if isinstance(metadata, dict) else ""
            raise errors.unprocessable(kind, name, Invalid(complaints))
        return document, warnings

    def known(
        self, kind: Kind, document: Json, options: WriteOptions
    ) -> tuple[Json, tuple[str, ...]]:
        """The document without unknown fields and without nulls of optional ones, and the warnings
        about the former, or the refusal, as `fieldValidation` has it. Raises BadRequest."""
        warnings: tuple[str, ...] = ()
        unknown = validation.unknown_fields(kind, document)
        if unknown:
            said = tuple(f'unknown field "{path}"' for path in unknown)
            if options.field_validation == "Strict":
                raise errors.BadRequest(
                    f"{kind.kind} in version {kind.version!r} cannot be handled: "
                    f"strict decoding error: {', '.join(said)}".replace("'", '"')
                )
            warnings = said if options.field_validation == "Warn" else ()
        return validation.prune(kind, document), warnings


def _without_status(kind: Kind, document: Json, subresource: str) -> Json:
    """The main endpoint ignores status, so it is not judged there either: what an agent reported
    may hold fields that we do not know, and a change of labels must not trip over them."""
    if subresource or not kind.has_status or kind.internal or kind.kind in BORN_WITH_STATUS:
        return document
    return {key: value for key, value in document.items() if key != "status"}


__all__ = [
    "Caller",
    "Deleted",
    "ListOptions",
    "Operations",
    "Page",
    "WatchBatch",
    "WatchEvent",
    "WatchOptions",
    "WriteOptions",
    "Written",
]
