"""Rollouts through the real controllers, which look at nothing by the clock: who waits is woken by
what happens, or this never ends. People pause, try again and take back; devices report."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from apiserver.store import Transaction, delivering, reports
from apiserver.store.tables import DEVICE as ROWS
from bench.fleet import ADMIN, PLAIN, ROLLOUT
from controllers import worklist
from controllers.runtime import Controllers
from controllers.secretfiles import HostCluster
from controllers.session import Endpoint
from controllers.settings import Settings
from resources import conditions, rollout_plan
from tests.fakes import sources_rig
from tests.fakes.sources_rig import Rig

Json = dict[str, Any]
NEVER_S = 36_000.0
# Tenths of a second without a change: the controllers rest half a second between two looks.
REST = 12
TWO_FIRST: Json = {"deviceSelection": {"strategy": "BatchSequence", "sequence": [{"limit": 2}]}}
Fails = Callable[[str], bool]


@pytest.fixture
async def rig(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Rig]:
    for module, name in ((rollout_plan, "BUSY_S"), (rollout_plan, "QUIET_S")):
        monkeypatch.setattr(module, name, NEVER_S)
    monkeypatch.setattr(worklist, "RECHECK_S", NEVER_S)
    async with sources_rig.over(database_url, tmp_path, HostCluster(environment={})) as found:
        endpoint = Endpoint(socket=found.server.settings.controllers_socket)
        settings = Settings(tmp_path / "state", poll_s=NEVER_S, access_s=NEVER_S)
        controllers = Controllers(endpoint, settings, resync_s=NEVER_S)
        await asyncio.to_thread(controllers.start)
        yield found
        assert await asyncio.to_thread(controllers.stop)


async def change(rig: Rig, content: str, policy: Json | None = None) -> None:
    file = {"path": "/etc/motd", "content": content}
    spec: Json = {
        "selector": {"matchLabels": {"fleet": "web"}},
        "template": {"spec": {"config": [{"name": "motd", "inline": [file]}]}},
    } | ({"rolloutPolicy": policy} if policy else {})
    is_new = not await rig.list("Fleet")
    await (rig.create if is_new else rig.replace)("Fleet", "web", spec)


async def phase(rig: Rig, name: str, *wanted: str, fails: Fails | None = None) -> Json:
    """The status of a rollout as soon as its phase is one of these; meanwhile devices report what
    they are given, if `fails` says of each how it goes. They do when the controllers have come to
    rest, which then look at nothing that nobody wakes them for."""
    found: Json = {}
    quiet = 0
    for _ in range(600):
        before = found
        found = next((r for r in await rig.list("Rollout") if r["metadata"]["name"] == name), {})
        status: Json = found.get("status") or {}
        if status.get("phase") in wanted:
            return status
        quiet = quiet + 1 if found == before else 0
        if fails is not None and quiet > REST:
            await report(rig, fails)
            quiet = 0
        await asyncio.sleep(0.1)
    raise AssertionError(f"{name} is not {wanted}: {found}")


async def report(rig: Rig, fails: Fails) -> None:
    def put(tx: Transaction) -> None:
        for row in list(tx.connection.execute(ROWS.select()).mappings()):
            version = row["rendered_version"]
            if version in (row["reported_version"], row["failed_version"]):
                continue
            delivering.mark_delivered(tx, [(row["uid"], version)])
            failed = fails(row["name"])
            updating = {
                "type": "Updating",
                "status": "False",
                "reason": "Error" if failed else "Updated",
                "message": f"renderedVersion: {version} {'unhealthy' if failed else ''}",
            }
            shown = row["reported_version"] if failed else version
            status = {"config": {"renderedVersion": str(shown)}, "conditions": [updating]}
            reports.put(tx, reports.Report("default", row["name"], status))

    await rig.server.operations.store.write(put)


async def steer(rig: Rig, name: str, **control: Any) -> None:
    def pull(document: Json) -> Json:
        spec = document["spec"]
        return document | {"spec": spec | {"control": (spec.get("control") or {}) | control}}

    await rig.server.operations.patch(ADMIN, ROLLOUT, "default", name, pull, PLAIN)


async def updated(rig: Rig) -> Counter[str]:
    return Counter(d["status"]["updated"]["status"] for d in await rig.list("Device"))


def nobody(_: str) -> bool:
    return False


@pytest.mark.timeout(180)
async def test_people_pause_try_again_and_take_back_what_the_devices_are_told(rig: Rig) -> None:
    for number in range(5):
        await rig.create("Device", f"d{number}", {}, fleet="web")
    await change(rig, "one")
    await phase(rig, "web.v1-1", "Completed", fails=nobody)

    await change(rig, "two", TWO_FIRST)
    suspended = await phase(rig, "web.v2-1", "Suspended", fails=lambda name: name == "d1")
    assert suspended["failures"] == [
        {"cause": "renderedVersion: N unhealthy", "count": 1, "example": "d1"}
    ]
    assert await updated(rig) == {"UpToDate": 1, "OutOfDate": 4}, "one runs it, one failed"
    await steer(rig, "web.v2-1", paused=True)
    await phase(rig, "web.v2-1", "Waiting")
    await steer(rig, "web.v2-1", paused=False, retry=1)
    status = await phase(rig, "web.v2-1", "Completed", fails=nobody)
    assert (status["counts"]["done"], status["retry"]) == (5, 1)
    assert await updated(rig) == {"UpToDate": 5}

    await change(rig, "three")
    await phase(rig, "web.v3-1", "Failed", fails=lambda name: name != "d4")
    await steer(rig, "web.v3-1", revert=True)
    status = await phase(rig, "web.v2-2", "Completed", fails=nobody)
    assert status["counts"]["done"] == 5
    assert [await rig.contents(f"d{n}") for n in range(5)] == [{"/etc/motd": b"two"}] * 5
    assert await updated(rig) == {"UpToDate": 5}
    for _ in range(100):
        fleet = await rig.get("Fleet", "web")
        ready = conditions.get(fleet["status"]["conditions"], "Ready")
        if ready and ready["reason"] == "Reverted":
            break
        await asyncio.sleep(0.1)
    assert ready is not None
    assert (ready["status"], ready["reason"]) == ("False", "Reverted")
    assert len(await rig.list("Rollout")) == 4
