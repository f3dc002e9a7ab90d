"""Blobs by digest: what controllers freeze, and the API server renders from.

Not a Kubernetes resource: no list, no metadata, bytes as they are. A blob is its digest, so a
second POST of the same bytes answers the same and only renews their age, and so does HEAD, or a
sweep might take a blob between a controller's look and its use. Digests are unguessable only as far
as what they digest is; so reading takes a role, in any namespace.
"""

from __future__ import annotations

import re

from aiohttp import web

from apiserver.auth import roles
from apiserver.errors import BadRequest, NotFound
from apiserver.kube import bodies, rendering
from apiserver.kube.authenticating import CALLER
from apiserver.kube.face import FACE
from resources import digest
from resources.kind import HOMEPORT_GROUP

BLOB_BYTES_MAX = 8 * 1024 * 1024
RESOURCE = "contents"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def _authorize(request: web.Request, verb: str) -> None:
    caller = request[CALLER]
    if not roles.allowed(caller.role, verb, RESOURCE):
        namespace = request.match_info["namespace"]
        raise roles.refusal(caller, verb, RESOURCE, HOMEPORT_GROUP, "", namespace)


async def create(request: web.Request) -> web.StreamResponse:
    """POST …/contents: stores the body, answers its digest. `?digest=` guards the transfer."""
    _authorize(request, "create")
    blob = await bodies.raw(request, BLOB_BYTES_MAX)
    expected = request.query.get("digest")
    if expected and expected != digest.of_bytes(blob):
        raise BadRequest(f"the body has the digest {digest.of_bytes(blob)}, not {expected}")
    stored = await request.app[FACE].operations.store.write(lambda tx: tx.put_content(blob))
    return await rendering.plain(request, {"digest": stored}, status=201)


async def read(request: web.Request) -> web.StreamResponse:
    """GET and HEAD …/contents/<digest>."""
    _authorize(request, "get")
    named = request.match_info["digest"]
    if not _DIGEST.fullmatch(named):
        raise BadRequest(f'"{named}" is not a digest: sha256: and 64 hexadecimal digits')
    store = request.app[FACE].operations.store
    blob = await store.read(lambda snapshot: snapshot.content(named))
    if blob is None:
        raise NotFound(f'{RESOURCE}.{HOMEPORT_GROUP} "{named}" not found', name=named)
    if request.method == "HEAD":
        kept = blob
        await store.write(lambda tx: tx.put_content(kept))
    return web.Response(body=blob, content_type="application/octet-stream")
