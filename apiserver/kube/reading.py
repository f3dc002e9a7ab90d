"""get and list."""

from __future__ import annotations

from aiohttp import web

from apiserver.errors import Expired
from apiserver.kube import rendering
from apiserver.kube.face import FACE
from apiserver.kube.target import Target
from apiserver.operations import ListOptions, Page
from apiserver.wire import continuing, options, shapes
from resources.kind import Json
from resources.selectors import FieldSelector


async def get(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    rendering.wanted(request)
    found = await face.registry(target.kind).get(
        target.caller, target.kind, target.place, target.name
    )
    return await rendering.document(request, target.kind, found, now=face.now())


async def list_(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    rendering.wanted(request)
    query = options.list_query(target.kind, request.query)
    fields = target.confined(query.selection.fields)
    scope = _scope(target, query, fields)
    after = version = None
    if query.continue_token:
        position = continuing.read(query.continue_token, scope)
        after, version = position.after, position.version
        if await face.registry(target.kind).reach(version, 0.0) < version:
            # Made before the store was restored from a backup.
            raise Expired("The provided continue parameter is too new. List again without it.")

    def metadata(found: Page) -> Json:
        token = ""
        if found.after is not None:
            token = continuing.write(continuing.Position(found.version, found.after), scope)
        remaining = found.remaining if query.selection.is_everything else None
        return shapes.list_metadata(found.version, token, remaining)

    content = await face.registry(target.kind).list_as(
        target.caller,
        target.kind,
        target.namespace,
        ListOptions(
            labels=query.selection.labels,
            fields=fields,
            limit=query.limit,
            after=after,
            version=version,
            resource_version=query.resource_version,
            match=query.match,
        ),
        rendering.page_writer(request, target.kind, metadata, now=face.now()),
    )
    return rendering.answer(content)


def _scope(target: Target, query: options.ListQuery, fields: FieldSelector | None) -> str:
    return continuing.scope_of(
        target.kind.resource,
        "*" if target.namespace is None else target.namespace,
        str(query.selection.labels),
        str(fields or ""),
    )
