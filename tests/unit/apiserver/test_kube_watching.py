"""watch: what comes, in which form and order, and how it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientResponse

from apiserver.store.tables import META
from tests.fakes import kube_face
from tests.fakes.kube_face import MERGE, Rig, fleet
from tests.fakes.waiting import PATIENCE_S

pytestmark = pytest.mark.asyncio(loop_scope="module")

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with kube_face.running(tmp_path_factory.mktemp("watching"), reach_s=0.1) as running:
        yield running


class Stream:
    """Events as they come."""

    def __init__(self, response: ClientResponse) -> None:
        self.response = response

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE_S):
            line = await self.response.content.readline()
        assert line.endswith(b"\n"), line
        event: dict[str, Any] = json.loads(line)
        return event

    async def take(self, number: int) -> list[tuple[str, str]]:
        events = [await self.next() for _ in range(number)]
        return [(event["type"], event["object"]["metadata"].get("name", "")) for event in events]

    async def rest(self) -> list[dict[str, Any]]:
        """Until the end of the stream."""
        async with asyncio.timeout(PATIENCE_S):
            raw = await self.response.content.read()
        return [json.loads(line) for line in raw.splitlines()]


@asynccontextmanager
async def watching(
    rig: Rig, path: str, headers: dict[str, str] | None = None, **params: Any
) -> AsyncIterator[Stream]:
    async with asyncio.timeout(PATIENCE_S):
        response = await rig.call(
            "GET", path, params={"watch": "1"} | params, headers=headers or {}
        )
    assert response.status == 200, await response.text()
    assert response.content_type == "application/json"
    try:
        yield Stream(response)
    finally:
        response.close()


async def label(rig: Rig, path: str, **labels: str | None) -> dict[str, Any]:
    data = json.dumps({"metadata": {"labels": labels}})
    found: dict[str, Any] = await rig.json(
        "PATCH", path, headers={"Content-Type": MERGE}, data=data
    )
    return found


async def test_without_a_version_the_state_comes_first(rig: Rig) -> None:
    path = await rig.fleets("a", "b")
    async with watching(rig, path) as stream:
        assert await stream.take(2) == [("ADDED", "a"), ("ADDED", "b")]
        await rig.json("POST", path, json=fleet("c"), code=201)
        await label(rig, f"{path}/a", x="y")
        await rig.json("DELETE", f"{path}/b")
        assert await stream.take(3) == [("ADDED", "c"), ("MODIFIED", "a"), ("DELETED", "b")]


async def test_from_a_version_only_what_is_newer_comes(rig: Rig) -> None:
    path = await rig.fleets("a")
    version = (await rig.json("GET", path))["metadata"]["resourceVersion"]
    changed = await label(rig, f"{path}/a", x="y")
    async with watching(rig, path, resourceVersion=version) as stream:
        event = await stream.next()
        assert event == {"type": "MODIFIED", "object": changed}


async def test_headers_come_before_any_event(rig: Rig) -> None:
    path = await rig.fleets()
    async with watching(rig, path) as stream:
        assert stream.response.headers["Transfer-Encoding"] == "chunked"
        assert "Content-Encoding" not in stream.response.headers


async def test_entering_and_leaving_a_selection(rig: Rig) -> None:
    path = await rig.fleets("a", "b")
    async with watching(rig, path, labelSelector="tier=edge") as stream:
        # One after the other: who is slow is not told what has been overtaken.
        for labels, expected in (
            ({"tier": "edge"}, "ADDED"),
            ({"more": "x"}, "MODIFIED"),
            ({"tier": None}, "DELETED"),
        ):
            changed = await label(rig, f"{path}/a", **labels)
            event = await stream.next()
            assert event["type"] == expected
            version = event["object"]["metadata"]["resourceVersion"]
            assert version == changed["metadata"]["resourceVersion"]


async def test_a_watch_of_one_object_by_path_or_field(rig: Rig) -> None:
    path = await rig.fleets("a", "b")
    for where, params in (
        (f"{path}/b", {}),
        (path, {"fieldSelector": "metadata.name=b"}),
    ):
        async with watching(rig, where, **params) as stream:
            assert await stream.take(1) == [("ADDED", "b")]
            await label(rig, f"{path}/a", x=str(rig.version))
            await label(rig, f"{path}/b", x=str(rig.version))
            assert await stream.take(1) == [("MODIFIED", "b")]


async def test_tables_carry_their_columns_once(rig: Rig) -> None:
    path = await rig.fleets("a", "b")
    async with watching(rig, path, {"Accept": TABLE}) as stream:
        first, second = await stream.next(), await stream.next()
        assert first["object"]["kind"] == "Table"
        assert first["object"]["columnDefinitions"][0]["name"] == "Name"
        assert first["object"]["rows"][0]["cells"][0] == "a"
        assert second["object"]["columnDefinitions"] is None
        assert second["object"]["rows"][0]["cells"][0] == "b"


async def test_metadata_only(rig: Rig) -> None:
    path = await rig.fleets("a")
    async with watching(rig, path, {"Accept": PARTIAL}) as stream:
        event = await stream.next()
        assert event["object"]["kind"] == "PartialObjectMetadata"
        assert "spec" not in event["object"]


WATCH_LIST = {
    "sendInitialEvents": "true",
    "resourceVersionMatch": "NotOlderThan",
    "allowWatchBookmarks": "true",
}


@pytest.mark.parametrize("names", [(), ("a",), ("a", "b")], ids=len)
async def test_a_watch_list_says_where_the_state_ends(rig: Rig, names: tuple[str, ...]) -> None:
    path = await rig.fleets(*names)
    async with watching(rig, path, **WATCH_LIST) as stream:
        assert await stream.take(len(names)) == [("ADDED", name) for name in names]
        end = await stream.next()
        assert end["type"] == "BOOKMARK"
        metadata = end["object"]["metadata"]
        assert metadata["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert int(metadata["resourceVersion"]) >= 1
        await rig.json("POST", path, json=fleet("late"), code=201)
        assert await stream.take(1) == [("ADDED", "late")]


async def test_no_bookmarks_where_none_are_asked_for(rig: Rig) -> None:
    path = await rig.fleets("a")
    async with watching(rig, path, timeoutSeconds=1) as stream:
        assert [event["type"] for event in await stream.rest()] == ["ADDED"]


async def test_a_timeout_ends_the_stream_cleanly_after_a_bookmark(rig: Rig) -> None:
    path = await rig.fleets("a")
    version = (await rig.json("GET", path))["metadata"]["resourceVersion"]
    await rig.fleets("elsewhere")
    params = {"resourceVersion": version, "timeoutSeconds": 1, "allowWatchBookmarks": "true"}
    async with watching(rig, path, **params) as stream:
        events = await stream.rest()
    assert [event["type"] for event in events] == ["BOOKMARK"]
    assert events[0]["object"]["metadata"]["resourceVersion"] == str(rig.version)
    assert events[0]["object"]["kind"] == "Fleet"


async def test_a_version_that_was_forgotten_is_an_error_inside_the_stream(rig: Rig) -> None:
    path = await rig.fleets("a")
    forgotten = rig.version
    await rig.fleets("b")

    def compact(tx: Any) -> None:
        tx.connection.execute(META.update().values(compacted=forgotten + 1))
        tx.writes += 1

    await rig.face.operations.store.write(compact)
    async with watching(rig, path, resourceVersion=forgotten) as stream:
        events = await stream.rest()
    assert [event["type"] for event in events] == ["ERROR"]
    assert events[0]["object"]["code"] == 410
    assert events[0]["object"]["reason"] == "Expired"


async def test_a_version_that_is_not_reached_is_504(rig: Rig) -> None:
    path = await rig.fleets("a")
    params = {"resourceVersion": "999999999", "watch": "1"}
    status = await rig.refused("GET", path, 504, params=params)
    assert status["details"]["retryAfterSeconds"] == 1


async def test_namespaces_and_events_can_be_watched(rig: Rig) -> None:
    version = rig.version
    async with watching(rig, "/api/v1/namespaces", resourceVersion=version) as stream:
        name = await rig.namespace()
        event = await stream.next()
        assert (event["type"], event["object"]["kind"]) == ("ADDED", "Namespace")
        assert event["object"]["metadata"]["name"] == name
        assert event["object"]["status"] == {"phase": "Active"}


async def test_a_reader_who_went_away_leaves_nothing_behind(rig: Rig) -> None:
    path = await rig.fleets("a")
    before = len(asyncio.all_tasks())
    async with watching(rig, path) as stream:
        await stream.next()
    await label(rig, f"{path}/a", x="1")
    await label(rig, f"{path}/a", x="2")
    async with asyncio.timeout(PATIENCE_S):
        while len(asyncio.all_tasks()) > before:
            await asyncio.sleep(0.05)


async def test_draining_ends_every_watch_cleanly(rig: Rig) -> None:
    path = await rig.fleets("a")
    async with watching(rig, path) as one, watching(rig, path, {"Accept": TABLE}) as two:
        await one.next()
        await two.next()
        rig.face.draining.set()
        try:
            assert await one.rest() == []
            assert await two.rest() == []
        finally:
            rig.face.draining.clear()
