"""`delete`: each object that was named or selected, and waiting until it is gone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from cli import watching
from cli.client import Client, Refused
from cli.targets import Target
from cli.waiting import TimedOut
from cli.writing import Mode, Report

Json = dict[str, Any]

POLICIES = {"background": "Background", "foreground": "Foreground", "orphan": "Orphan",
            "true": "Background", "false": "Orphan"}  # fmt: skip


def delete(
    client: Client,
    chosen: Sequence[Target],
    mode: Mode,
    report: Report,
    *,
    cascade: str,
    ignore_not_found: bool,
) -> list[tuple[Target, str]]:
    """Returns what was deleted and may still be there, with its uid."""
    going: list[tuple[Target, str]] = []
    for target in chosen:
        with report.trying():
            uid = _deleted(client, target, mode, cascade, ignore_not_found=ignore_not_found)
            if uid is None:
                continue
            report.deleted(target)
            going.append((target, uid))
    return going


def _deleted(
    client: Client, target: Target, mode: Mode, cascade: str, *, ignore_not_found: bool
) -> str | None:
    options = {
        "apiVersion": "v1",
        "kind": "DeleteOptions",
        "propagationPolicy": POLICIES[cascade],
    }
    query = {"dryRun": "All"} if mode.dry_run == "server" else {}
    try:
        if not mode.is_sent:
            return str(client.ask("GET", target.path())["metadata"]["uid"])
        answer = client.ask("DELETE", target.path(), query=query, body=options)
    except Refused as refused:
        if refused.code == 404 and ignore_not_found:
            return None
        raise
    if answer.get("kind") == "Status":
        return str((answer.get("details") or {}).get("uid") or "")
    return str(answer["metadata"]["uid"])


def gone(client: Client, going: Sequence[tuple[Target, str]], timeout_s: float) -> None:
    """Wait until none of them is there. Raises TimedOut."""
    deadline = time.monotonic() + timeout_s
    for target, uid in going:
        try:
            current = client.ask("GET", target.path())
        except Refused as refused:
            if refused.code != 404:
                raise
            continue
        if uid and current["metadata"]["uid"] != uid:
            continue
        _wait(client, target, uid, deadline)


def _wait(client: Client, target: Target, uid: str, deadline: float) -> None:
    query = {"fieldSelector": f"metadata.name={target.name}"}
    path = target.resource.path(target.namespace or None)
    watch = watching.Watch(client, path, query, "application/json")
    items = watching.items_of(watch.begin())
    if not any(item["metadata"]["uid"] == uid or not uid for item in items):
        return
    try:
        for change in watch.changes(deadline):
            if change.type == "DELETED":
                return
    except watching.Ended:
        held = ", ".join(items[0]["metadata"].get("finalizers") or ())
        raise TimedOut(
            f"timed out waiting for {target.shown} to be gone",
            f"it is held by the finalizers {held}" if held else "",
        ) from None
