"""Frozen inputs on the server: kept whole, kept alive, rendered for sets and for single devices."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from apiserver.store import compaction
from apiserver.store.tables import CONTENT, CONTENT_REF
from resources import digest, manifest
from resources.manifest import File
from tests.fakes import kube_face
from tests.fakes.kube_face import G, H, Rig

Json = dict[str, Any]
CONTENTS = f"{H}/namespaces/default/contents"
VERSIONS = f"{G}/namespaces/default/templateversions"
DEVICES = f"{G}/namespaces/default/devices"
FOLLOWING = f"{H}/namespaces/default/backlogs/devices/following"
SECRET = b"hunter2"


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    async with kube_face.running(tmp_path) as rig:
        yield rig


async def post(rig: Rig, blob: bytes, query: str = "") -> str:
    made = await rig.json("POST", CONTENTS + query, data=blob, role="controller", code=201)
    return str(made["digest"])


async def frozen(rig: Rig, name: str, files: dict[str, bytes], query: str = "") -> Json:
    """A source's input, with everything posted as the controllers do."""
    listed = [File(path, await post(rig, blob, query), len(blob)) for path, blob in files.items()]
    return {"name": name, "manifest": await post(rig, manifest.document(listed)), "revision": "r1"}


def template(*names: str) -> Json:
    refs = {"repository": "demo", "targetRevision": "main", "path": "/"}
    return {"config": [{"name": name, "gitRef": refs} for name in names]}


def version(inputs: list[Json], *names: str, name: str = "web.v1") -> Json:
    status = template(*names) | {"inputs": inputs, "conditions": []}
    head = {"apiVersion": "flightctl.io/v1beta1", "kind": "TemplateVersion"}
    return head | {"metadata": {"name": name}, "spec": {"fleet": "web"}, "status": status}


async def create(rig: Rig, document: Json) -> Json:
    return await rig.json("POST", VERSIONS, json=document, role="controller", code=201)


def device(name: str, spec: Json, **labels: str) -> Json:
    head = {"apiVersion": "flightctl.io/v1beta1", "kind": "Device"}
    return head | {"metadata": {"name": name, "labels": labels}, "spec": spec}


def files_of(rendered: Json) -> dict[str, bytes]:
    config = rendered["spec"]["config"]
    return {f["path"]: base64.b64decode(f["content"]) for p in config for f in p["inline"]}


async def sweep_later(rig: Rig, rounds: int = 3) -> int:
    """What is left in the store after housekeeping two hours from now."""
    store = rig.face.operations.store

    def later(tx: Any) -> int:
        tx.now += timedelta(hours=2)
        return compaction.compact(tx)

    for _ in range(rounds):
        await store.write(later)
    count = select(func.count()).select_from(CONTENT)
    return await store.read(lambda s: int(s.connection.execute(count).scalar_one()))


async def condition(rig: Rig, name: str) -> Json:
    found = await rig.json("GET", f"{DEVICES}/{name}")
    return next(c for c in found["status"]["conditions"] if c["type"] == "SpecValid")


# --- contents -----------------------------------------------------------------------------------


async def test_a_secrets_digest_cannot_be_guessed(rig: Rig, tmp_path: Path) -> None:
    keyed = await post(rig, SECRET, "?secret=true")
    assert keyed.startswith(digest.KEYED_PREFIX)
    assert digest.of_bytes(SECRET).rpartition(":")[2] not in keyed
    assert await post(rig, SECRET, "?secret=true") == keyed
    async with kube_face.running(tmp_path / "other") as other:
        assert await post(other, SECRET, "?secret=true") != keyed
    async with rig.call("GET", f"{CONTENTS}/{keyed}", role="controller") as response:
        assert await response.read() == SECRET


async def test_head_renews_the_age_and_says_the_size(rig: Rig) -> None:
    kept, left = await post(rig, b"kept"), await post(rig, b"left")
    store = rig.face.operations.store

    def grow_old(tx: Any) -> None:
        tx.connection.execute(CONTENT.update().values(touched_at=0))
        tx.writes += 1

    await store.write(grow_old)
    async with rig.call("HEAD", f"{CONTENTS}/{kept}", role="controller") as response:
        assert (response.status, response.headers["Content-Length"]) == (200, "4")
    await store.write(compaction.compact)
    for name, code in ((kept, 200), (left, 404)):
        async with rig.call("HEAD", f"{CONTENTS}/{name}", role="controller") as response:
            assert response.status == code


# --- template versions --------------------------------------------------------------------------


async def test_a_version_whose_contents_are_missing_lists_them(rig: Rig) -> None:
    here, gone = File("/a", await post(rig, b"a"), 1), File("/b", digest.of_bytes(b"b"), 1)
    listed = await post(rig, manifest.document([here, gone]))
    other = digest.of_bytes(b"no manifest")
    inputs = [
        {"name": "one", "manifest": listed, "revision": "r"},
        {"name": "two", "manifest": other, "revision": "r"},
    ]
    document = version(inputs, "one", "two", "three")
    status = await rig.refused("POST", VERSIONS, 422, json=document, role="controller")
    assert "config[2].gitRef is not frozen" in status["message"]
    document = version(inputs, "one", "two")
    status = await rig.refused("POST", VERSIONS, 422, json=document, role="controller")
    said = {cause["field"]: cause["message"] for cause in status["details"]["causes"]}
    assert gone.digest in said["status.inputs[0].manifest"]
    assert here.digest not in status["message"]
    assert other in said["status.inputs[1].manifest"]
    # Sent again, it goes through; nothing of the refused attempt stands in the way.
    await post(rig, b"b")
    await create(rig, version(inputs[:1], "one"))


async def test_what_a_version_names_outlives_the_sweep_and_goes_with_it(rig: Rig) -> None:
    made = await frozen(rig, "one", {"/a": b"a", "/b": b"b"})
    await create(rig, version([made], "one"))
    await post(rig, b"nobody's")
    assert await sweep_later(rig) == 3
    await rig.json("DELETE", f"{VERSIONS}/web.v1", role="controller")
    assert await sweep_later(rig) == 0
    left = select(func.count()).select_from(CONTENT_REF)
    store = rig.face.operations.store
    assert await store.read(lambda s: s.connection.execute(left).scalar_one()) == 0


async def test_devices_get_the_files_and_a_secret_leaves_no_digest_of_its_own(rig: Rig) -> None:
    fleets = f"{G}/namespaces/default/fleets"
    await rig.json("POST", fleets, json=kube_face.fleet("web"), code=201)
    await rig.json("POST", DEVICES, json=device("d1", {}, fleet="web"), code=201)
    one = await frozen(rig, "one", {"/etc/a": b"a\0"})
    two = await frozen(rig, "two", {"/etc/s": SECRET}, "?secret=true")
    await create(rig, version([one, two], "one", "two"))
    target = {"fleet": "web", "templateVersion": "web.v1"}
    head = {"apiVersion": "homeport.dev/v1alpha1", "kind": "Rollout"}
    rollout = head | {"metadata": {"name": "web.v1-1"}, "spec": {"target": target}}
    await rig.json("POST", f"{H}/namespaces/default/rollouts", json=rollout, code=201)
    request = {"templateVersion": "web.v1", "rollout": "web.v1-1"}
    answer = await rig.json("POST", f"{fleets}/web/bindings", json=request, role="controller")
    assert answer["bound"] == 1
    rendered = await rig.json("GET", f"{DEVICES}/d1/rendered")
    assert files_of(rendered) == {"/etc/a": b"a\0", "/etc/s": SECRET}
    shown = await rig.json("GET", f"{DEVICES}/d1")
    assert shown["spec"] == template("one", "two"), "users see the sources, not what they gave"
    body = digest.canonical(rendered["spec"])
    hashed = shown["metadata"]["annotations"]["device-controller/renderedSpecHash"]
    assert hashed
    assert hashed != digest.of_bytes(body).rpartition(":")[2]
    listed = await rig.json("GET", f"{VERSIONS}/web.v1", role="viewer")
    assert [i["revision"] for i in listed["status"]["inputs"]] == ["r1", "r1"]
    await rig.refused("GET", f"{CONTENTS}/{two['manifest']}", 403, role="viewer")


@pytest.mark.parametrize("is_stored", [True, False], ids=["not accepted", "not stored"])
async def test_inputs_that_were_changed_by_hand_are_refused(rig: Rig, is_stored: bool) -> None:
    made = await frozen(rig, "one", {"/a": b"a"})
    await create(rig, version([made], "one"))
    body = manifest.document([File("/b", digest.of_bytes(b"b"), 1)])
    other = await post(rig, body) if is_stored else digest.of_bytes(body)
    changed = {"status": {"inputs": [made | {"manifest": other}]}}
    headers = {"Content-Type": kube_face.MERGE}
    await rig.json("PATCH", f"{VERSIONS}/web.v1/status", json=changed, headers=headers)
    target = {"fleet": "web", "templateVersion": "web.v1"}
    head = {"apiVersion": "homeport.dev/v1alpha1", "kind": "Rollout"}
    rollout = head | {"metadata": {"name": "web.v1-1"}, "spec": {"target": target}}
    await rig.json("POST", f"{H}/namespaces/default/rollouts", json=rollout, code=201)
    await rig.json("POST", f"{G}/namespaces/default/fleets", json=kube_face.fleet("web"), code=201)
    path = f"{G}/namespaces/default/fleets/web/bindings"
    request = {"templateVersion": "web.v1", "rollout": "web.v1-1"}
    status = await rig.refused("POST", path, 422, json=request, role="controller")
    assert "inputs" in status["message"]


# --- devices without fleet ----------------------------------------------------------------------


async def hand_over(rig: Rig, name: str, code: int = 200, **request: Any) -> Json:
    path = f"{DEVICES}/{name}/inputs"
    return await rig.json("POST", path, json=request, role="controller", code=code)


async def following(rig: Rig) -> list[tuple[str, bool, list[str]]]:
    page = await rig.json("GET", FOLLOWING, role="controller")
    return [
        (i["name"], i["renderNeeded"], [f["revision"] for f in i["inputs"]]) for i in page["items"]
    ]


async def test_a_device_without_fleet_waits_is_handed_its_files_and_is_followed(rig: Rig) -> None:
    await rig.json("POST", DEVICES, json=device("d1", template("one")), code=201)
    await rig.json("POST", DEVICES, json=device("plain", {}), code=201)
    await rig.refused("GET", f"{DEVICES}/d1/rendered", 409)
    assert (await condition(rig, "d1"))["reason"] == "Fetching"
    assert await following(rig) == [("d1", True, [])]
    backlog = await rig.json("GET", f"{H}/namespaces/default/backlogs/devices")
    assert (backlog["status"]["renderNeeded"], backlog["status"]["fleets"]) == (1, {})

    await hand_over(rig, "d1", generation=1, problem="1 invalid configuration: one. Error: no.")
    assert (await condition(rig, "d1"))["status"] == "False"
    assert await following(rig) == [("d1", True, [])], "it is tried again"

    made = await frozen(rig, "one", {"/etc/a": b"a"})
    answer = await hand_over(rig, "d1", generation=1, inputs=[made])
    assert answer == {"renderedVersion": 1}
    assert await hand_over(rig, "d1", generation=1, inputs=[made]) == answer, "nothing new"
    rendered = await rig.json("GET", f"{DEVICES}/d1/rendered")
    assert files_of(rendered) == {"/etc/a": b"a"}
    assert await following(rig) == [("d1", False, ["r1"])]
    shown = await rig.json("GET", f"{DEVICES}/d1")
    references = shown["status"]["dependencySync"]["configRefs"]
    assert references == [{"configProviderName": "one", "fingerprint": "r1"}]
    assert (await condition(rig, "d1"))["status"] == "True"
    assert await sweep_later(rig) >= 5, "spec, rendered, inputs, manifest, file"


async def test_what_changed_meanwhile_is_not_rendered_from_old_inputs(rig: Rig) -> None:
    await rig.json("POST", DEVICES, json=device("d1", template("one")), code=201)
    made = await frozen(rig, "one", {"/etc/a": b"a"})
    await hand_over(rig, "d1", generation=1, inputs=[made])
    changed = device("d1", template("one", "two"))
    await rig.json("PUT", f"{DEVICES}/d1", json=changed)
    assert await following(rig) == [("d1", True, ["r1"])]
    await hand_over(rig, "d1", code=409, generation=1, inputs=[made])
    status = await hand_over(rig, "d1", code=422, generation=2, inputs=[made])
    assert "config[1].gitRef" in status["message"]
    assert files_of(await rig.json("GET", f"{DEVICES}/d1/rendered")) == {"/etc/a": b"a"}
    # Labels change nothing of what was fetched; a spec without sources needs no controllers.
    await rig.json("PUT", f"{DEVICES}/d1", json=device("d1", {}))
    assert await following(rig) == []
    assert files_of(await rig.json("GET", f"{DEVICES}/d1/rendered")) == {}


async def test_a_fleets_device_is_not_handed_anything(rig: Rig) -> None:
    fleets = f"{G}/namespaces/default/fleets"
    await rig.json("POST", DEVICES, json=device("d1", template("one")), code=201)
    await rig.json("POST", fleets, json=kube_face.fleet("web"), code=201)
    patch = {"metadata": {"labels": {"fleet": "web"}}}
    headers = {"Content-Type": kube_face.MERGE}
    await rig.json("PATCH", f"{DEVICES}/d1", json=patch, headers=headers)
    assert await following(rig) == []
    await hand_over(rig, "d1", code=409, generation=1, inputs=[])


@pytest.mark.parametrize("role", ["viewer", "operator", "installer"])
async def test_only_controllers_hand_over(rig: Rig, role: str) -> None:
    await rig.refused("POST", f"{DEVICES}/d1/inputs", 403, role=role, json={})
