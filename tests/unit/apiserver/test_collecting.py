"""What becomes of what a deleted object owned. Fleets own fleets here: any kind may."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from resources.kind import Json
from tests.fakes import kube_face
from tests.fakes.kube_face import MERGE, Rig, fleet

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOLD = ["acme.io/clean"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with kube_face.running(tmp_path_factory.mktemp("collecting")) as running:
        yield running


@dataclass(slots=True)
class Family:
    """Fleets of a namespace of their own, and who owns whom."""

    rig: Rig
    path: str
    began: int

    async def make(self, name: str, *owners: str, held: bool = False, blocks: bool = True) -> None:
        """A fleet, owned by others."""
        await self.rig.json("POST", self.path, json=fleet(name), code=201)
        references = [await self.reference(owner, blocks=blocks) for owner in owners]
        finalizers = HOLD if held else None
        await self.change(name, ownerReferences=references or None, finalizers=finalizers)

    async def reference(self, owner: str, *, blocks: bool = True) -> Json:
        found = await self.rig.json("GET", f"{self.path}/{owner}")
        same = {key: found[key] for key in ("apiVersion", "kind")}
        uid = found["metadata"]["uid"]
        return same | {"name": owner, "uid": uid, "blockOwnerDeletion": blocks}

    async def change(self, name: str, **metadata: Any) -> Json:
        headers = {"Content-Type": MERGE}
        body = json.dumps({"metadata": metadata})
        return await self.rig.json("PATCH", f"{self.path}/{name}", headers=headers, data=body)

    async def release(self, name: str) -> None:
        """What held it lets it go."""
        await self.change(name, finalizers=None)

    async def delete(self, name: str, policy: str | None = "Foreground") -> Json:
        body = {"propagationPolicy": policy} if policy else {}
        return await self.rig.json("DELETE", f"{self.path}/{name}", json=body)

    async def left(self) -> dict[str, Json]:
        items = (await self.rig.json("GET", self.path))["items"]
        return {item["metadata"]["name"]: item["metadata"] for item in items}

    async def deleted(self) -> list[str]:
        """In which order they went."""
        watch = {"watch": "1", "resourceVersion": str(self.began), "timeoutSeconds": "1"}
        async with self.rig.call("GET", self.path, params=watch) as response:
            events = [json.loads(line) for line in (await response.text()).splitlines()]
        return [e["object"]["metadata"]["name"] for e in events if e["type"] == "DELETED"]


@pytest_asyncio.fixture(loop_scope="module")
async def family(rig: Rig) -> Family:
    return Family(rig, await rig.fleets(), rig.version)


async def test_in_the_background_the_owner_goes_first(family: Family) -> None:
    await family.make("a")
    await family.make("b", "a")
    await family.make("c", "b")
    assert (await family.delete("a", "Background"))["status"] == "Success"
    assert await family.deleted() == ["a", "b", "c"]


async def test_in_the_foreground_what_it_owned_goes_first(family: Family) -> None:
    await family.make("a")
    await family.make("b", "a")
    await family.make("c", "b", blocks=False)
    assert (await family.delete("a"))["status"] == "Success"
    assert await family.deleted() == ["c", "b", "a"]


async def test_what_is_held_and_blocks_keeps_its_owner(family: Family) -> None:
    await family.make("a")
    await family.make("b", "a")
    await family.make("free", "b")
    await family.make("c", "b", held=True)
    answer = await family.delete("a")
    assert answer["metadata"]["finalizers"] == ["foregroundDeletion"]
    left = await family.left()
    assert sorted(left) == ["a", "b", "c"]
    assert left["b"]["finalizers"] == ["foregroundDeletion"]
    assert left["c"]["finalizers"] == HOLD
    assert all(metadata["deletionTimestamp"] for metadata in left.values())
    again = await family.delete("a")
    assert again["metadata"]["resourceVersion"] == answer["metadata"]["resourceVersion"]
    await family.release("c")
    assert await family.left() == {}
    assert await family.deleted() == ["free", "c", "b", "a"]


async def test_what_is_held_and_does_not_block_keeps_nobody(family: Family) -> None:
    await family.make("a")
    await family.make("b", "a", held=True, blocks=False)
    assert (await family.delete("a"))["status"] == "Success"
    assert (await family.left())["b"]["deletionTimestamp"]
    await family.release("b")
    assert await family.left() == {}


async def test_an_owner_waits_for_all_and_for_its_own_finalizers(family: Family) -> None:
    await family.make("a", held=True)
    await family.make("b", "a", held=True)
    await family.make("c", "a", held=True)
    await family.delete("a")
    await family.release("b")
    assert (await family.left())["a"]["finalizers"] == [*HOLD, "foregroundDeletion"]
    await family.release("c")
    assert (await family.left())["a"]["finalizers"] == HOLD
    await family.release("a")
    assert await family.left() == {}


async def test_orphans_stay_and_name_the_owner_no_more(family: Family) -> None:
    await family.make("a")
    await family.make("other")
    await family.make("b", "a")
    await family.make("c", "a", "other")
    await family.delete("a", "Orphan")
    left = await family.left()
    assert "ownerReferences" not in left["b"]
    assert [r["name"] for r in left["c"]["ownerReferences"]] == ["other"]


@pytest.mark.parametrize("policy", ["Background", "Foreground", None])
async def test_who_has_another_owner_stays_with_that_one(
    family: Family, policy: str | None
) -> None:
    await family.make("a")
    await family.make("other")
    await family.make("c", "a", "other")
    await family.delete("a", policy)
    left = await family.left()
    assert sorted(left) == ["c", "other"]
    assert [r["name"] for r in left["c"]["ownerReferences"]] == ["other"]
    await family.delete("other", policy)
    assert await family.left() == {}


async def test_another_owner_that_is_gone_or_going_keeps_nobody(family: Family) -> None:
    await family.make("a")
    await family.make("going")
    await family.make("block", "going", held=True)
    gone = await family.reference("a") | {"uid": "gone", "name": "gone"}
    await family.make("b", "a", "going")
    await family.make("c", "a")
    await family.change("c", ownerReferences=[await family.reference("a"), gone])
    await family.delete("going")
    assert "b" in await family.left(), "a owns it too"
    await family.delete("a")
    assert sorted(await family.left()) == ["block", "going"]


async def test_an_owner_of_a_kind_that_is_not_served_counts_as_living(family: Family) -> None:
    await family.make("a")
    await family.make("b", "a")
    foreign = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "x", "uid": "x"}
    await family.change("b", ownerReferences=[await family.reference("a"), foreign])
    await family.delete("a")
    assert [r["kind"] for r in (await family.left())["b"]["ownerReferences"]] == ["Deployment"]


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
async def test_a_circle_ends(family: Family, policy: str) -> None:
    await family.make("a")
    await family.make("b", "a")
    await family.make("c", "b")
    circle = [await family.reference("c"), await family.reference("a")]
    await family.change("a", ownerReferences=circle)
    await family.delete("a", policy)
    assert await family.left() == {}
    assert sorted(await family.deleted()) == ["a", "b", "c"]


async def test_a_circle_in_which_one_is_held_ends_with_it(family: Family) -> None:
    await family.make("a")
    await family.make("b", "a", held=True)
    await family.change("a", ownerReferences=[await family.reference("b")])
    await family.delete("a")
    assert sorted(await family.left()) == ["a", "b"]
    await family.release("b")
    assert await family.left() == {}


async def test_an_owner_goes_when_what_blocked_it_is_no_longer_its(family: Family) -> None:
    await family.make("a")
    await family.make("b", "a", held=True)
    await family.delete("a")
    await family.change("b", ownerReferences=[await family.reference("a", blocks=False)])
    assert sorted(await family.left()) == ["b"]


async def test_who_is_in_a_hurry_asks_again(family: Family) -> None:
    """A later policy counts: an owner that waits goes at once in the background."""
    await family.make("a")
    await family.make("b", "a", held=True)
    await family.delete("a")
    assert (await family.delete("a", "Background"))["status"] == "Success"
    assert sorted(await family.left()) == ["b"]
    await family.make("c")
    await family.make("d", "c", held=True)
    await family.delete("c")
    await family.delete("c", "Orphan")
    left = await family.left()
    assert sorted(left) == ["b", "d"]
    assert "ownerReferences" not in left["d"]


async def test_what_came_while_the_owner_waited_goes_too(family: Family) -> None:
    await family.make("a")
    await family.make("b", "a", held=True)
    await family.delete("a")
    await family.make("late", "a")
    await family.release("b")
    assert await family.left() == {}


@pytest.mark.parametrize(
    ("finalizer", "left"), [("orphan", ["b"]), ("foregroundDeletion", ["a", "b"])]
)
async def test_without_a_policy_the_finalizers_of_the_owner_say(
    family: Family, finalizer: str, left: list[str]
) -> None:
    await family.make("a")
    await family.make("b", "a", held=True)
    await family.change("a", finalizers=[finalizer])
    await family.delete("a", None)
    assert sorted(await family.left()) == left


async def test_collections_are_deleted_by_the_same_rules(rig: Rig, family: Family) -> None:
    await family.make("a")
    await family.make("b", "a")
    await family.make("c", "b", held=True)
    gone = await rig.json("DELETE", family.path, json={"propagationPolicy": "Orphan"})
    assert [item["metadata"]["name"] for item in gone["items"]] == ["a", "b", "c"]
    left = await family.left()
    assert sorted(left) == ["c"]
    assert "ownerReferences" not in left["c"]


async def test_many_go_with_one_owner(family: Family) -> None:
    """Each is looked at a few times, and none of it piles up."""
    await family.make("a")
    reference = await family.reference("a")
    for number in range(200):
        document = fleet(f"d{number}")
        document["metadata"]["ownerReferences"] = [reference]
        await family.rig.json("POST", family.path, json=document, code=201)
    await family.delete("a")
    assert await family.left() == {}
