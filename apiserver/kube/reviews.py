"""Reviews: `kubectl auth can-i`, `can-i --list` and `whoami`, and what others may do.

A caller may always ask about itself; about others, whoever may create such reviews: administrators.
The answers come from the same table that refuses, so they cannot differ from what would happen.
Newer kubectl sends its bodies in protobuf.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from apiserver.auth import roles
from apiserver.auth.identity import Caller
from apiserver.catalogue import Catalogue
from apiserver.errors import Unprocessable
from apiserver.kube import bodies, rendering, writing
from apiserver.kube.authenticating import CALLER
from apiserver.kube.face import FACE
from resources.errors import INVALID, REQUIRED, TYPE_INVALID, FieldError
from resources.kind import Json

AUTHORIZATION = "authorization.k8s.io"
AUTHENTICATION = "authentication.k8s.io"
# Anybody who is known may read what the server is and what it serves.
_OPEN_URLS = ("/api", "/apis", "/healthz", "/livez", "/openapi", "/readyz", "/version")


async def access(request: web.Request) -> web.StreamResponse:
    """selfsubjectaccessreviews: may I do this?"""
    body = await _body(request)
    spec = _mapping(body.get("spec"))
    status = _judged(request, request[CALLER], spec)
    return await _answer(request, "SelfSubjectAccessReview", AUTHORIZATION, spec, status)


async def access_of_others(request: web.Request) -> web.StreamResponse:
    """subjectaccessreviews, and localsubjectaccessreviews in a namespace: may they do this?"""
    namespace = request.match_info.get("namespace", "")
    kind = "LocalSubjectAccessReview" if namespace else "SubjectAccessReview"
    plural = f"{kind.lower()}s"
    caller = request[CALLER]
    if not roles.permits(caller, "create", plural, "", namespace):
        raise roles.refusal(caller, "create", plural, AUTHORIZATION, namespace=namespace)
    body = await _body(request)
    spec = _mapping(body.get("spec"))
    _check(spec, namespace)
    # As if they had proved it: groups give the role, whatever the name.
    role = roles.role_of(frozenset(spec.get("groups") or ()))
    status = _judged(request, Caller(spec.get("user") or "", role=role), spec)
    return await _answer(request, kind, AUTHORIZATION, spec, status)


def _check(spec: Json, namespace: str) -> None:
    """Raises Unprocessable unless somebody is named, and one thing to do, here."""
    user, groups = spec.get("user") or "", spec.get("groups") or []
    if not isinstance(groups, list) or not all(isinstance(group, str) for group in groups):
        raise _unprocessable("spec.groups", TYPE_INVALID, "must be a list of texts")
    if not isinstance(user, str):
        raise _unprocessable("spec.user", TYPE_INVALID, "must be a text")
    if not user and not groups:
        raise _unprocessable("spec.user", REQUIRED, "at least one of user or groups must be named")
    on_object = isinstance(spec.get("resourceAttributes"), dict)
    on_path = isinstance(spec.get("nonResourceAttributes"), dict)
    if on_object == on_path:
        detail = "exactly one of resourceAttributes and nonResourceAttributes must be given"
        raise _unprocessable("spec.resourceAttributes", INVALID, detail)
    if not namespace:
        return
    if on_path:
        raise _unprocessable("spec.nonResourceAttributes", INVALID, "paths are in no namespace")
    if spec["resourceAttributes"].get("namespace") != namespace:
        detail = f'must be "{namespace}", the namespace of the request'
        raise _unprocessable("spec.resourceAttributes.namespace", INVALID, detail)


def _unprocessable(path: str, reason: str, detail: str) -> Unprocessable:
    return Unprocessable(f"{path}: {detail}", causes=[FieldError(path, reason, detail)])


def _judged(request: web.Request, caller: Caller, spec: Json) -> Json:
    """The status: whether `caller` may do what `spec` says."""
    attributes = spec.get("resourceAttributes")
    namespace = ""
    if isinstance(attributes, dict):
        allowed = _may(request.app[FACE].catalogue, caller, attributes)
        namespace = str(attributes.get("namespace") or "")
    else:
        path = str(_mapping(spec.get("nonResourceAttributes")).get("path", ""))
        allowed = _may_see(caller, path)
    if allowed:
        return {"allowed": True}
    held = " or ".join(f'"{role}"' for role in sorted(caller.roles_in(namespace)))
    return {"allowed": False, "reason": f"the role {held} does not allow it"}


def _may(catalogue: Catalogue, caller: Caller, attributes: Json) -> bool:
    def text(name: str) -> str:
        value = attributes.get(name)
        return value if isinstance(value, str) else ""

    verb, subresource, namespace = text("verb"), text("subresource"), text("namespace")
    group, resource = text("group"), text("resource")
    for kind in catalogue.kinds:
        if kind.plural == resource and group in (kind.group, "*"):
            return roles.may(caller, verb, kind, subresource, namespace, text("name"))
    return roles.permits(caller, verb, resource, subresource, namespace)


def _may_see(caller: Caller, path: str) -> bool:
    everything = roles.permits(caller, "*", "*")
    return everything or any(path == url or path.startswith(url + "/") for url in _OPEN_URLS)


async def rules(request: web.Request) -> web.StreamResponse:
    """selfsubjectrulesreviews: what may I do?"""
    body = await _body(request)
    spec = _mapping(body.get("spec"))
    namespace = spec.get("namespace")
    held = request[CALLER].roles_in(namespace if isinstance(namespace, str) else "")
    status = {
        "resourceRules": roles.rules(held),
        "nonResourceRules": [
            {"verbs": ["get"], "nonResourceURLs": [f for u in _OPEN_URLS for f in (u, f"{u}/*")]}
        ],
        "incomplete": False,
    }
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
