"""The schemas of what is served: OpenAPI v3 for kubectl, swagger 2.0 for aggregators. Pure.

kubectl explains kinds, and validates and patches by these documents. Two things in them decide how
it behaves: a PATCH operation that names its kind and takes `fieldValidation` makes it leave
validation to the server, and the patch types that are listed are the ones that it sends. So only
types that we serve are listed, and never the strategic merge, which we don't.
"""

from __future__ import annotations

import functools
from typing import Any

from apiserver.catalogue import Catalogue
from apiserver.wire import accept, patch
from resources import digest, schema
from resources.copying import copied
from resources.kind import Json, Kind
from resources.meta import ObjectMeta

_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
OBJECT_META = f"{_META}.ObjectMeta"
LIST_META = f"{_META}.ListMeta"
STATUS = f"{_META}.Status"
DELETE_OPTIONS = f"{_META}.DeleteOptions"

_KNOWN_GROUPS = {"": "io.k8s.api.core"}
_GVK = "x-kubernetes-group-version-kind"


def index(catalogue: Catalogue) -> Json:
    """`/openapi/v3`: where the document of each group and version is, under its hash."""
    return {
        "paths": {
            path_of(g, v): {
                "serverRelativeURL": f"/openapi/v3/{path_of(g, v)}?hash={hash_of(catalogue, g, v)}"
            }
            for g, v in catalogue.group_versions
        }
    }


def path_of(group: str, version: str) -> str:
    return f"apis/{group}/{version}" if group else f"api/{version}"


@functools.lru_cache(maxsize=64)
def hash_of(catalogue: Catalogue, group: str, version: str) -> str:
    """The hash in the address of a group's document; it changes when the document does."""
    return digest.of(v3(catalogue, group, version)).removeprefix(digest.PREFIX)[:32].upper()


@functools.lru_cache(maxsize=64)
def v3(catalogue: Catalogue, group: str, version: str) -> Json:
    """The document of one group and version. Look, don't touch: it is shared."""
    kinds = catalogue.of(group, version)
    paths: Json = {}
    schemas: Json = dict(_shared_schemas())
    for kind in kinds:
        paths |= _paths(kind)
        schemas |= _schemas(kind)
    return {
        "openapi": "3.0.0",
        "info": {"title": "Homeport", "version": "v1"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def schema_name(kind: Kind) -> str:
    """`io.flightctl.v1beta1.Device`: the group backwards, as Kubernetes names schemas."""
    group = _KNOWN_GROUPS.get(kind.group) or ".".join(reversed(kind.group.split(".")))
    return f"{group}.{kind.version}.{kind.kind}"


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _gvk(kind: Kind, suffix: str = "") -> Json:
    return {"group": kind.group, "kind": kind.kind + suffix, "version": kind.version}


def _schemas(kind: Kind) -> Json:
    document = schema.openapi_schema(kind.model)
    described = document["properties"]["metadata"].get("description", "Standard metadata.")
    document["properties"]["metadata"] = {
        "description": described,
        "allOf": [_ref(OBJECT_META)],
        "default": {},
    }
    document["description"] = kind.description
    document[_GVK] = [_gvk(kind)]
    name = schema_name(kind)
    listed: Json = {
        "type": "object",
        "description": f"A list of {kind.plural}.",
        "required": ["items"],
        "properties": {
            "apiVersion": _text("Group and version of the schema."),
            "kind": _text("Name of the kind."),
            "metadata": {"description": "Metadata of the list.", "allOf": [_ref(LIST_META)]},
            "items": {
                "type": "array",
                "description": f"The {kind.plural}.",
                "items": {"allOf": [_ref(name)], "default": {}},
            },
        },
        _GVK: [_gvk(kind, "List")],
    }
    return {name: document, f"{name}List": listed}


def _text(description: str, **more: Any) -> Json:
    return {"type": "string", "description": description, **more}


@functools.cache
def _shared_schemas() -> Json:
    metadata = schema.openapi_schema(ObjectMeta)
    for name in ("creationTimestamp", "deletionTimestamp"):
        metadata["properties"][name].pop("pattern", None)
    listed = {
        "resourceVersion": _text("Version of the store that the list shows."),
        "continue": _text("Token with which the next page is asked for."),
        "remainingItemCount": {
            "type": "integer",
            "format": "int64",
            "description": "How many objects the following pages have.",
        },
    }
    status = {
        "apiVersion": _text("Group and version of the schema."),
        "kind": _text("Name of the kind."),
        "metadata": {"description": "Metadata of the answer.", "allOf": [_ref(LIST_META)]},
        "status": _text("Success or Failure."),
        "message": _text("What happened, for people."),
        "reason": _text("What happened, for programs."),
        "code": {"type": "integer", "format": "int32", "description": "HTTP status code."},
    }
    delete = {
        "apiVersion": _text("Group and version of the schema."),
        "kind": _text("Name of the kind."),
        "propagationPolicy": _text("Orphan, Background or Foreground."),
        "gracePeriodSeconds": {
            "type": "integer",
            "format": "int64",
            "description": "Accepted and ignored: nothing here ends slowly.",
        },
        "dryRun": {
            "type": "array",
            "description": "All, or absent.",
            "items": _text("All."),
        },
    }
    return {
        OBJECT_META: metadata,
        LIST_META: _object("Metadata of a list.", listed),
        STATUS: _object("Answer without an object.", status),
        DELETE_OPTIONS: _object("How to delete.", delete),
    }


def _object(description: str, properties: Json) -> Json:
    return {"type": "object", "description": description, "properties": properties}


# --- paths ---------------------------------------------------------------------------------------


def _paths(kind: Kind) -> Json:
    prefix = f"/{path_of(kind.group, kind.version)}"
    paths: Json = {}
    if kind.namespaced:
        everywhere = f"{prefix}/{kind.plural}"
        paths[everywhere] = {"get": _operation(kind, "list")}
        prefix += "/namespaces/{namespace}"
    collection = f"{prefix}/{kind.plural}"
    item = f"{collection}/{{name}}"
    paths[collection] = _methods(
        kind, {"get": "list", "post": "create", "delete": "deletecollection"}, kind.verbs
    )
    paths[item] = _methods(
        kind, {"get": "get", "put": "update", "patch": "patch", "delete": "delete"}, kind.verbs
    )
    for sub in kind.subresources:
        methods = {"get": "get", "put": "update", "patch": "patch", "post": "create"}
        paths[f"{item}/{sub.name}"] = _methods(kind, methods, sub.verbs)
    for path, operations in paths.items():
        operations["parameters"] = [
            _parameter(name, "path", required=True)
            for name in ("namespace", "name")
            if f"{{{name}}}" in path
        ]
    return paths


def _methods(kind: Kind, methods: dict[str, str], verbs: tuple[str, ...]) -> Json:
    return {m: _operation(kind, verb) for m, verb in methods.items() if verb in verbs}


_ACTIONS = {"create": "post", "update": "put"}
_QUERY: dict[str, tuple[str, ...]] = {
    "list": ("labelSelector", "fieldSelector", "limit", "continue", "resourceVersion",
             "resourceVersionMatch", "watch", "allowWatchBookmarks", "timeoutSeconds",
             "sendInitialEvents"),
    "get": (),
    "create": ("dryRun", "fieldManager", "fieldValidation"),
    "update": ("dryRun", "fieldManager", "fieldValidation"),
    "patch": ("dryRun", "fieldManager", "fieldValidation", "force"),
    "delete": ("dryRun", "propagationPolicy", "gracePeriodSeconds"),
    "deletecollection": ("dryRun", "labelSelector", "fieldSelector"),
}  # fmt: skip
_TYPES = {
    "limit": "integer", "timeoutSeconds": "integer", "gracePeriodSeconds": "integer",
    "watch": "boolean", "allowWatchBookmarks": "boolean", "sendInitialEvents": "boolean",
    "force": "boolean",
}  # fmt: skip


def _operation(kind: Kind, verb: str) -> Json:
    answer = schema_name(kind) + ("List" if verb == "list" else "")
    operation: Json = {
        "description": f"{verb} {kind.plural}",
        "parameters": [_parameter(name, "query") for name in _QUERY[verb]],
        "responses": {
            "200": {
                "description": "OK",
                "content": {accept.JSON: {"schema": _ref(answer)}},
            }
        },
        "x-kubernetes-action": _ACTIONS.get(verb, verb),
        _GVK: _gvk(kind),
    }
    if verb in ("create", "update"):
        media = {name: {"schema": _ref(schema_name(kind))} for name in (accept.JSON, accept.YAML)}
        operation["requestBody"] = {"content": media, "required": True}
    elif verb == "patch":
        content = {media: {"schema": {"type": "object"}} for media in patch.SERVED}
        operation["requestBody"] = {"content": content, "required": True}
    elif verb in ("delete", "deletecollection"):
        operation["requestBody"] = {"content": {accept.JSON: {"schema": _ref(DELETE_OPTIONS)}}}
    return operation


def _parameter(name: str, where: str, *, required: bool = False) -> Json:
    parameter: Json = {
        "name": name,
        "in": where,
        "schema": {"type": _TYPES.get(name, "string"), "uniqueItems": True},
    }
    if required:
        parameter["required"] = True
    return parameter


# --- swagger 2.0 ---------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8)
def v2(catalogue: Catalogue) -> Json:
    """All groups as one swagger 2.0 document, derived from the v3 documents."""
    paths: Json = {}
    definitions: Json = {}
    for g, v in catalogue.group_versions:
        document = v3(catalogue, g, v)
        paths |= {path: _v2_item(item) for path, item in document["paths"].items()}
        definitions |= document["components"]["schemas"]
    return {
        "swagger": "2.0",
        "info": {"title": "Homeport", "version": "v1"},
        "paths": paths,
        "definitions": _v2_schema(copied(definitions)),
    }


def _v2_item(item: Json) -> Json:
    made: Json = {}
    for key, value in item.items():
        made[key] = _v2_parameters(value) if key == "parameters" else _v2_operation(value)
    return made


def _v2_parameters(parameters: list[Json]) -> list[Json]:
    return [
        {k: v for k, v in p.items() if k != "schema"} | {"type": p["schema"]["type"]}
        for p in parameters
    ]


def _v2_operation(operation: Json) -> Json:
    made = {k: v for k, v in operation.items() if k not in ("requestBody", "responses")}
    made["parameters"] = _v2_parameters(operation["parameters"])
    body = operation.get("requestBody")
    if body is not None:
        made["consumes"] = list(body["content"])
        first = next(iter(body["content"].values()))
        made["parameters"].append(
            {"name": "body", "in": "body", "schema": _v2_schema(copied(first["schema"]))}
        )
    made["produces"] = [accept.JSON]
    answer = operation["responses"]["200"]["content"][accept.JSON]["schema"]
    made["responses"] = {"200": {"description": "OK", "schema": _v2_schema(dict(answer))}}
    return made


def _v2_schema(node: Any) -> Any:
    """References point to `definitions`; one wrapped in allOf stands alone, as v2 has it."""
    if isinstance(node, list):
        return [_v2_schema(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    wrapped = node.get("allOf")
    if isinstance(wrapped, list) and len(wrapped) == 1 and "$ref" in wrapped[0]:
        node = {**wrapped[0], "description": node.get("description", "")}
    made = {key: _v2_schema(value) for key, value in node.items()}
    if isinstance(made.get("$ref"), str):
        made["$ref"] = made["$ref"].replace("#/components/schemas/", "#/definitions/")
    return made
