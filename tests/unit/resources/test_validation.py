"""What is accepted, what is refused, and in which words."""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from resources import registry, repository, resourcesync, validation
from resources.errors import FORBIDDEN, NOT_SUPPORTED, REQUIRED, UNKNOWN
from resources.kind import Json, Kind
from tests.contract.data import wrong_documents as wrong

INPUTS = Path(__file__).parents[4] / "shared" / "inputs"
DEVICE, FLEET = registry.DEVICE, registry.FLEET
# Not served yet, but their manifests must be understood.
UNSERVED = {
    "Repository": Kind(
        "flightctl.io",
        "v1beta1",
        "Repository",
        "repositories",
        "repository",
        repository.Repository,
        "",
        validate=repository.check,
    ),
    "ResourceSync": Kind(
        "flightctl.io",
        "v1beta1",
        "ResourceSync",
        "resourcesyncs",
        "resourcesync",
        resourcesync.ResourceSync,
        "",
        validate=resourcesync.check,
    ),
}


def said(kind: Kind, document: Json, **options: Any) -> list[str]:
    return [str(error) for error in validation.validate(kind, document, **options)]


def kind_of(document: Json) -> Kind:
    return UNSERVED.get(document["kind"]) or registry.by_kind(document["kind"])


@pytest.mark.parametrize("case", wrong.DOCUMENTS, ids=lambda case: case.id)
def test_a_wrong_document_is_refused_by_name(case: wrong.Wrong) -> None:
    assert isinstance(case.body, dict)
    found = said(registry.by_kind(case.kind), case.body)
    assert any(case.expected in text for text in found), found
    # One mistake may have a consequence, not a cascade.
    assert len(found) <= 2, found


def test_the_wrong_documents_are_many_and_told_apart() -> None:
    assert len(wrong.WRONG) >= 70
    assert len({case.id for case in wrong.WRONG}) == len(wrong.WRONG)


@pytest.mark.parametrize(("kind", "document"), wrong.RIGHT)
def test_what_the_wrong_documents_differ_from_is_right(kind: str, document: Json) -> None:
    assert said(registry.by_kind(kind), document) == []


def _inputs() -> list[Any]:
    if not INPUTS.is_dir():
        reason = f"the manifests of real users are not beside this checkout ({INPUTS.name}/)"
        return [pytest.param({}, marks=pytest.mark.skip(reason=reason))]
    return [
        pytest.param(document, id=f"{path.stem}-{index}")
        for path in sorted(INPUTS.glob("*.yaml"))
        for index, document in enumerate(yaml.safe_load_all(path.read_text()))
    ]


@pytest.mark.parametrize("document", _inputs())
def test_manifests_of_real_users_are_accepted_unchanged(document: Json) -> None:
    before = copy.deepcopy(document)
    kind = kind_of(document)
    assert said(kind, document) == []
    assert validation.unknown_fields(kind, document) == []
    assert document == before
    assert validation.prune(kind, document) == before


def test_an_object_has_so_many_labels_at_most() -> None:
    labels = {f"l{n}": "" for n in range(257)}
    document = {"metadata": {"name": "a", "labels": labels}, "spec": {}}
    named: Json = {"apiVersion": DEVICE.api_version, "kind": DEVICE.kind}
    found = validation.validate(DEVICE, named | document)
    assert [(each.path, each.detail) for each in found] == [
        ("metadata.labels", "no more than 256, these are 257")
    ]
    del labels["l0"]
    assert validation.validate(DEVICE, named | document) == []


def test_all_complaints_come_at_once() -> None:
    spec = wrong.inline("motd", mode=99999) | {"os": {"image": "A B"}, "sytemd": {}}
    paths = {e.path for e in validation.validate(DEVICE, wrong.device(spec, labels={"a": "b c"}))}
    assert paths == {
        "metadata.labels[a]",
        "spec.os.image",
        "spec.config[0].inline[0].path",
        "spec.config[0].inline[0].mode",
        "spec.sytemd",
    }


def test_a_union_complains_about_the_branch_that_was_chosen() -> None:
    document = wrong.device(wrong.app("helm", ports=["80:80"], values=[]))
    found = validation.validate(DEVICE, document)
    assert {(e.path, e.reason) for e in found} == {
        ("spec.applications[0].ports", FORBIDDEN),
        ("spec.applications[0].values", "FieldValueTypeInvalid"),
    }


def test_an_unknown_field_is_told_what_was_probably_meant() -> None:
    (error,) = validation.validate(DEVICE, wrong.device({"aplications": []}))
    assert (error.path, error.reason) == ("spec.aplications", UNKNOWN)
    assert "did you mean applications?" in error.detail


def test_a_field_of_a_map_is_named_in_brackets() -> None:
    (error,) = validation.validate(DEVICE, wrong.device(labels={"a.b/c": 1}))
    assert error.path == "metadata.labels[a.b/c]"


def test_no_more_than_a_hundred_complaints_are_made() -> None:
    labels = {f"bad key {n}": "x" for n in range(1000)}
    assert len(validation.validate(DEVICE, wrong.device(labels=labels))) == 100


def test_a_generated_name_will_do() -> None:
    document = wrong.without(wrong.device(generateName="edge-"), "metadata", "name")
    assert said(DEVICE, document) == []
    document["metadata"]["generateName"] = "Edge_"
    assert [e.path for e in validation.validate(DEVICE, document)] == ["metadata.generateName"]


@pytest.mark.parametrize("version", ["v1beta1", ""])
def test_machines_may_leave_out_the_group(version: str) -> None:
    document = wrong.enrollment() | {"apiVersion": version}
    kind = registry.by_kind("EnrollmentRequest")
    assert said(kind, document, short_versions=True) == []
    assert [e.reason for e in validation.validate(kind, document)] == [NOT_SUPPORTED]


def test_null_is_absence_where_a_field_is_optional() -> None:
    document = wrong.device({"os": None, "config": None}, labels=None, creationTimestamp=None)
    assert said(DEVICE, document) == []
    assert validation.prune(DEVICE, document)["spec"] == {}


def test_null_is_a_lack_where_a_field_is_needed() -> None:
    found = validation.validate(FLEET, wrong.fleet() | {"spec": {"template": None}})
    assert [e.path for e in found] == ["spec.template"]


class TestWhatWasSoBefore:
    """A rule must not keep people from changing something else."""

    def test_an_unchanged_field_of_the_service_is_let_through(self) -> None:
        old = wrong.device({"decommissioning": {"target": "Unenroll"}})
        new = copy.deepcopy(old)
        new["metadata"]["labels"] = {"site": "a"}
        assert said(DEVICE, new, old=old) == []

    def test_a_changed_one_is_not(self) -> None:
        old = wrong.device({"decommissioning": {"target": "Unenroll"}})
        new = wrong.device({"decommissioning": {"target": "FactoryReset"}})
        assert [e.path for e in validation.validate(DEVICE, new, old=old)] == [
            "spec.decommissioning"
        ]

    def test_an_old_wrong_does_not_excuse_a_new_one(self) -> None:
        old = wrong.device(wrong.inline("motd"))
        new = wrong.device(wrong.inline("motd") | {"os": {"image": "A B"}})
        assert [e.path for e in validation.validate(DEVICE, new, old=old)] == ["spec.os.image"]

    def test_a_lack_stays_a_lack(self) -> None:
        old = wrong.without(wrong.fleet(), "spec", "template")
        found = validation.validate(FLEET, copy.deepcopy(old), old=old)
        assert [e.reason for e in found] == [REQUIRED]

    def test_true_is_not_one(self) -> None:
        old = wrong.device(wrong.inline(mode=1))
        new = wrong.device(wrong.inline(mode=True))
        assert len(validation.validate(DEVICE, new, old=old)) == 1


class TestParameters:
    """In a fleet's template, a string with a parameter is not yet what it will be."""

    TEMPLATED = (
        wrong.inline("/etc/{{ .metadata.name }}"),
        # {{ .metadata.name }}
        wrong.inline(content="e3sgLm1ldGFkYXRhLm5hbWUgfX0=", contentEncoding="base64"),
        wrong.app(image="quay.io/acme/web:{{ .metadata.labels.tag }}"),
        wrong.app(envVars={"A": "{{ .metadata.name }}"}),
        wrong.quadlet(a_container="[Container]\nImage={{ .metadata.labels.image }}\n"),
        {"os": {"image": "quay.io/acme/os:{{ .metadata.labels.v }}@sha256:" + "a" * 64}},
        {
            "config": [
                {
                    "name": "a",
                    "gitRef": {
                        "repository": "r",
                        "targetRevision": "{{ .metadata.labels.rev }}",
                        "path": "/{{ .metadata.name }}",
                    },
                }
            ]
        },
    )

    @pytest.mark.parametrize("spec", TEMPLATED)
    def test_a_fleet_may_use_one(self, spec: Json) -> None:
        assert said(FLEET, wrong.fleet(spec)) == []

    @pytest.mark.parametrize("spec", [TEMPLATED[2], TEMPLATED[4], TEMPLATED[5]])
    def test_a_device_may_not(self, spec: Json) -> None:
        assert len(said(DEVICE, wrong.device(spec))) == 1

    def test_what_is_said_to_be_base64_is_base64_even_there(self) -> None:
        spec = wrong.inline(content="{{ .metadata.name }}", contentEncoding="base64")
        assert len(said(FLEET, wrong.fleet(spec))) == 1

    @pytest.mark.parametrize(
        ("spec", "complaint"),
        [
            (
                {"os": {"image": "quay.io/acme/os:{{ .metadata.site }}"}},
                "spec.template.spec.os.image: Invalid value: line 1, column 20: .metadata.site "
                "cannot be used in a template; use .metadata.name, .metadata.labels and "
                ".metadata.labels.<key>",
            ),
            (
                wrong.inline(content="a\n{{ range .metadata.labels }}{{ end }}"),
                "spec.template.spec.config[0].inline[0].content: Invalid value: line 2, column 4: "
                "range cannot be used in a template",
            ),
            (
                wrong.inline(content="{{ slice .metadata.labels.site 0 2 }}"),
                "spec.template.spec.config[0].inline[0].content: Invalid value: line 1, column 4: "
                "slice: 2 is outside a text of 0 bytes",
            ),
            (
                # {{ x }}
                wrong.inline(content="e3sgeCB9fQ==", contentEncoding="base64"),
                "spec.template.spec.config[0].inline[0].content: Invalid value: line 1, column 4: "
                "there is no function x",
            ),
            (
                wrong.app(envVars={"A": "{{"}),
                "spec.template.spec.applications[0].envVars[A]: Invalid value: line 1, column 1: "
                "the action is not closed: end it with }}",
            ),
        ],
        ids=["field", "content", "evaluated", "base64", "variable"],
    )
    def test_a_wrong_one_is_refused_with_field_and_place(self, spec: Json, complaint: str) -> None:
        assert said(FLEET, wrong.fleet(spec)) == [complaint]

    def test_a_name_may_not_even_there(self) -> None:
        spec = {"config": [{"name": "{{ .metadata.name }}", "inline": []}]}
        assert len(said(FLEET, wrong.fleet(spec))) == 1


class TestUnknownFields:
    """What a lenient client's document loses, and a strict one's is refused for."""

    DOCUMENT = wrong.fleet(
        wrong.app("helm", values={"anything": {"goes": None}}) | {"foo": 1},
        selector={"matchLabels": {"any": "key"}, "matchNames": []},
    ) | {"extra": {"a": 1}}

    def test_they_are_named_by_path(self) -> None:
        assert validation.unknown_fields(FLEET, self.DOCUMENT) == [
            "spec.template.spec.foo",
            "spec.selector.matchNames",
            "extra",
        ]

    def test_pruning_removes_them_and_nothing_else(self) -> None:
        pruned = validation.prune(FLEET, self.DOCUMENT)
        expected = copy.deepcopy(self.DOCUMENT)
        del expected["extra"], expected["spec"]["selector"]["matchNames"]
        del expected["spec"]["template"]["spec"]["foo"]
        assert pruned == expected
        assert validation.unknown_fields(FLEET, pruned) == []

    def test_the_given_document_is_left_alone(self) -> None:
        before = copy.deepcopy(self.DOCUMENT)
        validation.prune(FLEET, self.DOCUMENT)
        assert before == self.DOCUMENT

    def test_in_a_list_they_have_an_index(self) -> None:
        document = wrong.device({"config": [{"name": "a", "inline": [{"pth": "/a"}]}]})
        assert validation.unknown_fields(DEVICE, document) == ["spec.config[0].inline[0].pth"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=8) | st.sampled_from(["name", "path"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [path, *(p for key, inner in children for p in _places(inner, (*path, key)))]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(wrong.RIGHT), st.data())
def test_no_json_in_any_place_breaks_the_rules_themselves(
    right: tuple[str, Json], data: st.DataObject
) -> None:
    kind, document = registry.by_kind(right[0]), copy.deepcopy(right[1])
    place = data.draw(st.sampled_from(_places(document)[1:]))
    node: Any = document
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = data.draw(JSON)
    for error in validation.validate(kind, document):
        assert error.path
        assert error.detail
    pruned = validation.prune(kind, document)
    assert validation.unknown_fields(kind, pruned) == []
    assert validation.prune(kind, pruned) == pruned


def test_a_fleet_is_validated_within_a_millisecond_of_the_processor() -> None:
    spec = wrong.inline() | wrong.app() | {"resources": [wrong.monitor()]} | wrong.schedule()
    document = wrong.fleet(spec, selector={"matchLabels": {"site": "a"}})
    assert said(FLEET, document) == []
    times = []
    for _ in range(30):
        begin = time.thread_time()
        validation.validate(FLEET, document)
        times.append(time.thread_time() - begin)
    # The best of thirty, so that a busy machine is not taken for slow code.
    assert min(times) < 0.001
