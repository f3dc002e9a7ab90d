"""What is missing for single devices, as the controllers are told it and as they answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from apiserver.store import compaction
from resources import digest, manifest
from resources.manifest import File
from tests.fakes import kube_face
from tests.fakes.kube_face import MERGE, G, H, Rig

Json = dict[str, Any]

CONTENTS = f"{H}/namespaces/default/contents"
FLEETS = f"{G}/namespaces/default/fleets"
DEVICES = f"{G}/namespaces/default/devices"
VERSIONS = f"{G}/namespaces/default/templateversions"
VALUES = f"{VERSIONS}/web.v1/values"
SITES = ("a", "b", "c")


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """With a device in each of three sites, whose files have been asked for."""
    async with kube_face.running(tmp_path) as rig:
        await rig.json("POST", FLEETS, json=kube_face.fleet("web"), code=201)
        for site in SITES:
            labels = {"fleet": "web", "site": site}
            head = {"apiVersion": "flightctl.io/v1beta1", "kind": "Device"}
            document = head | {"metadata": {"name": f"d-{site}", "labels": labels}, "spec": {}}
            await rig.json("POST", DEVICES, json=document, code=201)
        await version(rig, "web.v1")
        assert (await bind(rig))["waiting"] == len(SITES)
        yield rig


async def version(rig: Rig, name: str, revision: str = "main", more: str = "") -> None:
    reference = {"repository": "r", "targetRevision": "main"}
    config = [{"name": "site", "gitRef": reference | {"path": "/{{ .metadata.labels.site }}"}}]
    if more:
        other = reference | {"targetRevision": revision, "path": more}
        config.append({"name": "more", "gitRef": other})
    status = {"config": config, "conditions": []}
    head = {"apiVersion": "flightctl.io/v1beta1", "kind": "TemplateVersion"}
    document = head | {"metadata": {"name": name}, "spec": {"fleet": "web"}, "status": status}
    await rig.json("POST", VERSIONS, json=document, role="controller", code=201)
    head = {"apiVersion": "homeport.dev/v1alpha1", "kind": "Rollout"}
    spec = {"target": {"fleet": "web", "templateVersion": name}}
    rollout = head | {"metadata": {"name": f"{name}-1"}, "spec": spec}
    await rig.json("POST", f"{H}/namespaces/default/rollouts", json=rollout, code=201)


async def bind(rig: Rig, name: str = "web.v1") -> Json:
    request = {"templateVersion": name, "rollout": f"{name}-1"}
    return await rig.json("POST", f"{FLEETS}/web/bindings", json=request, role="controller")


async def missing(rig: Rig, query: str = "") -> Json:
    return await rig.json("GET", f"{VALUES}?state=missing{query}", role="controller")


async def settle(rig: Rig, *outcomes: Json, code: int = 200) -> Json:
    body = {"outcomes": list(outcomes)}
    return await rig.json("POST", VALUES, json=body, role="controller", code=code)


async def came(rig: Rig, key: str, content: bytes) -> Json:
    """An outcome whose files are stored."""
    made = await rig.json("POST", CONTENTS, data=content, role="controller", code=201)
    listed = manifest.document([File("/etc/site", made["digest"], len(content))])
    stored = await rig.json("POST", CONTENTS, data=listed, role="controller", code=201)
    return {"key": key, "manifest": stored["digest"], "revision": "c1", "files": 1}


async def test_the_list_comes_in_pages_and_shrinks_as_it_is_settled(rig: Rig) -> None:
    first = await missing(rig, "&limit=2")
    assert len(first["items"]) == 2
    rest = await missing(rig, f"&limit=2&after={first['after']}")
    assert (len(rest["items"]), rest["after"]) == (1, "")
    items = [*first["items"], *rest["items"]]
    assert [item["key"] for item in items] == sorted(item["key"] for item in items)
    assert {item["values"]["path"] for item in items} == {"/a", "/b", "/c"}
    assert {item["input"] for item in items} == {"site"}
    assert await bind(rig) == {"bound": 0, "rendered": 0, "remaining": 3, "failed": 0, "waiting": 0}

    one = await came(rig, items[0]["key"], b"x")
    assert await settle(rig, one) == {"changed": 1}
    assert await settle(rig, one | {"revision": "c2"}) == {"changed": 0}, "what came first stays"
    (known,) = (await rig.json("GET", f"{VALUES}?state=frozen", role="viewer"))["items"]
    assert (known["key"], known["revision"], known["files"]) == (items[0]["key"], "c1", 1)
    left = (await missing(rig))["items"]
    assert len(left) == 2
    assert {item["pin"] for item in left} == {"c1"}, "the others are looked for there first"
    assert (await bind(rig))["bound"] == 1


async def test_a_failure_is_news_once_and_told_to_those_who_wait(rig: Rig) -> None:
    keys = {item["values"]["path"]: item["key"] for item in (await missing(rig))["items"]}
    down = {"key": keys["/a"], "problem": "config[0].gitRef: no answer", "isPassing": True}
    gone = {"key": keys["/b"], "problem": "config[0].gitRef.path: gone"}
    assert await settle(rig, down, gone) == {"changed": 2}
    assert await settle(rig, down, gone) == {"changed": 0}
    answer = await bind(rig)
    assert (answer["waiting"], answer["remaining"]) == (2, 2)
    assert (await bind(rig))["waiting"] == 0, "told once"
    shown = await rig.json("GET", f"{DEVICES}/d-a")
    assert shown["status"]["updated"]["info"].endswith("config[0].gitRef: no answer")
    progress = f"{FLEETS}/web/progress?rollout=web.v1-1"
    counts = await rig.json("GET", progress, role="controller")
    assert (counts["failed"], counts["unbound"]) == (1, 2)
    assert counts["failures"] == [
        {"cause": "config[0].gitRef.path: gone", "count": 1, "example": "d-b"}
    ]
    backlog = await rig.json("GET", f"{H}/namespaces/default/backlogs/devices")
    assert backlog["status"]["fleets"] == {"web": 3}, "all of them are tried again"

    assert await settle(rig, down | {"problem": "config[0].gitRef: refused"}) == {"changed": 1}
    await bind(rig)
    shown = await rig.json("GET", f"{DEVICES}/d-a")
    assert shown["status"]["updated"]["info"].endswith("config[0].gitRef: refused")
    await settle(rig, await came(rig, keys["/b"], b"x"))
    assert (await rig.json("GET", progress, role="controller"))["failed"] == 0
    assert (await bind(rig))["bound"] == 1
    backlog = await rig.json("GET", f"{H}/namespaces/default/backlogs/devices")
    assert backlog["status"]["fleets"] == {"web": 2}


async def test_what_is_not_stored_is_listed_and_nothing_of_it_is_named(rig: Rig) -> None:
    keys = [item["key"] for item in (await missing(rig))["items"]]
    good = await came(rig, keys[0], b"x")
    absent = digest.of_bytes(b"nowhere")
    bad = {"key": keys[1], "manifest": absent, "revision": "c1"}
    status = await settle(rig, good, bad, code=422)
    assert f"outcomes[1].manifest: Not found: {absent} is not stored" in status["message"]
    assert len((await missing(rig))["items"]) == 3


async def test_what_was_named_outlives_the_sweep_and_goes_with_its_version(rig: Rig) -> None:
    (item, *_) = (await missing(rig))["items"]
    await settle(rig, await came(rig, item["key"], b"kept"))
    store = rig.face.operations.store

    def later(tx: Any) -> int:
        tx.now += timedelta(hours=2)
        return compaction.compact(tx)

    async def is_kept() -> bool:
        for _ in range(3):
            await store.write(later)
        name = digest.of_bytes(b"kept")
        async with rig.call("GET", f"{CONTENTS}/{name}", role="controller") as response:
            return response.status == 200

    assert await is_kept()
    await rig.json("DELETE", f"{VERSIONS}/web.v1", role="controller")
    assert not await is_kept()


async def test_a_value_of_one_version_is_none_of_another(rig: Rig) -> None:
    await version(rig, "web.v2")
    keys = {item["key"] for item in (await missing(rig))["items"]}
    assert (await bind(rig, "web.v2"))["waiting"] == 3
    other = f"{VERSIONS}/web.v2/values"
    page = await rig.json("GET", other, role="controller")
    assert keys.isdisjoint(item["key"] for item in page["items"])
    body = {"outcomes": [{"key": key, "problem": "no"} for key in keys]}
    answer = await rig.json("POST", other, json=body, role="controller")
    assert answer == {"changed": 0}
    await rig.refused("GET", f"{VERSIONS}/web.v9/values", 404, role="controller")


async def test_all_that_a_device_needs_is_asked_for_at_once(rig: Rig) -> None:
    await version(rig, "web.v2", "ring-{{ .metadata.labels.site }}", "/{{ .metadata.name }}")
    assert (await bind(rig, "web.v2"))["waiting"] == 3
    page = await rig.json("GET", f"{VERSIONS}/web.v2/values", role="controller")
    assert Counter(item["input"] for item in page["items"]) == {"site": 3, "more": 3}
    assert {item["values"]["targetRevision"] for item in page["items"]} == {
        *("main", "ring-a", "ring-b", "ring-c"),
    }


async def test_a_version_needs_so_much_and_no_more(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apiserver.stock.VALUES_MAX", 3)
    patch = {"metadata": {"labels": {"site": "one-too-many"}}}
    await rig.json("PATCH", f"{DEVICES}/d-a", json=patch, headers={"Content-Type": MERGE})
    answer = await bind(rig)
    assert (answer["failed"], answer["waiting"]) == (1, 0)
    shown = await rig.json("GET", f"{DEVICES}/d-a")
    said = "config[0].gitRef: what its parameters come to is more than "
    assert said in shown["status"]["updated"]["info"]


async def test_a_device_that_is_relabelled_asks_for_what_it_needs_now(rig: Rig) -> None:
    patch = {"metadata": {"labels": {"site": "d"}}}
    await rig.json("PATCH", f"{DEVICES}/d-a", json=patch, headers={"Content-Type": MERGE})
    assert (await bind(rig))["waiting"] == 1
    paths = {item["values"]["path"] for item in (await missing(rig))["items"]}
    assert paths == {"/a", "/b", "/c", "/d"}


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"outcomes": {}},
        {"outcomes": [{}] * 501},
        {"outcomes": ["x"]},
        {"outcomes": [{"key": 1, "problem": "x"}]},
        {"outcomes": [{"key": "k"}]},
        {"outcomes": [{"key": "k", "problem": ""}]},
        {"outcomes": [{"key": "k", "problem": 1}]},
        {"outcomes": [{"key": "k", "problem": "x" * 4_001}]},
        {"outcomes": [{"key": "k", "problem": "x", "isPassing": "yes"}]},
        {"outcomes": [{"key": "k", "manifest": "x", "revision": "r"}]},
        {"outcomes": [{"key": "k", "manifest": digest.of_bytes(b""), "revision": 1}]},
        {"outcomes": [{"key": "k", "manifest": digest.of_bytes(b"")}]},
        {
            "outcomes": [
                {"key": "k", "manifest": digest.of_bytes(b""), "revision": "", "files": "x"}
            ]
        },
    ],
    ids=range(14),
)
async def test_an_answer_that_makes_no_sense_is_refused(rig: Rig, body: Json) -> None:
    status = await rig.refused("POST", VALUES, 400, json=body, role="controller")
    assert "outcome" in status["message"] or "must be" in status["message"]


async def test_questions_and_who_may_ask(rig: Rig) -> None:
    await rig.refused("GET", f"{VALUES}?state=open", 400, role="controller")
    await rig.refused("GET", f"{VALUES}?limit=501", 400, role="controller")
    for role in ("viewer", "operator", "installer"):
        await rig.refused("POST", VALUES, 403, role=role, json={"outcomes": []})
    await rig.refused("GET", VALUES, 403, role="installer")
