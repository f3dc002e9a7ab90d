"""From method and path to what is meant: which kind, where, which verb; or 404 and 405.

The invariant: a handler that runs has a kind that serves the verb at that place, and a caller who
may do it. Routes are one pattern, not one a kind, so that a kind added to the catalogue is served.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from aiohttp import web

from apiserver.auth import roles
from apiserver.auth.identity import Caller
from apiserver.errors import MethodNotAllowed, NotFound
from apiserver.kube.authenticating import CALLER
from apiserver.kube.face import FACE
from apiserver.wire import options, paths
from resources.kind import Kind
from resources.selectors import FieldSelector, Requirement

ON_COLLECTION: Mapping[str, str] = {"GET": "list", "POST": "create", "DELETE": "deletecollection"}
ON_OBJECT: Mapping[str, str] = {
    "GET": "get",
    "PUT": "update",
    "PATCH": "patch",
    "DELETE": "delete",
}
ON_SUBRESOURCE: Mapping[str, str] = {
    "GET": "get",
    "PUT": "update",
    "PATCH": "patch",
    "POST": "create",
}


@dataclass(frozen=True, slots=True)
class Target:
    """`namespace` is None for all namespaces of a namespaced kind, "" for cluster-scoped kinds;
    `among` are the names that the caller may see, None for all."""

    kind: Kind
    verb: str
    caller: Caller
    namespace: str | None
    name: str = ""
    subresource: str = ""
    among: tuple[str, ...] | None = None

    def confined(self, fields: FieldSelector | None) -> FieldSelector | None:
        """What was asked for, of what the caller may see."""
        if self.among is None:
            return fields
        own = Requirement("metadata.name", "in", self.among)
        return FieldSelector((*(fields.requirements if fields else ()), own))

    @property
    def place(self) -> str:
        """The namespace where there is one; "" elsewhere."""
        return self.namespace or ""


def nothing_here() -> NotFound:
    """What Kubernetes says of paths that it does not know; kubectl reads it as such."""
    return NotFound("the server could not find the requested resource")


def named(request: web.Request) -> tuple[Kind, paths.ResourcePath] | None:
    """The kind and the place that the path names; None for one that means nothing."""
    group = request.match_info.get("group", "")
    version = request.match_info["version"]
    # The raw path: a name may hold an encoded slash, which must not become a segment.
    depth = 3 if not group else 4
    parts = [unquote(part) for part in request.rel_url.raw_path.split("/")[depth:]]
    path = paths.parse(group, version, parts)
    if path is None:
        return None
    kind = request.app[FACE].catalogue.by_path(path.group, path.version, path.plural)
    if kind is None or (path.namespaced and not kind.namespaced):
        return None
    return kind, path


def resolve(request: web.Request) -> Target:
    """What an authenticated request is about. Raises NotFound, MethodNotAllowed, Forbidden."""
    found = named(request)
    if found is None:
        raise nothing_here()
    kind, path = found
    everywhere = kind.namespaced and not path.namespaced
    if everywhere and path.name:
        raise nothing_here()
    verb = _verb(request, kind, path, everywhere)
    caller = request[CALLER]
    roles.authorize(caller, verb, kind, path.subresource, path.namespace, path.name)
    namespace = None if everywhere else path.namespace
    among = roles.confined_to(caller, verb, kind)
    return Target(kind, verb, caller, namespace, path.name, path.subresource, among)


def verb_of(request: web.Request, path: paths.ResourcePath) -> str:
    """What the method means there, but for watches; empty where it means nothing."""
    method = "GET" if request.method == "HEAD" else request.method
    if path.subresource:
        return ON_SUBRESOURCE.get(method, "")
    return (ON_OBJECT if path.name else ON_COLLECTION).get(method, "")


def _verb(request: web.Request, kind: Kind, path: paths.ResourcePath, everywhere: bool) -> str:
    served = kind.verbs
    if path.subresource:
        found = next((s for s in kind.subresources if s.name == path.subresource), None)
        if found is None:
            raise nothing_here()
        served = found.verbs
    verb = verb_of(request, path)
    if verb in ("list", "get") and not path.subresource and options.is_watch(request.query):
        verb = "watch"
    if verb not in served or (everywhere and verb not in ("list", "watch")):
        raise MethodNotAllowed(
            "the server does not allow this method on the requested resource", kind=kind
        )
    return verb
