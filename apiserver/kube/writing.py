"""create, update and patch, of objects and of their status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from apiserver import admission
from apiserver.errors import BadRequest
from apiserver.kube import bodies, rendering
from apiserver.kube.face import FACE
from apiserver.kube.target import Target
from apiserver.operations import WriteOptions, Written
from apiserver.wire import accept, options, patch
from resources.kind import Json


def write_query(request: web.Request) -> options.WriteQuery:
    return options.write_query(request.query, request.headers.get("User-Agent", ""))


def write_options(query: options.WriteQuery) -> WriteOptions:
    return WriteOptions(
        dry_run=query.dry_run,
        field_validation=query.field_validation,
        field_manager=query.field_manager,
        force=query.force,
    )


async def create(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    rendering.wanted(request)
    query = write_query(request)
    document, warnings = await bodies.document(request, query)
    document = admission.identified(target.kind, document, target.place)
    creator = face.creators.get(target.kind.resource)
    if creator is None:
        written = await face.registry(target.kind).create(
            target.caller, target.kind, target.place, document, write_options(query)
        )
    else:
        written = await creator(target.caller, target.place, document, write_options(query))
    return await _answer(request, target, written, warnings, created=True)


async def update(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    rendering.wanted(request)
    query = write_query(request)
    document, warnings = await bodies.document(request, query)
    document = admission.identified(target.kind, document, target.place, target.name)
    written = await face.registry(target.kind).update(
        target.caller,
        target.kind,
        target.place,
        target.name,
        document,
        write_options(query),
        subresource=target.subresource,
    )
    return await _answer(request, target, written, warnings, created=written.created)


async def patch_(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    rendering.wanted(request)
    if accept.media_type(request.headers.get("Content-Type", "")) == patch.APPLY_PATCH:
        return await _apply(request, target)
    query = write_query(request)
    requested, warnings = await change(request, query)

    def identified(document: Json) -> Json:
        changed = requested(document)
        return admission.identified(target.kind, changed, target.place, target.name)

    written = await face.registry(target.kind).patch(
        target.caller,
        target.kind,
        target.place,
        target.name,
        identified,
        write_options(query),
        subresource=target.subresource,
    )
    return await _answer(request, target, written, warnings)


async def _apply(request: web.Request, target: Target) -> web.StreamResponse:
    face = request.app[FACE]
    agent = request.headers.get("User-Agent", "")
    query = options.write_query(request.query, agent, applying=True)
    found, warnings = await bodies.value(request, accept.YAML, query)
    if not isinstance(found, dict):
        raise BadRequest("an apply patch is an object: all that its manager wants of the object")
    config = admission.identified(target.kind, found, target.place, target.name)
    # The name is in the path; a configuration may leave it out.
    named: Json = {"name": target.name}
    if target.namespace:
        named["namespace"] = target.namespace
    config = config | {"metadata": config["metadata"] | named}
    written = await face.registry(target.kind).apply(
        target.caller,
        target.kind,
        target.place,
        target.name,
        config,
        write_options(query),
        subresource=target.subresource,
    )
    return await _answer(request, target, written, warnings, created=written.created)


async def _answer(
    request: web.Request,
    target: Target,
    written: Written,
    warnings: Sequence[str],
    *,
    created: bool = False,
) -> web.StreamResponse:
    return await rendering.document(
        request,
        target.kind,
        written.document,
        now=request.app[FACE].now(),
        status=201 if created else 200,
        warnings=(*warnings, *written.warnings),
    )


async def change(
    request: web.Request, query: options.WriteQuery, served: Sequence[str] = patch.SERVED
) -> tuple[patch.Change, list[str]]:
    """The change that the body is, by its Content-Type; 415 names the types that are served."""
    content_type = request.headers.get("Content-Type", "")
    makers = {patch.JSON_PATCH: patch.json_patch, patch.MERGE_PATCH: patch.merge_patch}
    maker = makers.get(accept.media_type(content_type))
    if maker is None:
        raise accept.unsupported(content_type, served)
    content: Any
    content, warnings = await bodies.value(request, accept.JSON, query)
    return maker(content), warnings
