"""create, update, patch, delete, subresources, views, contents."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from resources import digest
from tests.fakes import kube_face
from tests.fakes.kube_face import JSON_PATCH, MERGE, G, H, Rig, fleet

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with kube_face.running(tmp_path_factory.mktemp("writing")) as running:
        yield running


async def patch(rig: Rig, path: str, body: Any, media: str = MERGE, **more: Any) -> Any:
    headers = {"Content-Type": media}
    return await rig.json("PATCH", path, headers=headers, data=json.dumps(body), **more)


def image(value: str) -> dict[str, Any]:
    return {"spec": {"template": {"spec": {"os": {"image": value}}}}}


async def test_create_completes_the_metadata(rig: Rig) -> None:
    path = await rig.fleets()
    made = await rig.json("POST", path, json=fleet("web") | {"status": {"x": 1}}, code=201)
    metadata = made["metadata"]
    assert metadata["uid"]
    assert metadata["generation"] == 1
    assert metadata["creationTimestamp"].endswith("Z")
    # The event that tells it came after it, in the same transaction.
    assert metadata["resourceVersion"] == str(rig.version - 1)
    assert metadata["namespace"] in path
    assert "x" not in made.get("status", {}), "a status that people send is dropped"
    status = await rig.refused("POST", path, 409, json=fleet("web"))
    assert status["reason"] == "AlreadyExists"


async def test_names_are_generated(rig: Rig) -> None:
    path = await rig.fleets()
    document = fleet("x")
    document["metadata"] = {"generateName": "web-"}
    names = {(await rig.json("POST", path, json=document, code=201))["metadata"]["name"]
             for _ in range(5)}  # fmt: skip
    assert len(names) == 5
    assert all(name.startswith("web-") and len(name) == 9 for name in names)


async def test_yaml_is_taken_too(rig: Rig) -> None:
    path = await rig.fleets()
    text = (
        "apiVersion: flightctl.io/v1beta1\nkind: Fleet\nmetadata: {name: web}\nspec:\n"
        "  template:\n    spec:\n      config:\n      - name: motd\n        inline:\n"
        "        - {path: /etc/motd, content: hi, mode: 0644}\n"
    )
    headers = {"Content-Type": "application/yaml"}
    made = await rig.json("POST", path, headers=headers, data=text, code=201)
    assert made["spec"]["template"]["spec"]["config"][0]["inline"][0]["mode"] == 420


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_dry_run_is_answered_and_not_stored(rig: Rig, method: str) -> None:
    path = await rig.fleets("web")
    before = rig.version
    where = path if method == "POST" else f"{path}/web"
    body = fleet("new" if method == "POST" else "web")
    body["spec"]["template"]["spec"]["os"]["image"] = "quay.io/acme/os:2"
    headers = {"Content-Type": MERGE} if method == "PATCH" else {"Content-Type": "application/json"}
    data = "" if method == "DELETE" else json.dumps(body)
    async with rig.call(
        method, where, params={"dryRun": "All"}, headers=headers, data=data
    ) as response:
        assert response.status in (200, 201), await response.text()
        if method != "DELETE":
            answer = await response.json()
            assert answer["spec"]["template"]["spec"]["os"]["image"] == "quay.io/acme/os:2"
    assert rig.version == before
    stored = await rig.json("GET", f"{path}/web")
    if method != "DELETE":
        # Flux tells by it whether an apply would create.
        known = None if method == "POST" else stored["metadata"]["resourceVersion"]
        assert answer["metadata"].get("resourceVersion") == known
    assert stored["spec"]["template"]["spec"]["os"]["image"] == "quay.io/acme/os:1"


TWICE = json.dumps(fleet("web")).replace('"spec":', '"colour": 1, "spec": {}, "spec":', 1)


async def test_unknown_and_duplicate_fields_as_field_validation_says(rig: Rig) -> None:
    path = await rig.fleets()
    headers = {"Content-Type": "application/json"}
    for validation, code, warned in (("Strict", 400, 0), ("Warn", 201, 2), ("Ignore", 201, 0)):
        params = {"fieldValidation": validation, "dryRun": "All"}
        async with rig.call("POST", path, params=params, headers=headers, data=TWICE) as response:
            answer = await response.json()
            assert response.status == code
            assert len(response.headers.getall("Warning", [])) == warned
            if code == 201:
                assert "colour" not in answer
            else:
                assert "strict decoding error" in answer["message"]


async def test_a_patch_that_changes_nothing_keeps_the_version(rig: Rig) -> None:
    web = await rig.fleets("web") + "/web"
    before, old = rig.version, await rig.json("GET", web)
    for change, how in ((image("quay.io/acme/os:1"), MERGE), ([], JSON_PATCH)):
        answer = await patch(rig, web, change, how)
        assert answer["metadata"]["resourceVersion"] == old["metadata"]["resourceVersion"]
    assert rig.version == before


async def test_generation_counts_changes_of_spec_only(rig: Rig) -> None:
    web = await rig.fleets("web") + "/web"
    assert (await patch(rig, web, {"metadata": {"labels": {"a": "b"}}}))["metadata"][
        "generation"
    ] == 1
    assert (await patch(rig, web, image("quay.io/acme/os:2")))["metadata"]["generation"] == 2


async def test_versions_guard_against_lost_updates(rig: Rig) -> None:
    web = await rig.fleets("web") + "/web"
    old = await rig.json("GET", web)
    await patch(rig, web, {"metadata": {"labels": {"a": "b"}}})
    status = await rig.refused("PUT", web, 409, json=old)
    assert status["reason"] == "Conflict"
    version = old["metadata"]["resourceVersion"]
    test = [{"op": "test", "path": "/metadata/resourceVersion", "value": version}]
    headers = {"Content-Type": JSON_PATCH}
    await rig.refused("PATCH", web, 422, headers=headers, data=json.dumps(test))
    guarded = {"metadata": {"resourceVersion": version, "labels": {"x": "y"}}}
    headers = {"Content-Type": MERGE}
    await rig.refused("PATCH", web, 409, headers=headers, data=json.dumps(guarded))


async def test_concurrent_patches_all_count(rig: Rig) -> None:
    web = await rig.fleets("web") + "/web"
    await asyncio.gather(
        *(patch(rig, web, {"metadata": {"labels": {f"l{n}": "x"}}}) for n in range(12))
    )
    labels = (await rig.json("GET", web))["metadata"]["labels"]
    assert labels == {f"l{n}": "x" for n in range(12)}


async def test_status_and_the_rest_are_written_apart(rig: Rig) -> None:
    web = await rig.fleets("web") + "/web"
    both = image("quay.io/acme/os:9") | {"status": {"conditions": []}}
    answer = await patch(rig, f"{web}/status", both)
    assert answer["status"]["conditions"] == []
    assert answer["spec"]["template"]["spec"]["os"]["image"] == "quay.io/acme/os:1"
    answer = await patch(rig, web, both | {"status": {"conditions": None}})
    assert answer["spec"]["template"]["spec"]["os"]["image"] == "quay.io/acme/os:9"
    assert answer["status"]["conditions"] == []
    assert (await rig.json("GET", f"{web}/status"))["status"]["conditions"] == []


async def test_delete_answers_success_with_the_uid(rig: Rig) -> None:
    path = await rig.fleets("web")
    uid = (await rig.json("GET", f"{path}/web"))["metadata"]["uid"]
    wrong = {"preconditions": {"uid": "another"}}
    await rig.refused("DELETE", f"{path}/web", 409, json=wrong)
    body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": uid}}
    answer = await rig.json("DELETE", f"{path}/web", json=body)
    assert answer["status"] == "Success"
    assert answer["details"] == {
        "name": "web", "group": "flightctl.io", "kind": "fleets", "uid": uid
    }  # fmt: skip
    await rig.refused("GET", f"{path}/web", 404)


async def test_finalizers_hold_a_deletion(rig: Rig) -> None:
    web = await rig.fleets("web") + "/web"
    await patch(rig, web, {"metadata": {"finalizers": ["acme.io/clean"]}})
    answer = await rig.json("DELETE", web)
    assert answer["metadata"]["deletionTimestamp"]
    assert answer["kind"] == "Fleet"
    again = await rig.json("DELETE", web)
    assert again["metadata"]["resourceVersion"] == answer["metadata"]["resourceVersion"]
    headers = {"Content-Type": MERGE}
    more = json.dumps({"metadata": {"finalizers": ["acme.io/clean", "acme.io/more"]}})
    await rig.refused("PATCH", web, 422, headers=headers, data=more)
    await patch(rig, web, {"metadata": {"finalizers": None}})
    await rig.refused("GET", web, 404)


async def test_collections_are_deleted_by_selector(rig: Rig) -> None:
    path = await rig.fleets()
    for name, tier in (("a", "edge"), ("b", "core"), ("c", "edge")):
        await rig.json("POST", path, json=fleet(name, tier=tier), code=201)
    gone = await rig.json("DELETE", path, params={"labelSelector": "tier=edge"})
    assert [item["metadata"]["name"] for item in gone["items"]] == ["a", "c"]
    left = await rig.json("GET", path)
    assert [item["metadata"]["name"] for item in left["items"]] == ["b"]


async def test_namespaces_are_organizations(rig: Rig) -> None:
    name = await rig.namespace()
    namespace = await rig.json("GET", f"/api/v1/namespaces/{name}")
    organization = await rig.json("GET", f"{G}/organizations/{name}")
    assert namespace["status"] == {"phase": "Active"}
    for key in ("uid", "resourceVersion"):
        assert namespace["metadata"][key] == organization["metadata"][key]
    await patch(rig, f"/api/v1/namespaces/{name}", {"metadata": {"labels": {"a": "b"}}})
    organization = await rig.json("GET", f"{G}/organizations/{name}")
    assert organization["metadata"]["labels"] == {"a": "b"}
    assert organization["spec"] == {"displayName": name}
    other = {"apiVersion": "flightctl.io/v1beta1", "kind": "Organization",
             "metadata": {"name": f"{name}-org"}, "spec": {"displayName": "Other"}}  # fmt: skip
    await rig.json("POST", f"{G}/organizations", json=other, code=201)
    listed = await rig.json("GET", "/api/v1/namespaces")
    assert f"{name}-org" in {item["metadata"]["name"] for item in listed["items"]}
    await rig.json("DELETE", f"/api/v1/namespaces/{name}-org")
    await rig.refused("GET", f"{G}/organizations/{name}-org", 404)
    status = await rig.refused("POST", "/api/v1/namespaces", 409, json={
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})  # fmt: skip
    assert status["details"]["kind"] == "namespaces"
    assert "organizations" not in status["message"]


async def test_events_keep_what_they_say(rig: Rig) -> None:
    namespace = await rig.namespace()
    path = f"/api/v1/namespaces/{namespace}/events"
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "kopf-event-", "namespace": namespace},
        "action": "Action?",
        "type": "Normal",
        "reason": "Logging",
        "message": "all is well",
        "reportingComponent": "kopf",
        "reportingInstance": "dev",
        "source": {"component": "kopf"},
        "firstTimestamp": "2026-11-23T10:00:00.000000Z",
        "lastTimestamp": "2026-11-23T10:00:00.000000Z",
        "eventTime": "2026-11-23T10:00:00.000000Z",
        "involvedObject": {"kind": "Fleet", "name": "web", "uid": "u-1"},
    }
    made = await rig.json("POST", path, json=event, code=201)
    assert {key: made[key] for key in event if key != "metadata"} == {
        key: event[key] for key in event if key != "metadata"
    }
    name = made["metadata"]["name"]
    counted = await patch(rig, f"{path}/{name}", {"count": 2})
    assert (counted["count"], counted["reason"]) == (2, "Logging")
    for selector, found in (
        ("involvedObject.uid=u-1", 1),
        ("involvedObject.uid=u-2", 0),
        ("involvedObject.kind=Fleet,type=Normal,reason=Logging", 1),
        (f"metadata.name={name}", 1),
    ):
        listed = await rig.json("GET", path, params={"fieldSelector": selector})
        assert len(listed["items"]) == found, selector
    headers = {"Content-Type": MERGE}
    data = json.dumps({"involvedObject": {"uid": 7}})
    status = await rig.refused("PATCH", f"{path}/{name}", 422, headers=headers, data=data)
    assert "involvedObject.uid" in status["message"]


async def test_contents_are_found_by_digest(rig: Rig) -> None:
    path = f"{H}/namespaces/default/contents"
    blob = b"\0\1binary\xff" * 100
    for _ in range(2):
        made = await rig.json("POST", path, data=blob, role="controller", code=201)
        assert made == {"digest": digest.of_bytes(blob)}
    async with rig.call("GET", f"{path}/{made['digest']}", role="controller") as response:
        assert await response.read() == blob
    async with rig.call("HEAD", f"{path}/{made['digest']}", role="controller") as response:
        assert response.status == 200
        assert int(response.headers["Content-Length"]) == len(blob)


async def test_devices_have_a_rendered_form(rig: Rig) -> None:
    namespace = await rig.namespace()
    path = f"{G}/namespaces/{namespace}/devices"
    device = {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "Device",
        "metadata": {"name": "d1"},
        "spec": {"config": [{"name": "a", "inline": [{"path": "/a", "content": "x"}]}]},
    }
    await rig.json("POST", path, json=device, code=201)
    rendered = await rig.json("GET", f"{path}/d1/rendered")
    assert rendered["spec"]["config"][0]["inline"][0]["contentEncoding"] == "base64"
    await rig.refused("GET", f"{path}/d1/rendered", 403, role="viewer")
    bare = device | {"metadata": {"name": "d2"}, "spec": {}}
    await rig.json("POST", path, json=bare, code=201)


def csr_of(common_name: str, key: ec.EllipticCurvePrivateKey) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


def enrollment(name: str, csr: str) -> dict[str, Any]:
    return {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "EnrollmentRequest",
        "metadata": {"name": name},
        "spec": {"csr": csr, "labels": {"site": "a"}},
    }


async def test_a_request_for_enrolment_must_prove_its_name(rig: Rig) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    body = enrollment("a-name-of-somebody-else", csr_of("somebody-with-a-name", key))
    path = f"{G}/namespaces/{await rig.namespace()}/enrollmentrequests"
    status = await rig.refused("POST", path, 400, json=body)
    assert "spec.csr" in status["message"]


@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_an_approval_makes_the_device(rig: Rig, method: str) -> None:
    name = "device-with-a-long-enough-name"
    key = ec.generate_private_key(ec.SECP256R1())
    prefix = f"{G}/namespaces/{await rig.namespace()}"
    request = f"{prefix}/enrollmentrequests/{name}"
    body = enrollment(name, csr_of(name, key))
    await rig.json("POST", f"{prefix}/enrollmentrequests", json=body, code=201)
    assert await rig.json("GET", f"{request}/approval") == {}
    approval = {"approved": True, "labels": {"tier": "edge"}}
    await rig.refused("PUT", f"{request}/approval", 422, params={"dryRun": "All"}, json=approval)
    await rig.refused("PUT", f"{request}/approval", 422, json={"approved": "yes"})
    media = MERGE if method == "PATCH" else "application/json"
    answer = await rig.json(
        method,
        f"{request}/approval",
        role="installer",
        headers={"Content-Type": media},
        data=json.dumps(approval),
    )
    assert answer["approvedBy"] == "test-installer"
    assert answer["labels"] == {"tier": "edge", "site": "a"}
    assert await rig.json("GET", f"{request}/approval") == answer
    device = await rig.json("GET", f"{prefix}/devices/{name}")
    assert device["metadata"]["labels"] == {"tier": "edge", "site": "a"}
    stored = await rig.json("GET", request)
    assert stored["status"]["certificate"].startswith("-----BEGIN CERTIFICATE-----")
    await rig.refused("PUT", f"{request}/approval", 400, json=approval)


async def test_a_fleet_binds_its_devices_and_tells_progress(rig: Rig) -> None:
    path = await rig.fleets("web")
    body = {"templateVersion": "web.v1", "rollout": "web.v1-1", "stage": "both", "limit": 10}
    status = await rig.refused("POST", f"{path}/web/bindings", 404, role="controller", json=body)
    assert "not found" in status["message"]
    await rig.refused("GET", f"{path}/web/progress", 404, params={"rollout": "web.v1-1"})
