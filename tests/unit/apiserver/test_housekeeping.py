from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text

from apiserver import housekeeping
from apiserver.builtins import events
from apiserver.builtins.view import View
from apiserver.operations import Caller, ListOptions, Operations, WriteOptions
from apiserver.store import Store, recount
from bench.fleet import ADMIN, PLAIN, ROLLOUT, VERSION, Service

CALLER = Caller("test", role="controller")


async def test_events_are_forgotten_a_week_after_they_happened_last(tmp_path: Path) -> None:
    today = ["01"]
    store = await Store.open(
        data_dir=tmp_path, clock=lambda: datetime(2026, 11, int(today[0]), 1, tzinfo=UTC)
    )
    try:
        operations = Operations(store)
        await operations.prepare()
        view = View(operations, events.TURNING)
        for day in ("01", "10", "20"):
            today[0] = day
            event = {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": f"e{day}"},
                "involvedObject": {"kind": "Fleet", "name": "web"},
                "lastTimestamp": f"2026-11-{day}T00:00:00Z",
            }
            await view.create(CALLER, events.EVENT, "default", event, WriteOptions())
        await housekeeping.tidy(operations, datetime(2026, 11, 18, tzinfo=UTC))
        left = await view.list_as(CALLER, events.EVENT, "default", ListOptions(), lambda p: p)
        assert [item["metadata"]["name"] for item in left.items] == ["e20"]
    finally:
        await store.close()


async def test_counters_that_are_wrong_are_repaired_and_right_ones_left_alone(
    tmp_path: Path,
) -> None:
    service = await Service.start(tmp_path)
    try:
        await service.fill(5)
        store = service.operations.store
        right = await service.summary()
        version = store.hub.version
        assert await store.read(lambda s: recount.difference(s, ("default", "web"))) == {}
        await store.write(
            lambda tx: (
                tx.connection.execute(
                    text("UPDATE counter SET n = n + 2 WHERE dimension = 'updated'")
                ).rowcount
            )
        )
        assert await service.summary() != right
        after = await housekeeping.recount_some(service.operations, ("", ""))
        assert after == ("", ""), "there are few fleets: the next round begins anew"
        assert await service.summary() == right
        assert store.hub.version == version, "nobody watches counters"
    finally:
        await service.stop()


async def test_of_a_fleets_versions_the_last_ten_stay_and_those_that_somebody_has(
    tmp_path: Path,
) -> None:
    service = await Service.start(tmp_path)
    operations = service.operations
    try:
        await service.fill(1)
        first = await service.change("0")
        assert first["bound"] == 1
        aborted = {"status": {"phase": "Aborted"}}
        good = {"status": {"phase": "Completed", "finishedAt": "2026-11-26T00:00:00Z"}}
        for number in range(1, 15):
            offered = await service.offer(str(number))
            if number != 2:
                await operations.patch(
                    ADMIN, ROLLOUT, "default", offered["rollout"],
                    lambda d, end=good if number == 3 else aborted: d | end, PLAIN,
                    subresource="status",
                )  # fmt: skip
        # Of 15 the first is had by the device, the third is under way, the fourth one would go back
        # to, the last ten are young.
        assert await housekeeping.forget_versions(operations) == 2
        assert await housekeeping.forget_versions(operations) == 0
        page = await operations.list(ADMIN, VERSION, "default", ListOptions())
        left = {item["metadata"]["name"] for item in page.items}
        assert left == {"web.v2", "web.v4", "web.v5"} | {f"web.v{n}" for n in range(7, 17)}
    finally:
        await service.stop()


async def test_rollouts_that_ended_90_days_ago_are_forgotten_but_for_the_fleets_own(
    tmp_path: Path,
) -> None:
    service = await Service.start(tmp_path)
    operations = service.operations
    ends = {
        "1": {"phase": "Completed", "finishedAt": "2026-12-30T00:00:00Z"},
        "2": {"phase": "Completed", "finishedAt": "2027-01-01T00:00:00Z"},
        "3": {"phase": "Failed", "finishedAt": "2027-01-20T00:00:00Z"},
        "4": {"phase": "Active"},
        "5": {"phase": "Aborted"},
        "6": {"phase": "Completed", "finishedAt": "2027-01-01T00:00:00Z"},
    }
    try:
        await service.fill(1)
        for number, status in ends.items():
            offered = await service.offer(number)
            await operations.patch(
                ADMIN, ROLLOUT, "default", offered["rollout"],
                lambda d, status=status: d | {"status": status}, PLAIN, subresource="status",
            )  # fmt: skip
        await operations.store.write(
            lambda tx: (
                tx.connection.execute(
                    text("UPDATE object SET created_at = '2026-12-0' || substr(name, 6, 1)"
                         " || 'T00:00:00Z' WHERE name LIKE 'web.v%'")
                ).rowcount
            )
        )  # fmt: skip
        # Touched last, and not therefore the fleet's.
        await operations.patch(
            ADMIN, VERSION, "default", "web.v2",
            lambda d: d | {"metadata": d["metadata"] | {"labels": {"mine": "1"}}}, PLAIN,
        )  # fmt: skip
        await housekeeping.tidy(operations, datetime(2027, 4, 10, tzinfo=UTC))
        page = await operations.list(ADMIN, ROLLOUT, "default", ListOptions())
        left = {item["metadata"]["name"] for item in page.items}
        # To be gone back to, too young, under way, and what brings the newest to who comes late.
        assert left == {"web.v3-1", "web.v4-1", "web.v5-1", "web.v7-1"}
    finally:
        await service.stop()
