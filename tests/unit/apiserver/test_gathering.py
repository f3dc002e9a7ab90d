"""Writes by the thousand: together while others wait, each with its own answer, and a fault is that
of whoever made it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from sqlalchemy import insert

from apiserver.store import Store, StoreBusy, StoreFull, Transaction
from apiserver.store.gathering import Gathering
from apiserver.store.settling import Settling
from apiserver.store.tables import LEASE


class House:
    """A store, and a gathering that writes a row for each text and answers with it twice."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.sets: list[list[str]] = []
        self.gathering = Gathering(self.write_all, chunk=10, limit=25)
        self.full = False

    async def write_all(self, texts: Sequence[str]) -> list[str]:
        return await self.store.write(lambda tx: self.write(tx, texts))

    def write(self, tx: Transaction, texts: Sequence[str]) -> list[str]:
        self.sets.append(list(texts))
        if self.full:
            raise StoreFull("the disk is full")
        for text in texts:
            tx.connection.execute(insert(LEASE).values(name=text, holder=text, expires_at=0.0))
            tx.writes += 1
            if "bad" in text:
                raise ValueError(text)
        return [text * 2 for text in texts]

    async def kept(self) -> set[str]:
        return await self.store.read(
            lambda s: set(s.connection.execute(LEASE.select()).scalars().all())
        )


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    store = await Store.open(data_dir=tmp_path)
    house = House(store)
    running = asyncio.create_task(house.gathering.run())
    yield house
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await store.close()


async def test_what_waits_is_written_together_and_in_order(house: House) -> None:
    texts = [f"t{number:02}" for number in range(24)]
    answers = await asyncio.gather(*(house.gathering.put(text) for text in texts))
    assert answers == [text * 2 for text in texts]
    assert [text for each in house.sets for text in each] == texts
    assert max(map(len, house.sets)) == 10
    assert len(house.sets) == 3
    assert await house.kept() == set(texts)


async def test_one_that_fails_costs_the_others_nothing(house: House) -> None:
    texts = ["a", "bad", "c"]
    answers = await asyncio.gather(
        *(house.gathering.put(text) for text in texts), return_exceptions=True
    )
    assert answers[0] == "aa"
    assert isinstance(answers[1], ValueError)
    assert answers[2] == "cc"
    assert await house.kept() == {"a", "c"}


async def test_a_fault_of_the_store_is_everybodys_and_tried_once(house: House) -> None:
    house.full = True
    answers = await asyncio.gather(
        *(house.gathering.put(text) for text in "abc"), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [StoreFull] * 3
    assert house.sets == [["a", "b", "c"]]
    house.full = False
    assert await house.gathering.put("d") == "dd"


async def test_who_went_away_before_the_start_is_not_written(house: House) -> None:
    waiting = [asyncio.create_task(house.gathering.put(text)) for text in "ab"]
    await asyncio.sleep(0)
    waiting[0].cancel()
    assert await waiting[1] == "bb"
    assert await house.kept() == {"b"}


async def test_more_than_may_wait_are_told_to_come_back(house: House) -> None:
    answers = await asyncio.gather(
        *(house.gathering.put(f"t{number}") for number in range(30)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [str] * 25 + [StoreBusy] * 5


async def test_whoever_waits_for_what_goes_on_waits_for_the_last_of_it_and_not_for_ever() -> None:
    tellings = Settling()
    await tellings.settled(60)
    with tellings.under_way():
        with tellings.under_way():
            await tellings.settled(0.001)
        waiting = asyncio.create_task(tellings.settled(60))
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting
