"""A database from a backup, and devices that went on meanwhile. On both stores."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from apiserver import acting, errors, restored, resuming
from apiserver.agentapi.settings import AgentApiSettings
from apiserver.builtins.events import STORED
from apiserver.operations import ListOptions
from apiserver.store import recount
from resources import registry
from tests.fakes import backups
from tests.fakes.agent_client import Agent, Connection, device_status, version_of
from tests.fakes.agent_service import DEVICE, PERSON, AgentService, serving

Json = dict[str, Any]
FLEET = registry.by_kind("Fleet")
SETTINGS = AgentApiSettings(hold_s=0.3)
PAUSED = "device-controller/conflictPaused"


@asynccontextmanager
async def at(directory: Path, database: str) -> AsyncIterator[AgentService]:
    async with serving(directory, SETTINGS, database=database) as running:
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
        for agent in (ahead, level, silent):
            assert await state(service, agent.name) == "AwaitingReconnect"
        await service.change(silent.name, spec={"applications": [APP]})
        with pytest.raises(errors.BadRequest, match="left alone"):
            await acting.act(service.operations, PERSON, DEVICE, "default", silent.name, STOP)

        # A change meanwhile must not get a version that the device may know for something else.
        await service.change(ahead.name, spec=config("four"))
        level, level_line = again(service, level)
        async with level_line:
            assert (await level.poll(level_line, at_backup)).code == 204
        found = await service.device(level.name)
        assert found["status"]["summary"]["status"] == "Online"
        assert found["status"]["updated"]["status"] == "UpToDate"

        ahead, ahead_line = again(service, ahead)
        async with ahead_line:
            told = (await ahead.poll(ahead_line, runs)).json
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

            waiting = asyncio.create_task(ahead.poll(ahead_line, runs))
            await asyncio.sleep(0.1)
            answer = await resuming.resume(
                service.operations,
                PERSON,
                "default",
                {"fieldSelector": f"metadata.name={ahead.name}"},
            )
            assert answer == {"resumedDevices": 1}
            resumed = (await waiting).json
            assert int(version_of(resumed)) > int(runs)
            assert PAUSED not in resumed["metadata"]["annotations"]
            content = resumed["spec"]["config"][0]["inline"][0]["content"]
            assert content == "Zm91cg==", "four, which was written meanwhile"
            await ahead.report(ahead_line, device_status(version_of(resumed)))
        assert (await service.device(ahead.name))["status"]["updated"]["status"] == "UpToDate"
        assert await said(service, "DeviceConflictResolved") == ["Resumed by ada."]
        assert await state(service, silent.name) == "AwaitingReconnect"
        await check_counters(service)


APP = {"name": "web", "appType": "container", "image": "quay.io/x/web:1"}
STOP = {"application": "web", "action": "stop"}
