"""Server-side apply over HTTP: conditions of the request, ownership that is stored, conflicts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from apiserver.wire.patch import APPLY_PATCH
from resources.kind import Json
from tests.fakes import kube_face
from tests.fakes.kube_face import MERGE, G, Rig, fleet


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with kube_face.running(tmp_path_factory.mktemp("applying")) as running:
        yield running


pytestmark = pytest.mark.asyncio(loop_scope="module")


def config(name: str = "web", **spec: Any) -> Json:
    return {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "Fleet",
        "metadata": {"name": name},
        "spec": {"template": {"spec": {}}, **spec},
    }


def image(text: str) -> Json:
    return {"template": {"spec": {"os": {"image": text}}}}


async def apply(
    rig: Rig, path: str, body: Json, manager: str, *, code: int = 200, **query: str
) -> Json:
    asked = "&".join(f"{key}={value}" for key, value in {"fieldManager": manager, **query}.items())
    return await rig.json(
        "PATCH", f"{path}?{asked}", json=body, headers={"Content-Type": APPLY_PATCH}, code=code
    )


def owners(document: Json) -> dict[tuple[str, str], Json]:
    entries = document["metadata"].get("managedFields", [])
    return {(e["manager"], e["operation"]): e["fieldsV1"] for e in entries}


async def test_applying_creates_owns_and_changes_nothing_when_done_again(rig: Rig) -> None:
    path = f"{await rig.fleets()}/web"
    made = await apply(rig, path, config(**image("os:1")), "one", code=201)
    assert owners(made) == {
        ("one", "Apply"): {"f:spec": {"f:template": {"f:spec": {"f:os": {"f:image": {}}}}}}
    }
    again = await apply(rig, path, config(**image("os:1")), "one")
    assert again == made


async def test_a_conflict_is_409_with_the_field_and_its_owner(rig: Rig) -> None:
    path = f"{await rig.fleets()}/web"
    await apply(rig, path, config(**image("os:1")), "one", code=201)
    refused = await apply(rig, path, config(**image("os:2")), "two", code=409)
    assert refused["reason"] == "Conflict"
    assert refused["details"]["causes"] == [
        {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "one"',
            "field": ".spec.template.spec.os.image",
        }
    ]
    assert refused["message"].startswith("Apply failed with 1 conflict")
    taken = await apply(rig, path, config(**image("os:2")), "two", force="true")
    assert set(owners(taken)) == {("two", "Apply")}


async def test_what_is_no_longer_applied_is_removed_and_what_others_have_stays(rig: Rig) -> None:
    path = f"{await rig.fleets()}/web"
    labels = {"metadata": {"name": "web", "labels": {"a": "1", "b": "1"}}}
    await apply(rig, path, config() | labels, "one", code=201)
    theirs = {"metadata": {"name": "web", "labels": {"b": "1"}}}
    await apply(rig, path, config() | theirs, "two")
    left = await apply(rig, path, config(), "one")
    assert left["metadata"]["labels"] == {"b": "1"}
    assert set(owners(left)) == {("one", "Apply"), ("two", "Apply")}


async def test_every_other_write_owns_what_it_changes(rig: Rig) -> None:
    path = await rig.fleets("web")
    made = await rig.json("GET", f"{path}/web")
    ((manager, operation),) = owners(made)
    assert operation == "Update"
    await rig.json(
        "PATCH",
        f"{path}/web?fieldManager=ed",
        json={"metadata": {"labels": {"x": "1"}}},
        headers={"Content-Type": MERGE},
    )
    status = {"status": {"conditions": []}}
    after = await rig.json(
        "PATCH",
        f"{path}/web/status?fieldManager=ed",
        json=status,
        headers={"Content-Type": MERGE},
    )
    entries = [e for e in after["metadata"]["managedFields"] if e["manager"] == "ed"]
    assert [(e.get("subresource"), e["fieldsV1"]) for e in entries] == [
        (None, {"f:metadata": {"f:labels": {".": {}, "f:x": {}}}}),
        ("status", {"f:status": {".": {}, "f:conditions": {}}}),
    ]
    assert (manager, "Update") in owners(after)


async def test_ownership_may_be_reset_and_moved_by_hand(rig: Rig) -> None:
    path = await rig.fleets("web")
    moved = await rig.json(
        "PATCH",
        f"{path}/web?fieldManager=ed",
        json={"metadata": {"managedFields": [{}]}},
        headers={"Content-Type": MERGE},
    )
    assert "managedFields" not in moved["metadata"]
    # Nobody owns it now, so nobody does until somebody applies.
    edited = await rig.json(
        "PATCH",
        f"{path}/web?fieldManager=ed",
        json={"metadata": {"labels": {"x": "1"}}},
        headers={"Content-Type": MERGE},
    )
    assert "managedFields" not in edited["metadata"]
    applied = await apply(rig, f"{path}/web", config(**image("os:2")), "one", force="true")
    assert set(owners(applied)) == {("one", "Apply"), ("before-first-apply", "Update")}


async def test_what_an_apply_must_say(rig: Rig) -> None:
    path = f"{await rig.fleets()}/web"
    headers = {"Content-Type": APPLY_PATCH}
    refused = await rig.refused("PATCH", path, 422, json=config(), headers=headers)
    assert "fieldManager" in refused["message"]
    owned = config()
    owned["metadata"]["managedFields"] = []
    await rig.refused("PATCH", f"{path}?fieldManager=a", 400, json=owned, headers=headers)
    await rig.refused("PATCH", f"{path}?fieldManager=a", 400, json=[], headers=headers)
    other = config("other")
    await rig.refused("PATCH", f"{path}?fieldManager=a", 400, json=other, headers=headers)
    forced = f"{path}?fieldManager=a&force=true"
    await rig.refused("PATCH", forced, 422, json={}, headers={"Content-Type": MERGE})
    status = f"{path}/status?fieldManager=a"
    await rig.refused("PATCH", status, 404, json=config(), headers=headers)
    unknown = config(colour="blue")
    strict = f"{path}?fieldManager=a&fieldValidation=Strict"
    refused = await rig.refused("PATCH", strict, 400, json=unknown, headers=headers)
    assert 'unknown field "spec.colour"' in refused["message"]
    twice = config(selector={"matchLabels": {"a": "no spaces here"}})
    await rig.refused("PATCH", f"{path}?fieldManager=a", 422, json=twice, headers=headers)


async def test_applying_a_device_again_makes_no_version_though_time_has_passed(rig: Rig) -> None:
    """It shows annotations that nobody applies, and times of owners have seconds."""
    path = f"{(await rig.fleets()).replace('fleets', 'devices')}/gate"
    body = {"apiVersion": "flightctl.io/v1beta1", "kind": "Device", "spec": {}}
    body["metadata"] = {"name": "gate", "labels": {"a": "b"}}
    made = await apply(rig, path, body, "one", code=201)
    assert "device-controller/renderedVersion" in made["metadata"]["annotations"]
    await asyncio.sleep(1.1)
    assert await apply(rig, path, body, "one") == made


async def test_a_dry_run_is_judged_and_not_stored(rig: Rig) -> None:
    path = f"{await rig.fleets()}/web"
    await apply(rig, path, config(), "one", code=201, dryRun="All")
    await rig.refused("GET", path, 404)


async def test_an_old_version_is_a_conflict(rig: Rig) -> None:
    path = f"{await rig.fleets()}/web"
    made = await apply(rig, path, config(), "one", code=201)
    moved = await apply(rig, path, config(**image("os:1")), "one")
    assert moved["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    old = config()
    old["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"]
    refused = await apply(rig, path, old, "one", code=409)
    assert "has been modified" in refused["message"]


async def test_kubectl_moves_from_client_side_to_server_side(rig: Rig) -> None:
    """What it applied client-side is its own; the annotation follows what it applies."""
    namespace = await rig.fleets()
    body = fleet("web")
    noted = '{"apiVersion":"flightctl.io/v1beta1","kind":"Fleet","metadata":{"name":"web"},'
    noted += '"spec":{"template":{"spec":{"os":{"image":"quay.io/acme/os:1"}}}}}'
    key = "kubectl.kubernetes.io/last-applied-configuration"
    body["metadata"]["annotations"] = {key: noted}
    client = f"{namespace}?fieldManager=kubectl-client-side-apply"
    await rig.json("POST", client, json=body, code=201)
    path = f"{namespace}/web"
    await apply(rig, path, config(**image("os:2")), "argo", code=409)
    moved = await apply(rig, path, config(**image("os:2")), "kubectl")
    assert '"image":"os:2"' in moved["metadata"]["annotations"][key]
    selector = {"selector": {"matchLabels": {"fleet": "other"}}}
    refused = await apply(rig, path, config(**selector), "kubectl", code=409)
    assert ".spec.selector" in refused["message"]


async def test_a_secret_is_applied_kept_and_shown_to_nobody(rig: Rig) -> None:
    namespace = (await rig.fleets()).replace("fleets", "repositories")
    body = {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "Repository",
        "metadata": {"name": "r"},
        "spec": {
            "type": "http",
            "url": "https://example.com",
            "httpConfig": {"username": "u", "password": "hidden"},
        },
    }
    path = f"{namespace}/r"
    made = await apply(rig, path, body, "one", code=201)
    assert made["spec"]["httpConfig"]["password"] == "*****"
    assert await apply(rig, path, body, "one") == made
    body["spec"]["httpConfig"]["password"] = "*****"
    assert await apply(rig, path, body, "one") == made


async def test_namespaces_and_events_are_applied_in_their_own_words(rig: Rig) -> None:
    body: Json = {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "applied", "labels": {"a": "1"}},
    }
    path = "/api/v1/namespaces/applied"
    made = await apply(rig, path, body, "one", code=201)
    assert owners(made) == {("one", "Apply"): {"f:metadata": {"f:labels": {"f:a": {}}}}}
    assert await apply(rig, path, body, "one") == made
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "applied"},
        "involvedObject": {"kind": "Fleet", "name": "web", "namespace": "applied"},
        "reason": "Said",
    }
    path = "/api/v1/namespaces/applied/events/e"
    made = await apply(rig, path, event, "one", code=201)
    assert owners(made)["one", "Apply"]["f:reason"] == {}
    assert await apply(rig, path, event, "one") == made


async def test_a_device_is_applied_like_anything_else(rig: Rig) -> None:
    namespace = (await rig.fleets()).replace("fleets", "devices")
    body = {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "Device",
        "metadata": {"name": "d", "labels": {"site": "berlin"}},
        "spec": {"os": {"image": "os:1"}},
    }
    path = f"{namespace}/d"
    made = await apply(rig, path, body, "one", code=201)
    assert owners(made) == {
        ("one", "Apply"): {
            "f:metadata": {"f:labels": {"f:site": {}}},
            "f:spec": {"f:os": {"f:image": {}}},
        }
    }
    assert await apply(rig, path, body, "one") == made
    body["metadata"] = {"name": "d"}
    assert not (await apply(rig, path, body, "one"))["metadata"].get("labels")
    assert G in path
