"""The audit on the Kubernetes face: what is told, of whom, and who may read it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apiserver.auth.identity import Caller
from apiserver.refusals import STRANGERS_A_MINUTE, WAITING_MAX, Refusals
from apiserver.store import auditlog
from resources import registry, validation
from tests.fakes import kube_face
from tests.fakes.kube_face import MERGE, G, H, Rig, fleet

Json = dict[str, Any]
PLANTED = "hunter2-planted-in-a-body"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with kube_face.running(tmp_path) as found:
        yield found


def repository(**more: Any) -> Json:
    access = {"username": "a", "password": PLANTED}
    metadata = {"name": "a", "annotations": {"x": PLANTED}}
    named = {"apiVersion": "flightctl.io/v1beta1", "kind": "Repository", "metadata": metadata}
    return {**named, "spec": {"type": "http", "url": "https://a", "httpConfig": access, **more}}


async def told(rig: Rig, **params: str) -> list[Json]:
    """All of the audit, with what waited to be told."""
    assert rig.face.refusals is not None
    await rig.face.refusals.flush()
    found = await rig.json("GET", f"{H}/auditevents", params=params)
    items: list[Json] = found["items"]
    return items


def short(event: Json) -> tuple[str, str, str, str, int]:
    spec, about = event["spec"], event["spec"]["object"]
    return spec.get("user", ""), spec["verb"], about["kind"], about.get("name", ""), spec["code"]


async def test_each_write_is_told_once_and_a_rehearsal_never(rig: Rig) -> None:
    path = f"{G}/namespaces/default/fleets"
    made = await rig.json("POST", path, json=fleet("a"), code=201)
    await rig.json("POST", path, json=fleet("b"), params={"dryRun": "All"}, code=201)
    labels = {"metadata": {"labels": {"x": "1"}}}
    headers = {"Content-Type": MERGE, "User-Agent": "me/1", "X-Request-Id": "r-1"}
    changed = await rig.json("PATCH", f"{path}/a", json=labels, role="operator", headers=headers)
    await rig.json("PATCH", f"{path}/c", json=fleet("c"), params={"fieldManager": "me"}, code=201,
                   headers={"Content-Type": "application/apply-patch+yaml"})  # fmt: skip
    await rig.json("DELETE", f"{path}/a")
    await rig.json("DELETE", path)
    events = await told(rig)
    assert [short(event) for event in events] == [
        ("test-admin", "create", "Fleet", "a", 201),
        ("test-operator", "patch", "Fleet", "a", 200),
        ("test-admin", "patch", "Fleet", "c", 201),
        ("test-admin", "delete", "Fleet", "a", 200),
        ("test-admin", "deletecollection", "Fleet", "c", 200),
    ]
    assert [int(event["metadata"]["name"]) for event in events] == [1, 2, 3, 4, 5]
    patched = events[1]["spec"]
    assert patched == {
        "user": "test-operator", "roles": ["operator"], "authenticatedBy": "header",
        "sourceAddress": "127.0.0.1", "userAgent": "me/1", "requestId": "r-1", "verb": "patch",
        "object": {"apiVersion": "flightctl.io/v1beta1", "kind": "Fleet", "namespace": "default",
                   "name": "a", "uid": made["metadata"]["uid"],
                   "resourceVersion": changed["metadata"]["resourceVersion"]},
        "code": 200,
    }  # fmt: skip
    for event in events:
        assert validation.validate(registry.AUDIT_EVENT, event) == []


async def test_refused_writes_and_strangers_are_told_and_what_only_says_later_is_not(
    rig: Rig,
) -> None:
    path = f"{G}/namespaces/default/fleets"
    await rig.refused("POST", path, 403, json=fleet("a"), role="viewer")
    await rig.refused("POST", path, 401, json=fleet("a"), role="")
    await rig.refused("GET", path, 403, role="nobody", params={"watch": "1"})
    await rig.refused("DELETE", f"{path}/gone", 404)
    await rig.refused("POST", path, 422, json=fleet("A" * 300))
    await rig.refused("GET", f"{path}/gone", 404)
    await rig.refused("GET", f"{G}/nothing", 404)
    await rig.refused("DELETE", f"{path}/gone", 404, params={"dryRun": "All"})
    assert [short(event) for event in await told(rig)] == [
        ("test-viewer", "create", "Fleet", "", 403),
        ("", "create", "Fleet", "", 401),
        ("test-nobody", "watch", "Fleet", "", 403),
        ("test-admin", "delete", "Fleet", "gone", 404),
        ("test-admin", "create", "Fleet", "A" * 253, 422),
    ]


async def test_an_event_holds_nothing_of_a_body(rig: Rig) -> None:
    path = f"{G}/namespaces/default/repositories"
    await rig.json("POST", path, json=repository(), code=201)
    await rig.refused("POST", path, 409, json=repository())
    await rig.refused("PUT", f"{path}/a", 422, json=repository(type=PLANTED))
    found = await told(rig)
    assert len(found) == 3
    assert PLANTED not in json.dumps(found)


async def test_who_reads_secrets_is_told_once_for_each_version(rig: Rig) -> None:
    path = f"{G}/namespaces/default/repositories"
    await rig.json("POST", path, json=repository(), code=201)
    for _ in range(3):
        await rig.json("GET", f"{path}/a/credentials", role="controller")
    await rig.refused("GET", f"{path}/a/credentials", 403)
    reads = [each for each in await told(rig) if each["spec"]["verb"] == "get"]
    assert [short(each)[0] for each in reads] == ["test-controller", "test-admin"]
    assert {each["spec"]["object"]["subresource"] for each in reads} == {"credentials"}


async def test_who_reads_what_a_device_was_given_is_told(rig: Rig) -> None:
    path = f"{G}/namespaces/default/devices"
    named = {"apiVersion": "flightctl.io/v1beta1", "kind": "Device", "metadata": {"name": "d"}}
    await rig.json("POST", path, json={**named, "spec": {"os": {"image": "a"}}}, code=201)
    for _ in range(2):
        await rig.json("GET", f"{path}/d/rendered", role="operator")
        await rig.json("GET", f"{path}/d", role="operator")
    reads = [each for each in await told(rig) if each["spec"]["verb"] == "get"]
    assert [short(each) for each in reads] == [("test-operator", "get", "Device", "d", 200)]
    assert reads[0]["spec"]["object"]["subresource"] == "rendered"


async def test_bookkeeping_of_the_service_is_not_told(rig: Rig) -> None:
    path = await rig.fleets("a")
    before = len(await told(rig))
    status = {"status": {"conditions": []}}
    await rig.json("PATCH", f"{path}/a/status", json=status, role="controller",
                   headers={"Content-Type": MERGE})  # fmt: skip
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}}
    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    await rig.json("POST", leases, json=lease, code=201)
    assert len(await told(rig)) == before


async def test_auditors_find_what_they_ask_for_page_by_page(rig: Rig) -> None:
    path = await rig.fleets(*(f"f{n}" for n in range(7)))
    for n in range(3):
        await rig.json("DELETE", f"{path}/f{n}", role="operator")
    asked = {"fieldSelector": "spec.user=test-operator,spec.verb=delete,spec.object.kind=Fleet"}
    assert [short(each)[3] for each in await told(rig, **asked)] == ["f0", "f1", "f2"]
    asked = {"fieldSelector": "spec.object.name=f1"}
    assert [short(each)[1] for each in await told(rig, **asked)] == ["create", "delete"]
    asked = {"fieldSelector": "spec.code!=200,spec.object.name in (f1,f2)"}
    assert [short(each)[1] for each in await told(rig, **asked)] == ["create", "create"]
    assert await told(rig, labelSelector="a=b") == []
    names, token = [], ""
    while True:
        page = await rig.json(
            "GET", f"{H}/auditevents", params={"limit": "3", "continue": token}, role="auditor"
        )
        names += [each["metadata"]["name"] for each in page["items"]]
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert names == sorted({each["metadata"]["name"] for each in await told(rig)})
    namespace = path.split("/")[-2]
    one = await rig.json("GET", f"{H}/namespaces/{namespace}/auditevents/{names[-1]}")
    assert short(one) == ("test-operator", "delete", "Fleet", "f2", 200)
    await rig.refused("GET", f"{H}/namespaces/default/auditevents/{names[-1]}", 404)
    await rig.refused("GET", f"{H}/namespaces/{namespace}/auditevents/x", 404)


async def test_a_watch_goes_on_from_where_it_was(rig: Rig) -> None:
    path = await rig.fleets("a", "b")
    version = (await rig.json("GET", f"{H}/auditevents"))["metadata"]["resourceVersion"]
    await rig.json("DELETE", f"{path}/a")
    params = {"watch": "1", "resourceVersion": version, "timeoutSeconds": "2"}
    async with rig.call("GET", f"{H}/auditevents", params=params) as response:
        first = json.loads(await response.content.readline())
        await rig.json("DELETE", f"{path}/b")
        await rig.refused("DELETE", f"{path}/b", 404)
        assert rig.face.refusals is not None
        await rig.face.refusals.flush()
        rest = [json.loads(line) async for line in response.content]
    assert {each["type"] for each in (first, *rest)} == {"ADDED"}
    assert [short(each["object"])[3:] for each in (first, *rest)] == [
        ("a", 200), ("b", 200), ("b", 404)
    ]  # fmt: skip


async def test_a_watch_from_what_was_forgotten_is_told_so(rig: Rig) -> None:
    await rig.fleets("a", "b")
    await rig.face.operations.store.write(lambda tx: auditlog.forget(tx, 0, keep=1))
    params = {"watch": "1", "resourceVersion": "1", "timeoutSeconds": "1"}
    async with rig.call("GET", f"{H}/auditevents", params=params) as response:
        event = json.loads(await response.content.readline())
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)
    assert len(await told(rig)) == 1


async def test_nobody_writes_and_only_auditors_and_administrators_read(rig: Rig) -> None:
    await rig.fleets("a")
    place = f"{H}/namespaces/default/auditevents"
    for method in ("POST", "DELETE"):
        await rig.refused(method, place, 405, json={})
    for method in ("PUT", "PATCH", "DELETE"):
        await rig.refused(method, f"{place}/000000000001", 405, json={})
    for role in ("viewer", "operator", "installer", "nobody", "controller"):
        await rig.refused("GET", f"{H}/auditevents", 403, role=role)
    for role in ("admin", "org-admin", "auditor"):
        await rig.json("GET", f"{H}/auditevents", role=role)
    await rig.refused("GET", f"{G}/fleets", 403, role="auditor")


async def test_a_namespace_that_was_made_again_shows_nothing_of_the_one_before(rig: Rig) -> None:
    path = await rig.fleets("a")
    namespace = path.split("/")[-2]
    place = f"{H}/namespaces/{namespace}/auditevents"
    assert len((await rig.json("GET", place))["items"]) == 1
    await rig.json("DELETE", f"/api/v1/namespaces/{namespace}")
    # Times are whole seconds.
    await asyncio.sleep(1.1)
    await rig.json("POST", "/api/v1/namespaces", json={"metadata": {"name": namespace}}, code=201)
    assert (await rig.json("GET", place))["items"] == []
    assert [short(each)[2:4] for each in await told(rig)][1] == ("Fleet", "a")


async def test_strangers_and_floods_are_bounded(rig: Rig) -> None:
    clock = [0.0]
    refusals = Refusals(rig.face.operations.store, monotonic=lambda: clock[0])
    for _ in range(2 * STRANGERS_A_MINUTE):
        refusals.tell(Caller(""), "create", {"kind": "Fleet"}, 401, "Unauthorized")
    assert len(refusals._waiting) == STRANGERS_A_MINUTE
    clock[0] = 60.0
    refusals.tell(Caller(""), "create", {"kind": "Fleet"}, 401, "Unauthorized")
    for _ in range(2 * WAITING_MAX):
        refusals.tell(Caller("a", source="x"), "create", {"kind": "Fleet"}, 403, "Forbidden")
    assert len(refusals._waiting) == WAITING_MAX
    await refusals.flush()
    assert len(await told(rig, fieldSelector="spec.user=a")) == WAITING_MAX - STRANGERS_A_MINUTE - 1
