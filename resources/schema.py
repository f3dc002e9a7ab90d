"""From models to structural OpenAPI: the one generator behind CRDs, /openapi/v3 and the docs.

The invariant: what comes out is structural in Kubernetes' sense. Every node has a type (or is
marked int-or-string or open), nothing is referenced, no branch hides properties, `null` is spelled
as absence, and patterns mean the same to Go. A union of objects becomes one object that has the
properties of all; what its branches forbid each other is left to validation, which can say it
better. It refuses a model that cannot be put so, with TypeError, when the generator runs.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from resources.copying import copied
from resources.kind import Column, Json, Kind
from resources.registry import KINDS

# Keys that mean in OpenAPI v3 what they mean in JSON Schema.
_KEPT = (
    "type", "format", "description", "enum", "pattern", "minLength", "maxLength", "minimum",
    "maximum", "minItems", "maxItems", "required",
)  # fmt: skip
_FORMAT_LIMITS = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
}
_PRESERVE = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING = "x-kubernetes-int-or-string"
# What Kubernetes allows in one version of a CRD.
_MAX_SELECTABLE = 8


def openapi_schema(model: type[BaseModel]) -> Json:
    """The structural schema of a model; the caller owns it."""
    return copied(structural(model))


@functools.cache
def structural(model: type[BaseModel]) -> Json:
    """`openapi_schema`, shared by all callers: look, don't touch."""
    raw = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(raw, raw.get("$defs", {}), model.__name__)


def _convert(node: Json, defs: Json, where: str) -> Json:
    node = _resolved(node, defs)
    if node.get(_INT_OR_STRING):
        return {"description": node["description"], _INT_OR_STRING: True}
    if "oneOf" in node:
        return _merged(node, defs, where)
    schema: Json = {key: node[key] for key in _KEPT if key in node}
    for bound in ("minimum", "maximum"):
        # The format says so already.
        if schema.get(bound) in _FORMAT_LIMITS.get(schema.get("format", ""), ()):
            del schema[bound]
    if "const" in node:
        schema["enum"] = [node["const"]]
    schema |= {key: value for key, value in node.items() if key.startswith("x-kubernetes-")}
    if "items" in node:
        schema["items"] = _convert(node["items"], defs, f"{where}[]")
    if "properties" in node:
        schema["properties"] = {
            name: _convert(value, defs, f"{where}.{name}")
            for name, value in node["properties"].items()
        }
    extra = node.get("additionalProperties")
    if isinstance(extra, dict) and "properties" not in node:
        schema["additionalProperties"] = _convert(extra, defs, f"{where}.*")
    elif extra is True and "properties" not in node:
        schema[_PRESERVE] = True
    if "type" not in schema:
        raise TypeError(f"{where}: no type to publish for {node}")
    return schema


def _resolved(node: Json, defs: Json) -> Json:
    """Follows references and drops `null`; what stands beside a reference wins over it."""
    while True:
        if "$ref" in node:
            target = defs[node["$ref"].rpartition("/")[2]]
            node = {**target, **{k: v for k, v in node.items() if k != "$ref"}}
        elif "anyOf" in node:
            options = [o for o in node["anyOf"] if o.get("type") != "null"]
            rest = {k: v for k, v in node.items() if k != "anyOf"}
            if len(options) != 1:
                if rest.get(_INT_OR_STRING):
                    return rest
                raise TypeError(f"a union that no structural schema can say: {node}")
            node = {**options[0], **rest}
        else:
            return node


def _merged(node: Json, defs: Json, where: str) -> Json:
    """One object for a union of objects."""
    branches = [_convert(option, defs, where) for option in node["oneOf"]]
    discriminator = _discriminator(branches)
    required = set.intersection(*(set(branch.get("required", ())) for branch in branches))
    properties: Json = {}
    for name in dict.fromkeys(name for branch in branches for name in branch["properties"]):
        having = [branch for branch in branches if name in branch["properties"]]
        merged = copied(having[0]["properties"][name])
        if name == discriminator:
            values = {b["properties"][name]["enum"][0]: b["properties"][name] for b in branches}
            merged["enum"] = list(values)
            texts = dict.fromkeys(f"{v}: {p['description']}" for v, p in values.items())
            if len({p["description"] for p in values.values()}) == 1:
                texts = dict.fromkeys([merged["description"]])
            merged["description"] = " ".join(texts)
        elif discriminator and len(having) < len(branches):
            owners = ", ".join(b["properties"][discriminator]["enum"][0] for b in having)
            merged["description"] = f"{merged['description']} Only with {discriminator} {owners}."
        properties[name] = merged
    schema: Json = {"type": "object"}
    if "description" in node:
        schema["description"] = node["description"]
    if required:
        schema["required"] = [name for name in properties if name in required]
    schema |= {key: value for key, value in node.items() if key.startswith("x-kubernetes-")}
    schema["properties"] = properties
    return schema


def _discriminator(branches: list[Json]) -> str | None:
    """The property that has one constant value in every branch, if there is one."""
    for name in branches[0]["properties"]:
        found = [branch["properties"].get(name, {}).get("enum", ()) for branch in branches]
        if all(len(values) == 1 for values in found) and len({v[0] for v in found}) == len(found):
            return str(name)
    return None


def crd(kind: Kind) -> Json:
    """The CustomResourceDefinition of a kind: published schema, not how the service keeps it."""
    schema = openapi_schema(kind.model)
    # A CRD may say nothing about metadata but this; the API server of Kubernetes adds its own.
    schema["properties"]["metadata"] = {"type": "object"}
    schema["description"] = kind.description
    version: Json = {
        "name": kind.version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "additionalPrinterColumns": [_printer_column(column) for column in kind.columns],
    }
    selectable = [f".{path}" for path in kind.selectable if _is_selectable(schema, path)]
    if selectable:
        fields = [{"jsonPath": path} for path in selectable[:_MAX_SELECTABLE]]
        version["selectableFields"] = fields
    if kind.has_status:
        version["subresources"] = {"status": {}}
    names: Json = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
        "singular": kind.singular,
    }
    if kind.short_names:
        names["shortNames"] = list(kind.short_names)
    if kind.categories:
        names["categories"] = list(kind.categories)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": kind.resource},
        "spec": {
            "group": kind.group,
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [version],
        },
    }


def _printer_column(column: Column) -> Json:
    path = column.path
    if "=" in path:
        before, _, rest = path.partition("[")
        test, _, after = rest.partition("]")
        key, _, value = test.partition("=")
        path = f'{before}[?(@.{key}=="{value}")]{after}'
    found: Json = {"name": column.name, "type": column.type, "jsonPath": path}
    if column.description:
        found["description"] = column.description
    if column.priority:
        found["priority"] = column.priority
    return found


def _is_selectable(schema: Json, path: str) -> bool:
    """Kubernetes selects by scalar fields of spec and status that the schema knows."""
    node: Any = schema
    for name in path.split("."):
        node = node.get("properties", {}).get(name, {})
    return node.get("type") in ("string", "boolean", "integer") and not path.startswith("metadata.")


class _Plain(yaml.SafeDumper):
    """YAML without anchors and with indented lists, as people write it."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


_HEADER = "# Generated from the models in resources/ by `make crds`; edit those.\n"


def crd_files() -> dict[str, str]:
    """File name and text of every CRD."""
    return {
        f"{kind.group}_{kind.plural}.yaml": _HEADER
        + yaml.dump(crd(kind), Dumper=_Plain, sort_keys=False, width=100, allow_unicode=True)
        for kind in KINDS
    }


def reference() -> str:
    """docs/reference/kinds.md: every field of every kind."""
    lines = [
        "# Kinds",
        "",
        "For people who write manifests. Generated from the models in `resources/`; edit those.",
    ]
    for kind in KINDS:
        lines += ["", f"## {kind.kind}", "", kind.description, ""]
        scope = "namespaced" if kind.namespaced else "cluster-scoped"
        facts = [f"`apiVersion: {kind.api_version}`", f"`{kind.plural}`", scope]
        if kind.short_names:
            facts.append("short: " + ", ".join(f"`{name}`" for name in kind.short_names))
        if kind.selectable:
            facts.append("field selectors: " + ", ".join(f"`{path}`" for path in kind.selectable))
        lines += [" · ".join(facts), "", "| field | type | |", "|---|---|---|"]
        schema = structural(kind.model)
        for name in ("spec", "status"):
            if name in schema["properties"]:
                lines += _rows(schema["properties"][name], name, name in schema["required"])
    return "\n".join(lines) + "\n"


def _rows(node: Json, path: str, required: bool) -> list[str]:
    words = str(node.get("description", "")).replace("|", "\\|")
    note = " **Required.**" if required else ""
    rows = [f"| `{path}` | {_type_of(node)} | {words}{note} |"]
    inner, suffix = (node["items"], "[]") if "items" in node else (node, "")
    needed = inner.get("required", ())
    for name, value in inner.get("properties", {}).items():
        rows += _rows(value, f"{path}{suffix}.{name}", name in needed)
    return rows


def _type_of(node: Json) -> str:
    if node.get(_INT_OR_STRING):
        return "integer or string"
    if "items" in node:
        return f"list of {_type_of(node['items'])}s"
    if "additionalProperties" in node:
        return f"map to {_type_of(node['additionalProperties'])}s"
    if "enum" in node:
        return " ".join(f"`{value or chr(34) * 2}`" for value in node["enum"])
    return str(node["type"])


def main(arguments: list[str], root: Path) -> int:
    """`crds` writes crds/*.yaml and removes what is no longer a kind; `docs` the reference."""
    match arguments:
        case ["crds"]:
            files = {root / "crds" / name: text for name, text in crd_files().items()}
            for stale in set((root / "crds").glob("*.yaml")) - files.keys():
                stale.unlink()
        case ["docs"]:
            files = {root / "docs" / "reference" / "kinds.md": reference()}
        case _:
            print("usage: python -m resources.schema crds|docs", file=sys.stderr)
            return 2
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).parent.parent))
