"""The schemas that we publish are what Kubernetes calls structural, and agree with the contract."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel, Field

from resources import event, repository, resourcesync, schema
from resources.devicestatus import DeviceStatus
from resources.kind import HOMEPORT_GROUP, Json, Kind
from resources.meta import Model
from resources.registry import KINDS

ROOT = Path(__file__).parents[3]
CONTRACT = ROOT.parent / "shared" / "contract" / "api-v1beta1.json"
OURS = {kind.kind for kind in KINDS if kind.group == HOMEPORT_GROUP}
MODELS: list[type[BaseModel]] = [
    *(kind.model for kind in KINDS),
    repository.Repository,
    resourcesync.ResourceSync,
    event.Event,
]
PRESERVE = "x-kubernetes-preserve-unknown-fields"

models = pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)


def nodes(node: Json, path: str) -> Iterator[tuple[str, Json]]:
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for key in ("items", "additionalProperties"):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], f"{path}[]")


@models
def test_every_node_has_a_type_and_nothing_that_hides_one(model: type[BaseModel]) -> None:
    for path, node in nodes(schema.openapi_schema(model), model.__name__):
        typed = "type" in node or node.get("x-kubernetes-int-or-string")
        assert typed, path
        refused = {"$ref", "$defs", "anyOf", "oneOf", "allOf", "const", "title", "default", "not"}
        assert not refused & node.keys(), path
        assert node.get("type") != "null", path
        assert not ("properties" in node and "additionalProperties" in node), path


@models
def test_every_field_is_described(model: type[BaseModel]) -> None:
    for path, node in nodes(schema.openapi_schema(model), model.__name__):
        for name, inner in node.get("properties", {}).items():
            words = inner.get("description", "")
            assert len(words) >= 10, f"{path}.{name}"
            assert words.endswith("."), f"{path}.{name}: {words}"


@models
def test_patterns_mean_the_same_to_go(model: type[BaseModel]) -> None:
    for path, node in nodes(schema.openapi_schema(model), model.__name__):
        pattern = node.get("pattern")
        if pattern is not None:
            re.compile(pattern)
            # What RE2 lacks, and classes that are wider elsewhere than in Go.
            assert not re.search(r"\(\?|\\[1-9dDwWsSbBZ]", pattern.replace("\\\\", "")), path
            assert pattern.startswith("^"), path
            assert pattern.endswith("$"), path


@models
def test_lists_say_how_they_merge_and_by_fields_that_are_there(model: type[BaseModel]) -> None:
    for path, node in nodes(schema.openapi_schema(model), model.__name__):
        if node.get("type") == "array":
            how = node.get("x-kubernetes-list-type")
            assert how in ("map", "set", "atomic"), path
            if how == "map":
                keys = node["x-kubernetes-list-map-keys"]
                assert set(keys) <= set(node["items"]["required"]), path


def test_a_schema_belongs_to_its_caller() -> None:
    first = schema.openapi_schema(KINDS[0].model)
    first["properties"].clear()
    assert schema.openapi_schema(KINDS[0].model)["properties"]


def test_a_union_becomes_one_object_that_says_what_goes_with_what() -> None:
    spec = schema.openapi_schema(KINDS[0].model)["properties"]["spec"]["properties"]
    application = spec["applications"]["items"]
    assert application["required"] == ["appType"]
    assert set(application["properties"]["appType"]["enum"]) == {
        "compose",
        "container",
        "helm",
        "quadlet",
        "vm",
    }
    assert "Only with appType container." in application["properties"]["ports"]["description"]
    assert application["properties"]["values"][PRESERVE] is True
    provider = spec["config"]["items"]["properties"]
    assert set(provider) == {"name", "gitRef", "httpRef", "inline", "secretRef"}


def test_a_model_that_cannot_be_structural_is_refused() -> None:
    class Odd(Model):
        value: int | list[str] = Field(description="Either.")

    with pytest.raises(TypeError):
        schema.openapi_schema(Odd)


def test_a_limit_is_an_integer_or_a_string() -> None:
    fleet = next(kind for kind in KINDS if kind.kind == "Fleet")
    batch = dict(nodes(schema.openapi_schema(fleet.model), ""))[
        ".spec.rolloutPolicy.deviceSelection.sequence[]"
    ]
    assert batch["properties"]["limit"]["x-kubernetes-int-or-string"] is True
    assert "type" not in batch["properties"]["limit"]


class TestCrds:
    def test_the_files_are_what_the_models_say(self) -> None:
        files = {path.name: path.read_text() for path in (ROOT / "crds").glob("*.yaml")}
        assert files == schema.crd_files(), "run: make crds"

    def test_the_reference_is_what_the_models_say(self) -> None:
        found = (ROOT / "docs" / "reference" / "kinds.md").read_text()
        assert found == schema.reference(), "run: python -m resources.schema docs"

    @kinds
    def test_a_crd_says_what_kubernetes_asks_of_it(self, kind: Kind) -> None:
        text = schema.crd_files()[f"{kind.group}_{kind.plural}.yaml"]
        crd = yaml.safe_load(text)
        assert crd["metadata"]["name"] == f"{kind.plural}.{kind.group}"
        (version,) = crd["spec"]["versions"]
        root = version["schema"]["openAPIV3Schema"]
        assert root["type"] == "object"
        assert root["properties"]["metadata"] == {"type": "object"}
        assert ("status" in version.get("subresources", {})) == ("status" in root["properties"])
        for column in version["additionalPrinterColumns"]:
            assert column["jsonPath"].startswith(".")
            # Only filters may stand in brackets, and those as JSONPath writes them.
            assert not re.search(r"\[[A-Za-z]", column["jsonPath"])
        for field in version.get("selectableFields", ()):
            assert field["jsonPath"].startswith((".spec.", ".status."))

    def test_writing_removes_what_is_no_longer_a_kind(self, tmp_path: Path) -> None:
        (tmp_path / "crds").mkdir()
        (tmp_path / "crds" / "gone.yaml").write_text("")
        assert schema.main(["crds"], tmp_path) == 0
        found = {path.name for path in (tmp_path / "crds").iterdir()}
        assert found == set(schema.crd_files())

    def test_another_verb_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert schema.main(["all"], tmp_path) == 2
        assert "usage" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []


# --- against the contract ------------------------------------------------------------------------

# What we demand less of than the contract, and why: status may be partial while a device has not
# reported; main endpoints discard it anyway.
_LENIENT = re.compile(r"\.status$|\.devicesSummary$|\.metadata$|^Event$")


_CREATABLE = ("OIDCProviderSpec", "OAuth2ProviderSpec")


def _contract() -> Json:
    if not CONTRACT.is_file():
        pytest.skip(f"the published contract is not beside this checkout ({CONTRACT.name})")
    schemas: Json = json.loads(CONTRACT.read_text())["components"]["schemas"]
    # The other types can't be made over the API (contract 6.7).
    spec = schemas["AuthProviderSpec"]
    spec["oneOf"] = [part for part in spec["oneOf"] if part["$ref"].endswith(_CREATABLE)]
    return schemas


def _flat(node: Json, schemas: Json) -> Json:
    """One object for references, allOf and oneOf: properties of all, required of what must hold."""
    if "$ref" in node:
        return _flat(schemas[node["$ref"].rpartition("/")[2]], schemas)
    properties = dict(node.get("properties", {}))
    required = set(node.get("required", ()))
    for part in node.get("allOf", ()):
        inner = _flat(part, schemas)
        properties |= inner["properties"]
        required |= inner["required"]
    branches = [_flat(part, schemas) for part in node.get("oneOf", ())]
    for branch in branches:
        for name, inner in branch["properties"].items():
            known = properties.setdefault(name, inner)
            if "enum" in known and "enum" in inner:
                values = dict.fromkeys([*known["enum"], *inner["enum"]])
                properties[name] = known | {"enum": list(values)}
    if branches:
        required |= set.intersection(*(branch["required"] for branch in branches))
    kept: Json = {key: node[key] for key in ("type", "items", "enum", "maxLength") if key in node}
    for part in node.get("allOf", ()):
        kept = {k: v for k, v in _flat(part, schemas).items() if k in ("type", "enum")} | kept
    return kept | {"properties": properties, "required": required & properties.keys()}


def _compare(ours: Json, theirs: Json, schemas: Json, path: str) -> Iterator[str]:
    theirs = _flat(theirs, schemas)
    if "items" in theirs:
        if "items" not in ours:
            yield f"{path}: is no list"
        else:
            yield from _compare(ours["items"], theirs["items"], schemas, f"{path}[]")
        return
    # Kinds say their version elsewhere, and condition types are open, for ours are more.
    free = path.endswith((".apiVersion", "conditions[].type"))
    if "enum" in theirs and not free and set(ours.get("enum", ())) != set(theirs["enum"]):
        yield f"{path}: values {ours.get('enum')} instead of {theirs['enum']}"
    if "type" in theirs and "type" in ours and theirs["type"] != ours["type"]:
        yield f"{path}: {ours['type']} instead of {theirs['type']}"
    if not theirs["properties"] or "properties" not in ours:
        return
    for name, inner in theirs["properties"].items():
        if name not in ours["properties"]:
            yield f"{path}.{name}: missing"
        else:
            yield from _compare(ours["properties"][name], inner, schemas, f"{path}.{name}")
    lacking = theirs["required"] - set(ours.get("required", ()))
    if lacking and not _LENIENT.search(path):
        yield f"{path}: should require {sorted(lacking)}"


@pytest.mark.parametrize(
    "model",
    [m for m in MODELS if m.__name__ not in OURS],
    ids=lambda m: m.__name__,
)
def test_every_field_of_the_contract_is_here_with_its_type(model: type[BaseModel]) -> None:
    schemas = _contract()
    ours = schema.openapi_schema(model)
    name = model.__name__
    assert list(_compare(ours, schemas[name], schemas, name)) == []


def test_every_field_of_the_device_status_is_here() -> None:
    schemas = _contract()
    ours = schema.openapi_schema(DeviceStatus)
    assert list(_compare(ours, schemas["DeviceStatus"], schemas, ".status")) == []
