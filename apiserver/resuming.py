"""Devices that were found ahead of a restored service: brought on from where they are.

Each gets a version above the one that it runs, so it takes what the service has for something new,
whatever it was given before. A thousand a transaction; who died in the middle calls again.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from apiserver import bindings, errors
from apiserver.auditing import Act, note
from apiserver.auth.identity import Caller
from apiserver.builtins import telling
from apiserver.operations import Operations
from apiserver.store import Transaction, devices, newsworthy, overriding, sets
from resources import pause, selectors
from resources.errors import Invalid
from resources.kind import Json
from resources.registry import DEVICE
from resources.selectors import FieldSelector, LabelSelector, Requirement

REASON = "DeviceConflictResolved"
_PAUSED = Requirement("status.summary.status", "=", ("ConflictPaused",))
_MEMBERS = ("labelSelector", "fieldSelector")
_HEAD = ("apiVersion", "kind", "metadata")


@dataclass(frozen=True, slots=True)
class _Wanted:
    caller: Caller
    namespace: str
    labels: LabelSelector
    fields: FieldSelector


async def resume(
    operations: Operations, caller: Caller, namespace: str, body: Json, *, dry_run: bool = False
) -> Json:
    """`body` may have labelSelector and fieldSelector; without them all are meant. Answers
    {resumedDevices}. Raises BadRequest."""
    wanted = _Wanted(caller, namespace, *_selectors(body))
    total, after = 0, ""
    while True:
        step = partial(_resume_some, wanted=wanted, after=after, told=total)
        number, after = await operations.store.write(step, dry_run=dry_run)
        total += number
        if number < sets.CHUNK:
            return {"resumedDevices": total}


def _selectors(body: Json) -> tuple[LabelSelector, FieldSelector]:
    texts = {key: value for key, value in body.items() if key not in _HEAD and value is not None}
    for key, text in texts.items():
        if key not in _MEMBERS:
            raise errors.BadRequest(f'unknown field "{key}"; use {" and ".join(_MEMBERS)}')
        if not isinstance(text, str):
            raise errors.BadRequest(f"{key} must be a text")
    try:
        labels = selectors.parse_labels(texts.get("labelSelector", ""))
        said = texts.get("fieldSelector")
        fields = selectors.parse_fields(said, devices.FIELDS).requirements if said else ()
    except Invalid as problem:
        raise errors.BadRequest(str(problem)) from problem
    return labels, FieldSelector((*fields, _PAUSED))


def _resume_some(tx: Transaction, *, wanted: _Wanted, after: str, told: int) -> tuple[int, str]:
    """How many there were, and the last one's name."""
    rows = devices.page(
        tx.connection,
        wanted.namespace,
        labels=wanted.labels,
        fields=wanted.fields,
        after=(wanted.namespace, after) if after else None,
        limit=sets.CHUNK,
    )
    wishes = {
        fleet: overriding.of_fleet(tx, wanted.namespace, fleet)
        for fleet in {row["fleet"] for row in rows} - {""}
    }
    saved = devices.save_all(tx, [devices.Change(row, _resumed(tx, row, wishes)) for row in rows])
    shown = devices.documents_of(tx.connection, tx.documents, DEVICE, saved)
    for number, document in enumerate(shown):
        name = document["metadata"]["name"]
        act = Act(wanted.caller, "update", DEVICE, wanted.namespace, name, "resume")
        note(tx, act, document)
        if told + number < newsworthy.TOLD_OF_EACH_MAX:
            message = f"Resumed by {wanted.caller.name}."
            telling.tell(tx, document, REASON, message)
    return len(rows), rows[-1]["name"] if rows else after


def _resumed(tx: Transaction, row: devices.Row, wishes: dict[str, str | None]) -> dict[str, Any]:
    columns: dict[str, Any] = {"pause": pause.FREE}
    if row["rendered_digest"]:
        columns["rendered_version"] = max(row["rendered_version"], row["reported_version"]) + 1
    if row["fleet"]:
        # What was rolled out meanwhile is for the controllers to say.
        return columns | {"fleet_overrides": wishes[row["fleet"]], "render_needed": 1}
    if row["render_needed"] and not row["owner"]:
        columns |= bindings.render_one(tx, dict(row) | columns, bindings.spec_of(tx, row))
    return columns
