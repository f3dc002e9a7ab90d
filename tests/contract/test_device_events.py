"""What happens to devices is told as events: once, in sets, and within a bound, on both stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from apiserver import housekeeping
from apiserver.app import create_operations
from apiserver.auth.identity import ADMIN, CONTROLLER, Caller
from apiserver.builtins import telling
from apiserver.builtins.events import STORED
from apiserver.operations import Operations
from apiserver.store import Store, Transaction, devices, presence, reports
from apiserver.verbs import OWN_WRITE
from bench.fleet import Service
from resources import registry
from resources.selectors import parse_fields
from tests.fakes.sql import Statements

Json = dict[str, Any]
PERSON = Caller(name="ada", role=ADMIN)
CONTROLLERS = Caller(name="system:homeport:controllers", role=CONTROLLER)
DEVICE, ROLLOUT = registry.by_kind("Device"), registry.by_kind("Rollout")
MANY = 120
WELL: Json = {
    "config": {"renderedVersion": "1"},
    "applications": [{"name": "a"}],
    "applicationsSummary": {"status": "Healthy"},
    "resources": {"cpu": "Healthy", "memory": "Healthy", "disk": "Healthy"},
    "os": {"imageDigest": "sha256:1"},
}
FAILED = {"type": "Updating", "status": "False", "reason": "Error", "message": "renderedVersion: 1"}
HOT = {"resources": WELL["resources"] | {"cpu": "Critical"}}


@dataclass(slots=True)
class Site:
    """A service whose clock is set by hand."""

    now: datetime = datetime(2026, 11, 26, 10, 10, tzinfo=UTC)
    operations: Operations = field(init=False)
    statements: Statements = field(default_factory=Statements)

    @property
    def store(self) -> Store:
        return self.operations.store

    async def create(self, *names: str) -> None:
        def fill(tx: Transaction) -> None:
            for name in names:
                document = {"metadata": {"name": name}, "spec": {}}
                self.operations.insert_in(tx, PERSON, DEVICE, document, "default")

        await self.store.write(fill)

    def say(self, tx: Transaction, name: str, **status: Any) -> None:
        stored = reports.put(tx, reports.Report("default", name, WELL | status))
        assert stored is not None
        presence.record(tx, {stored["metadata"]["uid"]: tx.now.timestamp()})

    async def report(self, name: str, **status: Any) -> None:
        await self.store.write(lambda tx: self.say(tx, name, **status))

    async def events(self, fields: str = "") -> list[Json]:
        selector = parse_fields(fields, STORED.selectable) if fields else None
        found = await self.store.read(lambda s: s.list(STORED, None, fields=selector))
        return [event["spec"] for event in found]

    async def told(self) -> Counter[str]:
        counted: Counter[str] = Counter()
        for said in await self.events():
            counted[said["reason"]] += said["count"]
        return counted


@pytest.fixture
async def site(tmp_path: Path, database_url: str) -> AsyncIterator[Site]:
    site = Site()
    store = await Store.open(database_url, data_dir=tmp_path, clock=lambda: site.now)
    site.operations = create_operations(store)
    await site.operations.prepare()
    yield site
    site.statements.close()
    await store.close()


async def test_a_devices_story_is_told_event_by_event(site: Site) -> None:
    await site.create("d")
    assert await site.told() == {"ResourceCreated": 1}
    await site.report("d")
    await site.report("d", **HOT)
    await site.report("d", os={"imageDigest": "sha256:2"})
    updating = {"type": "Updating", "status": "True", "reason": "ApplyingUpdate"}
    await site.report("d", conditions=[updating])
    await site.report("d", applicationsSummary={"status": "Error", "info": "a: exited"})
    site.now += timedelta(minutes=10)
    assert await site.store.write(lambda tx: presence.sweep(tx, tx.now.timestamp() - 300)) == 1
    await site.report("d")
    assert await site.told() == {
        "ResourceCreated": 1,
        # At first, no longer hot, and again.
        "DeviceConnected": 3,
        "DeviceApplicationHealthy": 2,
        "DeviceCPUCritical": 1,
        "DeviceCPUNormal": 1,
        "DeviceOSImageChanged": 2,
        "DeviceContentUpdating": 1,
        "DeviceContentUpToDate": 2,
        "DeviceApplicationError": 1,
        "DeviceDisconnected": 1,
    }
    [error] = await site.events("spec.reason=DeviceApplicationError")
    assert error == {
        "reason": "DeviceApplicationError",
        "type": "Warning",
        "message": "a: exited",
        "count": 1,
        "source": {"component": telling.COMPONENT},
        "firstTimestamp": "2026-11-26T10:10:00Z",
        "lastTimestamp": "2026-11-26T10:10:00Z",
        "involvedObject": error["involvedObject"],
    }
    assert error["involvedObject"]["kind"] == "Device"
    assert error["involvedObject"]["uid"]


async def test_an_update_that_failed_is_told_once_with_the_devices_words(site: Site) -> None:
    await site.create("d")
    await site.report("d", config={"renderedVersion": "0"})
    row = await site.store.read(lambda s: devices.row_by_name(s.connection, "default", "d"))
    assert row is not None
    delivered = {"delivered_version": row["rendered_version"]}
    await site.store.write(lambda tx: devices.save(tx, row, delivered))
    for _ in range(2):
        await site.report("d", config={"renderedVersion": "0"}, conditions=[FAILED])
    [failed] = await site.events("spec.reason=DeviceUpdateFailed")
    assert (failed["count"], failed["message"]) == (1, "renderedVersion: 1")


async def test_what_flaps_raises_a_count_and_fills_no_store(site: Site) -> None:
    """Within the hour, also within one batch; in the next hour it is told anew."""
    await site.create("d")
    await site.report("d")
    for _ in range(20):
        await site.report("d", **HOT)
        await site.report("d")

    def flap(tx: Transaction) -> None:
        for _ in range(5):
            site.say(tx, "d", **HOT)
            site.say(tx, "d")

    site.now += timedelta(minutes=5)
    await site.store.write(flap)
    [critical] = await site.events("spec.reason=DeviceCPUCritical")
    assert critical["count"] == 25
    assert critical["firstTimestamp"] == "2026-11-26T10:10:00Z"
    assert critical["lastTimestamp"] == "2026-11-26T10:15:00Z"
    site.now += timedelta(hours=1)
    await site.store.write(flap)
    counts = [e["count"] for e in await site.events("spec.reason=DeviceCPUCritical")]
    assert sorted(counts) == [5, 25]


async def test_those_who_fall_silent_together_are_read_at_once_and_forgotten_after_a_week(
    site: Site,
) -> None:
    names = [f"d{number:04}" for number in range(MANY)]
    await site.create(*names)

    def all_speak(tx: Transaction) -> None:
        for name in names:
            site.say(tx, name)

    await site.store.write(all_speak)
    site.now += timedelta(hours=1)
    before = len(await site.events())
    site.statements.seen.clear()
    border = site.now.timestamp() - 300
    gone = [await site.store.write(lambda tx: presence.sweep(tx, border)) for _ in range(2)]
    assert sum(gone) == MANY
    asked = [text for text in site.statements.seen if text.startswith("SELECT")]
    assert len(asked) < 20, Counter(asked).most_common(5)
    assert len(await site.events()) == before + MANY
    [one] = await site.events("spec.involvedObject.name=d0007,spec.reason=DeviceDisconnected")
    assert one["involvedObject"]["name"] == "d0007"

    kept = timedelta(days=7)
    assert await housekeeping.forget_events(site.operations, site.now - kept) == 0
    site.now += kept
    border_at = site.now - kept - timedelta(seconds=1)
    assert await housekeeping.forget_events(site.operations, border_at) == before
    assert await housekeeping.forget_events(site.operations, site.now) == MANY
    assert await site.events() == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_report_that_moves_no_summary_costs_no_statement_more(site: Site) -> None:
    await site.create("d")
    await site.report("d")
    taken = []
    for announce in (telling.announce, lambda _tx, _news: None):
        site.store.announce_by(announce)
        site.statements.seen.clear()
        await site.report("d", systemInfo={"bootID": str(len(taken))})
        taken.append([text[:30] for text in site.statements.seen])
    assert taken[0] == taken[1]
    assert len(taken[0]) > 5
    assert not [s for s in taken[0] if " object" in s.lower()], taken[0]


async def test_a_watcher_sees_each_event_and_how_often_it_happened(site: Site) -> None:
    await site.create("d")
    await site.report("d")
    version = site.store.hub.version
    await site.report("d", **HOT)
    await site.report("d")
    await site.report("d", **HOT)
    rows = await site.store.read(lambda s: s.changes(STORED, None, version, 100))
    names = [row.name for row in rows]
    # Critical; normal, and connected, which was told before; critical again.
    assert [row.type for row in rows] == ["ADDED", "ADDED", "MODIFIED", "MODIFIED"]
    assert names[0] == names[3]
    assert len(set(names)) == 3


async def test_steps_of_a_rollout_are_told_of_its_fleet_each_for_itself(site: Site) -> None:
    service = await Service.over(site.operations)
    request = await service.offer("one")
    name = request["rollout"]

    async def becomes(**status: Any) -> None:
        def change(old: Json) -> Json:
            return old | {"status": (old.get("status") or {}) | status}

        await site.operations.patch(
            CONTROLLERS, ROLLOUT, "default", name, change, OWN_WRITE, subresource="status"
        )

    counts = {"done": 2, "selected": 2}
    await becomes(phase="Active")
    await becomes(phase="Active", counts=counts)
    await becomes(phase="Completed", counts=counts)
    told = [(e["involvedObject"]["kind"], e["reason"], e["count"]) for e in await site.events()]
    assert sorted(each for each in told if each[1].startswith("FleetRollout")) == [
        ("Fleet", f"FleetRollout{step}", 1) for step in ("Completed", "Created", "Started")
    ]
    [ended] = await site.events("spec.reason=FleetRolloutCompleted")
    assert ended["message"] == f"2 of 2 devices have {request['templateVersion']}."
    assert ended["involvedObject"]["name"] == "web"
