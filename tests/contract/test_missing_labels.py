"""A hundred devices and a template that three of them cannot have, rolled out by a policy through
the controllers, on both stores: the three say which field lacks which label, the others go on, and
a label is all that it takes to mend one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apiserver.store import devices
from controllers import rollouts
from controllers.secretfiles import HostCluster
from tests.fakes import sources_rig
from tests.fakes.sources_rig import Rig

Json = dict[str, Any]

DEVICES, LACKING = 100, ("d003", "d050", "d099")
SAID = 'config[0].inline[0].content: line 1, column 4: the device has no label "zone"'
POLICY = {
    "deviceSelection": {
        "strategy": "BatchSequence",
        "sequence": [{"limit": 10}, {"limit": "60%"}],
    },
    "disruptionBudget": {"maxUnavailable": 20},
    "successThreshold": "90%",
}
NOW = "2026-11-25T00:10:00Z"


@pytest.fixture
async def rig(database_url: str, tmp_path: Path) -> AsyncIterator[Rig]:
    async with sources_rig.over(database_url, tmp_path, HostCluster(environment={})) as found:
        yield found


async def apply(rig: Rig, content: str, *, is_new: bool) -> None:
    file = {"path": "/etc/zone", "content": content}
    spec = {
        "selector": {"matchLabels": {"fleet": "web"}},
        "template": {"spec": {"config": [{"name": "zone", "inline": [file]}]}},
        "rolloutPolicy": POLICY,
    }
    await (rig.create if is_new else rig.replace)("Fleet", "web", spec)


async def roll(rig: Rig, rollout: str) -> set[str]:
    """Looks at the rollout and at what its devices report, until it has ended; the devices that
    were seen in batches."""
    seen: set[str] = set()
    for _ in range(40):
        ended = await rollouts.reconcile(rig.client, "default", rollout, now=lambda: NOW) is None
        progress = await rig.client.progress("default", "web", rollout)
        under_way = progress["rendered"] - progress["done"]
        assert under_way <= POLICY["disruptionBudget"]["maxUnavailable"]  # type: ignore[index]
        seen |= {f"{batch['number']}" for batch in progress["batches"]}
        if ended:
            return seen
        await rig.come_to_rest()
    raise AssertionError("the rollout has not ended")


async def test_three_of_a_hundred_say_what_they_lack_and_the_policy_goes_on(rig: Rig) -> None:
    names = [f"d{number:03}" for number in range(DEVICES)]
    for number, name in enumerate(names):
        labels = {} if name in LACKING else {"zone": f"z{number % 7}"}
        await rig.create("Device", name, {}, fleet="web", **labels)
    await rig.come_to_rest()
    await apply(rig, "before", is_new=True)
    await rig.look()
    await roll(rig, "web.v1-1")
    await apply(rig, "{{ .metadata.labels.zone }}", is_new=False)
    await rig.look()
    assert (await rig.condition())["status"] == "True"
    assert await roll(rig, "web.v2-1") == {"0", "1", "2"}

    rollout = await rig.get("Rollout", "web.v2-1")
    assert rollout["status"]["phase"] == "Completed", rollout["status"]["conditions"]
    percentages = [batch.get("successPercentage") for batch in rollout["status"]["batches"]]
    assert percentages[:2] == [90, 98], "of ten, of fifty more"
    assert rollout["status"]["failures"] == [{"cause": SAID, "count": 3, "example": "d003"}]
    for number, name in enumerate(names):
        if name in LACKING:
            assert await rig.contents(name) == {"/etc/zone": b"before"}
            device = await rig.get("Device", name)
            assert device["metadata"]["annotations"][devices.ROLLOUT_ERROR] == SAID
            assert device["status"]["updated"]["status"] == "OutOfDate"
            assert device["status"]["updated"]["info"].endswith(SAID)
        else:
            assert await rig.contents(name) == {"/etc/zone": f"z{number % 7}".encode()}

    for name in LACKING:
        await rig.relabel(name, zone="mended")
        await rig.join()
        assert await rig.contents(name) == {"/etc/zone": b"mended"}
    await rig.come_to_rest()
    progress = await rig.client.progress("default", "web", "web.v2-1")
    assert (progress["done"], progress["failed"]) == (DEVICES, 0)
    assert sorted(await rig.names()) == ["web.v1", "web.v2"], "no new version for it"
