"""What providers say of opaque tokens is remembered for seconds, and nobody waits for another."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import replace
from typing import Any

import pytest

from apiserver.auth import verdicts
from apiserver.auth.asking import OddAnswer, ProviderUnreachable
from apiserver.auth.claims import Provider
from apiserver.auth.verdicts import Found, Verdicts
from apiserver.errors import ServiceUnavailable, Unauthorized

ONE = Provider("one", "", {"providerType": "oauth2", "clientId": "x"}, True)
TWO = replace(ONE, name="two")
# Who hangs is waited for so long; who is answered sooner did not wait for that.
HANGS_S = 2.0
AT_ONCE_S = HANGS_S / 2


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Teller:
    """Knows tokens by name; hangs, is down or odd where it is told to."""

    def __init__(self) -> None:
        self.users: dict[str, Any] = {"good": {"name": "ann"}}
        self.lasts_s = 60.0
        self.asked: list[str] = []
        self.trouble: dict[str, Exception] = {}
        self.hanging: set[str] = set()

    async def __call__(self, provider: Provider, token: str) -> Found:
        self.asked.append(token)
        await asyncio.sleep(0)
        if provider.name in self.hanging or token in self.hanging:
            await asyncio.sleep(60)
        if problem := self.trouble.get(provider.name):
            raise problem
        if token not in self.users:
            raise Unauthorized(f"{token} is not known")
        return Found(self.users[token], self.lasts_s)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def teller() -> Teller:
    return Teller()


@pytest.fixture
def kept(teller: Teller, clock: Clock) -> Verdicts:
    return Verdicts(teller, clock, patience_s=HANGS_S)


async def test_a_good_token_is_asked_about_once_in_five_seconds(
    kept: Verdicts, teller: Teller, clock: Clock
) -> None:
    said = await asyncio.gather(*(kept.of(ONE, "good") for _ in range(20)))
    assert said == [{"name": "ann"}] * 20
    assert len(teller.asked) == 1
    teller.users["good"] = {"name": "ann", "groups": []}
    clock.now += verdicts.GOOD_S - 0.1
    assert await kept.of(ONE, "good") == {"name": "ann"}
    clock.now += 0.1
    assert await kept.of(ONE, "good") == {"name": "ann", "groups": []}
    assert len(teller.asked) == 2


async def test_no_verdict_outlasts_its_token_or_its_provider(
    kept: Verdicts, teller: Teller, clock: Clock
) -> None:
    teller.lasts_s = 1.0
    await kept.of(ONE, "good")
    clock.now += 1.0
    teller.users.clear()
    with pytest.raises(Unauthorized):
        await kept.of(ONE, "good")
    teller.users["good"] = {}
    changed = replace(ONE, spec=ONE.spec | {"clientId": "y"})
    assert await kept.of(changed, "good") == {}, "what the old one was said to be does not count"
    asked = len(teller.asked)
    await kept.of(TWO, "good")
    assert len(teller.asked) == asked + 1, "what one provider says, no other has said"


async def test_a_bad_one_is_remembered_shorter(
    kept: Verdicts, teller: Teller, clock: Clock
) -> None:
    for _ in range(3):
        with pytest.raises(Unauthorized, match="bad is not known"):
            await kept.of(ONE, "bad")
    assert teller.asked == ["bad"]
    teller.users["bad"] = {"name": "bob"}
    clock.now += verdicts.BAD_S
    assert await kept.of(ONE, "bad") == {"name": "bob"}


async def test_a_provider_that_is_down_is_left_alone_and_delays_no_other(
    kept: Verdicts, teller: Teller, clock: Clock
) -> None:
    teller.hanging.add("one")
    waiting = asyncio.gather(*(kept.of(ONE, f"t{n}") for n in range(5)), return_exceptions=True)
    await asyncio.sleep(0.05)
    assert await asyncio.wait_for(kept.of(TWO, "good"), AT_ONCE_S) == {"name": "ann"}
    assert all(isinstance(each, ServiceUnavailable) for each in await waiting)
    asked = len(teller.asked)
    with pytest.raises(ServiceUnavailable, match="one can't be reached") as refused:
        await asyncio.wait_for(kept.of(ONE, "good"), AT_ONCE_S)
    assert refused.value.retry_after_s
    assert len(teller.asked) == asked, "it is not asked again so soon"
    teller.hanging.clear()
    clock.now += verdicts.REST_S
    assert await kept.of(ONE, "good") == {"name": "ann"}


@pytest.mark.parametrize("problem", [ProviderUnreachable("refused"), OddAnswer("500")])
async def test_an_odd_answer_to_one_token_closes_no_door(
    kept: Verdicts, teller: Teller, problem: ProviderUnreachable
) -> None:
    teller.trouble["one"] = problem
    with pytest.raises(ServiceUnavailable):
        await kept.of(ONE, "strange")
    teller.trouble.clear()
    if isinstance(problem, OddAnswer):
        assert await kept.of(ONE, "good") == {"name": "ann"}
    else:
        with pytest.raises(ServiceUnavailable):
            await kept.of(ONE, "good")


async def test_invented_tokens_are_no_lever_against_who_is_known(
    kept: Verdicts, teller: Teller, clock: Clock
) -> None:
    await kept.of(ONE, "good")
    clock.now += verdicts.GOOD_S
    invented = [f"invented-{n}" for n in range(verdicts.STRANGERS_MAX * 2)]
    teller.hanging |= set(invented)
    flood = [asyncio.ensure_future(kept.of(ONE, token)) for token in invented]
    await asyncio.sleep(0.05)
    assert len(teller.asked) == 1 + verdicts.STRANGERS_MAX
    assert await asyncio.wait_for(kept.of(ONE, "good"), AT_ONCE_S) == {"name": "ann"}
    found = await asyncio.gather(*flood, return_exceptions=True)
    assert {type(each) for each in found} == {ServiceUnavailable}


async def test_who_waits_for_one_that_goes_away_asks_itself(kept: Verdicts, teller: Teller) -> None:
    first = asyncio.ensure_future(kept.of(ONE, "good"))
    await asyncio.sleep(0)
    second = asyncio.ensure_future(kept.of(ONE, "good"))
    await asyncio.sleep(0)
    first.cancel()
    assert await asyncio.wait_for(second, AT_ONCE_S) == {"name": "ann"}


async def test_what_is_remembered_is_bounded_and_holds_no_token(teller: Teller) -> None:
    kept = Verdicts(teller, good_bytes_max=10_000, bad_max=10)
    for n in range(50):
        teller.users[f"t{n}"] = {"groups": "x" * 1000}
        await kept.of(ONE, f"t{n}")
        with pytest.raises(Unauthorized):
            await kept.of(ONE, f"bad-{n}")
    assert len(kept._good) == 9
    assert kept._good_bytes <= 10_000
    assert len(kept._bad) == 10
    assert {key[2] for key in kept._good} >= {hashlib.sha256(b"t49").digest()}
