"""Files to fleets; what is wrong is told by file and line, everything at once."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controllers import manifests
from controllers.manifests import Unparsable

FLEET = """\
apiVersion: flightctl.io/v1beta1
kind: Fleet
metadata:
  name: {name}
spec:
  selector:
    matchLabels: {{fleet: {name}}}
  template:
    spec:
      os:
        image: quay.io/acme/os:1
"""


def fleet(name: str) -> str:
    return FLEET.format(name=name)


def names(**files: str) -> list[str]:
    found = manifests.fleets({k: v.encode() for k, v in files.items()}, "default")
    return [manifest.name for manifest in found]


def problems(**files: str) -> list[str]:
    with pytest.raises(Unparsable) as refused:
        names(**files)
    return list(refused.value.problems)


def test_documents_of_every_form_are_found_in_order_of_files() -> None:
    as_json = json.dumps(
        {
            "apiVersion": "flightctl.io/v1beta1",
            "kind": "Fleet",
            "metadata": {"name": "c"},
            "spec": {"template": {"spec": {"os": {"image": "x"}}}},
        }
    )
    found = names(**{
        "b.yml": f"# two\n---\n{fleet('b1')}---\n---\n{fleet('b2')}",
        "a.yaml": fleet("a"),
        "c.json": as_json,
        "empty.yaml": "# nothing\n",
    })  # fmt: skip
    assert found == ["a", "b1", "b2", "c"]


def test_other_kinds_are_left_alone() -> None:
    other = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"
    assert names(**{"a.yaml": f"{other}---\n{fleet('a')}"}) == ["a"]


def test_what_the_service_says_of_an_object_is_not_in_its_manifest() -> None:
    exported = fleet("a").replace(
        "  name: a\n",
        "  name: a\n  resourceVersion: '7'\n  uid: x\n  owner: ResourceSync/b\n"
        "  creationTimestamp: 2026-01-01T00:00:00Z\n",
    )
    (manifest,) = manifests.fleets({"a.yaml": (exported + "status: {}\n").encode()}, "default")
    assert manifest.document["metadata"] == {"name": "a"}
    assert "status" not in manifest.document


@pytest.mark.parametrize(
    ("text", "says"),
    [
        pytest.param("a: 1\nb: [\nc: }\n", "a.yaml:3: is not YAML: ", id="syntax"),
        pytest.param(f"{fleet('a')}---\n\tb", "a.yaml:13: is not YAML: ", id="second document"),
        pytest.param("- 1\n", "a.yaml:1: is no manifest", id="a list"),
        pytest.param("\n\napiVersion: v1\n", "a.yaml:3: is no manifest", id="no kind"),
        pytest.param("kind: Fleet\nmetadata: {}\n", "a.yaml:2: Fleet: metadata.name is missing",
                     id="no name"),
        pytest.param(fleet("a").replace("image: q", "imaeg: q"),
                     'a.yaml:11: Fleet a: spec.template.spec.os.imaeg: unknown field: '
                     '"spec.template.spec.os.imaeg"; did you mean image?', id="unknown field"),
        pytest.param(fleet("a").replace("fleet: a", "fleet: [a]"), "a.yaml:7: Fleet a: ",
                     id="wrong type"),
        pytest.param(fleet("a").replace("  name: a\n", "  name: a\n  namespace: other\n"),
                     "a.yaml:5: Fleet a: is for namespace other", id="another namespace"),
        pytest.param(fleet("a") + "kind: Fleet\n", 'the field "kind" is there twice', id="twice"),
        pytest.param(fleet("a").replace("/v1beta1", "/v1alpha1"),
                     "a.yaml:1: Fleet a: apiVersion: Unsupported value: write flightctl.io/v1beta1",
                     id="another version"),
        pytest.param("kind: Catalog\nmetadata: {name: a}\n", "a.yaml:1: a Catalog does not belong",
                     id="a catalog"),
        pytest.param("a: &a [1]\nb: &b [*a,*a,*a]\n" + "".join(
            f"c{i}: &c{i} [{','.join([f'*c{i - 1}' if i else '*b'] * 9)}]\n" for i in range(9)
        ), "nested too deeply or has too many", id="a bomb"),
        pytest.param("[" * 5000, "nested too deeply", id="deep"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_file_and_line(text: str, says: str) -> None:
    assert says in problems(**{"a.yaml": text})[0]


def test_json_has_lines_too() -> None:
    assert problems(**{"a.json": '{\n"a": 1,\n}'})[0].startswith("a.json:3: is not JSON: ")


def test_text_that_is_none_is_told() -> None:
    with pytest.raises(Unparsable, match=r"^a\.yaml:2: is not UTF-8$"):
        manifests.fleets({"a.yaml": b"a: b\nc: \xff\n"}, "default")


def test_a_name_that_is_there_twice_names_both_places() -> None:
    told = problems(**{"a.yaml": fleet("a"), "b.yaml": f"---\n{fleet('a')}"})
    assert told == ["b.yaml:5: Fleet a is already in a.yaml:4"]


def test_everything_is_told_at_once_and_the_message_is_bounded() -> None:
    files: dict[str, Any] = {f"{i:02}.yaml": "kind: Fleet\n" for i in range(30)}
    with pytest.raises(Unparsable) as refused:
        names(**files)
    assert len(refused.value.problems) == 30
    assert str(refused.value).endswith("; and 20 more")
