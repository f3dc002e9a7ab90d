"""An object for reading: who it is, how it is, why, and what happened to it.

Two halves: what is asked for, and, pure, what is made of it. Lines stay within the width that is
given; without one, as in a pipe, they are as long as they are.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cli import goyaml, naming, selecting, tabular, why
from cli.client import Client, Refused
from cli.targets import Target
from resources import ages

Json = dict[str, Any]

NONE = "<none>"
NEVER = "never"
EVENTS_MAX = 10
MESSAGE_MIN = 24
# Told in the words of their kind; of the others the specification is shown as it is.
KNOWN = ("Device", "Fleet", "Rollout")


@dataclass(frozen=True, slots=True)
class Page:
    """When it is read, and how wide it may be."""

    now: datetime
    width: int | None = None

    def ago(self, text: Any) -> str:
        then = ages.moment(text) if isinstance(text, str) else None
        # Go's zero time stands for none.
        if then is None or then.year == 1:
            return NONE
        return ages.duration(int((self.now - then).total_seconds()))


def described(
    client: Client, chosen: Sequence[Target], selector: str = "", *, events: bool = True
) -> Iterator[str]:
    """The text of each object. Raises Problem."""
    for target in chosen:
        if target.name:
            document = naming.find(client, target.resource, target.namespace, target.name)
            yield _described(client, target, document, events=events)
            continue
        for each in selecting.expanded(client, [target], selector):
            yield _described(client, each, client.ask("GET", each.path()), events=events)


def _described(client: Client, target: Target, document: Json, *, events: bool) -> str:
    if document["kind"] == "Device":
        document = _seen(client, target, document)
    page = Page(datetime.now(UTC), _width())
    happened = _events(client, target, document) if events else []
    return text_of(document, happened, page)


def _seen(client: Client, target: Target, device: Json) -> Json:
    """With when it was last heard of, which changes too often to be in the document."""
    whole = Target(target.resource, target.namespace, device["metadata"]["name"])
    try:
        answer = client.ask("GET", whole.path("lastseen"))
    except Refused as refused:
        # A service that does not tell, or not this person.
        if refused.code not in (403, 404):
            raise
        return device
    status = (device.get("status") or {}) | {"lastSeen": answer.get("lastSeen") or NEVER}
    return device | {"status": status}


def _width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _events(client: Client, target: Target, document: Json) -> list[Json]:
    metadata = document["metadata"]
    fields = f"involvedObject.name={metadata['name']},involvedObject.kind={document['kind']}"
    namespace = metadata.get("namespace") or "default"
    path = f"/api/v1/namespaces/{namespace}/events"
    try:
        events = client.ask("GET", path, query={"fieldSelector": fields})["items"]
    except Refused as refused:
        if refused.code not in (403, 404):
            raise
        return []
    uid = metadata.get("uid")
    own = [e for e in events if (e.get("involvedObject") or {}).get("uid") in (uid, None, "")]
    return sorted(own, key=lambda event: str(event.get("lastTimestamp") or ""))[-EVENTS_MAX:]


# From here on pure: documents in, text out.


def text_of(document: Json, events: Iterable[Json], page: Page) -> str:
    metadata, status = document["metadata"], document.get("status") or {}
    facts = [
        ("Name", metadata["name"]),
        ("Kind", f"{document['kind']} ({document.get('apiVersion', '')})"),
        *([("Namespace", metadata["namespace"])] if metadata.get("namespace") else ()),
        ("Labels", _lines(metadata.get("labels"))),
        *([("Owner", metadata["owner"])] if metadata.get("owner") else ()),
        ("Created", _since(metadata.get("creationTimestamp"), page)),
        *([("Deleted", _since(metadata["deletionTimestamp"], page))]
          if metadata.get("deletionTimestamp") else ()),
        *_told(document, status, page),
    ]  # fmt: skip
    parts = [_facts(facts)]
    if reasons := why.reasons(document):
        parts.append("Why:\n" + "\n".join(_wrapped(reason, page) for reason in reasons))
    if document["kind"] not in KNOWN and document.get("spec"):
        parts.append("Spec:\n" + textwrap.indent(goyaml.dump(document["spec"]).rstrip(), "  "))
    parts += _section("Applications", *_applications(status), page)
    parts += _section("Conditions", *_conditions(status, page), page)
    parts += _section("Events", *_happened(events, page), page)
    return "\n\n".join(parts) + "\n"


def _told(document: Json, status: Json, page: Page) -> Iterator[tuple[str, str]]:
    teller = {"Device": _device, "Fleet": _fleet, "Rollout": _rollout}.get(document["kind"])
    if teller:
        yield from teller(document, status, page)


def _device(document: Json, status: Json, page: Page) -> Iterator[tuple[str, str]]:
    for key, title in (
        ("summary", "Device"),
        ("updated", "Updated"),
        ("applicationsSummary", "Applications"),
        ("lifecycle", "Lifecycle"),
        ("integrity", "Integrity"),
    ):
        part = status.get(key)
        if isinstance(part, dict) and part.get("status"):
            yield title, str(part["status"])
    wanted = ((document.get("spec") or {}).get("os") or {}).get("image") or ""
    booted = (status.get("os") or {}).get("image") or ""
    if booted or wanted:
        yield (
            "OS image",
            (booted or "not reported")
            + (f"\nshall be {wanted}" if wanted and wanted != booted else ""),
        )
    runs = (status.get("config") or {}).get("renderedVersion") or ""
    shall = (document["metadata"].get("annotations") or {}).get(why.RENDERED) or ""
    if runs or shall:
        yield (
            "Config",
            f"version {runs or 'none'}"
            + (f", shall be {shall}" if shall and shall != runs else ""),
        )
    if seen := status.get("lastSeen"):
        yield "Last seen", NEVER if seen == NEVER else _since(seen, page)
    facts = status.get("systemInfo") or {}
    if facts.get("agentVersion"):
        machine = "/".join(
            str(facts[k]) for k in ("operatingSystem", "architecture") if facts.get(k)
        )
        yield "Agent", f"{facts['agentVersion']} on {machine}"


def _fleet(document: Json, status: Json, page: Page) -> Iterator[tuple[str, str]]:
    spec = document.get("spec") or {}
    yield "Selector", _lines((spec.get("selector") or {}).get("matchLabels"))
    template = ((spec.get("template") or {}).get("spec")) or {}
    if image := (template.get("os") or {}).get("image"):
        yield "OS image", str(image)
    for key, title in (("config", "Config"), ("applications", "Runs")):
        if names := [str(each.get("name", "")) for each in template.get(key) or ()]:
            yield title, ", ".join(names)
    summary = status.get("devicesSummary") or {}
    updated = summary.get("updateStatus") or {}
    states = ", ".join(f"{count} {state}" for state, count in sorted(updated.items()) if count)
    yield "Devices", f"{summary.get('total') or 0}" + (f": {states}" if states else "")


def _rollout(document: Json, status: Json, page: Page) -> Iterator[tuple[str, str]]:
    target = document["spec"]["target"]
    yield "Fleet", str(target["fleet"])
    yield "Template", str(target["templateVersion"])
    yield "Phase", str(status.get("phase") or "Pending")
    counts = status.get("counts") or {}
    states = ("selected", "bound", "done", "failed", "timedOut", "disconnected")
    yield "Devices", ", ".join(f"{counts.get(s) or 0} {_spaced(s)}" for s in states)
    for batch in status.get("batches") or ():
        there = batch.get("counts") or {}
        said = [
            str(batch["phase"]),
            *(f"{there[s]} {s}" for s in ("selected", "done", "failed") if there),
        ]
        if batch.get("successPercentage") is not None:
            said.append(f"{batch['successPercentage']}% succeeded")
        yield f"Batch {batch['number'] + 1}", ", ".join(said)
    for key, title in (("startedAt", "Started"), ("finishedAt", "Finished")):
        if status.get(key):
            yield title, _since(status[key], page)


def _spaced(word: str) -> str:
    return "".join(f" {c.lower()}" if c.isupper() else c for c in word)


def _applications(status: Json) -> tuple[list[str], list[list[str]]]:
    rows = [
        [_cell(a.get(key)) for key in ("name", "appType", "status", "ready", "restarts")]
        for a in status.get("applications") or ()
    ]
    return ["Name", "Type", "Status", "Ready", "Restarts"], rows


def _conditions(status: Json, page: Page) -> tuple[list[str], list[list[str]]]:
    rows = [
        [
            *(_cell(c.get(key)) for key in ("type", "status", "reason")),
            page.ago(c.get("lastTransitionTime")),
            str(c.get("message") or ""),
        ]
        for c in status.get("conditions") or ()
    ]
    return ["Type", "Status", "Reason", "Age", "Message"], rows


def _happened(events: Iterable[Json], page: Page) -> tuple[list[str], list[list[str]]]:
    rows = [
        [_cell(e.get("type")), _cell(e.get("reason")), _times(e, page), str(e.get("message") or "")]
        for e in events
    ]
    return ["Type", "Reason", "Age", "Message"], rows


def _times(event: Json, page: Page) -> str:
    last = page.ago(event.get("lastTimestamp"))
    count = event.get("count") or 1
    if count < 2:
        return last
    return f"{last} (x{count} over {page.ago(event.get('firstTimestamp'))})"


def _facts(facts: Iterable[tuple[str, str]]) -> str:
    rows = []
    for title, text in facts:
        first, *more = text.splitlines() or [""]
        rows.append([f"{title}:", first])
        rows += [["", line] for line in more]
    return "\n".join(line.rstrip() for line in tabular.aligned(rows))


def _section(title: str, head: list[str], rows: list[list[str]], page: Page) -> list[str]:
    """A table whose last column is folded into the width of the page."""
    if not rows:
        return []
    rules = ["-" * len(word) for word in head]
    bare = tabular.aligned([[*row[:-1], ""] for row in (head, rules, *rows)])
    indent = 2 + max(len(line) for line in bare)
    room = None if page.width is None else max(MESSAGE_MIN, page.width - indent)
    lines: list[list[str]] = []
    for row in (head, rules, *rows):
        folded = textwrap.wrap(row[-1], room) if room else row[-1:]
        first, *more = folded or [""]
        lines.append([*row[:-1], first])
        lines += [[*("" for _ in row[:-1]), text] for text in more]
    text = "\n".join(f"  {line}".rstrip() for line in tabular.aligned(lines))
    return [f"{title}:\n{text}"]


def _wrapped(text: str, page: Page) -> str:
    if page.width is None:
        return f"  {text}"
    return textwrap.fill(text, page.width, initial_indent="  ", subsequent_indent="  ")


def _since(text: Any, page: Page) -> str:
    return f"{text} ({page.ago(text)} ago)" if text else NONE


def _cell(value: Any) -> str:
    return NONE if value is None or value == "" else str(value)


def _lines(labels: Json | None) -> str:
    return "\n".join(f"{key}={value}" for key, value in sorted((labels or {}).items())) or NONE
