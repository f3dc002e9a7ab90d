"""kubectl reads: get in every form, describe, explain, api-resources, can-i."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.conformance.conftest import Kubectl, fleet


@pytest.fixture
def web(kubectl: Kubectl) -> Kubectl:
    kubectl("create", "-f", "-", stdin=fleet("web"))
    return kubectl


def test_get_prints_the_columns_of_the_kind(web: Kubectl) -> None:
    header, row = web("get", "fleets").splitlines()
    assert header.split()[:4] == ["NAME", "OWNER", "SELECTOR", "VALID"]
    assert row.split()[:2] == ["web", "fleet=web"]
    assert "OS IMAGE" not in header


def test_wide_output_has_the_columns_of_lower_priority(web: Kubectl) -> None:
    header, row = web("get", "fleets", "-o", "wide").splitlines()
    assert "OS IMAGE" in header
    assert "quay.io/acme/os:1" in row


def test_get_by_yaml_json_and_jsonpath_agree(web: Kubectl) -> None:
    as_yaml = yaml.safe_load(web("get", "fleet", "web", "-o", "yaml"))
    as_json = json.loads(web("get", "fleet", "web", "-o", "json"))
    assert as_yaml == as_json
    assert as_json["apiVersion"] == "flightctl.io/v1beta1"
    uid = web("get", "fleet", "web", "-o", "jsonpath={.metadata.uid}")
    assert uid == as_json["metadata"]["uid"]


def test_short_names_and_categories_name_kinds(web: Kubectl) -> None:
    assert web("get", "tv", "-o", "name") == ""
    assert "fleet.flightctl.io/web" in web("get", "homeport", "-o", "name")


def test_lists_are_paged_by_chunks(web: Kubectl) -> None:
    for number in range(4):
        web("create", "-f", "-", stdin=fleet(f"f{number}"))
    names = web("get", "fleets", "--chunk-size=2", "-o", "name").split()
    assert names == [f"fleet.flightctl.io/{n}" for n in ("f0", "f1", "f2", "f3", "web")]
    assert len(web("get", "fleets", "--chunk-size=2", "--no-headers").splitlines()) == 5


def test_labels_and_fields_select(web: Kubectl) -> None:
    assert web("get", "fleets", "-l", "tier=edge", "-o", "name").strip().endswith("/web")
    assert web("get", "fleets", "-l", "tier!=edge", "-o", "name") == ""
    assert web("get", "fleets", "--field-selector", "metadata.name=web", "-o", "name")
    error = web.refused("get", "fleets", "--field-selector", "spec.nothing=1")
    assert "spec.nothing" in error
    assert "metadata.owner" in error


def test_all_namespaces_show_the_namespace(web: Kubectl) -> None:
    assert web.namespace in web("get", "fleets", "-A")


def test_what_is_not_there_is_said_so(web: Kubectl) -> None:
    error = web.refused("get", "fleet", "nobody")
    assert 'Error from server (NotFound): fleets.flightctl.io "nobody" not found' in error
    assert "the server doesn't have a resource type" in web.refused("get", "pods")


def test_describe_shows_the_object_and_its_events(web: Kubectl) -> None:
    uid = web("get", "fleet", "web", "-o", "jsonpath={.metadata.uid}")
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "web-", "namespace": web.namespace},
        "involvedObject": {
            "apiVersion": "flightctl.io/v1beta1",
            "kind": "Fleet",
            "name": "web",
            "namespace": web.namespace,
            "uid": uid,
        },
        "reason": "RolloutStarted",
        "message": "web.v1 goes out",
        "type": "Normal",
        "firstTimestamp": "2026-11-23T10:00:00Z",
        "lastTimestamp": "2026-11-23T10:00:00Z",
        "count": 1,
    }
    web("create", "-f", "-", stdin=json.dumps(event))
    described = web("describe", "fleet", "web")
    assert "quay.io/acme/os:1" in described
    assert "RolloutStarted" in described
    assert "web.v1 goes out" in described
    assert "RolloutStarted" in web("get", "events")
    assert "RolloutStarted" in web("events")


def test_explain_has_words_for_every_field_that_people_write(web: Kubectl) -> None:
    applications = web("explain", "fleet.spec.template.spec.applications")
    assert "appType" in applications
    assert "Applications to run" in applications
    assert "selector" in web("explain", "fleets.spec")
    recursive = web("explain", "devices", "--recursive")
    assert "renderedVersion" in recursive


def test_api_resources_lists_every_kind(web: Kubectl) -> None:
    listed = web("api-resources", "--verbs=list", "-o", "name").split()
    assert {"namespaces", "events", "fleets.flightctl.io", "rollouts.homeport.dev"} <= set(listed)
    assert "flightctl.io/v1beta1" in web("api-versions")


def test_the_version_names_homeport(web: Kubectl) -> None:
    version = json.loads(web("version", "-o", "json"))["serverVersion"]
    assert "homeport" in version["gitVersion"]
    assert version["major"] == "1"


def test_logs_and_exec_say_that_there_are_no_pods(web: Kubectl) -> None:
    for command in (("logs", "web"), ("exec", "web", "--", "true")):
        error = web.refused(*command)
        assert "the server doesn't have a resource type" in error or "pods" in error, error


def test_raw_health_is_ok(web: Kubectl) -> None:
    assert web("get", "--raw", "/readyz") == "ok"
    assert "[+]store ok" in web("get", "--raw", "/readyz?verbose")


def test_can_i_answers_from_the_table_of_roles(web: Kubectl) -> None:
    assert web("auth", "can-i", "delete", "fleets").strip() == "yes"
    assert "*" in web("auth", "can-i", "--list")


def test_an_administrator_asks_what_others_may(web: Kubectl) -> None:
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "LocalSubjectAccessReview",
        "metadata": {"namespace": web.namespace},
        "spec": {
            "groups": ["flightctl-viewer"],
            "resourceAttributes": {
                "namespace": web.namespace, "verb": "delete", "resource": "fleets"
            },
        },
    }  # fmt: skip
    base = "/apis/authorization.k8s.io/v1"
    path = f"{base}/namespaces/{web.namespace}/localsubjectaccessreviews"
    answer = json.loads(web("create", "--raw", path, "-f", "-", stdin=json.dumps(review)))
    assert answer["status"] == {
        "allowed": False, "reason": 'the role "viewer" does not allow it'
    }  # fmt: skip
    review |= {"kind": "SubjectAccessReview", "metadata": {}}
    review["spec"]["groups"] = ["flightctl-operator"]
    path = f"{base}/subjectaccessreviews"
    answer = json.loads(web("create", "--raw", path, "-f", "-", stdin=json.dumps(review)))
    assert answer["status"] == {"allowed": True}


def test_as_somebody_else_is_refused_in_one_sentence(web: Kubectl) -> None:
    """It must not be overheard: the answer would be the administrator's own rights."""
    for command in (("auth", "can-i", "delete", "fleets"), ("delete", "fleet", "web")):
        ran = web.run(*command, "--as=eve", "--as-group=flightctl-viewer")
        assert ran.code == 1
        assert "yes" not in ran.out
        said = (ran.out + ran.err).strip().splitlines()
        assert said[-1].startswith("Error from server (Forbidden): impersonation is not served")
    assert "web" in web("get", "fleets")
