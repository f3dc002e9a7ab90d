"""A database from a backup, and devices that went on meanwhile. On both stores."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from apiserver import acting, decommissioning, errors, restored, resuming
from apiserver.agentapi.settings import AgentApiSettings
from apiserver.builtins.events import STORED
from apiserver.operations import ListOptions, WatchOptions, WriteOptions
from apiserver.store import recount
from resources import registry
from tests.fakes import backups
from tests.fakes.agent_client import Agent, Answer, Connection, device_status, version_of
from tests.fakes.agent_service import DEVICE, HELD, PERSON, AgentService, serving
from tests.fakes.waiting import PATIENCE_S, until

Json = dict[str, Any]
FLEET, TEMPLATE_VERSION, ROLLOUT, BACKLOG = (
    registry.by_kind(kind) for kind in ("Fleet", "TemplateVersion", "Rollout", "Backlog")
)
SETTINGS = AgentApiSettings(hold_s=0.3)
PAUSED = "device-controller/conflictPaused"


@asynccontextmanager
async def at(directory: Path, database: str) -> AsyncIterator[AgentService]:
    async with serving(directory, SETTINGS, database=database) as running:
        yield running


@pytest.fixture
async def service(tmp_path: Path, database_url: str) -> AsyncIterator[AgentService]:
    async with at(tmp_path, database_url) as running:
        yield running


def config(text: str) -> Json:
    inline = [{"path": "/etc/motd", "content": text}]
    return {"config": [{"name": "motd", "inline": inline}]}


async def moved(service: AgentService, agent: Agent, connection: Connection, spec: Json) -> str:
    """The device has this specification, and says so; the version that it runs then."""
    await service.change(agent.name, spec=spec)
    version = version_of((await agent.poll(connection)).json)
    assert (await agent.report(connection, device_status(version))).code == 200
    return version


def again(service: AgentService, agent: Agent) -> tuple[Agent, Connection]:
    """The same device, with the certificate that it has, at a service that was started again."""
    same = Agent(service.url, service.authority.server_ca_pem, agent.directory, agent.key)
    return same, same.connection((agent.directory / f"{agent.name}.crt").read_text())


async def state(service: AgentService, name: str) -> str:
    return str((await service.device(name))["status"]["summary"]["status"])


async def said(service: AgentService, reason: str) -> list[str]:
    events = (await service.operations.list(PERSON, STORED, "default", ListOptions())).items
    return [e["spec"]["message"] for e in events if e["spec"]["reason"] == reason]


async def check_counters(service: AgentService) -> None:
    for place in await service.store.read(lambda s: recount.places(s, ("", ""), 100)):
        assert not await service.store.read(lambda s, p=place: recount.difference(s, p))  # type: ignore[misc]


async def test_devices_that_went_on_are_paused_and_brought_on_from_where_they_are(
    tmp_path: Path, database_url: str
) -> None:
    async with at(tmp_path, database_url) as service:
        ahead, level, silent, leaving = (service.agent() for _ in range(4))
        connections = {}
        for agent in (ahead, level, silent, leaving):
            connections[agent.name] = await service.admitted(agent)
        async with connections[ahead.name] as ahead_line, connections[level.name] as level_line:
            await moved(service, ahead, ahead_line, config("one"))
            at_backup = await moved(service, level, level_line, config("one"))
        before = await service.store.read(lambda s: s.version)
    after_backup = WatchOptions(resource_version=before + 2, timeout_s=1)
    copy = backups.take(tmp_path, database_url)
    async with at(tmp_path, database_url) as service:
        ahead, ahead_line = again(service, ahead)
        async with ahead_line:
            for text in ("two", "three"):
                runs = await moved(service, ahead, ahead_line, config(text))

    backups.put_back(copy, tmp_path, database_url)
    async with at(tmp_path, database_url) as service:
        assert await restored.declare(service.operations) == 4
        assert await said(service, "SystemRestored")
        assert await service.store.read(lambda s: s.version) > before + 10**11
        await check_counters(service)
        with pytest.raises(errors.Expired):
            await anext(service.operations.watch(PERSON, DEVICE, "default", after_backup))
        for agent in (ahead, level, silent):
            assert await state(service, agent.name) == "AwaitingReconnect"
        await service.change(silent.name, spec={"applications": [APP]})
        with pytest.raises(errors.BadRequest, match="left alone"):
            await acting.act(service.operations, PERSON, DEVICE, "default", silent.name, STOP)

        # A change meanwhile must not get a version that the device may know for something else.
        await service.change(ahead.name, spec=config("four"))
        level, level_line = again(service, level)
        async with level_line:
            told = await level.news(level_line, at_backup)
            assert version_of(told) == at_backup
            assert told["metadata"]["annotations"][PAUSED] == "true", "so that it reports"
            assert (await level.poll(level_line, at_backup)).code == 204
        found = await service.device(level.name)
        assert found["status"]["summary"]["status"] == "Online"
        assert found["status"]["updated"]["status"] == "UpToDate"

        ahead, ahead_line = again(service, ahead)
        async with ahead_line:
            told = await ahead.news(ahead_line, runs)
            assert told["metadata"]["annotations"][PAUSED] == "true"
            assert int(version_of(told)) < int(runs)
            assert await state(service, ahead.name) == "ConflictPaused"
            assert len(await said(service, "DeviceConflictPaused")) == 1
            # So it reports all that it is, and then it is not told the same for ever.
            again_told = await ahead.poll(ahead_line, runs)
            assert again_told.json["metadata"]["annotations"][PAUSED] == "true"
            await ahead.report(ahead_line, device_status(runs))
            assert (await ahead.poll(ahead_line, runs)).code == 204
            assert await state(service, ahead.name) == "ConflictPaused"

            answer = await resuming.resume(
                service.operations,
                PERSON,
                "default",
                {"fieldSelector": f"metadata.name={ahead.name}"},
            )
            assert answer == {"resumedDevices": 1}
            resumed = await ahead.news(ahead_line, runs)
            assert int(version_of(resumed)) > int(runs)
            assert PAUSED not in resumed["metadata"]["annotations"]
            assert content_of(resumed) == "four", "which was written meanwhile"
            await ahead.report(ahead_line, device_status(version_of(resumed)))
        assert (await service.device(ahead.name))["status"]["updated"]["status"] == "UpToDate"
        assert await said(service, "DeviceConflictResolved") == ["Resumed by ada."]
        assert await state(service, silent.name) == "AwaitingReconnect"
        await check_counters(service)


async def test_who_is_resumed_while_it_asks_is_told_at_once(
    tmp_path: Path, database_url: str
) -> None:
    async with serving(tmp_path, HELD, database=database_url) as service:
        agent = service.agent()
        async with await service.admitted(agent) as managed:
            await agent.poll(managed, "7")
            await agent.report(managed, device_status("7"))

            async def held() -> asyncio.Task[Answer] | None:
                """A poll that waits. One may be told yet what was so before the report."""
                poll = asyncio.create_task(agent.poll(managed, "7"))
                await asyncio.sleep(0.3)
                return None if poll.done() else poll

            waiting = await until(held)
            body = {"fieldSelector": f"metadata.name={agent.name}"}
            await resuming.resume(service.operations, PERSON, "default", body)
            async with asyncio.timeout(PATIENCE_S):
                assert version_of((await waiting).json) == "8"


async def test_who_is_ahead_is_paused_though_nobody_said_that_there_was_a_restore(
    service: AgentService,
) -> None:
    agent = service.agent()
    async with await service.admitted(agent) as managed:
        await moved(service, agent, managed, config("one"))
        told = await agent.news(managed, "7")
        assert told["metadata"]["annotations"][PAUSED] == "true"
        found = await service.device(agent.name)
        assert found["status"]["config"]["renderedVersion"] == "7"
        # Decommissioned it is told, whatever it runs.
        await decommissioning.decommission(
            service.operations, PERSON, "default", agent.name, {"target": "Unenroll"}
        )
        told = await agent.news(managed, "7")
        assert told["spec"]["decommissioning"] == {"target": "Unenroll"}
        assert int(version_of(told)) > 7
        # And if it had gone on even further, it is told all the same.
        told = await agent.news(managed, "50")
        assert int(version_of(told)) > 50
        assert told["spec"]["decommissioning"] == {"target": "Unenroll"}


async def test_a_device_of_a_lost_service_waits_for_a_person(service: AgentService) -> None:
    agent = service.agent()
    async with await service.admitted(agent, knownRenderedVersion="41") as managed:
        await service.change(agent.name, spec=config("one"))
        assert await state(service, agent.name) == "AwaitingReconnect"
        assert (await agent.poll(managed, "41")).code == 204, "there is nothing for it yet"
        assert await state(service, agent.name) == "ConflictPaused"
        answer = await resuming.resume(service.operations, PERSON, "default", {})
        assert answer == {"resumedDevices": 1}
        assert version_of(await agent.news(managed, "41")) == "42"


async def test_a_rollout_passes_over_who_is_paused_and_has_them_when_they_are_resumed(
    service: AgentService,
) -> None:
    fleet = {
        "metadata": {"name": "pumps"},
        "spec": {"selector": {"matchLabels": {"alias": "h"}}, "template": {"spec": {}}},
    }
    await service.operations.create(PERSON, FLEET, "default", fleet, WriteOptions())
    paused, awaited, free = (service.agent() for _ in range(3))
    async with AsyncExitStack() as lines:
        line = {}
        for agent in (paused, awaited, free):
            more = {"knownRenderedVersion": "9"} if agent is awaited else {}
            connection = await service.admitted(agent, **more)
            line[agent.name] = await lines.enter_async_context(connection)
        await bound(service, 1, config("one"))
        await paused.poll(line[paused.name], "7")

        counted = await bound(service, 2, config("two"))
        assert (counted["total"], counted["blocked"]) == (3, 2)
        assert (counted["bound"], counted["failed"], counted["unbound"]) == (1, 0, 0)
        backlog = await service.operations.get(PERSON, BACKLOG, "default", "devices")
        assert backlog["status"]["renderNeeded"] == 0, "nobody is asked to render for them"
        told = await paused.news(line[paused.name], "7")
        assert content_of(told) == "one"

        body = {"labelSelector": "alias=h", "fieldSelector": "metadata.owner=Fleet/pumps"}
        rehearsed = await resuming.resume(service.operations, PERSON, "default", body, dry_run=True)
        done = await resuming.resume(service.operations, PERSON, "default", body)
        assert rehearsed == done == {"resumedDevices": 1}
        assert await state(service, awaited.name) == "AwaitingReconnect"
        told = await paused.news(line[paused.name], "7")
        assert version_of(told) == "8"
        counted = await bind(service, 2)
        assert (counted["blocked"], counted["bound"], counted["unbound"]) == (1, 2, 0)
        told = await paused.news(line[paused.name], "8")
        assert (version_of(told), content_of(told)) == ("9", "two")
    await check_counters(service)


@pytest.mark.parametrize(
    "body",
    [
        {"labelSelector": "a in"},
        {"labelSelector": 7},
        {"fieldSelector": "status.wrong=1"},
        {"selector": "a=b"},
    ],
    ids=str,
)
async def test_a_wrong_selector_resumes_nobody(tmp_path: Path, body: Json) -> None:
    async with at(tmp_path, "") as service:
        with pytest.raises(errors.BadRequest):
            await resuming.resume(service.operations, PERSON, "default", body)


async def bound(service: AgentService, number: int, spec: Json) -> Json:
    """A version of the template goes out, as the controllers do it; how far it is then."""
    name = f"pumps.v{number}"
    version = {"metadata": {"name": name}, "spec": {"fleet": "pumps"}, "status": spec}
    target = {"fleet": "pumps", "templateVersion": name}
    rollout = {"metadata": {"name": f"pumps-v{number}"}, "spec": {"target": target}}
    for kind, document in ((TEMPLATE_VERSION, version), (ROLLOUT, rollout)):
        await service.operations.create(PERSON, kind, "default", document, WriteOptions())
    return await bind(service, number)


async def bind(service: AgentService, number: int) -> Json:
    request = {"templateVersion": f"pumps.v{number}", "rollout": f"pumps-v{number}"}
    await service.operations.bind(PERSON, "default", "pumps", request)
    return await service.operations.progress(PERSON, "default", "pumps", f"pumps-v{number}")


def content_of(rendered: Json) -> str:
    return base64.b64decode(rendered["spec"]["config"][0]["inline"][0]["content"]).decode()


APP = {"name": "web", "appType": "container", "image": "quay.io/x/web:1"}
STOP = {"application": "web", "action": "stop"}
