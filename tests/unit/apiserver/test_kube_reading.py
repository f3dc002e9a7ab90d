"""get and list, in every representation; discovery, OpenAPI, health."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import yaml

from apiserver import gnostic
from apiserver.store import presence
from apiserver.wire import patch, protobuf
from resources.kind import Json
from tests.fakes import kube_face
from tests.fakes.kube_face import G, Rig, fleet

pytestmark = pytest.mark.asyncio(loop_scope="module")

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
PARTIAL_LIST = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with kube_face.running(tmp_path_factory.mktemp("reading")) as running:
        yield running


async def test_an_object_in_four_forms(rig: Rig) -> None:
    web = await rig.fleets("web") + "/web"
    document = await rig.json("GET", web)
    assert (document["apiVersion"], document["kind"]) == ("flightctl.io/v1beta1", "Fleet")
    made = await rig.json("GET", web, headers={"Accept": TABLE})
    assert made["kind"] == "Table"
    assert made["rows"][0]["cells"][0] == "web"
    assert made["metadata"]["resourceVersion"] == document["metadata"]["resourceVersion"]
    partial = await rig.json("GET", web, headers={"Accept": PARTIAL})
    assert partial["kind"] == "PartialObjectMetadata"
    assert partial["metadata"] == document["metadata"]
    assert "spec" not in partial
    async with rig.call("GET", web, headers={"Accept": "application/yaml"}) as response:
        assert response.content_type == "application/yaml"
        assert yaml.safe_load(await response.text()) == document


async def test_head_answers_like_get_without_a_body(rig: Rig) -> None:
    web = await rig.fleets("web") + "/web"
    async with rig.call("HEAD", web) as response:
        assert response.status == 200
        assert await response.read() == b""


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 8, 100])
async def test_pages_together_are_the_list(rig: Rig, limit: int) -> None:
    names = [f"f{n}" for n in range(7)]
    path = await rig.fleets(*names)
    whole = await rig.json("GET", path)
    items, token, versions = [], "", set()
    while True:
        page = await rig.json("GET", path, params={"limit": limit, "continue": token})
        assert len(page["items"]) <= limit
        items += page["items"]
        versions.add(page["metadata"]["resourceVersion"])
        if not items[limit:] and "continue" in page["metadata"]:
            assert page["metadata"]["remainingItemCount"] == 7 - len(items)
        token = page["metadata"].get("continue", "")
        if not token:
            break
        # Written meanwhile: all pages carry the first one's version.
        await rig.json("POST", await rig.fleets(), json=fleet("noise"), code=201)
    assert items == whole["items"]
    assert len(versions) == 1


async def test_a_token_of_another_list_is_refused(rig: Rig) -> None:
    path = await rig.fleets("a", "b")
    page = await rig.json("GET", path, params={"limit": 1})
    token = page["metadata"]["continue"]
    other = await rig.fleets("a", "b")
    await rig.refused("GET", other, 400, params={"continue": token})
    await rig.refused("GET", path, 400, params={"continue": token, "labelSelector": "a=b"})


async def test_lists_as_table_and_metadata(rig: Rig) -> None:
    path = await rig.fleets("a", "b")
    made = await rig.json("GET", path, headers={"Accept": TABLE}, params={"limit": 1})
    assert [row["cells"][0] for row in made["rows"]] == ["a"]
    assert made["metadata"]["continue"]
    whole = await rig.json(
        "GET", path, headers={"Accept": TABLE}, params={"includeObject": "Object"}
    )
    assert whole["rows"][0]["object"]["spec"]
    partial = await rig.json("GET", path, headers={"Accept": PARTIAL_LIST})
    assert partial["kind"] == "PartialObjectMetadataList"
    assert [item["metadata"]["name"] for item in partial["items"]] == ["a", "b"]


async def test_selectors(rig: Rig) -> None:
    path = await rig.fleets()
    for name, tier in (("a", "edge"), ("b", "core"), ("c", "edge")):
        await rig.json("POST", path, json=fleet(name, tier=tier), code=201)

    async def names(**params: str) -> list[str]:
        found = await rig.json("GET", path, params=params)
        assert "remainingItemCount" not in found["metadata"]
        return [item["metadata"]["name"] for item in found["items"]]

    assert await names(labelSelector="tier=edge") == ["a", "c"]
    assert await names(labelSelector="tier!=edge") == ["b"]
    assert await names(labelSelector="tier in (core)", fieldSelector="metadata.name=b") == ["b"]
    assert await names(labelSelector="tier=edge", limit="1") == ["a"]
    image = "spec.template.spec.os.image=quay.io/acme/os:1"
    assert await names(fieldSelector=image) == ["a", "b", "c"]


async def test_resource_versions_of_lists(rig: Rig) -> None:
    path = await rig.fleets("a")
    current = str(rig.version)
    exact = {"resourceVersionMatch": "Exact", "resourceVersion": current}
    assert (await rig.json("GET", path, params=exact))["metadata"]["resourceVersion"] == current
    await rig.json("GET", path, params={"resourceVersion": "0"})
    status = await rig.refused("GET", path, 410, params=exact | {"resourceVersion": "1"})
    assert status["reason"] == "Expired"


async def test_a_version_that_is_not_reached_is_504(rig: Rig) -> None:
    path = await rig.fleets("a")
    status = await rig.refused("GET", path, 504, params={"resourceVersion": "999999999"})
    assert status["details"]["retryAfterSeconds"] == 1


async def test_big_answers_are_compressed_where_the_client_takes_it(rig: Rig) -> None:
    path = await rig.fleets()
    for number in range(3):
        document = fleet(f"big-{number}")
        document["metadata"]["annotations"] = {"note": "x" * 60_000}
        await rig.json("POST", path, json=document, code=201)
    whole = await rig.json("GET", path)
    rig.client.session._auto_decompress = False
    try:
        async with rig.call("GET", path, headers={"Accept-Encoding": "gzip"}) as response:
            assert response.headers["Content-Encoding"] == "gzip"
            raw = await response.read()
            assert len(raw) < 10_000
            assert b"big-2" in gzip.decompress(raw)
        async with rig.call("GET", path, headers={"Accept-Encoding": "identity"}) as response:
            assert "Content-Encoding" not in response.headers
    finally:
        rig.client.session._auto_decompress = True
    assert len(whole["items"]) == 3


V2 = (
    "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,"
    "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json"
)


async def test_both_dialects_of_discovery_say_the_same(rig: Rig) -> None:
    classic: set[tuple[str, str, tuple[str, ...]]] = set()
    groups = await rig.json("GET", "/apis")
    versions = [v["groupVersion"] for g in groups["groups"] for v in g["versions"]]
    assert all(g["preferredVersion"] == g["versions"][0] for g in groups["groups"])
    for path in ["/api/v1", *(f"/apis/{version}" for version in versions)]:
        for row in (await rig.json("GET", path))["resources"]:
            classic.add((path, row["name"], tuple(row["verbs"])))
    modern: set[tuple[str, str, tuple[str, ...]]] = set()
    for root in ("/api", "/apis"):
        async with rig.call("GET", root, headers={"Accept": V2}) as response:
            assert "as=APIGroupDiscoveryList" in response.headers["Content-Type"]
            found = await response.json()
        for group in found["items"]:
            name = group["metadata"].get("name", "")
            for version in group["versions"]:
                assert version["freshness"] == "Current"
                path = "/".join(part for part in (root, name, version["version"]) if part)
                for row in version["resources"]:
                    assert row["singularResource"]
                    assert row["responseKind"]["kind"]
                    modern.add((path, row["resource"], tuple(row["verbs"])))
                    for sub in row.get("subresources", ()):
                        assert sub["responseKind"]["kind"]
                        name_ = f"{row['resource']}/{sub['subresource']}"
                        modern.add((path, name_, tuple(sub["verbs"])))
    assert classic == modern
    assert ("/api/v1", "namespaces") in {row[:2] for row in classic}


@pytest.mark.parametrize("path", ["/api", "/apis", "/apis/flightctl.io", G, "/openapi/v3"])
async def test_discovery_is_revalidated_by_its_etag(rig: Rig, path: str) -> None:
    async with rig.call("GET", path) as response:
        etag = response.headers["ETag"]
    async with rig.call("GET", path, headers={"If-None-Match": f'"other", {etag}'}) as response:
        assert response.status == 304
        assert await response.read() == b""


async def test_openapi_documents_are_under_their_hash(rig: Rig) -> None:
    index = await rig.json("GET", "/openapi/v3")
    assert {"api/v1", "apis/flightctl.io/v1beta1"} <= index["paths"].keys()
    for entry in index["paths"].values():
        async with rig.call("GET", entry["serverRelativeURL"]) as response:
            assert response.status == 200
            assert "immutable" in response.headers["Cache-Control"]
    url = index["paths"]["apis/flightctl.io/v1beta1"]["serverRelativeURL"]
    stale = url.split("=")[0] + "=OLD"
    async with rig.call("GET", stale, allow_redirects=False) as response:
        assert response.status == 301
        assert response.headers["Location"] == url


async def test_patch_operations_are_what_kubectl_looks_for(rig: Rig) -> None:
    document = await rig.json("GET", f"/openapi/v3{G}")
    item = document["paths"][f"{G}/namespaces/{{namespace}}/fleets/{{name}}"]
    operation = item["patch"]
    assert operation["x-kubernetes-group-version-kind"]["kind"] == "Fleet"
    names = {parameter["name"] for parameter in operation["parameters"]}
    assert {"fieldValidation", "dryRun", "fieldManager"} <= names
    assert set(operation["requestBody"]["content"]) == {
        kube_face.MERGE,
        kube_face.JSON_PATCH,
        patch.APPLY_PATCH,
    }
    schema = document["components"]["schemas"]["io.flightctl.v1beta1.Fleet"]
    assert schema["x-kubernetes-group-version-kind"][0]["kind"] == "Fleet"


def references(node: object) -> list[str]:
    if isinstance(node, dict):
        own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return own + [r for value in node.values() for r in references(value)]
    return [r for value in node for r in references(value)] if isinstance(node, list) else []


async def test_no_reference_leads_nowhere(rig: Rig) -> None:
    for path in ("/openapi/v3/api/v1", f"/openapi/v3{G}", "/openapi/v2"):
        document = await rig.json("GET", path)
        prefix, schemas = "#/components/schemas/", document.get("components", {}).get("schemas", {})
        if path.endswith("v2"):
            prefix, schemas = "#/definitions/", document["definitions"]
        assert references(document)
        assert {r.removeprefix(prefix) for r in references(document)} <= schemas.keys()


@pytest.mark.parametrize("media", gnostic.MEDIA)
async def test_openapi_v2_is_there_in_protobuf(rig: Rig, media: str) -> None:
    async with rig.call("GET", "/openapi/v2", headers={"Accept": media}) as response:
        assert response.content_type == gnostic.MEDIA[-1]
        found = protobuf.decode(gnostic.DOCUMENT, await response.read())
    assert found["swagger"] == "2.0"
    await rig.refused("GET", "/openapi/v3/api/v1", 406, headers={"Accept": media})


async def test_health_says_what_failed(rig: Rig) -> None:
    async with rig.call("GET", "/readyz?verbose") as response:
        assert "[+]store ok" in await response.text()
    rig.face.draining.set()
    try:
        async with rig.call("GET", "/readyz", role="") as response:
            assert response.status == 500
            assert "[-]shutdown failed" in await response.text()
        async with rig.call("GET", "/readyz?exclude=shutdown") as response:
            assert response.status == 200
        async with rig.call("GET", "/livez") as response:
            assert await response.text() == "ok"
    finally:
        rig.face.draining.clear()
    await rig.refused("GET", "/readyz/nothing", 404)


async def test_reviews_answer_from_the_table_of_roles(rig: Rig) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

    async def may(role: str, **attributes: str) -> bool:
        body = {"spec": {"resourceAttributes": attributes}}
        answer = await rig.json("POST", path, role=role, json=body, code=201)
        allowed: bool = answer["status"]["allowed"]
        return allowed

    assert await may("admin", verb="delete", resource="fleets")
    assert not await may("viewer", verb="delete", resource="fleets")
    assert await may("viewer", verb="list", resource="fleets")
    assert not await may("viewer", verb="get", resource="devices", subresource="rendered")
    assert not await may("nobody", verb="get", resource="fleets")
    url = {"spec": {"nonResourceAttributes": {"path": "/apis", "verb": "get"}}}
    assert (await rig.json("POST", path, role="nobody", json=url, code=201))["status"]["allowed"]
    who = await rig.json(
        "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", json={}, code=201
    )
    assert who["status"]["userInfo"]["username"] == "test-admin"
    rules = await rig.json(
        "POST",
        "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews",
        role="viewer",
        json={"spec": {"namespace": "default"}},
        code=201,
    )
    assert {"verbs": ["get", "list", "watch"], "apiGroups": ["*"], "resources": ["*"]} in rules[
        "status"
    ]["resourceRules"]


SAR = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
DELETING = {"verb": "delete", "resource": "fleets", "group": "flightctl.io"}


async def test_administrators_ask_what_others_may(rig: Rig) -> None:
    async def may(*groups: str, user: str = "eve", **what: object) -> bool:
        spec = {"user": user, "groups": list(groups)} | (what or {"resourceAttributes": DELETING})
        answer = await rig.json("POST", SAR, json={"spec": spec}, code=201)
        assert (answer["kind"], answer["spec"]) == ("SubjectAccessReview", spec)
        allowed: bool = answer["status"]["allowed"]
        return allowed

    assert await may("system:masters")
    assert await may("flightctl-operator", "system:authenticated")
    assert await may("flightctl-operator", user="")
    assert not await may("flightctl-viewer")
    assert not await may()
    assert not await may(user="test-admin"), "a name gives no role"
    assert await may(nonResourceAttributes={"path": "/apis", "verb": "get"})
    assert not await may(nonResourceAttributes={"path": "/metrics", "verb": "get"})


async def test_reviews_in_a_namespace_are_of_that_namespace(rig: Rig) -> None:
    path = "/apis/authorization.k8s.io/v1/namespaces/default/localsubjectaccessreviews"
    spec = {"groups": ["flightctl-operator"],
            "resourceAttributes": DELETING | {"namespace": "default"}}  # fmt: skip
    answer = await rig.json("POST", path, json={"spec": spec}, code=201)
    assert (answer["kind"], answer["status"]) == ("LocalSubjectAccessReview", {"allowed": True})
    for wrong in (
        {"resourceAttributes": DELETING},
        {"resourceAttributes": DELETING | {"namespace": "other"}},
        {"nonResourceAttributes": {"path": "/apis"}},
    ):
        body = {"spec": {"user": "eve"} | wrong}
        status = await rig.refused("POST", path, 422, json=body)
        assert status["details"]["causes"][0]["field"].startswith(f"spec.{next(iter(wrong))}")


@pytest.mark.parametrize("role", ["operator", "viewer", "controller", "nobody"])
async def test_only_administrators_ask_about_others(rig: Rig, role: str) -> None:
    body = {"spec": {"user": "eve", "resourceAttributes": DELETING}}
    status = await rig.refused("POST", SAR, 403, role=role, json=body)
    assert f'User "test-{role}" cannot create resource "subjectaccessreviews"' in status["message"]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"resourceAttributes": DELETING}, "spec.user"),
        ({"user": 7, "resourceAttributes": DELETING}, "spec.user"),
        ({"groups": "x", "resourceAttributes": DELETING}, "spec.groups"),
        ({"groups": [7], "resourceAttributes": DELETING}, "spec.groups"),
        ({"user": "eve"}, "spec.resourceAttributes"),
        (
            {"user": "eve", "resourceAttributes": DELETING, "nonResourceAttributes": {}},
            "spec.resourceAttributes",
        ),
    ],
)
async def test_a_review_names_somebody_and_one_thing(rig: Rig, spec: Json, field: str) -> None:
    status = await rig.refused("POST", SAR, 422, json={"spec": spec})
    assert [cause["field"] for cause in status["details"]["causes"]] == [field]


@pytest.mark.parametrize("header", ["Impersonate-User", "impersonate-group", "Impersonate-Extra-x"])
async def test_nobody_acts_for_another(rig: Rig, header: str) -> None:
    path = await rig.fleets("web")
    status = await rig.refused("DELETE", f"{path}/web", 403, headers={header: "eve"})
    assert status["message"].startswith("impersonation is not served: ")
    await rig.json("GET", f"{path}/web")
    await rig.refused("GET", path, 401, role="", headers={header: "eve"})


async def test_when_a_device_was_last_heard_of_is_beside_its_document(rig: Rig) -> None:
    path = (await rig.fleets()).replace("fleets", "devices")
    device: Json = {"apiVersion": "flightctl.io/v1beta1", "kind": "Device"}
    device |= {"metadata": {"name": "d"}, "spec": {}}
    made = await rig.json("POST", path, json=device, code=201)
    async with rig.call("GET", f"{path}/d/lastseen", role="viewer") as response:
        assert (response.status, await response.read()) == (204, b"")
    uid = made["metadata"]["uid"]
    store, documents = rig.face.operations.store, []
    for seconds in (0.5, 60.5):
        heard = {uid: 1_767_225_600 + seconds}
        await store.write(lambda tx, heard=heard: presence.record(tx, heard))
        documents.append(await rig.json("GET", f"{path}/d"))
    answer = await rig.json("GET", f"{path}/d/lastseen", role="viewer")
    assert answer == {"lastSeen": "2026-01-01T00:01:00Z"}
    assert documents[0] == documents[1], "a heartbeat is no change"
    await rig.refused("GET", f"{path}/e/lastseen", 404)
    await rig.refused("GET", f"{path}/d/lastseen", 403, role="nobody")
    await rig.refused("PUT", f"{path}/d/lastseen", 405, json={})
