"""How often somebody may ask: by who it is, with a number of seconds in every refusal."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from apiserver.auth.chain import Evidence
from apiserver.auth.identity import Caller
from apiserver.errors import TooManyRequests, Unauthorized
from apiserver.kube.crowding import Gate
from apiserver.kube.strangers import Strangers
from apiserver.rates import BURST_S, SWEPT_FROM, Buckets
from tests.fakes import kube_face
from tests.fakes.kube_face import G, fleet
from tests.fakes.waiting import PATIENCE_S


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def taken(buckets: Buckets, who: str, tries: int) -> int:
    """How many of these were let through."""
    good = 0
    for _ in range(tries):
        try:
            buckets.take(who)
        except TooManyRequests:
            continue
        good += 1
    return good


def test_a_bucket_gives_its_burst_and_then_its_rate_and_each_has_one() -> None:
    clock = Clock()
    buckets = Buckets(5.0, monotonic=clock)
    assert taken(buckets, "a", 1_000) == 5 * BURST_S
    assert taken(buckets, "b", 10) == 10
    for _ in range(20):
        clock.now += 1.0
        assert taken(buckets, "a", 1_000) == 5
    clock.now += 1_000.0
    assert taken(buckets, "a", 1_000) == 5 * BURST_S, "it holds no more than it did"


@pytest.mark.parametrize("rate", [0.01, 0.5, 3.0, 1000.0])
def test_who_waits_as_long_as_was_said_is_let_through(rate: float) -> None:
    clock = Clock()
    buckets = Buckets(rate, monotonic=clock)
    taken(buckets, "a", int(rate * BURST_S) + 1)
    with pytest.raises(TooManyRequests) as refusal:
        buckets.take("a")
    assert refusal.value.retry_after_s >= 1
    clock.now += refusal.value.retry_after_s
    buckets.take("a")


def test_without_a_rate_there_is_no_bound() -> None:
    assert taken(Buckets(0.0), "a", 10_000) == 10_000


def test_memory_follows_those_who_are_busy() -> None:
    clock = Clock()
    buckets = Buckets(100.0, monotonic=clock)
    for number in range(100_000):
        buckets.take(number)
        clock.now += 0.001
    assert len(buckets._full_at) <= 2 * SWEPT_FROM


async def test_one_user_who_writes_too_much_is_told_so_and_nobody_else_is(tmp_path: Path) -> None:
    gate = Gate(writes=Buckets(0.2, "writes"), lists=Buckets(0.2, "lists and watches"))
    async with kube_face.running(tmp_path, gate=gate) as rig:
        path = f"{G}/namespaces/default/fleets"
        for n in range(2):
            await rig.json("POST", path, json=fleet(f"a{n}"), code=201)
        async with rig.call("POST", path, json=fleet("b")) as response:
            status = await response.json()
            assert response.status == 429
            assert int(response.headers["Retry-After"]) == status["details"]["retryAfterSeconds"]
        assert "header: test-admin may have 0.2 writes a second" in status["message"]
        await rig.json("GET", f"{path}/a0")
        await rig.json("POST", path, json=fleet("b"), role="operator", code=201)
        for _ in range(4):
            await rig.json("PATCH", f"{path}/b/status", json={"status": {}}, role="controller",
                           headers={"Content-Type": kube_face.MERGE})  # fmt: skip
        for _ in range(2):
            await rig.json("GET", path)
        await rig.refused("GET", path, 429)
        await rig.json("GET", path, role="viewer")
        assert rig.face.refusals is not None
        assert not rig.face.refusals._waiting, "who is to come later was not refused anything"


def test_one_name_at_two_identity_providers_is_two() -> None:
    one, other = (Caller("ada", source=f"authprovider/{home}/x") for home in ("a", "b"))
    assert one.identity != other.identity


# --- those who are not known ----------------------------------------------------------------


async def test_strangers_share_one_room_and_health_is_always_answered(tmp_path: Path) -> None:
    strangers = Strangers(rate=Buckets(0.2))
    async with kube_face.running(tmp_path, strangers=strangers) as rig:
        for _ in range(2):
            await rig.json("GET", "/version", role="")
        refused = await rig.refused("GET", "/version", 429, role="")
        assert "who is not known" in refused["message"]
        await rig.refused("POST", "/hooks/default/a", 429, role="")
        await rig.refused("GET", "/api/v1/auth/config", 429, role="")
        async with rig.call("GET", "/livez", role="") as response:
            assert response.status == 200
        await rig.json("GET", f"{G}/fleets")


async def test_tokens_that_take_long_to_judge_keep_nobody_who_was_here_before(
    tmp_path: Path,
) -> None:
    slow, asked = asyncio.Event(), 0

    async def authenticate(evidence: Evidence) -> Caller | None:
        nonlocal asked
        if "bad" in evidence.authorization:
            asked += 1
            await slow.wait()
            raise Unauthorized("it is bad")
        return await kube_face.by_header(evidence)

    strangers = Strangers(room=3)
    async with kube_face.running(tmp_path, strangers=strangers, authenticate=authenticate) as rig:
        await rig.json("GET", f"{G}/fleets")
        hanging = [
            asyncio.ensure_future(rig.refused("GET", f"{G}/fleets", 401, role=f"bad{n}"))
            for n in range(3)
        ]
        async with asyncio.timeout(PATIENCE_S):
            while asked < 3:
                await asyncio.sleep(0.01)
        await rig.refused("GET", f"{G}/fleets", 429, role="bad9")
        await rig.refused("GET", f"{G}/fleets", 429, role="viewer")
        await rig.refused("GET", f"{G}/fleets", 401, role="")
        await rig.json("GET", f"{G}/fleets")
        slow.set()
        await asyncio.gather(*hanging)
        await rig.json("GET", f"{G}/fleets", role="viewer")
        assert strangers._judged == 0
