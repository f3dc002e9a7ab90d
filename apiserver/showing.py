"""Between what is stored and what people see: summaries and readiness go in, secrets stay out.

The invariant: no document leaves the operations but through here, except to the controllers by the
one subresource that says so.
"""

from __future__ import annotations

from collections.abc import Iterable

from apiserver import bindings, errors
from apiserver.store import Snapshot, presence, watchrule
from apiserver.verbs import ListOptions, Page, WriteOptions, Written
from resources import masking, readiness, timestamps
from resources.errors import Invalid
from resources.kind import Json, Kind


def shown(snapshot: Snapshot, kind: Kind, document: Json) -> Json:
    """A document as every verb shows it, so that a write that changes nothing looks like one."""
    return all_shown(snapshot, kind, [document])[0]


def answered(
    snapshot: Snapshot,
    kind: Kind,
    stored: Json,
    old: Json | None,
    options: WriteOptions,
    warnings: tuple[str, ...] = (),
) -> Written:
    """What a write answers. A rehearsal makes no version: its answer has that of the object as it
    is, and none where there is no object, by which clients tell a creation."""
    document = shown(snapshot, kind, stored)
    if options.dry_run:
        version = None if old is None else old["metadata"]["resourceVersion"]
        metadata = {k: v for k, v in document["metadata"].items() if k != "resourceVersion"}
        document |= {"metadata": metadata | ({"resourceVersion": version} if version else {})}
    return Written(document, old is None, warnings)


def all_shown(snapshot: Snapshot, kind: Kind, documents: Iterable[Json]) -> list[Json]:
    hidden = [masking.masked(kind, document) for document in documents]
    summarised = bindings.summarised(snapshot, kind, hidden)
    return [readiness.shown(kind.kind, document) for document in summarised]


def page(snapshot: Snapshot, kind: Kind, namespace: str | None, options: ListOptions) -> Page:
    """A page of the state. Raises Expired where another one is asked for."""
    if options.match == "Exact" and options.resource_version != snapshot.version:
        raise errors.Expired(
            "the requested resource version is not the current one, and older states are not kept; "
            "list without resourceVersionMatch=Exact"
        )
    wanted = options.limit + 1 if options.limit else 0
    found = snapshot.list(
        kind,
        namespace,
        labels=options.labels,
        fields=options.fields,
        after=options.after,
        limit=wanted,
    )
    items = all_shown(snapshot, kind, found)
    version = snapshot.version if options.version is None else options.version
    if not wanted or len(items) < wanted:
        return Page(items, version)
    items.pop()
    last = items[-1]["metadata"]
    remaining = None
    if not options.labels and options.fields is None and options.after is None:
        remaining = snapshot.count(kind, namespace) - len(items)
    return Page(items, version, (last.get("namespace", ""), last["name"]), remaining)


def last_seen(snapshot: Snapshot, kind: Kind, namespace: str, name: str) -> str | None:
    """When a device was last heard of, to the second; the service may know of up to ten seconds
    more than the store. Heartbeats are in no document. Raises NotFound."""
    found = snapshot.get(kind, namespace, name)
    if found is None:
        raise errors.not_found(kind, name)
    seen = presence.last_seen(snapshot, found["metadata"]["uid"])
    return None if seen is None else timestamps.of_seconds(seen)


def revealed(kind: Kind, document: Json, old: Json | None) -> Json:
    """What a person sent, with the secrets that are masked in it, and without copies of any.
    Raises Unprocessable."""
    try:
        return masking.without_copies(kind, masking.restored(kind, document, old))
    except Invalid as problem:
        metadata = document.get("metadata")
        name = str(metadata.get("name") or "") if isinstance(metadata, dict) else ""
        raise errors.unprocessable(kind, name, problem) from None


def at_version(document: Json, version: int) -> Json:
    return document | {"metadata": document["metadata"] | {"resourceVersion": str(version)}}


def tombstone(kind: Kind, row: watchrule.Change) -> Json:
    """What is left to say of an object that is gone without a last body."""
    metadata: Json = {"name": row.name, "uid": row.uid}
    if row.namespace:
        metadata["namespace"] = row.namespace
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}


def bookmark(kind: Kind, version: int) -> Json:
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {"resourceVersion": str(version)},
    }
