"""The manifests of `examples/` are what the published schemas in `crds/` allow."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from resources import registry, render, validation
from resources.parameters import Unresolved

Json = dict[str, Any]

ROOT = Path(__file__).parents[3]
MANIFESTS = sorted((ROOT / "examples").rglob("*.yaml"))
TYPES = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}
# A server knows these of any kind; a schema does not repeat them.
EVERYWHERE = {"apiVersion", "kind", "metadata"}


def schema_of(document: Json) -> Json:
    group, version = document["apiVersion"].split("/")
    for path in (ROOT / "crds").glob(f"{group}_*.yaml"):
        spec = yaml.safe_load(path.read_text())["spec"]
        if spec["names"]["kind"] == document["kind"]:
            found = next(each for each in spec["versions"] if each["name"] == version)
            schema: Json = found["schema"]["openAPIV3Schema"]
            return schema
    raise AssertionError(f"no schema for {document['apiVersion']} {document['kind']}")


def wrongs(value: Any, schema: Json, path: str) -> Iterator[str]:
    """What a server with this schema would refuse, as far as examples can offend."""
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, int | str):
            yield f"{path}: neither an integer nor a string"
        return
    if not isinstance(value, TYPES[schema["type"]]):
        yield f"{path}: {type(value).__name__} where {schema['type']} is due"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        yield f"{path}: {value!r} does not match {schema['pattern']}"
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from wrongs(item, schema["items"], f"{path}[{index}]")
    if isinstance(value, dict):
        yield from _wrong_fields(value, schema, path)


def _wrong_fields(value: Json, schema: Json, path: str) -> Iterator[str]:
    properties = schema.get("properties", {})
    for name in schema.get("required", []):
        if name not in value:
            yield f"{path}.{name}: missing"
    for name, item in value.items():
        if name in properties:
            yield from wrongs(item, properties[name], f"{path}.{name}")
        elif "additionalProperties" in schema:
            yield from wrongs(item, schema["additionalProperties"], f"{path}.{name}")
        elif not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{path}.{name}: unknown"


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_example_is_valid_by_its_published_schema(path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        schema = schema_of(document)
        body = {name: part for name, part in document.items() if name not in EVERYWHERE}
        assert not list(wrongs(body, schema | {"required": []}, "")), path


def test_the_check_finds_what_is_wrong() -> None:
    document = yaml.safe_load((ROOT / "examples/os-image-update/1-fleet.yaml").read_text())
    del document["spec"]["template"]["spec"]["os"]["image"]
    document["spec"]["template"]["spec"]["applications"][0]["appType"] = "podlet"
    document["spec"]["selektor"] = {}
    found = list(wrongs({"spec": document["spec"]}, schema_of(document), ""))
    assert len([each for each in found if "selektor" in each or "podlet" in each]) == 2, found


@pytest.mark.parametrize("folder", sorted({p.parent for p in MANIFESTS}), ids=lambda p: p.name)
def test_every_example_says_what_one_sees(folder: Path) -> None:
    top = next(p for p in (folder, *folder.parents) if p.parent == ROOT / "examples")
    assert (top / "README.md").exists(), f"{top} has no README.md"


def test_the_fleet_with_parameters_gives_each_device_its_own() -> None:
    document = yaml.safe_load((ROOT / "examples/fleet-with-parameters/fleet.yaml").read_text())
    assert validation.validate(registry.by_kind("Fleet"), document) == []
    template = document["spec"]["template"]["spec"]

    def given(name: str, **labels: str) -> tuple[Json, Json]:
        spec = render.render(template, name=name, labels=labels).spec
        return spec["config"][0]["inline"][0], spec["applications"][0]

    file, web = given("gate-1", site="Berlin", stage="test", channel="v2")
    assert file["path"] == "/etc/gates/berlin.conf"
    assert file["content"] == "host = gate-1\nzone = \nstage = test\ndebug = true\n"
    assert (web["image"], web["envVars"]) == ("localhost:5000/web:v2", {"SITE": "BERLIN"})
    file, web = given("gate-3", site="Hamburg", **{"example.com/zone": "north"})
    assert file["content"] == "host = gate-3\nzone = north\nstage = production\n"
    assert web["image"] == "localhost:5000/web:v1"
    with pytest.raises(Unresolved, match=r"^config\[0\]\.inline\[0\]\.path: line 1, column 21"):
        given("gate-2")
