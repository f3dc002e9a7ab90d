"""Discovery and OpenAPI over HTTP: documents made once, with an ETag that says whether they moved.

Serialised documents are kept for the life of the application: what is served does not change while
it runs. Nothing here touches the database.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import orjson
from aiohttp import web

from apiserver import discovery, gnostic, openapi
from apiserver.catalogue import Catalogue
from apiserver.kube.face import FACE
from apiserver.kube.target import nothing_here
from apiserver.wire import accept
from resources import digest
from resources.kind import Json

_A_YEAR_S = 365 * 24 * 3600


class Documents:
    """Serialised answers of one catalogue, each made when it is first asked for."""

    def __init__(self, catalogue: Catalogue) -> None:
        self.catalogue = catalogue
        self._made: dict[str, tuple[bytes, str]] = {}

    def get(self, name: str, make: Callable[[], Json | bytes]) -> tuple[bytes, str]:
        """The document under `name`, and its ETag."""
        found = self._made.get(name)
        if found is None:
            made = make()
            raw = made if isinstance(made, bytes) else orjson.dumps(made)
            etag = digest.of_bytes(raw).removeprefix(digest.PREFIX)[:32].upper()
            found = self._made[name] = raw, f'"{etag}"'
        return found


DOCUMENTS = web.AppKey("DOCUMENTS", Documents)


def _respond(
    request: web.Request,
    name: str,
    make: Callable[[], Json | bytes],
    content_type: str = accept.JSON,
) -> web.StreamResponse:
    raw, etag = request.app[DOCUMENTS].get(name, make)
    headers = {"ETag": etag, "Vary": "Accept", "Content-Type": content_type}
    # RFC 9110: a list of tags; weak ones compare like strong ones here.
    known = {tag.strip().removeprefix("W/") for tag in _if_none_match(request).split(",")}
    if etag in known or "*" in known:
        return web.Response(status=304, headers=headers)
    response = web.Response(body=raw, headers=headers)
    if len(raw) > 4096:
        response.enable_compression()
    return response


def _if_none_match(request: web.Request) -> str:
    return request.headers.get("If-None-Match", "")


async def core(request: web.Request) -> web.StreamResponse:
    """`/api`."""
    catalogue = request.app[FACE].catalogue
    if accept.negotiate_discovery(request.headers.get("Accept", "")):
        names = [""] if catalogue.of_group("") else []
        make = functools.partial(discovery.aggregated, catalogue, names)
        return _respond(request, "api-v2", make, discovery.V2_MEDIA)
    return _respond(request, "api", discovery.core_versions)


async def groups(request: web.Request) -> web.StreamResponse:
    """`/apis`."""
    catalogue = request.app[FACE].catalogue
    if accept.negotiate_discovery(request.headers.get("Accept", "")):
        make = functools.partial(discovery.aggregated, catalogue, catalogue.groups)
        return _respond(request, "apis-v2", make, discovery.V2_MEDIA)
    return _respond(request, "apis", lambda: discovery.groups(catalogue))


async def group(request: web.Request) -> web.StreamResponse:
    """`/apis/<group>`."""
    name = request.match_info["group"]
    found = discovery.group(request.app[FACE].catalogue, name)
    if found is None:
        raise nothing_here()
    return _respond(request, f"apis/{name}", lambda: found)


async def resources(request: web.Request) -> web.StreamResponse:
    """`/api/v1` and `/apis/<group>/<version>`."""
    name, version = request.match_info.get("group", ""), request.match_info["version"]
    found = discovery.resources(request.app[FACE].catalogue, name, version)
    if found is None:
        raise nothing_here()
    return _respond(request, openapi.path_of(name, version), lambda: found)


async def version(request: web.Request) -> web.StreamResponse:
    """`/version`."""
    return _respond(request, "version", lambda: discovery.version(request.app[FACE].release))


async def openapi_index(request: web.Request) -> web.StreamResponse:
    """`/openapi/v3`."""
    catalogue = request.app[FACE].catalogue
    return _respond(request, "openapi-v3", lambda: openapi.index(catalogue))


async def openapi_group(request: web.Request) -> web.StreamResponse:
    """`/openapi/v3/apis/<group>/<version>`. Under its hash it may be kept for ever; an old hash is
    sent to the current one."""
    _only(request, (accept.JSON,))
    catalogue = request.app[FACE].catalogue
    name, version_name = request.match_info.get("group", ""), request.match_info["version"]
    if (name, version_name) not in catalogue.group_versions:
        raise nothing_here()
    path = openapi.path_of(name, version_name)
    asked = request.query.get("hash", "")
    current = openapi.hash_of(catalogue, name, version_name) if asked else ""
    if asked and asked != current:
        return web.Response(status=301, headers={"Location": f"/openapi/v3/{path}?hash={current}"})
    response = _respond(
        request, f"openapi/{path}", lambda: openapi.v3(catalogue, name, version_name)
    )
    if asked:
        response.headers["Cache-Control"] = f"public, immutable, max-age={_A_YEAR_S}"
    return response


async def openapi_v2(request: web.Request) -> web.StreamResponse:
    """`/openapi/v2`: JSON for aggregators, protobuf for older kubectl and Argo CD."""
    catalogue = request.app[FACE].catalogue
    media = _only(request, (accept.JSON, *gnostic.MEDIA))
    if media == accept.JSON:
        return _respond(request, "openapi-v2", lambda: openapi.v2(catalogue))
    return _respond(
        request,
        "openapi-v2-protobuf",
        lambda: gnostic.encode(openapi.v2(catalogue)),
        gnostic.MEDIA[-1],
    )


def _only(request: web.Request, offered: Sequence[str]) -> str:
    """The first of the media types that the client accepts. Raises NotAcceptable."""
    for clause in accept.clauses(request.headers.get("Accept", "")):
        media = accept.media_of(clause, offered)
        if media is not None:
            return media
    raise accept.refusal(offered)
