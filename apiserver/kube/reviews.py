"""Self reviews: `kubectl auth can-i`, `can-i --list` and `whoami`.

A caller may always ask about itself. The answers come from the same table that refuses, so they
cannot differ from what would happen. Newer kubectl sends its bodies in protobuf.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from apiserver.auth import roles
from apiserver.auth.identity import Caller
from apiserver.kube import bodies, rendering, writing
from apiserver.kube.authenticating import CALLER
from resources.kind import Json

AUTHORIZATION = "authorization.k8s.io"
AUTHENTICATION = "authentication.k8s.io"
# Anybody who is known may read what the server is and what it serves.
_OPEN_URLS = ("/api", "/apis", "/healthz", "/livez", "/openapi", "/readyz", "/version")


async def access(request: web.Request) -> web.StreamResponse:
    """selfsubjectaccessreviews: may I do this?"""
    body = await _body(request)
    spec = _mapping(body.get("spec"))
    attributes = spec.get("resourceAttributes")
    caller = request[CALLER]
    if isinstance(attributes, dict):
        allowed = _may(caller, attributes)
    else:
        path = str(_mapping(spec.get("nonResourceAttributes")).get("path", ""))
        allowed = _may_see(caller, path)
    status: Json = {"allowed": allowed}
    if not allowed:
        status["reason"] = f'the role "{caller.role}" does not allow it'
    return await _answer(request, "SelfSubjectAccessReview", AUTHORIZATION, spec, status)


def _may(caller: Caller, attributes: Json) -> bool:
    def text(name: str) -> str:
        value = attributes.get(name)
        return value if isinstance(value, str) else ""

    return roles.allowed(caller.role, text("verb"), text("resource"), text("subresource"))


def _may_see(caller: Caller, path: str) -> bool:
    everything = roles.allowed(caller.role, "*", "*")
    return everything or any(path == url or path.startswith(url + "/") for url in _OPEN_URLS)


async def rules(request: web.Request) -> web.StreamResponse:
    """selfsubjectrulesreviews: what may I do?"""
    body = await _body(request)
    caller = request[CALLER]
    status = {
        "resourceRules": roles.rules(caller.role),
        "nonResourceRules": [
            {"verbs": ["get"], "nonResourceURLs": [f for u in _OPEN_URLS for f in (u, f"{u}/*")]}
        ],
        "incomplete": False,
    }
    spec = _mapping(body.get("spec"))
    return await _answer(request, "SelfSubjectRulesReview", AUTHORIZATION, spec, status)


async def whoami(request: web.Request) -> web.StreamResponse:
    """selfsubjectreviews: who am I?"""
    await _body(request)
    caller = request[CALLER]
    user = {"username": caller.name, "groups": sorted(caller.groups)}
    return await _answer(request, "SelfSubjectReview", AUTHENTICATION, None, {"userInfo": user})


async def _body(request: web.Request) -> Json:
    found, _ = await bodies.document(request, writing.write_query(request))
    return found


def _mapping(value: Any) -> Json:
    return value if isinstance(value, dict) else {}


async def _answer(
    request: web.Request, kind: str, group: str, spec: Json | None, status: Json
) -> web.StreamResponse:
    # In the version that was asked for: older kubectl knows no other.
    version = request.path.split("/")[3]
    document: Json = {
        "kind": kind,
        "apiVersion": f"{group}/{version}",
        "metadata": {"creationTimestamp": None},
        "status": status,
    }
    if spec is not None:
        document["spec"] = spec
    return await rendering.plain(request, document, status=201)
