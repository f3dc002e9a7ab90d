"""Programs of users in Python: the `kubernetes` client, and operators on kopf, against the server.

The operator is one as its users write them, on small kinds: handlers of changes that store their
progress in annotations, a timer, an index. It runs as a process of its own, as operators do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.conftest import namespace_manifest
from tests.fakes.apiserver_process import Process

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from kubernetes import client, config, dynamic, watch

GROUP, VERSION = "flightctl.io", "v1beta1"
WAIT_S = 40.0


def fleet(name: str, image: str = "quay.io/acme/os:1") -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Fleet",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"fleet": name}},
            "template": {"spec": {"os": {"image": image}}},
        },
    }


@pytest.fixture(scope="module")
def api(server: Process) -> Iterator[client.ApiClient]:
    made = config.new_client_from_config(str(server.kubeconfig))
    yield made
    made.close()


def eventually(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        if holds():
            return
        time.sleep(0.2)
    raise AssertionError(f"not within {WAIT_S} s: {what}")


def test_the_typed_client_knows_namespaces_events_and_leases(api: client.ApiClient) -> None:
    core = client.CoreV1Api(api)
    body = client.V1Namespace(metadata=client.V1ObjectMeta(name="py-typed"))
    assert core.create_namespace(body).status.phase == "Active"
    assert "py-typed" in [item.metadata.name for item in core.list_namespace().items]
    leases = client.CoordinationV1Api(api)
    spec = client.V1LeaseSpec(holder_identity="me", lease_duration_seconds=15)
    lease = client.V1Lease(metadata=client.V1ObjectMeta(name="leader"), spec=spec)
    made = leases.create_namespaced_lease("py-typed", lease)
    made.spec.holder_identity = "you"
    assert leases.replace_namespaced_lease("leader", "py-typed", made).spec.holder_identity == "you"
    with pytest.raises(client.ApiException) as late:
        leases.replace_namespaced_lease("leader", "py-typed", made)
    assert late.value.status == 409
    core.delete_namespace("py-typed")


def test_the_dynamic_client_does_every_verb_and_watches(api: client.ApiClient) -> None:
    fleets = dynamic.DynamicClient(api).resources.get(
        api_version=f"{GROUP}/{VERSION}", kind="Fleet"
    )
    made = fleets.create(body=fleet("py-dynamic"), namespace="default")
    assert made.metadata.uid
    merge = "application/merge-patch+json"
    patch = {"metadata": {"labels": {"by": "python"}}}
    fleets.patch(body=patch, name="py-dynamic", namespace="default", content_type=merge)
    found = fleets.get(namespace="default", label_selector="by=python")
    assert [item.metadata.name for item in found.items] == ["py-dynamic"]
    applied = fleets.server_side_apply(
        body=fleet("py-dynamic", "quay.io/acme/os:2"), name="py-dynamic", namespace="default",
        field_manager="py", force_conflicts=True,
    )  # fmt: skip
    assert applied.spec.template.spec.os.image == "quay.io/acme/os:2"
    events = []
    watching = fleets.watch(
        namespace="default",
        name="py-dynamic",
        resource_version=applied.metadata.resourceVersion,
        timeout=60,
    )
    threading.Timer(
        0.5, lambda: fleets.delete(name="py-dynamic", namespace="default")
    ).start()  # fmt: skip
    for event in watching:
        events.append(event["type"])
        if event["type"] == "DELETED":
            break
    assert events == ["DELETED"]


def test_the_clients_watch_goes_on_from_what_it_listed(api: client.ApiClient) -> None:
    objects = client.CustomObjectsApi(api)
    place = (GROUP, VERSION, "default", "fleets")
    listed = objects.list_namespaced_custom_object(*place)
    for name in ("py-w1", "py-w2"):
        objects.create_namespaced_custom_object(*place, fleet(name))
    stream = watch.Watch()
    seen = []
    for event in stream.stream(
        objects.list_namespaced_custom_object, *place,
        resource_version=listed["metadata"]["resourceVersion"], timeout_seconds=20,
    ):  # fmt: skip
        seen.append((event["type"], event["object"]["metadata"]["name"]))
        if len(seen) == 2:
            stream.stop()
    assert seen == [("ADDED", "py-w1"), ("ADDED", "py-w2")]
    for name in ("py-w1", "py-w2"):
        objects.delete_namespaced_custom_object(*place, name)


OPERATOR = """
import kopf

GROUP, VERSION = "flightctl.io", "v1beta1"


@kopf.on.startup()
def configure(settings, **_):
    settings.peering.standalone = True
    settings.posting.enabled = True


@kopf.index(GROUP, VERSION, "repositories")
def urls(name, spec, **_):
    return {name: spec.get("url")}


@kopf.on.create(GROUP, VERSION, "fleets")
def created(name, patch, urls, body, **_):
    kopf.info(body, reason="Seen", message="a fleet came")
    patch.metadata.annotations["acme.io/created"] = ",".join(sorted(urls))


@kopf.on.update(GROUP, VERSION, "fleets", field="spec.template.spec.os.image")
def updated(old, new, patch, **_):
    patch.metadata.annotations["acme.io/updated"] = f"{old} -> {new}"


@kopf.on.delete(GROUP, VERSION, "fleets")
def deleted(name, **_):
    print("deleted", name, flush=True)


@kopf.timer(GROUP, VERSION, "fleets", interval=1.0, labels={"ticking": "yes"})
def tick(patch, annotations, **_):
    patch.metadata.annotations["acme.io/ticks"] = str(int(annotations.get("acme.io/ticks", 0)) + 1)
"""


@pytest.fixture(scope="module")
def operator(server: Process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The operator, running; its output."""
    home = tmp_path_factory.mktemp("operator")
    (home / "operator.py").write_text(OPERATOR)
    output = home / "output.log"
    with output.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "kopf", "run", "operator.py", "-n", "py-kopf"],
            cwd=home,
            stdout=out,
            stderr=out,
            env=os.environ | {"KUBECONFIG": str(server.kubeconfig)},
        )
    yield output
    process.send_signal(signal.SIGINT)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(15)


@pytest.mark.timeout(180)
def test_an_operator_of_a_user_handles_changes_timers_and_indexes(
    api: client.ApiClient, server: Process, request: pytest.FixtureRequest
) -> None:
    core, objects = client.CoreV1Api(api), client.CustomObjectsApi(api)
    core.create_namespace(json.loads(namespace_manifest("py-kopf")))
    place = (GROUP, VERSION, "py-kopf", "fleets")
    repository = {
        "apiVersion": f"{GROUP}/{VERSION}", "kind": "Repository", "metadata": {"name": "r"},
        "spec": {"type": "http", "url": "https://example.com"},
    }  # fmt: skip
    objects.create_namespaced_custom_object(*place[:3], "repositories", repository)
    output: Path = request.getfixturevalue("operator")
    objects.create_namespaced_custom_object(*place, fleet("web"))

    def annotations() -> dict[str, str]:
        found = objects.get_namespaced_custom_object(*place, "web")
        return dict(found["metadata"].get("annotations") or {})

    def said(words: str) -> bool:
        return words in output.read_text()

    eventually(lambda: annotations().get("acme.io/created") == "r", output.read_text())
    change = fleet("web", "quay.io/acme/os:2") | {"metadata": {"labels": {"ticking": "yes"}}}
    objects.patch_namespaced_custom_object(*place, "web", change)
    arrow = "quay.io/acme/os:1 -> quay.io/acme/os:2"
    eventually(lambda: annotations().get("acme.io/updated") == arrow, output.read_text())
    eventually(lambda: int(annotations().get("acme.io/ticks", 0)) >= 2, output.read_text())

    def is_told() -> bool:
        return "Seen" in [event.reason for event in core.list_namespaced_event("py-kopf").items]

    eventually(is_told, output.read_text())
    objects.delete_namespaced_custom_object(*place, "web")
    eventually(lambda: said("deleted web"), output.read_text())

    def is_gone() -> bool:
        return not objects.list_namespaced_custom_object(*place)["items"]

    eventually(is_gone, output.read_text())
