"""What failed on a device is refused by its agent for good, until it is asked for again."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apiserver.store import delivering, devices, reports
from bench.fleet import ADMIN, DEVICE, PLAIN, Service

NAME = "d000000"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    started = await Service.start(tmp_path)
    await started.fill(1)
    yield started
    await started.stop()


async def row(service: Service) -> Any:
    return await service.operations.store.read(
        lambda s: devices.row_by_name(s.connection, "default", NAME)
    )


async def hash_of(service: Service) -> str:
    return devices.spec_hash(await row(service))


async def report(service: Service, *, good: bool) -> None:
    """The agent's word on the version that it was given."""
    current = await row(service)
    version = current["rendered_version"]

    def say(tx: Any) -> None:
        delivering.mark_delivered(tx, [(current["uid"], version)])
        reason = "Updated" if good else "Error"
        said = {"type": "Updating", "status": "False", "reason": reason}
        said["message"] = "" if good else f"it broke (renderedVersion: {version})"
        running = version if good else version - 1
        status = {"conditions": [said], "config": {"renderedVersion": str(running)}}
        reports.put(tx, reports.Report("default", NAME, status))

    await service.operations.store.write(say)


async def test_a_new_rollout_of_what_failed_gets_another_hash(service: Service) -> None:
    await service.change("good")
    await report(service, good=True)
    good = await hash_of(service)
    await service.change("broken")
    broken = await hash_of(service)
    await report(service, good=False)
    await service.change("good")
    assert await hash_of(service) == good, "what worked needs no other name"
    await report(service, good=True)
    await service.change("broken")
    assert await hash_of(service) == f"{broken}-1"


async def test_asking_twice_for_the_same_rollout_is_one_try(service: Service) -> None:
    await service.change("good")
    await report(service, good=True)
    request = await service.offer("broken")
    await service.bind(request)
    await report(service, good=False)
    assert await service.bind(request) == {"bound": 0, "rendered": 0, "remaining": 0, "failed": 0}
    assert (await row(service))["retry_generation"] == 0


async def test_what_worked_at_the_second_try_is_forgiven(service: Service) -> None:
    await service.change("good")
    await service.change("broken")
    await report(service, good=False)
    await service.change("good")
    await service.change("broken")
    await report(service, good=True)
    assert (await row(service))["failed_digest"] is None
    hash_ = await hash_of(service)
    await service.change("good")
    await service.change("broken")
    # The retry generation stays in the name: names that agents know are not given twice.
    assert await hash_of(service) == hash_


async def test_a_device_of_no_fleet_is_tried_again_when_its_spec_comes_back(
    service: Service,
) -> None:
    operations = service.operations

    async def specify(content: str) -> None:
        config = [{"name": "c", "inline": [{"path": "/etc/motd", "content": content}]}]
        document = {"metadata": {"name": NAME, "labels": {}}, "spec": {"config": config}}
        await operations.update(ADMIN, DEVICE, "default", NAME, document, PLAIN)

    leaving = {"metadata": {"name": NAME, "labels": {}}, "spec": {}}
    await operations.update(ADMIN, DEVICE, "default", NAME, leaving, PLAIN)
    await specify("good")
    await report(service, good=True)
    await specify("broken")
    broken = await hash_of(service)
    await report(service, good=False)
    await specify("good")
    await specify("broken")
    assert await hash_of(service) == f"{broken}-1"
