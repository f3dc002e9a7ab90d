"""A hundred devices and a template that three of them cannot have, rolled out by a policy through
the controllers, on both stores: the three say which field lacks which label, the others go on, and
a label is all that it takes to mend one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apiserver.store import devices
from bench.fleet import ADMIN, PLAIN, ROLLOUT
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


async def test_people_may_have_those_rendered_for_again_during_the_rollout_and_after_it(
    rig: Rig,
) -> None:
    """Nothing has changed for the device, so it comes to the same; but the rollout comes to an end
    each time, and the device was looked at each time."""
    for name in ("a", "b", "c", "lacking"):
        labels = {} if name == "lacking" else {"zone": "z"}
        await rig.create("Device", name, {}, fleet="web", **labels)
    await rig.come_to_rest()
    policy = {"deviceSelection": {"strategy": "BatchSequence", "sequence": [{"limit": 4}]}}
    file = {"path": "/etc/zone", "content": "{{ .metadata.labels.zone }}"}
    spec = {
        "selector": {"matchLabels": {"fleet": "web"}},
        "template": {"spec": {"config": [{"name": "zone", "inline": [file]}]}},
        "rolloutPolicy": policy | {"successThreshold": "80%"},
    }
    await rig.create("Fleet", "web", spec)
    await rig.look()
    suspended = await stand(rig, "web.v1-1", "Suspended")
    assert suspended["counts"]["refused"] == 1
    assert await tries(rig) == ["web.v1-1", 0]

    await control(rig, "web.v1-1", retry=1)
    again = await stand(rig, "web.v1-1", "Suspended")
    assert again["retry"] == 1
    assert again["counts"] | {"refused": 1, "failed": 1, "done": 3} == again["counts"]
    assert await tries(rig) == ["web.v1-1", 1]

    await control(rig, "web.v1-1", approved=2)
    ended = await stand(rig, "web.v1-1", "Failed")
    assert ended["failures"] == [{"cause": SAID, "count": 1, "example": "lacking"}]
    await control(rig, "web.v1-1", retry=2)
    await rig.look()
    await stand(rig, "web.v1-2", "Suspended")
    assert await tries(rig) == ["web.v1-2", 0]
    await rig.relabel("lacking", zone="z")
    mended = await stand(rig, "web.v1-2", "Completed")
    assert mended["counts"]["done"] == 4


async def control(rig: Rig, rollout: str, **levers: int) -> None:
    def pull(document: Json) -> Json:
        spec = document["spec"]
        return document | {"spec": spec | {"control": (spec.get("control") or {}) | levers}}

    await rig.server.operations.patch(ADMIN, ROLLOUT, "default", rollout, pull, PLAIN)


async def stand(rig: Rig, rollout: str, phase: str) -> Json:
    """The rollout's status once it is in that phase, and nothing more comes of looking at it."""
    status: Json = {}
    for _ in range(12):
        await rollouts.reconcile(rig.client, "default", rollout, now=lambda: NOW)
        await rig.come_to_rest()
        before, status = status, (await rig.get("Rollout", rollout))["status"]
        if status == before and status["phase"] == phase:
            return status
    raise AssertionError(f"{rollout} is not {phase}: {status}")


async def tries(rig: Rig) -> list[Any]:
    row = await rig.server.operations.store.read(
        lambda s: devices.row_by_name(s.connection, "default", "lacking")
    )
    assert row is not None
    return [row["rollout"], row["rollout_retry"]]
