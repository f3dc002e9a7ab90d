"""`explain` and `api-resources`: what the service says of its own kinds."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

from cli import tabular
from cli.client import Client
from cli.kinds import Kinds, Resource
from cli.problems import Problem

Json = dict[str, Any]

WIDTH = 80
DEPTH_MAX = 24
ENUM_SHOWN = 4
_GVK = "x-kubernetes-group-version-kind"


class NoSuchField(Problem):
    """The kind has no such field."""


class Unexplained(Problem):
    """The service has no words for the kind."""


def explain(client: Client, kinds: Kinds, asked: str, *, recursive: bool = False) -> str:
    """`fleet.spec.template` in the form of kubectl. Raises Problem."""
    resource, path = _split(kinds, asked)
    schemas = Schemas(_document(client, resource))
    schema = schemas.of_kind(resource)
    if schema is None:
        raise Unexplained(f"the service describes no fields of {resource.resource}")
    for name in path:
        schema = schemas.field(schema, name)
    lines = [
        *([f"GROUP:      {resource.group}"] if resource.group else ()),
        f"KIND:       {resource.kind}",
        f"VERSION:    {resource.version}",
        "",
    ]
    if path:
        lines += [f"FIELD: {path[-1]} <{schemas.type_of(schema)}>"]
        if values := schema.get("enum"):
            lines += ["ENUM:", *(f"    {value}" for value in values)]
        lines.append("")
    words = textwrap.wrap(schema.get("description") or "<empty>", WIDTH - 4)
    lines += ["DESCRIPTION:", *(f"    {line}" for line in words), ""]
    fields = list(schemas.fields(schema, recursive=recursive))
    if fields:
        lines += ["FIELDS:", *fields, ""]
    return "\n".join(lines)


def listed(resources: Sequence[Resource], output: str, *, headers: bool) -> str:
    """What `api-resources` prints."""
    ordered = sorted(resources, key=lambda each: (each.group, each.plural))
    if output == "name":
        return "".join(f"{each.resource}\n" for each in ordered)
    head = ["NAME", "SHORTNAMES", "APIVERSION", "NAMESPACED", "KIND"]
    rows = [
        [
            each.plural,
            ",".join(each.short_names),
            each.api_version,
            "true" if each.namespaced else "false",
            each.kind,
        ]
        for each in ordered
    ]
    if output == "wide":
        head += ["VERBS", "CATEGORIES"]
        for row, each in zip(rows, ordered, strict=True):
            row += [",".join(each.verbs), ",".join(each.categories)]
    return "".join(f"{line}\n" for line in tabular.aligned([head, *rows] if headers else rows))


class Schemas:
    """The schemas of one group and version."""

    def __init__(self, document: Json) -> None:
        self._schemas: Json = document["components"]["schemas"]

    def of_kind(self, resource: Resource) -> Json | None:
        wanted = {"group": resource.group, "version": resource.version, "kind": resource.kind}
        for schema in self._schemas.values():
            if wanted in (schema.get(_GVK) or ()):
                return self._resolved(schema)
        return None

    def field(self, schema: Json, name: str) -> Json:
        """Of an object, of the elements of a list, of the values of a map."""
        properties = self._properties(schema)
        if name in properties:
            return self._resolved(properties[name])
        raise NoSuchField(
            f'field "{name}" does not exist',
            f"there are: {', '.join(sorted(properties)) or 'none below this one'}",
        )

    def fields(self, schema: Json, *, recursive: bool) -> Iterator[str]:
        yield from self._fields(schema, 1, recursive=recursive)

    def _fields(self, schema: Json, depth: int, *, recursive: bool) -> Iterator[str]:
        required = schema.get("required") or self._inner(schema).get("required") or ()
        indent = "  " * depth
        for name, raw in sorted(self._properties(schema).items()):
            field = self._resolved(raw)
            must = " -required-" if name in required else ""
            yield f"{indent}{name}\t<{self.type_of(field)}>{must}"
            if values := field.get("enum"):
                more = ", ...." if len(values) > ENUM_SHOWN else ""
                yield f"{indent}enum: {', '.join(str(v) for v in values[:ENUM_SHOWN])}{more}"
            if recursive:
                if depth < DEPTH_MAX:
                    yield from self._fields(field, depth + 1, recursive=True)
                continue
            words = field.get("description") or "<no description>"
            yield from (f"{indent}  {line}" for line in textwrap.wrap(words, WIDTH - 4))
            yield ""

    def type_of(self, schema: Json) -> str:
        """As kubectl says it: `[]Object`, `map[string]string`, `ObjectMeta`."""
        if name := schema.get("_name"):
            return str(name)
        match schema.get("type"):
            case "array":
                return f"[]{self._simple(schema.get('items') or {})}"
            case "object" | None:
                values = schema.get("additionalProperties")
                if isinstance(values, dict):
                    return f"map[string]{self._simple(values)}"
                return "Object"
            case other:
                return str(other)

    def _simple(self, schema: Json) -> str:
        return self.type_of(self._resolved(schema))

    def _properties(self, schema: Json) -> Json:
        found: Json = schema.get("properties") or self._inner(schema).get("properties") or {}
        return found

    def _inner(self, schema: Json) -> Json:
        """What a list is of, or a map is to."""
        inner = schema.get("items") or schema.get("additionalProperties")
        return self._resolved(inner) if isinstance(inner, dict) else {}

    def _resolved(self, schema: Json) -> Json:
        """A reference, followed; what stands beside it, such as a description, rules."""
        parts = schema.get("allOf") or ()
        pointer = schema.get("$ref") or next((p["$ref"] for p in parts if "$ref" in p), None)
        if pointer is None:
            return schema
        name = str(pointer).rpartition("/")[2]
        own = {key: value for key, value in schema.items() if key not in ("$ref", "allOf")}
        target = self._resolved(self._schemas[name])
        return target | {"_name": name.rpartition(".")[2]} | own


def _split(kinds: Kinds, asked: str) -> tuple[Resource, list[str]]:
    """The kind and the fields after it; `fleets.flightctl.io` is a kind too."""
    words = asked.removesuffix(".").split(".")
    for resource in kinds.all():
        group = resource.group.split(".") if resource.group else []
        for prefix in (group, [resource.version, *group]):
            count = 1 + len(prefix)
            if group and words[1:count] == prefix and resource.answers_to(words[0]):
                return resource, words[count:]
    return kinds.find(words[0]), words[1:]


def _document(client: Client, resource: Resource) -> Json:
    paths = client.ask("GET", "/openapi/v3")["paths"]
    key = f"apis/{resource.api_version}" if resource.group else f"api/{resource.version}"
    if key not in paths:
        raise Unexplained(f"the service describes nothing of {resource.api_version}")
    return client.ask("GET", paths[key]["serverRelativeURL"])
