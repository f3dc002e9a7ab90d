"""The Kubernetes face as an aiohttp application: routes, middlewares, and its end.

Resources are one route, not one for each kind; the fixed paths stand before it. Draining is a
signal to open watches, which end cleanly and are resumed elsewhere.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from aiohttp import web

from apiserver.auth.identity import CONTROLLER
from apiserver.hooks import Hooks
from apiserver.kube import (
    contents,
    deleting,
    discovering,
    health,
    reading,
    receiving,
    reviews,
    signingin,
    subresources,
    watching,
    writing,
)
from apiserver.kube.authenticating import authenticating
from apiserver.kube.face import FACE, Face
from apiserver.kube.rendering import answering
from apiserver.kube.target import Target, resolve
from apiserver.kube.telling import telling

Handler = Callable[[web.Request, Target], Awaitable[web.StreamResponse]]

_VERBS: Mapping[str, Handler] = {
    "get": reading.get,
    "list": reading.list_,
    "watch": watching.watch,
    "create": writing.create,
    "update": writing.update,
    "patch": writing.patch_,
    "delete": deleting.delete,
    "deletecollection": deleting.delete_collection,
}


async def _resource(request: web.Request) -> web.StreamResponse:
    target = resolve(request)
    caller = target.caller
    is_paced = caller.role != CONTROLLER
    async with request.app[FACE].gate.entered(target.verb, caller.identity, is_paced=is_paced):
        if target.subresource:
            return await subresources.handle(request, target)
        return await _VERBS[target.verb](request, target)


async def _drain(app: web.Application) -> None:
    app[FACE].draining.set()


def create_app(face: Face) -> web.Application:
    """The application of one face."""
    # Bodies are read and limited by `bodies`; aiohttp's own limit would answer in other words.
    app = web.Application(middlewares=[answering, telling, authenticating], client_max_size=0)
    app[FACE] = face
    app[receiving.HOOKS] = Hooks(face.operations)
    app[discovering.DOCUMENTS] = discovering.Documents(face.catalogue)
    app.on_shutdown.append(_drain)
    for path, handler in _FIXED:
        app.router.add_get(path, handler)
    for group, plural, handler in _REVIEWS:
        for version in ("v1", "v1beta1"):
            app.router.add_post(f"/apis/{group}/{version}/{plural}", handler)
    authorization = f"/apis/{reviews.AUTHORIZATION}/v1"
    for path in ("subjectaccessreviews", "namespaces/{namespace}/localsubjectaccessreviews"):
        app.router.add_post(f"{authorization}/{path}", reviews.access_of_others)
    app.router.add_post("/hooks/{namespace}/{repository}", receiving.receive)
    blobs = "/apis/homeport.dev/v1alpha1/namespaces/{namespace}/contents"
    app.router.add_post(blobs, contents.create)
    app.router.add_get(f"{blobs}/{{digest}}", contents.read)
    app.router.add_get("/api/v1/auth/config", signingin.config)
    app.router.add_post("/api/v1/auth/{provider}/token", signingin.exchange)
    app.router.add_post("/api/v1/auth/{provider}/device", signingin.begin_on_a_device)
    app.router.add_route("*", "/api/{version}/{rest:.+}", _resource)
    app.router.add_route("*", "/apis/{group}/{version}/{rest:.+}", _resource)
    return app


_FIXED: tuple[tuple[str, Callable[[web.Request], Awaitable[web.StreamResponse]]], ...] = (
    ("/version", discovering.version),
    ("/{endpoint:healthz|livez|readyz}", health.handle),
    ("/{endpoint:healthz|livez|readyz}/{check}", health.handle),
    ("/api", discovering.core),
    ("/apis", discovering.groups),
    ("/apis/{group}", discovering.group),
    ("/api/{version}", discovering.resources),
    ("/apis/{group}/{version}", discovering.resources),
    ("/openapi/v3", discovering.openapi_index),
    ("/openapi/v3/api/{version}", discovering.openapi_group),
    ("/openapi/v3/apis/{group}/{version}", discovering.openapi_group),
    ("/openapi/v2", discovering.openapi_v2),
)
_REVIEWS = (
    (reviews.AUTHORIZATION, "selfsubjectaccessreviews", reviews.access),
    (reviews.AUTHORIZATION, "selfsubjectrulesreviews", reviews.rules),
    (reviews.AUTHENTICATION, "selfsubjectreviews", reviews.whoami),
)
