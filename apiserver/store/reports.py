"""What agents say of themselves: stored as it came, with what follows from it.

Devices report by the thousand at once, whenever a fleet was changed; so reports are written in
sets, each device once in a set.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from apiserver.store import devices
from apiserver.store.devices import Change, Row
from apiserver.store.objects import dumps
from resources import pause, registry, summary
from resources.kind import Json

if TYPE_CHECKING:
    from apiserver.store.snapshot import Transaction

_KIND = registry.by_kind("Device")
_NAMED_VERSION = re.compile(r"renderedVersion: (\d+)")


@dataclass(frozen=True, slots=True)
class Report:
    """A status as its agent put it."""

    namespace: str
    name: str
    status: Json


def put(tx: Transaction, report: Report) -> Json | None:
    """The Device that has the status of a report; None where there is no such device."""
    return put_all(tx, [report])[0]


def put_all(tx: Transaction, reports: Sequence[Report]) -> list[Json | None]:
    """`put` of each, in order."""
    answers: dict[int, Json | None] = {}
    waiting = dict(enumerate(reports))
    while waiting:
        # Of two by one device the second finds what the first has left.
        first = {(report.namespace, report.name): at for at, report in reversed(waiting.items())}
        now = {at: waiting.pop(at) for at in sorted(first.values())}
        answers |= zip(now, _put(tx, list(now.values())), strict=True)
    return [answers[at] for at in range(len(reports))]


def _put(tx: Transaction, reports: Sequence[Report]) -> list[Json | None]:
    """Of devices that are all others."""
    rows: dict[tuple[str, str], Row] = {}
    for namespace in {report.namespace for report in reports}:
        names = [report.name for report in reports if report.namespace == namespace]
        found = devices.rows_by_name(tx.connection, namespace, names)
        rows |= {(namespace, row["name"]): row for row in found}
    changed: list[Change] = []
    for report in reports:
        old = rows.get((report.namespace, report.name))
        if old is not None:
            before = orjson.loads(old["agent_status"])
            status = with_integrity(before, report.status, is_own_word=True)
            said = _with_applications(before, status)
            changed.append(Change(old, changes(old, said), said))
    saved = devices.save_all(tx, changed)
    specs = tx.documents.fetch(tx.connection, {row["spec_digest"] for row in saved})
    stored = {
        (row["namespace"], row["name"]): devices.document_of(
            _KIND, row, specs[row["spec_digest"]], said=change.said
        )
        for row, change in zip(saved, changed, strict=True)
    }
    return [stored.get((report.namespace, report.name)) for report in reports]


def with_integrity(before: Json, status: Json, *, is_own_word: bool) -> Json:
    """A status to be stored after the one `before`. Unknown integrity keeps that (contract 7.6),
    and so does any that is the device's own word, where the service has judged: it can't vouch for
    itself."""
    said, kept = status.get("integrity"), before.get("integrity")
    if kept is None or (_is_known(said) and not (is_own_word and _is_known(kept))):
        return status
    return status | {"integrity": kept}


def _with_applications(before: Json, status: Json) -> Json:
    """What an agent does not know of its applications (it has just started) it has said before."""
    if _is_known(status.get("applicationsSummary")):
        return status
    kept = before.get("applicationsSummary")
    return status | {"applicationsSummary": kept} if _is_known(kept) else status


def _is_known(part: Any) -> bool:
    found = part.get("status") if isinstance(part, dict) else None
    return found not in (None, "", "Unknown")


def changes(row: Row, status: Json) -> dict[str, Any]:
    """What a report changes."""
    config = status.get("config")
    version = _integer(config.get("renderedVersion")) if isinstance(config, dict) else 0
    found: dict[str, Any] = {
        "agent_status": dumps(status),
        "reported_version": version,
        "connected": 1,
        "seen": 1,
        "pause": pause.after_report(row["pause"]),
    }
    if row["failed_digest"] == row["rendered_digest"] and version == row["rendered_version"]:
        found["failed_digest"] = None
    updating = summary.condition(status, "Updating")
    message = str(updating.get("message") or "")
    if updating.get("reason") != "Error":
        found["reported_since_delivery"] = 1
    elif _counts(row, message):
        found["failed_version"] = row["rendered_version"]
        found["failed_reason"] = message
        found["failed_digest"] = row["rendered_digest"]
    return found


def _counts(row: Row, message: str) -> bool:
    """A reported error is about the current version only if that was delivered, and the message
    names it or something else was reported since: a late repeat of an old error counts for
    nothing."""
    if not row["rendered_version"] or row["delivered_version"] != row["rendered_version"]:
        return False
    named = _NAMED_VERSION.search(message)
    if named:
        return int(named[1]) == int(row["rendered_version"])
    return bool(row["reported_since_delivery"])


def _integer(text: Any) -> int:
    try:
        return max(0, int(text))
    except (TypeError, ValueError):
        return 0
