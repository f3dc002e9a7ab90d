"""The controllers whole: kopf, the queue and the client in their threads, against a small API
server that restarts, refuses, and forgets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from controllers.runtime import Controllers
from controllers.session import Endpoint
from controllers.settings import Settings
from tests.fakes.kube_api import Devices, KubeApi
from tests.fakes.waiting import until

FLEET = {"spec": {"template": {"spec": {"os": {"image": "os:1"}}}}}
CHANGED = {"spec": {"template": {"spec": {"os": {"image": "os:2"}}}}}


@asynccontextmanager
async def running(socket: Path, *, resync_s: float = 300.0) -> AsyncIterator[Controllers]:
    controllers = Controllers(
        Endpoint(socket=socket), Settings(socket.parent / "state"), resync_s=resync_s
    )
    await asyncio.to_thread(controllers.start)
    try:
        yield controllers
    finally:
        assert await asyncio.to_thread(controllers.stop), "the controllers did not stop in time"


def phase(api: KubeApi, rollout: str) -> str:
    return ((api.get("rollouts", rollout) or {}).get("status") or {}).get("phase", "")


async def test_a_fleet_is_rolled_out_without_a_trace_of_kopf(tmp_path: Path) -> None:
    api, socket = KubeApi(), tmp_path / "api.sock"
    async with api.served(socket):
        api.put("fleets", "web", FLEET)
        api.join("web", 3)
        async with running(socket):
            await until(lambda: phase(api, "web.v1-1") == "Completed")
            api.join("web", 2)
            await until(lambda: api.devices["web"].done == 5)
            api.put("fleets", "web", CHANGED)
            await until(lambda: phase(api, "web.v2-1") == "Completed")
    for document in api.objects.values():
        assert not document["metadata"].get("annotations")
        assert not document["metadata"].get("finalizers")
    patched = {path for method, path in api.requests if method == "PATCH"}
    assert all(path.endswith("/status") for path in patched), patched
    assert not [path for _, path in api.requests if "events" in path or "kopf" in path]


async def test_a_rollout_that_waits_for_devices_that_are_away_ends_when_it_is_superseded(
    tmp_path: Path,
) -> None:
    api, socket = KubeApi(), tmp_path / "api.sock"
    api.devices["web"] = Devices(eager=False, disconnected=1)
    async with api.served(socket), running(socket):
        api.put("fleets", "web", FLEET)
        api.join("web", 1)
        await until(lambda: phase(api, "web.v1-1") == "Active" and api.devices["web"].busy)
        api.put("fleets", "web", CHANGED)
        await until(lambda: phase(api, "web.v1-1") == "Aborted")


async def test_it_stops_and_leaves_no_thread(tmp_path: Path) -> None:
    api, socket = KubeApi(), tmp_path / "api.sock"
    before = set(threading.enumerate())
    async with api.served(socket), running(socket):
        api.put("fleets", "web", FLEET)
        await until(lambda: phase(api, "web.v1-1") == "Completed")
    left = {t for t in threading.enumerate() if t.name in ("kopf", "controllers")} - before
    assert not left


async def test_it_outlives_restarts_of_the_api_server(tmp_path: Path) -> None:
    api, socket = KubeApi(), tmp_path / "api.sock"
    async with running(socket):
        async with api.served(socket):
            api.put("fleets", "web", FLEET)
            await until(lambda: phase(api, "web.v1-1") == "Completed")
        # Written while nobody serves, and its history is gone when somebody does.
        api.put("fleets", "web", CHANGED)
        api.compact()
        await asyncio.sleep(0.5)
        async with api.served(socket):
            await until(lambda: phase(api, "web.v2-1") == "Completed")


async def test_it_outlives_an_api_server_that_refuses_for_a_while(tmp_path: Path) -> None:
    api, socket = KubeApi(), tmp_path / "api.sock"
    api.put("fleets", "web", FLEET)
    api.fault = lambda *_: web.json_response({"reason": "Forbidden", "code": 403}, status=403)
    async with api.served(socket), running(socket):
        await until(lambda: len(api.requests) > 2)
        api.fault = None
        await until(lambda: phase(api, "web.v1-1") == "Completed")


async def test_what_was_written_while_it_was_stopped_is_made_true_when_it_starts(
    tmp_path: Path,
) -> None:
    api, socket = KubeApi(), tmp_path / "api.sock"
    async with api.served(socket):
        async with running(socket):
            api.put("fleets", "web", FLEET)
            await until(lambda: api.names("templateversions"))
        api.put("fleets", "web", CHANGED)
        api.join("web", 4)
        async with running(socket):
            await until(lambda: phase(api, "web.v2-1") == "Completed")
    assert api.devices["web"].done == 4


async def test_a_lost_event_only_delays(tmp_path: Path) -> None:
    api, socket = KubeApi(), tmp_path / "api.sock"
    async with api.served(socket), running(socket, resync_s=0.3):
        await until(lambda: any("rollouts" in path for _, path in api.requests))
        await asyncio.sleep(0.5)
        # The log forgets at once, and nobody was told: no watch shows it.
        api.put("fleets", "web", FLEET)
        api.log.clear()
        await until(lambda: phase(api, "web.v1-1") == "Completed")


async def test_an_api_server_that_is_never_there_is_no_reason_to_die(tmp_path: Path) -> None:
    async with running(tmp_path / "nobody.sock") as controllers:
        await asyncio.sleep(0.3)
        assert controllers.is_alive()


def test_a_controllers_that_was_never_started_stops(tmp_path: Path) -> None:
    assert Controllers(Endpoint(socket=tmp_path / "x"), Settings(tmp_path)).stop()


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("CRITICAL", logger="kopf")
