"""What the Kubernetes face refuses, with which code, in which words; nothing is written by it."""

from __future__ import annotations

import copy
import io
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.fakes import kube_face
from tests.fakes.kube_face import MERGE, G, H, Rig, fleet

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Rig]:
    async with kube_face.running(tmp_path_factory.mktemp("refusals")) as running:
        path = f"{G}/namespaces/default/fleets"
        await running.json("POST", path, json=fleet("web", tier="edge"), code=201)
        yield running


WEB = f"{G}/namespaces/default/fleets/web"
FLEETS = f"{G}/namespaces/default/fleets"
PROTOBUF = "application/vnd.kubernetes.protobuf"
PROTOBUF_FLEET = "k8s\0\n\x1d\n\x14flightctl.io/v1beta1\x12\x05Fleet"


@pytest.mark.parametrize(
    ("method", "path", "code", "words"),
    [
        ("GET", "/nothing", 404, "could not find"),
        ("GET", "/apis/other.io", 404, "could not find"),
        ("GET", "/apis/other.io/v1", 404, "could not find"),
        ("GET", "/apis/flightctl.io/v9/namespaces/default/fleets", 404, "could not find"),
        ("GET", f"{G}/namespaces/default/pods", 404, "could not find"),
        ("GET", f"{G}/namespaces/default/organizations", 404, "could not find"),
        ("GET", f"{G}/fleets/web", 404, "could not find"),
        ("GET", f"{WEB}/scale", 404, "could not find"),
        ("GET", f"{FLEETS}/nobody", 404, 'fleets.flightctl.io "nobody" not found'),
        ("GET", f"{FLEETS}/nobody/status", 404, 'fleets.flightctl.io "nobody" not found'),
        ("GET", "/api/v1/namespaces/nobody", 404, 'namespaces "nobody" not found'),
        ("DELETE", f"{FLEETS}/nobody", 404, "not found"),
        ("POST", f"{G}/fleets", 405, "does not allow this method"),
        ("DELETE", f"{G}/fleets", 405, "does not allow this method"),
        ("PUT", FLEETS, 405, "does not allow this method"),
        ("PATCH", FLEETS, 405, "does not allow this method"),
        ("POST", WEB, 405, "does not allow this method"),
        ("DELETE", f"{WEB}/status", 405, "does not allow this method"),
        ("OPTIONS", FLEETS, 405, "does not allow this method"),
        ("POST", "/version", 405, "does not allow this method"),
        ("GET", f"{FLEETS}?continue=rubbish", 400, "continue key is not valid"),
        ("GET", f"{FLEETS}?limit=-1", 400, "limit"),
        ("GET", f"{FLEETS}?labelSelector=a%20in%20(", 400, "labelSelector"),
        ("GET", f"{FLEETS}?fieldSelector=spec.x%3D1", 400, "spec.x"),
        ("GET", f"{FLEETS}?includeObject=Some", 400, "includeObject"),
        ("GET", f"{FLEETS}?watch=perhaps", 400, "watch"),
        ("GET", f"{FLEETS}?resourceVersion=1&resourceVersionMatch=Exact", 410, "older states"),
        ("GET", f"{WEB}/progress", 400, "rollout"),
        ("GET", f"{H}/namespaces/default/contents/sha256:zz", 400, "not a digest"),
        ("GET", f"{H}/namespaces/default/contents/sha256:{'0' * 64}", 404, "not found"),
    ],
)
async def test_requests(rig: Rig, method: str, path: str, code: int, words: str) -> None:
    status = await rig.refused(method, path, code)
    assert words in status["message"]


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "code", "words"),
    [
        ("GET", WEB, {"Accept": PROTOBUF}, "", 406, "application/json"),
        ("GET", f"{FLEETS}?watch=1", {"Accept": "application/yaml"}, "", 406, "application/json"),
        ("POST", FLEETS, {"Content-Type": "text/plain"}, "{}", 415, "application/json"),
        ("POST", FLEETS, {"Content-Type": PROTOBUF}, "k8s", 400, "envelope"),
        ("POST", FLEETS, {"Content-Type": PROTOBUF}, PROTOBUF_FLEET, 415, "kubectl create -f"),
        ("POST", FLEETS, {"Content-Type": MERGE}, "{}", 415, "application/json"),
        ("PATCH", WEB, {"Content-Type": "application/strategic-merge-patch+json"}, "{}", 415,
         "application/merge-patch+json"),
        ("PATCH", WEB, {"Content-Type": MERGE}, "[]", 400, "must be an object"),
        ("PATCH", WEB, {"Content-Type": MERGE}, "{", 400, "not valid JSON"),
        ("PATCH", WEB, {"Content-Type": kube_face.JSON_PATCH}, "{}", 400, "must be a list"),
        ("PATCH", WEB, {"Content-Type": kube_face.JSON_PATCH},
         '[{"op":"test","path":"/kind","value":"x"}]', 422, "test of /kind failed"),
        ("POST", FLEETS, {"Content-Type": "application/json"}, "x" * (3 * 2**20 + 1), 413,
         "larger than"),
        ("POST", f"{H}/namespaces/default/contents", {}, "x" * (8 * 2**20 + 1), 413,
         "larger than"),
        ("POST", f"{H}/namespaces/default/contents?digest=sha256:00", {}, "x", 400, "digest"),
    ],
)  # fmt: skip
async def test_bodies(
    rig: Rig, method: str, path: str, headers: dict[str, str], body: str, code: int, words: str
) -> None:
    data = io.BytesIO(body.encode())
    status = await rig.refused(method, path, code, headers=headers, data=data)
    assert words in status["message"]


async def test_a_body_without_a_length_is_limited_too(rig: Rig) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(4 * 16):
            yield b" " * 65536

    headers = {"Content-Type": "application/json"}
    await rig.refused("POST", FLEETS, 413, headers=headers, data=endless())


@pytest.mark.parametrize("path", [FLEETS, "/api", "/apis", "/openapi/v3", "/metrics"])
async def test_without_a_proof_only_health_and_version_answer(rig: Rig, path: str) -> None:
    status = await rig.refused("GET", path, 401, role="")
    assert status["reason"] == "Unauthorized"
    async with rig.call("GET", path, role="") as response:
        assert response.headers["WWW-Authenticate"] == "Bearer"
    for open_path in ("/healthz", "/livez", "/readyz", "/readyz/store", "/version"):
        async with rig.call("GET", open_path, role="") as response:
            assert response.status == 200


@pytest.mark.parametrize(
    ("role", "method", "path"),
    [
        ("viewer", "POST", FLEETS),
        ("viewer", "DELETE", WEB),
        ("viewer", "GET", f"{H}/namespaces/default/contents/sha256:{'0' * 64}"),
        ("nobody", "GET", FLEETS),
        ("installer", "GET", FLEETS),
        ("operator", "PUT", f"{G}/namespaces/default/enrollmentrequests/a/approval"),
        ("operator", "POST", f"{WEB}/bindings"),
        ("controller", "DELETE", f"{G}/namespaces/default/devices/a"),
        ("admin", "POST", f"{G}/namespaces/default/templateversions"),
        ("admin", "GET", f"{G}/namespaces/default/repositories/a/credentials"),
        ("org-admin", "GET", f"{G}/namespaces/default/repositories/a/credentials"),
        ("operator", "GET", f"{G}/namespaces/default/repositories/a/credentials"),
        ("viewer", "GET", f"{G}/namespaces/default/repositories/a/credentials"),
        ("viewer", "POST", f"{G}/namespaces/default/resourcesyncs/a/refresh"),
        ("admin", "POST", f"{H}/namespaces/default/backlogs"),
    ],
)
async def test_roles(rig: Rig, role: str, method: str, path: str) -> None:
    status = await rig.refused(method, path, 403, role=role, json={})
    assert f'User "test-{role}" cannot' in status["message"]
    assert "contents" in path or status["details"]["kind"]


async def test_watching_is_a_verb_of_its_own(rig: Rig) -> None:
    status = await rig.refused("GET", f"{FLEETS}?watch=1", 403, role="installer")
    assert 'cannot watch resource "fleets"' in status["message"]


Spoil = Callable[[dict[str, Any]], None]


def put(path: str, value: Any) -> Spoil:
    """Sets a value deep in a document; list indices are numbers."""

    def spoil(document: dict[str, Any]) -> None:
        node: Any = document
        *parents, last = path.split(".")
        for part in parents:
            node = node[int(part)] if isinstance(node, list) else node.setdefault(part, {})
        node[last] = value

    return spoil


def application(**fields: Any) -> Spoil:
    whole = {"name": "app", "appType": "container", "image": "quay.io/acme/app:1"} | fields
    kept = {key: value for key, value in whole.items() if value is not None}
    return put("spec.template.spec.applications", [kept])


def config(*providers: Any) -> Spoil:
    return put("spec.template.spec.config", list(providers))


def inline(path: Any = "/etc/motd", **more: Any) -> dict[str, Any]:
    return {"name": "motd", "inline": [{"path": path, "content": "hello"} | more]}


# What is wrong, and what the message must name.
WRONG: list[tuple[str, Spoil, str]] = [
    ("unknown field", put("spec.colour", "blue"), "spec.colour"),
    ("unknown field, deep", put("spec.template.spec.os.colour", 1), "spec.template.spec.os.colour"),
    ("unknown field at the top", put("colour", "blue"), "colour"),
    ("unknown metadata", put("metadata.colour", "blue"), "metadata.colour"),
    ("no spec", lambda d: d.pop("spec"), "spec"),
    ("spec is a text", put("spec", "x"), "spec"),
    ("spec is null", put("spec", None), "spec"),
    ("spec is a list", put("spec", []), "spec"),
    ("no template", lambda d: d["spec"].pop("template"), "spec.template"),
    ("template is a number", put("spec.template", 1), "spec.template"),
    ("metadata is a text", put("metadata", "x"), "metadata"),
    ("labels are a list", put("metadata.labels", []), "metadata.labels"),
    ("label value is a number", put("metadata.labels.a", 1), "metadata.labels"),
    ("bad label value", put("metadata.labels.a", "no spaces"), "metadata.labels"),
    ("bad label key", put("metadata.labels", {"-a-": "b"}), "metadata.labels"),
    ("long label value", put("metadata.labels.a", "x" * 64), "metadata.labels"),
    ("annotations are a text", put("metadata.annotations", "x"), "metadata.annotations"),
    ("bad selector value", put("spec.selector.matchLabels.a", "b c"), "spec.selector"),
    ("selector is a list", put("spec.selector", []), "spec.selector"),
    ("unknown operator", put("spec.selector", {"matchExpressions": [
        {"key": "a", "operator": "Near", "values": ["b"]}]}), "spec.selector.matchExpressions"),
    ("image is a number", put("spec.template.spec.os.image", 1), "spec.template.spec.os.image"),
    ("image with blanks", put("spec.template.spec.os.image", "a b"), "spec.template.spec.os.image"),
    ("relative path", config(inline("etc/motd")), "config[0].inline[0].path"),
    ("path with dots", config(inline("/etc/../motd")), "config[0].inline[0].path"),
    ("path of the agent", config(inline("/etc/flightctl/config.yaml")), "config[0].inline[0].path"),
    ("agent's data", config(inline("/var/lib/flightctl/x")), "config[0].inline[0].path"),
    ("no path", config({"name": "a", "inline": [{"content": "x"}]}), "config[0].inline[0].path"),
    ("no content", config({"name": "a", "inline": [{"path": "/a"}]}), "config[0].inline[0]"),
    ("mode is a text", config(inline(mode="0644")), "config[0].inline[0].mode"),
    ("mode out of range", config(inline(mode=99999)), "config[0].inline[0].mode"),
    ("bad encoding", config(inline(contentEncoding="rot13")), "contentEncoding"),
    ("bad base64", config(inline(content="!", contentEncoding="base64")), "content"),
    ("two providers of one name", config(inline(), inline("/etc/other")), "config[1].name"),
    ("one path twice", config({"name": "a", "inline": [
        {"path": "/a", "content": ""}, {"path": "/a", "content": ""}]}), "config[0].inline[1]"),
    ("provider without a source", config({"name": "a"}), "config[0]"),
    ("provider with two sources", config(inline() | {"httpRef": {"repository": "r", "filePath":
        "/x"}}), "config[0]"),
    ("provider without a name", config({"inline": []}), "config[0].name"),
    ("config is an object", put("spec.template.spec.config", {}), "spec.template.spec.config"),
    ("unknown application type", application(appType="flatpak"), "applications[0].appType"),
    ("no application type", application(appType=None), "applications[0].appType"),
    ("container without an image", application(image=None), "applications[0]"),
    ("application image with blanks", application(image="a b"), "applications[0].image"),
    ("bad port", application(ports=["http"]), "applications[0].ports[0]"),
    ("bad environment name", application(envVars={"1-A": "x"}), "applications[0].envVars"),
    ("environment is a list", application(envVars=[]), "applications[0].envVars"),
    ("bad memory limit", application(resources={"limits": {"memory": "lots"}}), "memory"),
    ("unknown field of another type", application(inline=[]), "applications[0].inline"),
    ("two applications of one name", put("spec.template.spec.applications", [
        {"name": "a", "appType": "container", "image": "quay.io/a/b:1"},
        {"name": "a", "appType": "container", "image": "quay.io/a/c:1"}]), "applications[1].name"),
    ("unknown monitor", put("spec.template.spec.resources", [
        {"monitorType": "GPU", "samplingInterval": "5s", "alertRules": []}]), "monitorType"),
    ("bad interval", put("spec.template.spec.resources", [
        {"monitorType": "CPU", "samplingInterval": "soon", "alertRules": []}]), "samplingInterval"),
    ("bad match pattern", put("spec.template.spec.systemd.matchPatterns", ["a b;"]),
     "matchPatterns[0]"),
    ("bad schedule", put("spec.template.spec.updatePolicy.updateSchedule", {"at": "whenever"}),
     "updateSchedule"),
    ("bad rollout threshold", put("spec.rolloutPolicy", {"successThreshold": "most"}),
     "successThreshold"),
    ("finalizers are a text", put("metadata.finalizers", "x"), "metadata.finalizers"),
    ("NUL", config(inline(content="a\0b")), "NUL"),
]  # fmt: skip


@pytest.mark.parametrize("verb", ["POST", "PUT", "PATCH"])
@pytest.mark.parametrize(("spoil", "names"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
async def test_wrong_documents_are_refused_by_field_and_change_nothing(
    rig: Rig, spoil: Spoil, names: str, verb: str
) -> None:
    document = copy.deepcopy(fleet("new" if verb == "POST" else "web"))
    spoil(document)
    before = rig.version, await rig.json("GET", WEB)
    path = (FLEETS if verb == "POST" else WEB) + "?fieldValidation=Strict"
    if verb == "PATCH":
        patch = json.dumps([{"op": "replace", "path": "", "value": document}])
        headers = {"Content-Type": kube_face.JSON_PATCH}
        async with rig.call(verb, path, headers=headers, data=patch) as response:
            status, code = await response.json(), response.status
    else:
        async with rig.call(verb, path, json=document) as response:
            status, code = await response.json(), response.status
    assert code in (400, 422), status
    assert names in status["message"]
    assert (rig.version, await rig.json("GET", WEB)) == before


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (put("kind", "Device"), "expected kind"),
        (put("apiVersion", "v1"), "expected apiVersion"),
        (lambda d: d.pop("kind"), "kind is missing"),
        (lambda d: d.pop("apiVersion"), "apiVersion is missing"),
        (put("metadata.namespace", "elsewhere"), "namespace"),
        (put("metadata.resourceVersion", "1"), "resourceVersion"),
    ],
)
async def test_a_document_that_belongs_elsewhere_is_400(rig: Rig, spoil: Spoil, words: str) -> None:
    document = fleet("stray")
    spoil(document)
    status = await rig.refused("POST", FLEETS, 400, json=document)
    assert words in status["message"]


async def test_put_under_another_name_is_400(rig: Rig) -> None:
    status = await rig.refused("PUT", WEB, 400, json=fleet("other"))
    assert "name" in status["message"]


@pytest.mark.parametrize("name", ["", "Upper", "a_b", "a..b", "-a", "x" * 254, "a/b"])
async def test_bad_names_are_422(rig: Rig, name: str) -> None:
    status = await rig.refused("POST", FLEETS, 422, json=fleet(name))
    assert status["details"]["causes"][0]["field"] == "metadata.name"


async def test_every_complaint_is_a_cause(rig: Rig) -> None:
    document = fleet("two")
    document["spec"]["template"]["spec"] = {"os": {"image": 1}, "config": [inline("x")]}
    status = await rig.refused("POST", FLEETS, 422, json=document)
    fields = {cause["field"] for cause in status["details"]["causes"]}
    assert {"spec.template.spec.os.image", "spec.template.spec.config[0].inline[0].path"} <= fields


async def test_what_went_wrong_inside_is_not_told(rig: Rig) -> None:
    async with rig.call("GET", WEB, headers={"X-Request-Id": "abc-1"}) as response:
        assert response.headers["X-Request-Id"] == "abc-1"
    async with rig.call("GET", WEB, headers={"X-Request-Id": "no blanks!"}) as response:
        assert response.headers["X-Request-Id"] != "no blanks!"
