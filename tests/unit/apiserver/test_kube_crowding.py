"""Too many requests: who is told to come back, and that nobody else notices."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from apiserver.errors import TooManyRequests
from apiserver.kube.crowding import Gate, Room
from tests.fakes import kube_face
from tests.fakes.waiting import PATIENCE_S


def gate(*, each: int = 2, most: int = 3, wait_s: float = 5.0) -> Gate:
    room = Room(most, each)
    return Gate({"list": room, "watch": room, "": room}, lists_at_once=1, wait_s=wait_s)


async def test_one_caller_fills_its_share_and_not_the_room() -> None:
    at = gate()
    async with at.entered("get", "a"), at.entered("get", "a"):
        with pytest.raises(TooManyRequests) as refusal:
            async with at.entered("get", "a"):
                pass
        assert refusal.value.retry_after_s == 1
        async with at.entered("get", "b"):
            with pytest.raises(TooManyRequests, match="too many"):
                async with at.entered("get", "c"):
                    pass
        async with at.entered("watch", "a"), at.entered("list", "a"):
            pass
    async with at.entered("get", "a"):
        assert dict(at._inside) == {("", "a"): 1, ("", ""): 1}


async def test_lists_take_turns_and_everything_else_goes_on() -> None:
    at = gate(wait_s=0.05)
    async with at.entered("list", "a"):
        async with at.entered("patch", "b"):
            pass
        with pytest.raises(TooManyRequests, match="other lists"):
            async with at.entered("list", "b"):
                pass
    async with at.entered("list", "b"):
        pass


async def test_who_gives_up_while_waiting_leaves_no_trace() -> None:
    at = gate()
    async with at.entered("list", "a"):
        waiting = asyncio.ensure_future(_list(at))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    assert not at._inside
    async with asyncio.timeout(PATIENCE_S), at.entered("list", "b"):
        pass


async def _list(at: Gate) -> None:
    async with at.entered("list", "b"):
        pass


async def test_over_http_it_is_429_with_retry_after(tmp_path: Path) -> None:
    async with kube_face.running(tmp_path, gate=gate(each=0)) as rig:
        path = f"{kube_face.G}/fleets"
        async with rig.call("GET", path) as response:
            assert response.status == 429
            assert response.headers["Retry-After"] == "1"
            status = await response.json()
        assert status["reason"] == "TooManyRequests"
        assert status["details"]["retryAfterSeconds"] == 1
        async with rig.call("GET", "/readyz") as response:
            assert response.status == 200
