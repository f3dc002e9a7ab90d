"""Blobs by digest: what controllers freeze, and the API server renders from.

Not a Kubernetes resource: no list, no metadata, bytes as they are. A blob is its digest, so a
second POST of the same bytes answers the same and only renews their age, and so does HEAD, or a
sweep might take a blob between a controller's look and its use. Digests are unguessable only as far
as what they digest is; so reading takes a role, in any namespace, and `?secret=true` stores a blob
under a digest that is keyed with this store's own key.
"""

from __future__ import annotations

from aiohttp import web

from apiserver.auth import roles
from apiserver.errors import BadRequest, NotFound
from apiserver.kube import bodies, rendering
from apiserver.kube.authenticating import CALLER
from apiserver.kube.face import FACE
from apiserver.wire import options
from resources import digest, manifest
from resources.kind import HOMEPORT_GROUP

RESOURCE = "contents"


def _authorize(request: web.Request, verb: str) -> None:
    caller = request[CALLER]
    namespace = request.match_info["namespace"]
    if not roles.permits(caller, verb, RESOURCE, "", namespace):
        raise roles.refusal(caller, verb, RESOURCE, HOMEPORT_GROUP, "", namespace)


async def create(request: web.Request) -> web.StreamResponse:
    """POST …/contents: stores the body, answers its digest. `?digest=` guards the transfer."""
    _authorize(request, "create")
    blob = await bodies.raw(request, manifest.FILE_BYTES_MAX)
    is_secret = options.truth(request.query, "secret")
    store = request.app[FACE].operations.store
    found = digest.of_bytes(blob)
    if is_secret:
        found = await store.read(lambda snapshot: snapshot.digest_of(blob, is_secret=True))
    expected = request.query.get("digest")
    if expected and expected != found:
        raise BadRequest(f"the body has the digest {found}, not {expected}")
    await store.write(lambda tx: tx.put_contents({found: blob}))
    return await rendering.plain(request, {"digest": found}, status=201)


async def read(request: web.Request) -> web.StreamResponse:
    """GET and HEAD …/contents/<digest>. HEAD renews the age and reads no body."""
    _authorize(request, "get")
    named = request.match_info["digest"]
    if not manifest.is_digest(named):
        raise BadRequest(
            f'"{named}" is not a digest: sha256: (or hmac-sha256:) and 64 hexadecimal digits'
        )
    store = request.app[FACE].operations.store
    if request.method == "HEAD":
        size = await store.write(lambda tx: tx.touch_content(named))
        if size is None:
            raise _not_found(named)
        headers = {"Content-Length": str(size)}
        return web.Response(headers=headers, content_type="application/octet-stream")
    blob = await store.read(lambda snapshot: snapshot.content(named))
    if blob is None:
        raise _not_found(named)
    return web.Response(body=blob, content_type="application/octet-stream")


def _not_found(named: str) -> NotFound:
    return NotFound(f'{RESOURCE}.{HOMEPORT_GROUP} "{named}" not found', name=named)
