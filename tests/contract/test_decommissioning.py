"""A device's last days: dismissed, gone, and back again as a new one. On both stores."""

from __future__ import annotations

from typing import Any

import pytest

from apiserver import decommissioning, errors
from apiserver.builtins.events import STORED
from apiserver.operations import ListOptions, WriteOptions
from resources import registry
from tests.fakes.agent_client import device_status, version_of
from tests.fakes.agent_service import PERSON, AgentService

Json = dict[str, Any]
FLEET = registry.by_kind("Fleet")
CONFIG = [{"name": "motd", "inline": [{"path": "/etc/motd", "content": "hi"}]}]


async def dismiss(service: AgentService, name: str, **body: Any) -> Json:
    wanted = {"target": "Unenroll"} | body
    return await decommissioning.decommission(service.operations, PERSON, "default", name, wanted)


async def test_from_dismissal_to_a_second_life_with_the_same_key(anywhere: AgentService) -> None:
    agent = anywhere.agent()
    async with await anywhere.admitted(agent) as managed:
        await anywhere.change(agent.name, spec={"config": CONFIG})
        before = (await agent.poll(managed)).json
        first = await anywhere.device(agent.name)

        gone = await dismiss(anywhere, agent.name)
        assert gone["spec"] == {"config": CONFIG, "decommissioning": {"target": "Unenroll"}}
        assert gone["status"]["lifecycle"]["status"] == "Decommissioning"
        assert not gone["metadata"].get("labels")
        assert gone["metadata"]["generation"] == first["metadata"]["generation"]
        told = await agent.news(managed, version_of(before))
        assert told["spec"]["decommissioning"] == {"target": "Unenroll"}
        assert told["spec"]["config"] == before["spec"]["config"]

        # As whoever says nothing of a version: it moves when it is seen that the device has called.
        labelled = gone["metadata"] | {"labels": {"a": "b"}}
        del labelled["resourceVersion"]
        for changed in ({"spec": {}}, {"metadata": labelled}):
            with pytest.raises(errors.Conflict, match="decommissioned"):
                await anywhere.change(agent.name, **changed)
        with pytest.raises(errors.Conflict, match="already"):
            await dismiss(anywhere, agent.name)

        done = {"type": "DeviceDecommissioning", "status": "True", "reason": "Completed",
                "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}  # fmt: skip
        await agent.report(managed, device_status(version_of(told), conditions=[done]))
        ended = await anywhere.device(agent.name)
        assert ended["status"]["lifecycle"]["status"] == "Decommissioned"
        refused = await managed.send(
            "POST", "/certificatesigningrequests", json=agent.renewal_body()
        )
        assert refused.code == 401

        async with anywhere.connection() as factory:
            assert (await agent.enrol(factory)).code == 409, "its record is there"
            await anywhere.delete(agent.name)
            assert b"Device of name" in (await agent.poll(managed)).body
            assert (await agent.enrol(factory)).code == 201
            await anywhere.approve(agent.name, labels={"site": "b"})
            certificate = await agent.wait_for_certificate(factory)
    async with agent.connection(certificate) as again:
        assert "decommissioning" not in (await agent.poll(again)).json["spec"]
    second = await anywhere.device(agent.name)
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    assert second["status"]["lifecycle"]["status"] == "Enrolled"

    events = (await anywhere.operations.list(PERSON, STORED, "default", ListOptions())).items
    said = [e["spec"]["message"] for e in events if e["spec"]["reason"] == "DeviceDecommissioned"]
    assert said == ["Decommissioned by ada."]


async def test_a_fleet_lets_its_device_go_and_does_not_take_it_back(anywhere: AgentService) -> None:
    agent = anywhere.agent()
    fleet = {
        "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"alias": "h"}}, "template": {"spec": {}}},
    }
    await anywhere.operations.create(PERSON, FLEET, "default", fleet, WriteOptions())
    async with await anywhere.admitted(agent) as managed:
        assert (await anywhere.device(agent.name))["metadata"]["owner"] == "Fleet/web"
        gone = await dismiss(anywhere, agent.name)
        assert not gone["metadata"].get("owner")
        # It was never told anything, and is told this at once.
        told = (await agent.poll(managed)).json
        assert told["spec"]["decommissioning"] == {"target": "Unenroll"}
        changed = fleet | {"spec": fleet["spec"] | {"selector": {"matchLabels": {"x": "y"}}}}  # type: ignore[operator]
        await anywhere.operations.update(PERSON, FLEET, "default", "web", changed, WriteOptions())
        assert not (await anywhere.device(agent.name))["metadata"].get("owner")


async def test_a_source_that_is_down_does_not_keep_it_in_service(service: AgentService) -> None:
    agent = service.agent()
    source = {"name": "c", "gitRef": {"repository": "r", "targetRevision": "main", "path": "/x"}}
    async with await service.admitted(agent) as managed:
        await service.change(agent.name, spec={"config": [source]})
        await dismiss(service, agent.name)
        told = (await agent.poll(managed)).json
        assert told["spec"]["decommissioning"] == {"target": "Unenroll"}


@pytest.mark.parametrize("body", [{"target": "Nowhere"}, {"target": None}, {"more": 1}], ids=str)
async def test_a_wrong_wish_changes_nothing(service: AgentService, body: Json) -> None:
    agent = service.agent()
    async with await service.admitted(agent):
        before = await service.device(agent.name)
        with pytest.raises(errors.Unprocessable, match="target"):
            await dismiss(service, agent.name, **body)
        assert await service.device(agent.name) == before
    with pytest.raises(errors.NotFound):
        await dismiss(service, "nobody")
