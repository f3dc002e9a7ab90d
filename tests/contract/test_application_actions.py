"""Applications told to stop, start and restart, beside the specification. On both stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from apiserver import acting, decommissioning, errors
from apiserver.agentapi.settings import AgentApiSettings
from apiserver.builtins.events import STORED
from apiserver.operations import ListOptions, WriteOptions
from apiserver.store import devices
from resources import registry
from tests.fakes.agent_client import device_status, version_of
from tests.fakes.agent_service import DEVICE, PERSON, AgentService, serving

Json = dict[str, Any]
FLEET = registry.by_kind("Fleet")
TEMPLATE_VERSION = registry.by_kind("TemplateVersion")
ROLLOUT = registry.by_kind("Rollout")


def app(name: str) -> Json:
    return {"name": name, "appType": "container", "image": f"quay.io/x/{name}:1"}


SPEC = {"applications": [app("web"), app("log")]}


@pytest.fixture
async def service(tmp_path: Path, database_url: str) -> AsyncIterator[AgentService]:
    async with serving(tmp_path, AgentApiSettings(hold_s=0.3), database=database_url) as running:
        yield running


async def ask(service: AgentService, action: str, name: str, application: str = "web") -> Json:
    body = {"application": application, "action": action}
    return await acting.act(service.operations, PERSON, DEVICE, "default", name, body)


async def ask_fleet(service: AgentService, action: str, name: str, application: str) -> Json:
    body = {"application": application, "action": action}
    return await acting.act(service.operations, PERSON, FLEET, "default", name, body)


def lives(rendered: Json, name: str = "web") -> tuple[str | None, int]:
    """What is asked of the application in what the agent is given."""
    found = next(a for a in rendered["spec"]["applications"] if a["name"] == name)
    return found.get("desiredState"), found.get("restartGeneration", 0)


async def test_a_devices_application_is_stopped_started_and_restarted(
    service: AgentService,
) -> None:
    agent = service.agent()
    async with await service.admitted(agent) as managed:
        await service.change(agent.name, spec=SPEC)
        first = (await agent.poll(managed)).json
        await agent.report(managed, device_status(version_of(first)))

        stopped = await ask(service, "stop", agent.name)
        assert "desiredState" not in orjson.dumps(stopped["spec"]).decode()
        told = await agent.news(managed, version_of(first))
        assert (lives(told), lives(told, "log")) == (("stopped", 0), (None, 0))
        assert int(version_of(told)) == int(version_of(first)) + 1
        hashes = {d["metadata"]["annotations"][devices.RENDERED_HASH] for d in (first, told)}
        assert len(hashes) == 2, "an agent that refused the one may try the other"
        updated = (await service.device(agent.name))["status"]["updated"]
        assert updated["status"] == "OutOfDate"

        await ask(service, "stop", agent.name)
        assert (await agent.poll(managed, version_of(told))).code == 204, "nothing new in that"
        for number in (1, 2):
            await ask(service, "restart", agent.name)
            told = await agent.news(managed, version_of(told))
            assert lives(told) == ("stopped", number)
        await ask(service, "start", agent.name)
        told = await agent.news(managed, version_of(told))
        assert lives(told) == ("running", 2)

        # What is written meanwhile leaves it alone, and takes it along with the application.
        await service.change(agent.name, spec=SPEC | {"config": []})
        kept = (await service.device(agent.name))["metadata"]["annotations"]
        assert orjson.loads(kept[devices.OVERRIDES])["web"]["restartGeneration"] == 2
        await service.change(agent.name, spec={"applications": [app("log")]})
        await service.change(agent.name, spec=SPEC)
        told = await agent.news(managed, version_of(told))
        assert lives(told) == (None, 0)
        assert (
            devices.OVERRIDES not in (await service.device(agent.name))["metadata"]["annotations"]
        )

    events = (await service.operations.list(PERSON, STORED, "default", ListOptions())).items
    said = [e["spec"] for e in events if e["spec"]["reason"] == acting.REASON]
    assert "Application web was stopped by ada." in {each["message"] for each in said}
    # What is the same within the hour is counted.
    assert sum(each["count"] for each in said) == 5


async def test_nobody_writes_the_annotations_or_asks_what_can_not_be(
    service: AgentService,
) -> None:
    agent = service.agent()
    async with await service.admitted(agent):
        await service.change(
            agent.name, spec={"applications": [app("web"), {**app("x"), "name": ""}]}
        )
        found = await service.device(agent.name)
        forged = {
            devices.OVERRIDES: '{"web":{"desiredState":"stopped"}}',
            devices.CONFLICT_PAUSED: "true",
        }
        await service.change(agent.name, metadata=found["metadata"] | {"annotations": forged})
        kept = (await service.device(agent.name))["metadata"]["annotations"]
        assert not kept.keys() & forged.keys()

        with pytest.raises(errors.NotFound, match='Application of name "log" not found'):
            await ask(service, "stop", agent.name, "log")
        with pytest.raises(errors.NotFound, match="devices"):
            await ask(service, "stop", "nobody")
        for body in (
            {},
            {"application": "web", "action": "explode"},
            {"application": 7, "action": "stop"},
            {"application": "web", "action": "stop", "now": True},
        ):
            with pytest.raises(errors.BadRequest):
                await acting.act(service.operations, PERSON, DEVICE, "default", agent.name, body)
        with pytest.raises(errors.BadRequest, match="stop, start"):
            await ask_fleet(service, "restart", "pumps", "web")
        wanted = {"target": "Unenroll"}
        place = "default", agent.name
        await decommissioning.decommission(service.operations, PERSON, *place, wanted)
        with pytest.raises(errors.BadRequest, match="decommissioned"):
            await ask(service, "stop", agent.name)


async def bound(service: AgentService, number: int, spec: Json) -> None:
    """As the controllers do it."""
    name = f"pumps.v{number}"
    version = {
        "metadata": {"name": name},
        "spec": {"fleet": "pumps"},
        "status": spec,
    }
    target = {"fleet": "pumps", "templateVersion": name}
    rollout = {"metadata": {"name": name.replace(".", "-")}, "spec": {"target": target}}
    controllers = PERSON
    for kind, document in ((TEMPLATE_VERSION, version), (ROLLOUT, rollout)):
        await service.operations.create(controllers, kind, "default", document, WriteOptions())
    request = {"templateVersion": name, "rollout": rollout["metadata"]["name"]}  # type: ignore[index]
    await service.operations.bind(controllers, "default", "pumps", request)


async def test_a_fleets_application_is_stopped_on_all_of_its_devices_and_on_who_joins(
    service: AgentService,
) -> None:
    fleet = {
        "metadata": {"name": "pumps"},
        "spec": {"selector": {"matchLabels": {"alias": "h"}}, "template": {"spec": SPEC}},
    }
    await service.operations.create(PERSON, FLEET, "default", fleet, WriteOptions())
    one, two, late = (service.agent() for _ in range(3))
    async with await service.admitted(one) as a, await service.admitted(two) as b:
        await bound(service, 1, SPEC)
        await ask(service, "restart", one.name)
        await ask(service, "stop", two.name, "log")
        stopped = await ask_fleet(service, "stop", "pumps", "web")
        assert devices.FLEETS_OVERRIDES in stopped["metadata"]["annotations"]
        first = (await one.poll(a)).json
        assert lives(first) == ("stopped", 1)
        second = (await two.poll(b)).json
        assert (lives(second), lives(second, "log")) == (("stopped", 0), ("stopped", 0))

        # Later than the fleet, on one device; and later than that, on all.
        await ask(service, "start", one.name)
        assert lives((await one.poll(a)).json) == ("running", 1)
        assert lives((await two.poll(b)).json) == ("stopped", 0)
        before = version_of((await two.poll(b)).json)
        await ask_fleet(service, "stop", "pumps", "web")
        assert lives((await one.poll(a)).json) == ("stopped", 1)
        assert version_of((await two.poll(b)).json) == before, "it had it already"

        async with await service.admitted(late) as c:
            await bound(service, 2, SPEC | {"config": []})
            assert lives((await late.poll(c)).json) == ("stopped", 0)
        # A person who writes the fleet writes nothing of that.
        await service.operations.update(PERSON, FLEET, "default", "pumps", fleet, WriteOptions())
        kept = await service.operations.get(PERSON, FLEET, "default", "pumps")
        assert devices.FLEETS_OVERRIDES in kept["metadata"]["annotations"]
        assert kept["metadata"]["annotations"][devices.TEMPLATE_VERSION] == "v2"

        # What is bound without an application takes a device's own wishes for it along.
        await bound(service, 3, {"applications": [app("web")]})
        await bound(service, 4, SPEC)
        assert lives((await two.poll(b)).json, "log") == (None, 0)


async def test_who_a_crash_left_out_is_given_it_later(service: AgentService) -> None:
    fleet = {
        "metadata": {"name": "pumps"},
        "spec": {"selector": {"matchLabels": {"alias": "h"}}, "template": {"spec": SPEC}},
    }
    await service.operations.create(PERSON, FLEET, "default", fleet, WriteOptions())
    agent = service.agent()
    async with await service.admitted(agent) as managed:
        await bound(service, 1, SPEC)
        old = await service.operations.get(PERSON, FLEET, "default", "pumps")
        text = '{"web":{"desiredState":"stopped","desiredStateVersion":5}}'
        annotations = {**old["metadata"]["annotations"], devices.FLEETS_OVERRIDES: text}
        new = old | {"metadata": old["metadata"] | {"annotations": annotations}}
        await service.store.write(lambda tx: tx.update(FLEET, old, new))
        assert lives((await agent.poll(managed)).json) == (None, 0)
        await acting.hand_down_all(service.store)
        assert lives((await agent.poll(managed)).json) == ("stopped", 0)
