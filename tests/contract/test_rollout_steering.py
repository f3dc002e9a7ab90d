"""What people may ask of a Rollout, by a patch as by any other write, and how it is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from apiserver.errors import StatusError
from tests.fakes.rollout_model import Device, Model
from tests.fakes.rollout_rig import ADMIN, PLAIN, ROLLOUT, VERSION, Rolling, Site, opened

Json = dict[str, Any]


@pytest_asyncio.fixture
async def rolling(tmp_path: Path) -> AsyncIterator[Rolling]:
    # Nothing here is about where stores differ.
    async with opened("", tmp_path) as site:
        yield await Rolling.begin(site, "web", Model([Device("d0")], {}))


async def write(site: Site, name: str, part: str, value: Json) -> None:
    def change(document: Json) -> Json:
        return document | {part: {**(document.get(part) or {}), **value}}

    subresource = "status" if part == "status" else ""
    where = ADMIN, ROLLOUT, "default", name
    await site.operations.patch(*where, change, PLAIN, subresource=subresource)


async def steer(rolling: Rolling, name: str, **control: Any) -> None:
    await write(rolling.site, name, "spec", {"control": control})


async def end(rolling: Rolling, name: str, phase: str) -> None:
    await write(
        rolling.site, name, "status", {"phase": phase, "finishedAt": "2026-11-26T00:00:00Z"}
    )


async def refusal(rolling: Rolling, name: str, **control: Any) -> str:
    with pytest.raises(StatusError) as refused:
        await steer(rolling, name, **control)
    assert refused.value.code == 422
    return str(refused.value)


async def test_levels_may_be_written_again_and_again(rolling: Rolling) -> None:
    for control in ({"paused": True}, {"paused": True}, {"paused": False}, {"approved": 7}):
        await steer(rolling, "web.v2-1", **control)


async def test_what_has_ended_can_only_be_tried_again_or_taken_back(rolling: Rolling) -> None:
    await end(rolling, "web.v1-1", "Completed")
    await end(rolling, "web.v2-1", "Failed")
    for key, value in (("paused", True), ("approved", 1), ("aborted", True)):
        said = await refusal(rolling, "web.v2-1", **{key: value})
        assert f"spec.control.{key}" in said
        assert "the rollout has ended (Failed); retry and revert are left" in said
    await steer(rolling, "web.v2-1", retry=1)
    await steer(rolling, "web.v2-1", retry=1, revert=True)


async def test_an_end_is_not_taken_back_and_a_retry_only_rises(rolling: Rolling) -> None:
    await end(rolling, "web.v1-1", "Completed")
    await steer(rolling, "web.v2-1", retry=2, aborted=True, revert=True)
    assert "aborted: Forbidden: it cannot be taken back" in await refusal(
        rolling, "web.v2-1", retry=2, revert=True
    )
    assert "can only be raised" in await refusal(
        rolling, "web.v2-1", retry=1, aborted=True, revert=True
    )


async def test_only_the_current_one_is_tried_again_or_taken_back(rolling: Rolling) -> None:
    await end(rolling, "web.v1-1", "Completed")
    for asked in ({"retry": 1}, {"revert": True}):
        assert "web.v2-1 has taken its place" in await refusal(rolling, "web.v1-1", **asked)


async def test_without_a_version_that_went_well_there_is_no_way_back(rolling: Rolling) -> None:
    said = await refusal(rolling, "web.v2-1", revert=True)
    assert "fleet web has no other version whose rollout ended well; change its template" in said
    await end(rolling, "web.v1-1", "Completed")
    await rolling.site.operations.delete(ADMIN, VERSION, "default", "web.v1")
    assert "no other version" in await refusal(rolling, "web.v2-1", revert=True)


async def test_nothing_is_bound_by_what_is_taken_back(rolling: Rolling) -> None:
    await end(rolling, "web.v1-1", "Completed")
    await steer(rolling, "web.v2-1", revert=True)
    with pytest.raises(StatusError) as refused:
        await rolling.bind(0, select=True, limit=10)
    assert refused.value.code == 409
    assert "the rollout is taken back" in str(refused.value)
