"""What a change costs when many watch: it is written once for each shape, and in few pieces."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from aiohttp import ClientResponse
from aiohttp.web import StreamResponse

from apiserver import bindings
from apiserver.kube import watching
from apiserver.store import Transaction
from apiserver.wire import frames
from tests.fakes import kube_face
from tests.fakes.kube_face import G, Rig
from tests.unit.apiserver.test_kube_watching import PARTIAL, TABLE, label

pytestmark = pytest.mark.asyncio(loop_scope="module")

MANY = 400


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with kube_face.running(tmp_path_factory.mktemp("frames")) as running:
        yield running


async def watch(rig: Rig, path: str, accept: str = "application/json") -> ClientResponse:
    """From now on."""
    params = {"watch": "1", "resourceVersion": str(rig.version)}
    response = await rig.call("GET", path, params=params, headers={"Accept": accept})
    assert response.status == 200, await response.text()
    found: ClientResponse = response
    return found


def counting_lines() -> Counter[str]:
    """Counts the lines that are serialised, by where, in this thread, from now on."""
    counts: Counter[str] = Counter()

    def note(frame: Any, what: str, called: Any) -> None:
        if what == "c_call" and called is orjson.dumps:
            counts[Path(frame.f_code.co_filename).name] += 1

    sys.setprofile(note)
    return counts


async def test_an_event_is_written_once_for_each_shape(rig: Rig) -> None:
    path = await rig.fleets("a")
    async with AsyncExitStack() as stack:
        shapes = ["application/json"] * 30 + [PARTIAL] * 10 + [TABLE] * 2
        streams = [await watch(rig, path, shape) for shape in shapes]
        for stream in streams:
            stack.callback(stream.close)
        counts = counting_lines()
        try:
            for number in ("1", "2"):
                await label(rig, f"{path}/a", n=number)
                async with asyncio.timeout(20):
                    lines = [await stream.content.readline() for stream in streams]
        finally:
            sys.setprofile(None)
    assert len(set(lines[:30])) == 1
    assert all(b'"n":"2"' in line for line in lines)
    # Two changes; plain and metadata once each, and each table for itself.
    assert counts[Path(frames.__file__).name] == 2 * (1 + 1 + 2)


async def test_a_bulk_change_comes_in_few_pieces_of_bounded_size(rig: Rig) -> None:
    namespace = await rig.namespace()
    path = f"{G}/namespaces/{namespace}/devices"

    def insert(tx: Transaction, number: int) -> None:
        for n in range(number):
            metadata = {
                "name": f"d{n:04}",
                "namespace": namespace,
                "uid": f"{namespace}-{n}",
                "creationTimestamp": tx.timestamp,
            }
            bindings.insert_device(tx, {"metadata": metadata, "spec": {}})

    streams = [await watch(rig, path) for _ in range(3)]
    counts = counting_lines()
    try:
        await rig.face.operations.store.write(partial(insert, number=MANY))
        sizes, lines = await asyncio.gather(*(pieces(stream) for stream in streams)), MANY
    finally:
        sys.setprofile(None)
        for stream in streams:
            stream.close()
    assert counts[Path(frames.__file__).name] == lines
    for of_one in sizes:
        assert max(of_one) < frames.PIECE_BYTES + 4_000
        assert len(of_one) <= sum(of_one) // frames.PIECE_BYTES + 2 < MANY / 20


async def pieces(stream: ClientResponse) -> list[int]:
    """Sizes of the chunks in which so many events came."""
    sizes, size, lines = [], 0, 0
    async with asyncio.timeout(20):
        async for data, is_end in stream.content.iter_chunks():
            size, lines = size + len(data), lines + data.count(b"\n")
            if is_end:
                sizes.append(size)
                size = 0
                if lines == MANY:
                    return sizes
    raise AssertionError("the stream ended")


class Unread(StreamResponse):
    """A response to a client that takes nothing until `taken`."""

    def __init__(self) -> None:
        super().__init__()
        self.taken = asyncio.Event()

    async def write(self, data: Any) -> None:
        await self.taken.wait()


async def test_a_stream_is_stalled_when_one_write_waits_too_long() -> None:
    response = Unread()
    outlet = watching.Outlet(response)
    writing = asyncio.create_task(outlet.write([b"1", b"2"]))
    await asyncio.sleep(0)
    assert outlet.waiting_since is not None
    assert not outlet.is_stalled
    outlet.waiting_since -= watching.STALLED_S + 1
    assert outlet.is_stalled
    response.taken.set()
    await writing
    assert not outlet.is_stalled, "idle streams wait for events, not for their client"
