"""watch: a stream of events over a response that is open for minutes.

Headers go out before the first event exists, or clients think the server hangs. From then on a
failure is an ERROR event inside the stream; a version that is too old above all must be one, for
clients relist on that and give up on an HTTP error. The stream ends without a word at its timeout,
when the process drains, when the client no longer takes bytes, and when who opened it may not read
it any more (`standing`): all of them come again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from aiohttp import web
from aiohttp.client_exceptions import ClientConnectionResetError

from apiserver.errors import StatusError, Timeout
from apiserver.kube.authenticating import CALLER, evidence_of
from apiserver.kube.face import FACE, Face, Registry
from apiserver.kube.standing import Standing
from apiserver.kube.target import Target
from apiserver.operations import WatchBatch, WatchOptions
from apiserver.wire import accept, options, table
from apiserver.wire.frames import Writer

# kopf reconnects after 70 s of silence.
BOOKMARK_S = (45.0, 55.0)
DEFAULT_TIMEOUT_S = (1800.0, 3600.0)
# A client that takes nothing for so long is gone, or will be better off resuming.
STALLED_S = 30.0


async def watch(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    representation = accept.negotiate(request.headers.get("Accept", ""), watching=True)
    query = options.watch_query(target.kind, request.query, target.name)
    include = table.parse_include(request.query.get("includeObject", ""))
    registry = face.registry(target.kind)
    await _reached(registry, query, face.reach_s)
    writer = Writer(target.kind, representation.shape, now=face.now, include=include)
    now = await registry.reach(0, 0.0)
    batches = registry.watch(
        target.caller, target.kind, target.namespace, _options(face, query, target, now)
    )
    response = web.StreamResponse()
    response.content_type = representation.content_type
    response.headers["Cache-Control"] = "no-cache, private"
    await response.prepare(request)
    outlet = Outlet(response)
    pump: asyncio.Future[object] = asyncio.ensure_future(_pump(outlet, writer, batches, query))
    try:
        await _until_over(request, face, pump, outlet)
    finally:
        pump.cancel()
        await asyncio.wait([pump])
    problem = None if pump.cancelled() else pump.exception()
    if problem is not None and not _nobody_reads(problem):
        raise problem
    return response


def _options(face: Face, query: options.WatchQuery, target: Target, now: int) -> WatchOptions:
    version = query.resource_version
    if not version and not query.initial_state:
        # sendInitialEvents=false without a version: from now on.
        version = now
    timeout_s = query.timeout_s or face.jitter(*DEFAULT_TIMEOUT_S)
    return WatchOptions(
        labels=query.selection.labels,
        fields=target.confined(query.selection.fields),
        resource_version=version,
        send_initial=query.initial_end,
        bookmarks=query.bookmarks,
        timeout_s=timeout_s,
        bookmark_s=face.jitter(*BOOKMARK_S),
    )


async def _reached(registry: Registry, query: options.WatchQuery, within_s: float) -> None:
    """A version that this store has not reached is of another store, or of a replica ahead."""
    version = query.resource_version
    if not version:
        return
    reached = await registry.reach(version, within_s)
    if reached < version:
        raise Timeout(f"Too large resource version: {version}, current: {reached}", retry_after_s=1)


@dataclass(slots=True)
class Outlet:
    """A response, and since when a write to it waits for the client. Most writes wait for nothing,
    so who watches over the stream looks here now and then: a timer for each write is what a
    thousand watchers would pay for."""

    response: web.StreamResponse
    waiting_since: float | None = None

    async def write(self, pieces: Iterable[bytes]) -> None:
        loop = asyncio.get_running_loop()
        for piece in pieces:
            self.waiting_since = loop.time()
            await self.response.write(piece)
        self.waiting_since = None

    @property
    def is_stalled(self) -> bool:
        since = self.waiting_since
        return since is not None and asyncio.get_running_loop().time() - since > STALLED_S


async def _pump(
    outlet: Outlet,
    writer: Writer,
    batches: AsyncIterator[WatchBatch],
    query: options.WatchQuery,
) -> None:
    try:
        async for batch in batches:
            await outlet.write(_pieces(writer, batch, query))
    except StatusError as error:
        await outlet.write([writer.error(error)])


def _pieces(writer: Writer, batch: WatchBatch, query: options.WatchQuery) -> Iterable[bytes]:
    first = batch.events[0]
    if first.type != "BOOKMARK":
        events = [(event.type, event.document) for event in batch.events]
        return writer.pieces(events, batch.written)
    assert len(batch.events) == 1, "a bookmark stands alone"
    if not query.bookmarks:
        return []
    version = first.document["metadata"]["resourceVersion"]
    return [writer.bookmark(version, initial_end=first.initial_end)]


async def _until_over(
    request: web.Request, face: Face, pump: asyncio.Future[object], outlet: Outlet
) -> None:
    draining: asyncio.Future[object] = asyncio.ensure_future(face.draining.wait())
    awaited: set[asyncio.Future[object]] = {pump, draining}
    standing = Standing(
        face.authenticate,
        evidence_of(request),
        request[CALLER],
        now=lambda: face.now().timestamp(),
        monotonic=asyncio.get_running_loop().time,
        jitter=face.jitter,
    )
    try:
        while not pump.done() and not draining.done():
            looks_s = standing.look_s()
            await asyncio.wait(awaited, timeout=looks_s, return_when=asyncio.FIRST_COMPLETED)
            if request.transport is None or request.transport.is_closing() or outlet.is_stalled:
                return
            if await standing.is_over():
                return
    finally:
        draining.cancel()


def _nobody_reads(problem: BaseException) -> bool:
    return isinstance(problem, ClientConnectionResetError | ConnectionError | TimeoutError)
