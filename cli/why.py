"""Why an object is not as its specification says, in sentences. Pure: a document in, words out.

Only what the service itself wrote down is said here; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Json = dict[str, Any]

RENDERED = "device-controller/renderedVersion"


def reasons(document: Json) -> list[str]:
    """The reasons, most telling first; none when there is nothing to explain."""
    teller = {"Device": _device, "Fleet": _fleet, "Rollout": _rollout}.get(document["kind"])
    return list(teller(document, document.get("status") or {})) if teller else []


def _device(document: Json, status: Json) -> Iterator[str]:
    summary = status.get("summary") or {}
    # Of one that is awaited the rest says so.
    if summary.get("status") == "ConflictPaused":
        yield str(summary.get("info") or summary["status"])
    updated = status.get("updated") or {}
    if updated.get("status") not in (None, "", "UpToDate"):
        wanted = (document["metadata"].get("annotations") or {}).get(RENDERED, "")
        runs = (status.get("config") or {}).get("renderedVersion", "")
        # With both alike it waits for something else: to be rendered, or to come back.
        versions = f" It runs version {runs or 'none'} and shall run {wanted}."
        yield f"It is {updated['status']}.{versions if wanted not in ('', runs) else ''}"
        if info := updated.get("info") or _message(status, "Updating"):
            yield str(info)
    for part, title in (("summary", "The device"), ("applicationsSummary", "An application")):
        summary = status.get(part) or {}
        if summary.get("status") in ("Degraded", "Error", "Unknown"):
            yield f"{title} is {summary['status']}: {summary.get('info') or 'no reason was given'}"
    yield from _failing(status, ("SpecValid", "MultipleOwners"))


def _fleet(_: Json, status: Json) -> Iterator[str]:
    yield from _failing(status, ("Valid", "Ready", "OverlappingSelectors"))
    for condition in status.get("conditions") or ():
        if condition["type"] == "RolloutInProgress" and condition.get("message"):
            yield str(condition["message"])


def _rollout(_: Json, status: Json) -> Iterator[str]:
    if status.get("phase") not in (None, "Completed"):
        yield f"It is {status['phase']}: {_message(status, 'Progressing')}"
    yield from failures(status)


def failures(status: Json) -> Iterator[str]:
    """Of a Rollout, by cause."""
    for failure in status.get("failures") or ():
        count, example = failure["count"], failure["example"]
        who = example if count == 1 else f"{count} devices, {example} for one"
        yield f"{who}: {failure['cause']}"


def _failing(status: Json, kinds: tuple[str, ...]) -> Iterator[str]:
    """Conditions of these kinds that say something is wrong."""
    for condition in status.get("conditions") or ():
        is_good = condition["type"] in ("Valid", "SpecValid", "Ready")
        is_bad = condition.get("status") == ("False" if is_good else "True")
        if condition["type"] in kinds and is_bad and condition.get("message"):
            yield str(condition["message"])


def _message(status: Json, kind: str) -> str:
    for condition in status.get("conditions") or ():
        if condition["type"] == kind:
            return str(condition.get("message") or "")
    return ""
