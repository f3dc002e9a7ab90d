"""delete and deletecollection."""

from __future__ import annotations

import asyncio

from aiohttp import web

from apiserver.kube import bodies, rendering
from apiserver.kube.face import FACE
from apiserver.kube.target import Target
from apiserver.operations import Page
from apiserver.wire import options, shapes


async def delete(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    rendering.wanted(request)
    query = options.delete_query(request.query, await bodies.optional(request))
    deleted = await face.registry(target.kind).delete(
        target.caller,
        target.kind,
        target.place,
        target.name,
        preconditions=query.preconditions,
        propagation=query.propagation,
        dry_run=query.dry_run,
    )
    if not deleted.gone:
        # Finalizers hold it: the client sees what it waits for.
        return await rendering.document(request, target.kind, deleted.document, now=face.now())
    uid = deleted.document["metadata"].get("uid", "")
    return await rendering.plain(request, shapes.success(target.kind, target.name, uid))


async def delete_collection(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    rendering.wanted(request)
    query = options.delete_query(request.query, await bodies.optional(request))
    chosen = options.selection(target.kind, request.query)
    gone = await face.registry(target.kind).delete_collection(
        target.caller,
        target.kind,
        target.namespace,
        chosen.labels,
        chosen.fields,
        propagation=query.propagation,
        dry_run=query.dry_run,
    )
    found = Page(list(gone), face.operations.store.hub.version)
    write = rendering.page_writer(
        request, target.kind, lambda page: shapes.list_metadata(page.version), now=face.now()
    )
    return rendering.answer(await asyncio.to_thread(write, found))
