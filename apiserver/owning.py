"""Who owns the fields of a stored object: the writes of `operations`, told to `wire.ownership`.

The invariant: `metadata.managedFields` is made here and nowhere else, and a write that changes
neither the object nor who owns it leaves the times in it alone, so that it makes no version.

A write without a field manager is the service's own (an approval, a binding, a report): it changes
no ownership, and an object that nobody owns stays so until somebody applies to it.
"""

from __future__ import annotations

import json
from typing import Any

from apiserver.errors import BadRequest, Conflict, StatusError, Unprocessable
from apiserver.store import devices
from apiserver.verbs import WriteOptions
from apiserver.wire import fieldset, managed, ownership, structure
from apiserver.wire.ownership import Conflicts, Writer
from resources import schema
from resources.copying import copied
from resources.errors import DUPLICATE, FieldError
from resources.kind import Json, Kind
from resources.masking import LAST_APPLIED

CONFLICT = "FieldManagerConflict"
# kubectl's own name: what it applied client-side is its own when it comes server-side.
KUBECTL = "kubectl"
LAST_APPLIED_BYTES_MAX = 256 * 1024


def _writer(
    kind: Kind, options: WriteOptions, operation: str, now: str, subresource: str
) -> Writer:
    owner = managed.owner(options.field_manager, operation, kind.api_version, subresource)
    return Writer(
        schema.structural(kind.model), owner, kind.api_version, now, _ignored(kind, subresource)
    )


def _ignored(kind: Kind, subresource: str) -> tuple[fieldset.Path, ...]:
    """What the endpoint of a write can't change (`strategy`)."""
    if subresource:
        return (fieldset.field("spec"),), (fieldset.field("metadata"),)
    return ((fieldset.field("status"),),) if kind.has_status else ()


def created(kind: Kind, document: Json, options: WriteOptions, now: str) -> Json:
    """A new document, as it will be stored, with its owners. One that was applied has them."""
    if not options.field_manager or options.is_applied:
        return document
    writer = _writer(kind, options, managed.UPDATE, now, "")
    owners = managed.live_or_sent(None, _entries(document), subresource="")
    return _with(document, ownership.updated(writer, {}, document, owners))


def updated(
    kind: Kind, old: Json, new: Json, options: WriteOptions, now: str, subresource: str = ""
) -> Json:
    """A change, as it will be stored, with its owners."""
    if not options.field_manager:
        return _with_entries(new, _entries(old))
    owners = managed.live_or_sent(_entries(old), _entries(new), subresource=subresource)
    if owners:
        writer = _writer(kind, options, managed.UPDATE, now, subresource)
        owners = ownership.updated(writer, _bare(old), _bare(new), owners)
    return settled(old, _with(new, owners))


def applied(
    kind: Kind,
    live: Json | None,
    config: Json,
    options: WriteOptions,
    now: str,
    subresource: str = "",
) -> Json:
    """The live document (None: there is none) with `config` applied, and its owners. Raises
    BadRequest, Conflict and Unprocessable."""
    metadata = config.get("metadata") or {}
    if metadata.get("managedFields") is not None:
        raise BadRequest("metadata.managedFields must be nil")
    writer = _writer(kind, options, managed.APPLY, now, subresource)
    before = _bare(live or {})
    owners = managed.live_or_sent(_entries(live or {}), None, subresource=subresource)
    try:
        try:
            new, left = ownership.applied(writer, before, config, owners, force=options.force)
        except Conflicts as problem:
            own = _own_by_annotation(kind, before, options)
            foreign = {o: clash for o, fields in problem.found.items() if (clash := fields - own)}
            if foreign:
                raise Conflicts(foreign) from None
            new, left = ownership.applied(writer, before, config, owners, force=True)
    except Conflicts as problem:
        raise _conflict(kind, str(metadata.get("name", "")), problem) from None
    except structure.Duplicated as problem:
        complaint = FieldError("", DUPLICATE, f"{problem}: items of this list are told apart by it")
        raise Unprocessable(f"can't apply: {problem}", kind=kind, causes=[complaint]) from None
    if options.field_manager == KUBECTL:
        new = _annotated(new, config)
    return _with(new, left)


def settled(old: Json, new: Json) -> Json:
    """`new`, with the times of `old` if nothing else is new. What the service makes up as it shows
    a device is in `old`, and not in what an apply comes to."""
    was, now = _entries(old), _entries(new)
    same = managed.same_but_for_times(was, now) and _bare(new) == _bare(old)
    return _with_entries(new, was) if same else new


# --- from kubectl apply to kubectl apply --server-side ------------------------------------------


def _own_by_annotation(kind: Kind, live: Json, options: WriteOptions) -> fieldset.FieldSet:
    """What kubectl applied client-side and is still so: for kubectl that is no conflict."""
    noted = _last_applied(live)
    if options.field_manager != KUBECTL or not noted:
        return fieldset.NOTHING
    try:
        config = json.loads(noted)
    except ValueError:
        return fieldset.NOTHING
    if not isinstance(config, dict) or config.get("apiVersion") != kind.api_version:
        return fieldset.NOTHING
    node = schema.structural(kind.model)
    found = structure.compared(node, config, live)
    return structure.fields_of(node, config) - found.changed - found.removed


def _annotated(new: Json, config: Json) -> Json:
    """The annotation follows what is applied, where there is one: a client-side apply later must
    not take away what was applied server-side since."""
    if not _last_applied(new):
        return new
    noted = copied(config)
    annotations = (noted.get("metadata") or {}).get("annotations")
    if isinstance(annotations, dict):
        annotations.pop(LAST_APPLIED, None)
        if not annotations:
            del noted["metadata"]["annotations"]
    text = json.dumps(noted, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    metadata = new["metadata"]
    written = dict(metadata["annotations"]) | {LAST_APPLIED: text}
    if len(text.encode()) > LAST_APPLIED_BYTES_MAX:
        del written[LAST_APPLIED]
    return new | {"metadata": metadata | {"annotations": written}}


def _last_applied(document: Json) -> str:
    annotations = (document.get("metadata") or {}).get("annotations")
    noted = annotations.get(LAST_APPLIED) if isinstance(annotations, dict) else None
    return noted if isinstance(noted, str) else ""


# --- helpers ------------------------------------------------------------------------------------


def _conflict(kind: Kind, name: str, problem: Conflicts) -> StatusError:
    """409 with a cause for each field; kubectl prints the message, programs read the causes."""
    causes, lines = [], []
    total = sum(map(len, problem.found.values()))
    for owner, paths in ownership.in_order(problem):
        by = json.dumps(owner.manager)
        if owner.subresource:
            by += f" with subresource {json.dumps(owner.subresource)}"
        if owner.operation == managed.UPDATE:
            by += f" using {owner.version}"
        shown = [fieldset.shown(path) for path in paths]
        causes += [FieldError(path, CONFLICT, f"conflict with {by}") for path in shown]
        lines += [f"conflicts with {by}:", *(f"- {path}" for path in shown)]
    if total == 1:
        text = f"1 conflict: {causes[0].detail}: {causes[0].path}"
    else:
        text = f"{total} conflicts: " + "\n".join(lines)
    return Conflict(f"Apply failed with {text}", kind=kind, name=name, causes=causes)


def _entries(document: Json) -> Any:
    metadata = document.get("metadata")
    return metadata.get("managedFields") if isinstance(metadata, dict) else None


def _bare(document: Json) -> Json:
    """The document without what nobody can own: its owners, the annotations that the service makes
    up as it shows a device, and empty labels, which a device shows where others show none."""
    metadata = document.get("metadata")
    if not metadata:
        return document
    kept = {k: v for k, v in metadata.items() if k != "managedFields"}
    annotations = kept.get("annotations")
    if isinstance(annotations, dict):
        computed = devices.COMPUTED_ANNOTATIONS
        kept["annotations"] = {k: v for k, v in annotations.items() if k not in computed}
    for name in ("annotations", "labels"):
        if kept.get(name) == {}:
            del kept[name]
    return document | {"metadata": kept}


def _with(document: Json, owners: managed.Owners) -> Json:
    return _with_entries(document, managed.encode(owners))


def _with_entries(document: Json, entries: Any) -> Json:
    metadata = {k: v for k, v in document["metadata"].items() if k != "managedFields"}
    if entries:
        metadata["managedFields"] = entries
    return document | {"metadata": metadata}
