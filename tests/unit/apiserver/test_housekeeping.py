from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from apiserver import housekeeping
from apiserver.builtins import events
from apiserver.builtins.view import View
from apiserver.operations import Caller, ListOptions, Operations, WriteOptions
from apiserver.store import Store

CALLER = Caller("test", role="controller")


async def test_events_are_forgotten_a_week_after_they_happened_last(tmp_path: Path) -> None:
    store = await Store.open(data_dir=tmp_path)
    try:
        operations = Operations(store)
        await operations.prepare()
        view = View(operations, events.TURNING)
        for day in ("01", "10", "20"):
            event = {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"e{day}"},
                "involvedObject": {"kind": "Fleet", "name": "web"},
                "lastTimestamp": f"2026-11-{day}T00:00:00Z",
            }
            await view.create(CALLER, events.EVENT, "default", event, WriteOptions())
        await housekeeping.tidy(operations, datetime(2026, 11, 18, tzinfo=UTC))
        left = await view.list(CALLER, events.EVENT, "default", ListOptions())
        assert [item["metadata"]["name"] for item in left.items] == ["e20"]
    finally:
        await store.close()
