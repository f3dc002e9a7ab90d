"""Charts: identifiers, commands and outputs, as the agent that we replace has them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent import appplan, charts, errors, helm, pullerrors, settings, specs, world
from agent.pulling import Pulling
from agent.throttle import Throttle
from tests.fakes.clocked_world import ClockedWorld


def app(name: str = "web", **fields: Any) -> specs.Application:
    return specs.Application(name, "helm", "quay.io/org/charts/web:1.2.3", **fields)


@pytest.mark.parametrize(
    ("made", "identifier"),
    [
        (app(), "flightctl-web_web"),
        (app(namespace="shop"), "shop_web"),
        (app("My App_2"), "flightctl-my-app-2_my-app-2"),
        (app("x" * 60, namespace="n"), "n_" + "x" * 53),
    ],
)
def test_identifiers(made: specs.Application, identifier: str) -> None:
    assert helm.app_id(made) == identifier
    assert helm.parts_of(identifier) == (helm.namespace_of(made), helm.release_of(made))


@pytest.mark.parametrize(
    ("reference", "name", "version"),
    [
        ("quay.io/org/web:1.2.3", "oci://quay.io/org/web", "1.2.3"),
        ("oci://quay.io/org/web:1.2.3", "oci://quay.io/org/web", "1.2.3"),
        ("localhost:5000/web:1", "oci://localhost:5000/web", "1"),
        ("localhost:5000/web", "oci://localhost:5000/web", ""),
        ("q.io/web@sha256:ab", "oci://q.io/web@sha256:ab", ""),
        ("q.io/web:1@sha256:ab", "oci://q.io/web@sha256:ab", ""),
    ],
)
def test_a_chart_is_pulled_by_its_name_and_version(reference: str, name: str, version: str) -> None:
    argv = helm.pull_argv(reference, "charts/x", "/auth.json")
    assert argv[:3] == ["helm", "pull", name]
    assert argv[argv.index("--registry-config") + 1] == "/auth.json"
    assert (argv[argv.index("--version") + 1] if "--version" in argv else "") == version


def test_folders_are_those_of_the_other_agent() -> None:
    assert helm.chart_folder("quay.io/org/web:1.2.3") == "charts/quay.io_org_web_1.2.3"
    assert helm.values_folder(app()) == "values/web"


def test_an_upgrade_is_labelled_by_this_program_and_taken_back_by_helm() -> None:
    argv = helm.upgrade_argv(app(), "charts/c", ["v.yaml"], "/usr/bin/flightctl-agent", wait_s=300)
    words = " ".join(argv)
    assert "helm upgrade web charts/c --install --namespace flightctl-web --values v.yaml" in words
    assert "--atomic --timeout 300s --post-renderer /usr/bin/flightctl-agent" in words
    assert words.endswith(
        "helm-render --post-renderer-args --app --post-renderer-args flightctl-web_web"
    )


def test_images_of_manifests() -> None:
    text = """
spec:
  containers:
    - image: "quay.io/a:1"
      name: x
    - name: y
      image: quay.io/b@sha256:ab   # pinned
  initContainers: [{name: z}]
  imagePullPolicy: Always
data:
  image: quay.io/a:1
"""
    assert helm.images(text) == ("quay.io/a:1", "quay.io/b@sha256:ab")


def pod(name: str = "p", *, phase: str = "Running", **fields: Any) -> dict[str, Any]:
    box = {"ready": True, "restartCount": 2, **fields.pop("box", {})}
    metadata = {"name": name, "labels": {helm.APP_LABEL: "n_web"}, **fields}
    return {"metadata": metadata, "status": {"phase": phase, "containerStatuses": [box]}}


@pytest.mark.parametrize(
    ("document", "state", "why"),
    [
        (pod(), appplan.RUNNING, ""),
        (pod(box={"ready": False}), appplan.STARTING, ""),
        (pod(phase="Pending"), appplan.STARTING, ""),
        (pod(phase="Succeeded"), appplan.COMPLETED, ""),
        (pod(phase="Failed"), appplan.FAILED, "Failed"),
        (
            pod(box={"state": {"waiting": {"reason": "CrashLoopBackOff"}}}),
            appplan.FAILED,
            "CrashLoopBackOff",
        ),
        (
            pod(phase="Pending", box={"state": {"waiting": {"reason": "ErrImagePull"}}}),
            appplan.FAILED,
            "ErrImagePull",
        ),
        (
            pod(phase="Pending", box={"state": {"waiting": {"reason": "ContainerCreating"}}}),
            appplan.STARTING,
            "",
        ),
        (pod(deletionTimestamp="2026-11-26T00:00:00Z"), appplan.STOPPING, ""),
    ],
)
def test_pods_are_workloads(document: dict[str, Any], state: str, why: str) -> None:
    found = helm.pods(json.dumps({"items": [document, {"metadata": {"name": "other"}}]}))
    (workload,) = found["n_web"]
    assert (workload.name, workload.state, workload.why) == ("p", state, why)
    assert workload.restarts == 2


def test_releases_and_versions() -> None:
    listed = [{"name": "web", "namespace": "n", "revision": "3", "status": "pending-upgrade"}]
    assert helm.releases(json.dumps(listed)) == {
        "n_web": helm.Release("n_web", "pending-upgrade", 3)
    }
    assert helm.releases("") == {}
    assert helm.version("v3.19.5+g1234") == (3, 19)
    assert helm.version("v4.3") == (4, 3)
    assert helm.version("no such thing") == (0, 0)


def test_helm_4_has_other_words_and_a_plugin_in_place_of_a_program() -> None:
    words = " ".join(helm.upgrade_argv(app(), "c", [], "/usr/bin/x", wait_s=300, major=4))
    assert "--rollback-on-failure --timeout 300s --post-renderer flightctl-labels" in words
    assert "--atomic" not in words
    assert "/usr/bin/x" not in words
    assert "--all" in helm.releases_argv(3)
    assert "--all" not in helm.releases_argv(4)
    document = json.loads(helm.plugin("/usr/bin/x"))
    assert document["type"] == "postrenderer/v1"
    assert document["runtimeConfig"]["platformCommand"] == [{"command": "/usr/bin/x"}]


AUTHS = {
    "quay.io": {"auth": "cXVheQ=="},
    "quay.io/org": {"auth": "b3Jn"},
    "localhost:5000/": {"auth": "bG9jYWw="},
    "empty.io": {},
}


@pytest.mark.parametrize(
    ("image", "auth"),
    [
        ("quay.io/org/web:1", "b3Jn"),
        ("quay.io/other/web@sha256:ab", "cXVheQ=="),
        ("localhost:5000/web", "bG9jYWw="),
        ("ghcr.io/org/web:1", ""),
        ("web:1", ""),
        ("org/web", ""),
    ],
)
def test_the_clusters_images_are_pulled_with_the_credentials_that_are_meant_for_them(
    image: str, auth: str
) -> None:
    document = {"auths": {name: entry for name, entry in AUTHS.items() if entry}}
    assert helm.credentials(json.dumps(document).encode(), image) == auth
    for nonsense in (b"", b"[]", b"}{", json.dumps({"auths": {"quay.io": {}}}).encode()):
        assert helm.credentials(nonsense, image) == ""


class Device(ClockedWorld):
    """Keeps what commands are given beside their words."""

    given: Mapping[str, str] | None = None

    def run(self, argv: Sequence[str], **how: Any) -> world.Completed:
        self.given = how.get("env")
        return super().run(argv, **how)


def test_a_secret_for_the_clusters_images_is_no_word_of_a_command(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.answer = lambda argv: world.Completed(argv, 0, "", "")
    device.put(helm.AUTH_FILES[1], json.dumps({"auths": {"quay.io": {"auth": "cXVheQ=="}}}))
    bounds = settings.LoopSettings()
    subject = charts.Charts(device, bounds, Pulling(device, bounds, Throttle(0)))
    subject.pull_image(appplan.PullCri("web", "quay.io/org/web:1"))
    assert device.commands[-1] == ("crictl", "pull", "quay.io/org/web:1")
    assert device.given is not None
    assert device.given["CRICTL_AUTH"] == "cXVheQ=="
    subject.pull_image(appplan.PullCri("web", "ghcr.io/org/web:1"))
    assert "CRICTL_AUTH" not in device.given


@pytest.mark.parametrize(
    ("words", "kind", "cause"),
    [
        ("Error: Kubernetes cluster unreachable: dial tcp", errors.Retry, errors.UNAVAILABLE),
        (
            "Error: UPGRADE FAILED: another operation (install/upgrade/rollback) is in progress",
            errors.Retry,
            errors.UNAVAILABLE,
        ),
        (
            "Error: release web failed, and has been uninstalled due to atomic being set: timed "
            "out waiting for the condition",
            errors.Reject,
            errors.DEADLINE_EXCEEDED,
        ),
        ("Error: pods is forbidden: User x", errors.Reject, errors.PERMISSION_DENIED),
        ("Error: template: web/x.yaml:3: bad", errors.Reject, errors.INVALID_ARGUMENT),
    ],
)
def test_what_helm_says_decides_whether_to_try_again(
    words: str, kind: type[errors.AgentError], cause: str
) -> None:
    found = helm.run_error(words, app="web")
    assert type(found) is kind
    assert found.cause == cause


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (
            'Error: failed to perform "FetchReference" on source: q.io/web:9: not found',
            errors.Reject,
        ),
        (
            'Error: failed to perform "FetchReference" on source: q.io/web:9: GET "https://q.io": '
            "response status code 401: unauthorized",
            errors.Reject,
        ),
        (
            'Error: failed to do request: Head "https://q.io": dial tcp: connection refused',
            errors.Retry,
        ),
    ],
)
def test_a_chart_that_is_not_there_is_not_asked_for_again(
    words: str, kind: type[errors.AgentError]
) -> None:
    found = pullerrors.of(words, reference="q.io/web:9", element="web", auth_file="/a.json")
    assert type(found) is kind
