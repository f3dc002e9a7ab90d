"""Swagger 2.0 as protobuf, in the form that gnostic gave it: `openapi.v2.Document`. Pure.

kubectl up to 1.28 validates by it and creates nothing without it; Argo CD's cache waits for it.
JSON that protobuf has no field for (defaults, enumerations, `x-` extensions) stands in it as a text
of YAML, of which JSON is a part. The numbers are those of gnostic's OpenAPIv2.proto.
"""

from __future__ import annotations

from typing import Any

from apiserver.wire import protobuf
from apiserver.wire.protobuf import Message
from resources.digest import canonical
from resources.kind import Json

# client-go asks for the first; `@` is no character of a media type, so newer ones know the second.
MEDIA = (
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
)

_ANY: Message = {2: ("yaml", "text")}
_NAMED_ANY: Message = {1: ("name", "text"), 2: ("value", _ANY)}
_EXTENSIONS = ("extensions", [_NAMED_ANY])


def _named(value: Message) -> Message:
    return {1: ("name", "text"), 2: ("value", value)}


# A schema holds schemas: the table is filled in after it exists.
_schema: dict[int, Any] = {}
SCHEMA: Message = _schema
_schema |= {
    1: ("$ref", "text"), 2: ("format", "text"), 3: ("title", "text"), 4: ("description", "text"),
    5: ("default", _ANY), 7: ("maximum", "double"), 9: ("minimum", "double"),
    11: ("maxLength", "int"), 12: ("minLength", "int"), 13: ("pattern", "text"),
    14: ("maxItems", "int"), 15: ("minItems", "int"), 16: ("uniqueItems", "bool"),
    19: ("required", ["text"]), 20: ("enum", [_ANY]),
    21: ("additionalProperties", {1: ("schema", SCHEMA), 2: ("boolean", "bool")}),
    22: ("type", {1: ("value", ["text"])}), 23: ("items", {1: ("schema", [SCHEMA])}),
    24: ("allOf", [SCHEMA]), 25: ("properties", {1: ("entries", [_named(SCHEMA)])}),
    31: _EXTENSIONS,
}  # fmt: skip
_BODY: Message = {
    1: ("description", "text"), 2: ("name", "text"), 3: ("in", "text"), 4: ("required", "bool"),
    5: ("schema", SCHEMA),
}  # fmt: skip
_QUERY: Message = {
    1: ("required", "bool"), 2: ("in", "text"), 3: ("description", "text"), 4: ("name", "text"),
    6: ("type", "text"),
}  # fmt: skip
_PATH: Message = {
    1: ("required", "bool"), 2: ("in", "text"), 3: ("description", "text"), 4: ("name", "text"),
    5: ("type", "text"),
}  # fmt: skip
_NON_BODY: Message = {3: ("query", _QUERY), 4: ("path", _PATH)}
_PARAMETER: Message = {1: ("parameter", {1: ("body", _BODY), 2: ("other", _NON_BODY)})}
_RESPONSE: Message = {
    1: ("response", {1: ("description", "text"), 2: ("schema", {1: ("schema", SCHEMA)})})
}
_OPERATION: Message = {
    3: ("description", "text"), 5: ("operationId", "text"), 6: ("produces", ["text"]),
    7: ("consumes", ["text"]), 8: ("parameters", [_PARAMETER]),
    9: ("responses", {1: ("codes", [_named(_RESPONSE)])}), 13: _EXTENSIONS,
}  # fmt: skip
_ITEM: Message = {
    2: ("get", _OPERATION), 3: ("put", _OPERATION), 4: ("post", _OPERATION),
    5: ("delete", _OPERATION), 8: ("patch", _OPERATION), 9: ("parameters", [_PARAMETER]),
}  # fmt: skip
DOCUMENT: Message = {
    1: ("swagger", "text"),
    2: ("info", {1: ("title", "text"), 2: ("version", "text")}),
    8: ("paths", {2: ("items", [_named(_ITEM)])}),
    9: ("definitions", {1: ("entries", [_named(SCHEMA)])}),
}


def encode(document: Json) -> bytes:
    """The bytes of a swagger document that `openapi.v2` made."""
    return protobuf.encode(DOCUMENT, turned(document))


def turned(document: Json) -> Json:
    """The document in the shape of the message."""
    return {
        "swagger": document["swagger"],
        "info": document["info"],
        "paths": {"items": _entries({p: _item(i) for p, i in document["paths"].items()})},
        "definitions": {
            "entries": _entries({n: _schema_of(s) for n, s in document["definitions"].items()})
        },
    }


def _entries(values: Json) -> list[Json]:
    return [{"name": name, "value": value} for name, value in values.items()]


def _item(item: Json) -> Json:
    made: Json = {}
    for key, value in item.items():
        made[key] = [_parameter(p) for p in value] if key == "parameters" else _operation(value)
    return made


def _operation(operation: Json) -> Json:
    made = _plain(operation)
    made["parameters"] = [_parameter(p) for p in operation.get("parameters", ())]
    codes = {
        code: {
            "response": {
                "description": answer["description"],
                "schema": {"schema": _schema_of(answer["schema"])},
            }
        }
        for code, answer in operation["responses"].items()
    }
    made["responses"] = {"codes": _entries(codes)}
    return made


def _parameter(parameter: Json) -> Json:
    if parameter["in"] == "body":
        body = parameter | {"schema": _schema_of(parameter["schema"])}
        return {"parameter": {"body": body}}
    return {"parameter": {"other": {parameter["in"]: parameter}}}


def _schema_of(schema: Json) -> Json:
    made = _plain(schema)
    if "default" in made:
        made["default"] = _any(made["default"])
    if "enum" in made:
        made["enum"] = [_any(value) for value in made["enum"]]
    if "type" in made:
        made["type"] = {"value": [made["type"]]}
    if "items" in made:
        made["items"] = {"schema": [_schema_of(made["items"])]}
    if "allOf" in made:
        made["allOf"] = [_schema_of(inner) for inner in made["allOf"]]
    if "properties" in made:
        inner = {name: _schema_of(value) for name, value in made["properties"].items()}
        made["properties"] = {"entries": _entries(inner)}
    extra = made.get("additionalProperties")
    if isinstance(extra, dict):
        made["additionalProperties"] = {"schema": _schema_of(extra)}
    elif extra is not None:
        made["additionalProperties"] = {"boolean": extra}
    return made


def _plain(node: Json) -> Json:
    """What has fields of its own, and the extensions beside it."""
    made = {key: value for key, value in node.items() if not key.startswith("x-")}
    extensions = {key: _any(value) for key, value in node.items() if key.startswith("x-")}
    if extensions:
        made["extensions"] = _entries(extensions)
    return made


def _any(value: Any) -> Json:
    return {"yaml": canonical(value).decode()}
