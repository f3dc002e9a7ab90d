"""Kubernetes' own kinds in standalone mode: leases, events in both groups, bodies in protobuf."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from apiserver.wire import messages, protobuf
from resources.kind import Json
from tests.fakes import kube_face
from tests.fakes.kube_face import MERGE, Rig, fleet


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with kube_face.running(tmp_path_factory.mktemp("builtins")) as running:
        yield running


pytestmark = pytest.mark.asyncio(loop_scope="module")


def lease(holder: str, **metadata: object) -> Json:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "leader", **metadata},
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": 15,
            "renewTime": "2026-11-26T00:00:00.123456Z",
        },
    }


async def test_a_lease_changes_hands_only_from_the_version_that_was_read(rig: Rig) -> None:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{await rig.namespace()}/leases"
    made = await rig.json("POST", path, json=lease("one"), code=201)
    version = made["metadata"]["resourceVersion"]
    taken = lease("two", resourceVersion=version)
    await rig.json("PUT", f"{path}/leader", json=taken)
    late = lease("three", resourceVersion=version)
    await rig.refused("PUT", f"{path}/leader", 409, json=late)
    table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    shown = await rig.json("GET", path, headers=table)
    assert shown["rows"][0]["cells"][:2] == ["leader", "two"]


async def test_a_lease_goes_with_its_owner(rig: Rig) -> None:
    fleets = await rig.fleets()
    owner = await rig.json("POST", fleets, json=fleet("web"), code=201)
    path = f"/apis/coordination.k8s.io/v1/namespaces/{fleets.split('/')[-2]}/leases"
    reference = {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "Fleet",
        "name": "web",
        "uid": owner["metadata"]["uid"],
    }
    await rig.json("POST", path, json=lease("one", ownerReferences=[reference]), code=201)
    await rig.json("DELETE", f"{fleets}/web")
    await rig.refused("GET", f"{path}/leader", 404)


async def test_an_event_is_one_in_both_groups(rig: Rig) -> None:
    namespace = await rig.namespace()
    newer = f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"
    event = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": "e"},
        "eventTime": "2026-11-26T00:00:00.000000Z",
        "reportingController": "acme.io/c",
        "reportingInstance": "c-1",
        "action": "Rolling",
        "reason": "Rolled",
        "regarding": {"kind": "Fleet", "name": "web", "namespace": namespace},
        "note": "web.v1 goes out",
        "type": "Normal",
    }
    made = await rig.json("POST", newer, json=event, code=201)
    older = f"/api/v1/namespaces/{namespace}/events"
    shown = await rig.json("GET", f"{older}/e")
    assert shown["metadata"]["uid"] == made["metadata"]["uid"]
    assert shown["message"] == "web.v1 goes out"
    assert shown["involvedObject"]["name"] == "web"
    assert shown["reportingComponent"] == "acme.io/c"
    await rig.json("PATCH", f"{older}/e", json={"count": 2}, headers={"Content-Type": MERGE})
    again = await rig.json("GET", f"{newer}/e")
    assert again["deprecatedCount"] == 2
    assert again["note"] == event["note"]
    found = await rig.json("GET", f"{newer}?fieldSelector=regarding.name%3Dweb,reason%3DRolled")
    assert [item["metadata"]["name"] for item in found["items"]] == ["e"]
    found = await rig.json("GET", f"{newer}?fieldSelector=regarding.name%3Dother")
    assert found["items"] == []
    unknown = await rig.refused("POST", newer, 422, json=event | {"note": "x" * 2000})
    assert "note" in unknown["message"]


async def test_bodies_of_built_in_kinds_are_read_from_protobuf(rig: Rig) -> None:
    headers = {"Content-Type": messages.MEDIA, "Accept": f"{messages.MEDIA},application/json"}
    # As kubectl 1.33 sends `create namespace x`.
    raw = bytes.fromhex(
        "6b387300 0a0f 0a027631 12094e616d657370616365 121c"
        "0a14 0a0470626e73 1200 1a00 2200 2a00 3200 3800 4200 1200 1a020a00 1a00 2200"
    )
    made = await rig.json("POST", "/api/v1/namespaces", data=raw, headers=headers, code=201)
    assert made["metadata"]["name"] == "pbns"
    uid = made["metadata"]["uid"]
    options = protobuf.encode(messages.DELETE_OPTIONS, {"preconditions": {"uid": "another"}})
    inner = protobuf.encode(
        {1: ("type", {1: ("version", "text"), 2: ("kind", "text")})},
        {"type": {"version": "v1", "kind": "DeleteOptions"}},
    )
    sent = b"k8s\0" + inner + b"\x12" + bytes([len(options)]) + options
    path = "/api/v1/namespaces/pbns"
    await rig.refused("DELETE", path, 409, data=sent, headers=headers)
    await rig.json("DELETE", path, json={"preconditions": {"uid": uid}})


async def test_a_namespace_takes_what_is_in_it_along(rig: Rig) -> None:
    fleets = await rig.fleets("web")
    namespace = fleets.split("/")[-2]
    devices = fleets.replace("fleets", "devices")
    device = {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "Device",
        "metadata": {"name": "d", "labels": {"fleet": "web"}},
        "spec": {},
    }
    await rig.json("POST", devices, json=device, code=201)
    held = {"metadata": {"finalizers": ["acme.io/clean"]}}
    await rig.json("PATCH", f"{fleets}/web", json=held, headers={"Content-Type": MERGE})
    refused = await rig.refused("DELETE", f"/api/v1/namespaces/{namespace}", 409)
    assert "fleets.flightctl.io web" in refused["message"]
    assert (await rig.json("GET", devices))["items"]
    free = {"metadata": {"finalizers": None}}
    await rig.json("PATCH", f"{fleets}/web", json=free, headers={"Content-Type": MERGE})
    await rig.json("DELETE", f"/api/v1/namespaces/{namespace}")
    again = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}
    await rig.json("POST", "/api/v1/namespaces", json=again, code=201)
    for path in (fleets, devices):
        assert (await rig.json("GET", path))["items"] == []


async def test_a_kind_of_kubernetes_may_leave_out_what_its_path_says(rig: Rig) -> None:
    made = await rig.json(
        "POST", "/api/v1/namespaces", json={"metadata": {"name": "bare"}}, code=201
    )
    assert made["kind"] == "Namespace"
    bare = {key: value for key, value in fleet("web").items() if key != "kind"}
    fleets = f"{kube_face.G}/namespaces/bare/fleets"
    refused = await rig.refused("POST", fleets, 400, json=bare)
    assert "write kind: Fleet" in refused["message"]
