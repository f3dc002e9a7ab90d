"""Inline files of applications: complete in themselves, and every image with its registry."""

from __future__ import annotations

import base64

import pytest

from resources import device, fleet, unitfile
from resources.errors import Invalid
from resources.kind import Json
from tests.contract.data.wrong_documents import app
from tests.contract.data.wrong_documents import device as document

IMAGE = "Image=quay.io/a/b:1\n"
CONTAINER = "[Container]\n" + IMAGE
SERVICE = "services: {a: {image: quay.io/a/b:1}}"


def complaints(app_type: str, *files: tuple[str, str], **fields: object) -> list[str]:
    inline = [{"path": path, "content": content} for path, content in files]
    return _said(document(app(app_type, inline=inline, **fields)))


def _said(found: Json) -> list[str]:
    try:
        device.check(found)
    except Invalid as problem:
        return [str(error) for error in problem.errors]
    return []


class TestQuadlet:
    @pytest.mark.parametrize(
        "files",
        [
            [("a.container", CONTAINER)],
            [("./a.container", CONTAINER), ("etc/app.conf", "anything = at all")],
            [("a.container", "[Container]\nImage=b.image\n"), ("b.image", "[Image]\n" + IMAGE)],
            [("a.pod", "[Pod]\nNetwork=b.network:ip=10.0.0.2\n"), ("b.network", "[Network]\n")],
            [
                ("a.container", CONTAINER + "Mount=type=volume,source=b.volume,destination=/b\n"),
                ("b.volume", "[Volume]\n"),
            ],
            [
                ("a.kube", "[Kube]\nYaml=pod.yaml\n"),
                ("pod.yaml", "apiVersion: v1\nkind: Pod\n"),
            ],
            [
                (
                    "a.container",
                    "# note\n[Unit]\nAfter=b\n\n[Container]\n" + IMAGE + "Exec=a \\\n  b\n",
                )
            ],
            [("a.container", CONTAINER + "Volume=named:/data\nNetwork=host\n")],
        ],
    )
    def test_a_complete_set_is_right(self, files: list[tuple[str, str]]) -> None:
        assert complaints("quadlet", *files) == []

    @pytest.mark.parametrize(
        ("files", "word"),
        [
            ([("sub/a.container", CONTAINER)], "root"),
            ([("a.container", CONTAINER), ("b.artifact", "[Artifact]\n")], ".artifact"),
            ([("a.container", "[Container]\nImage=b.image\n")], "b.image"),
            ([("a.container", CONTAINER + "Network=b.network\n")], "b.network"),
            ([("a.container", CONTAINER + "Mount=type=volume,source=b.volume\n")], "b.volume"),
            ([("a.pod", "[Pod]\nVolume=b.volume:/b\n")], "b.volume"),
            ([("a.container", CONTAINER), ("b.volume", "[Volume]\nImage=c.image\n")], "c.image"),
            ([("a.container", CONTAINER), ("b.image", "[Image]\n")], "Image="),
            ([("a.container", CONTAINER), ("b.image", "[Image]\nImage=nginx\n")], "registry"),
            ([("a.container", "Image=x\n")], "line 1"),
            ([("a.container", CONTAINER + "no equals sign\n")], "line 3"),
            ([("a.container", CONTAINER + "Exec=a \\\n")], "continued"),
            ([("a.kube", "[Kube]\n")], "Yaml="),
            ([("a.kube", "[Kube]\nYaml=p.yaml\n"), ("p.yaml", "kind: Job\n")], "kind: Pod"),
            ([("a.kube", "[Kube]\nYaml=p.yaml\n"), ("p.yaml", "kind: [\n")], "YAML"),
            (
                [
                    ("a.container", CONTAINER + "ContainerName=x\n"),
                    ("b.pod", "[Pod]\nPodName=x\n"),
                ],
                "Duplicate",
            ),
        ],
    )
    def test_an_incomplete_set_is_not(self, files: list[tuple[str, str]], word: str) -> None:
        found = complaints("quadlet", *files)
        assert len(found) == 1, found
        assert word in found[0]

    def test_base64_is_looked_into(self) -> None:
        content = base64.b64encode(b"[Container]\n").decode()
        file = {"path": "a.container", "content": content, "contentEncoding": "base64"}
        assert "Image=" in _said(document(app("quadlet", inline=[file])))[0]

    def test_what_is_no_text_is_left_alone(self) -> None:
        content = base64.b64encode(b"\xff\xfe").decode()
        files = [
            {"path": "a.container", "content": CONTAINER},
            {"path": "b.volume", "content": content, "contentEncoding": "base64"},
        ]
        assert _said(document(app("quadlet", inline=files))) == []

    def test_a_unit_whose_name_is_a_parameter_is_not_missed(self) -> None:
        inline = [{"path": "{{ .metadata.name }}.container", "content": CONTAINER}]
        template = document(app("quadlet", inline=inline))["spec"]
        fleet.check({"spec": {"template": {"spec": template}}})

    def test_sections_keep_the_order_of_repeated_keys(self) -> None:
        found = unitfile.parse("[A]\nX=1\n[B]\nY=\n[A]\nX=2\n; note\nZ = a = b\n")
        assert found == {"A": [("X", "1"), ("X", "2"), ("Z", "a = b")], "B": [("Y", "")]}


class TestCompose:
    @pytest.mark.parametrize("name", ["docker-compose.yaml", "podman-compose.yml"])
    def test_one_base_file_is_right(self, name: str) -> None:
        assert complaints("compose", (name, SERVICE)) == []

    def test_an_override_of_the_same_family_may_stand_beside(self) -> None:
        files = [("docker-compose.yml", SERVICE), ("docker-compose.override.yaml", SERVICE)]
        assert complaints("compose", *files) == []

    @pytest.mark.parametrize(
        ("files", "word"),
        [
            ([("docker-compose.override.yaml", SERVICE)], "base file"),
            ([("docker-compose.yaml", SERVICE), ("docker-compose.yml", SERVICE)], "only one"),
            (
                [("docker-compose.yaml", SERVICE), ("podman-compose.override.yml", SERVICE)],
                "override",
            ),
            ([("docker-compose.yaml", "services: {a: {build: .}}")], "needs an image"),
            ([("docker-compose.yaml", "services: {a: web}")], "must be an object"),
            ([("docker-compose.yaml", "- a")], "services"),
            ([("docker-compose.yaml", "[" * 3000)], "YAML"),
            ([("docker-compose.yaml", "a: \x01")], "YAML"),
        ],
    )
    def test_other_sets_are_not(self, files: list[tuple[str, str]], word: str) -> None:
        found = complaints("compose", *files)
        assert len(found) == 1, found
        assert word in found[0]


class TestVirtualMachine:
    MANIFEST = "{apiVersion: kubevirt.io/v1, kind: VirtualMachine, metadata: {name: web}}"

    def test_one_manifest_of_the_same_name_is_right(self) -> None:
        assert complaints("vm", ("vm.yaml", self.MANIFEST), publishPorts=["80:80/udp"]) == []

    @pytest.mark.parametrize(
        ("content", "word"),
        [
            ("{apiVersion: v1, kind: VirtualMachine, metadata: {name: web}}", "kubevirt.io/v1"),
            ("{apiVersion: kubevirt.io/v1, kind: Pod, metadata: {name: web}}", "VirtualMachine"),
            ("{", "YAML"),
        ],
    )
    def test_another_manifest_is_not(self, content: str, word: str) -> None:
        (found,) = complaints("vm", ("vm.yaml", content))
        assert word in found
