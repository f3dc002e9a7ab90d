"""A device whose batch has not come says that it is out of date, on both databases: as one set
change, with counters, watches and what it reports itself in agreement."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from apiserver.store import Snapshot, devices, recount, reports
from resources import registry, summary
from tests.fakes.rollout_model import Device, Model
from tests.fakes.rollout_rig import ADMIN, PLAIN, ROLLOUT, Rolling, Site, opened

Json = dict[str, Any]
TWO_BATCHES: Json = {"deviceSelection": {"strategy": "BatchSequence", "sequence": [{"limit": 2}]}}
DEVICE = registry.by_kind("Device")


@pytest_asyncio.fixture
async def site(tmp_path: Path, database_url: str) -> AsyncIterator[Site]:
    async with opened(database_url, tmp_path) as found:
        yield found


async def begun(site: Site, name: str, number: int = 6) -> Rolling:
    rolling = await Rolling.begin(site, name, Model([Device(f"d{n}") for n in range(number)], {}))
    await rolling.offer("three", TWO_BATCHES)
    await rolling.bind_asked({"batch": 0})
    return rolling


async def states(rolling: Rolling) -> dict[str, tuple[str, str]]:
    def read(snapshot: Snapshot) -> dict[str, tuple[str, str]]:
        found = {}
        for device in rolling.model.devices:
            row = devices.row_by_name(snapshot.connection, "default", rolling.in_store(device))
            assert row is not None
            found[device.name] = row["updated_status"], row["updated_info"]
        return found

    return await rolling.site.operations.store.read(read)


async def test_who_waits_for_a_batch_is_out_of_date_and_says_why(site: Site) -> None:
    rolling = await begun(site, "web")
    store = site.operations.store
    assert (await states(rolling))["d5"] == ("UpToDate", summary.APPLIED)
    assert (await rolling.progress())["misjudged"] == 4
    before = store.hub.version
    await rolling.bind_asked({"mark": True})
    assert store.hub.version == before + 4, "one version for each that shows it"
    found = await states(rolling)
    assert found["d0"] == ("OutOfDate", summary.NOT_APPLIED)
    assert found["d5"] == ("OutOfDate", summary.NOT_SCHEDULED)
    assert (await rolling.progress())["misjudged"] == 0
    wrong = await store.read(lambda s: recount.difference(s, ("default", "web")))
    assert wrong == {}, "the counters moved with them"
    changes = await store.read(lambda s: s.changes(DEVICE, "default", before, 10))
    assert [change.new[1]["status.updated.status"] for change in changes if change.new] == [
        "OutOfDate"
    ] * 4
    await rolling.bind_asked({"mark": True})
    assert store.hub.version == before + 4, "again is nothing"


async def test_what_it_reports_meanwhile_does_not_make_it_up_to_date(site: Site) -> None:
    rolling = await begun(site, "web")
    await rolling.bind_asked({"mark": True})

    def report(tx: Any) -> None:
        row = devices.row_by_name(tx.connection, "default", "web-d5")
        assert row is not None
        status = {"config": {"renderedVersion": str(row["rendered_version"])}, "said": "again"}
        reports.put(tx, reports.Report("default", "web-d5", status))

    await site.write(report)
    assert (await states(rolling))["d5"] == ("OutOfDate", summary.NOT_SCHEDULED)


async def test_its_turn_comes_or_it_leaves_and_it_is_no_longer_behind(site: Site) -> None:
    rolling = await begun(site, "web")
    await rolling.bind_asked({"mark": True})

    def relabel(document: Json) -> Json:
        return document | {"metadata": document["metadata"] | {"labels": {"fleet": "none"}}}

    await site.operations.patch(ADMIN, DEVICE, "default", "web-d5", relabel, PLAIN)
    assert (await states(rolling))["d5"][0] == "UpToDate"
    await rolling.bind_asked({"batch": 1})
    await rolling.site.write(rolling.run_everything)
    found = await states(rolling)
    assert Counter(state for state, _ in found.values()) == {"UpToDate": 6}


async def test_going_back_makes_those_right_that_never_went(site: Site) -> None:
    """An attempt that brings what they have makes them up to date again."""
    rolling = await begun(site, "web")
    await rolling.bind_asked({"mark": True})
    target = {"fleet": "web", "templateVersion": "web.v1", "reverts": "web.v3-1"}
    rollout = {"metadata": {"name": "web.v1-2"}, "spec": {"target": target}}
    await site.operations.create(ADMIN, ROLLOUT, "default", rollout, PLAIN)
    back = {"templateVersion": "web.v1", "rollout": "web.v1-2"}
    answer = await site.operations.bind(ADMIN, "default", "web", back | {"mark": True})
    assert answer["bound"] == 0
    found = await states(rolling)
    assert [found[name][0] for name in ("d0", "d2", "d5")] == ["OutOfDate", "UpToDate", "UpToDate"]
    wrong = await site.operations.store.read(lambda s: recount.difference(s, ("default", "web")))
    assert wrong == {}


@pytest.mark.parametrize("connected", [0, 1])
async def test_who_is_away_or_failed_shows_nothing_and_is_marked_too(
    site: Site, connected: int
) -> None:
    rolling = await begun(site, "web")

    def befall(tx: Any) -> None:
        row = devices.row_by_name(tx.connection, "default", "web-d5")
        assert row is not None
        failed = {"failed_version": row["rendered_version"], "failed_reason": "no", "seen": 1}
        devices.save(tx, row, failed | {"reported_version": 0, "connected": connected})

    await site.write(befall)
    before = (await states(rolling))["d5"]
    await rolling.bind_asked({"mark": True})
    assert (await states(rolling))["d5"] == before
    assert (await rolling.progress())["misjudged"] == 0
