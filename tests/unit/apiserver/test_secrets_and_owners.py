"""Over the Kubernetes face: secrets of a Repository show in no answer of any verb and are kept by
who writes the mask back; fleets that a ResourceSync keeps are its own until it is gone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from resources.masking import LAST_APPLIED, MASK
from tests.fakes import kube_face
from tests.fakes.kube_face import JSON_PATCH, MERGE, G, Rig

Json = dict[str, Any]
SECRET, OTHER = "pa55-in-the-clear", "an0ther-one"


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("secrets")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig(data: Path) -> AsyncIterator[Rig]:
    async with kube_face.running(data) as rig:
        yield rig


def repository(name: str, password: str = SECRET, **metadata: Any) -> Json:
    return {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "Repository",
        "metadata": {"name": name, **metadata},
        "spec": {
            "type": "git",
            "url": "https://git.example.com/a",
            "httpConfig": {"username": "me", "password": password},
        },
    }


def sync(name: str, **spec: Any) -> Json:
    return {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "ResourceSync",
        "metadata": {"name": name},
        "spec": {"repository": "a", "targetRevision": "main", "path": "fleets", **spec},
    }


async def stored(rig: Rig, path: str) -> str:
    found = await rig.json("GET", f"{path}/credentials", role="controller")
    return str(found["spec"]["httpConfig"]["password"])


# --- secrets ------------------------------------------------------------------------------------


async def test_no_verb_and_no_representation_shows_a_secret(rig: Rig) -> None:
    all_of_them = f"{G}/namespaces/{await rig.namespace()}/repositories"
    one = f"{all_of_them}/a"
    noted = {LAST_APPLIED: json.dumps(repository("a"))}
    texts: list[str] = []

    async def ask(method: str, path: str, code: int = 200, **more: Any) -> None:
        async with rig.call(method, path, **more) as response:
            texts.append(await response.text())
            assert response.status == code, texts[-1]

    began = rig.version
    await ask("POST", f"{all_of_them}?dryRun=All", 201, json=repository("a"))
    await ask("POST", all_of_them, 201, json=repository("a", annotations=noted))
    await ask("GET", one)
    await ask("GET", all_of_them)
    await ask("GET", one, role="controller")
    table = "application/json;as=Table;v=v1;g=meta.k8s.io"
    await ask("GET", f"{all_of_them}?includeObject=Object", headers={"Accept": table})
    await ask("PUT", one, json=repository("a", OTHER))
    labelled = {"metadata": {"labels": {"a": "b"}}}
    await ask("PATCH", one, json=labelled, headers={"Content-Type": MERGE})
    status = {"status": {"conditions": []}}
    await ask("PATCH", f"{one}/status", json=status, headers={"Content-Type": MERGE})
    await ask("DELETE", f"{one}?dryRun=All")
    await ask("DELETE", one)
    await ask("POST", all_of_them, 201, json=repository("b"))
    await ask("DELETE", all_of_them)
    await ask("GET", f"{all_of_them}?watch=1&resourceVersion={began}&timeoutSeconds=1")
    assert '"DELETED"' in texts[-1]
    assert len(texts) == 14
    for text in texts:
        assert SECRET not in text
        assert OTHER not in text


async def test_a_change_log_keeps_no_secret_of_what_is_gone(rig: Rig, data: Path) -> None:
    path = f"{G}/namespaces/{await rig.namespace()}/repositories"
    await rig.json("POST", path, json=repository("a"), code=201)
    await rig.json("DELETE", f"{path}/a")
    connection = sqlite3.connect(data / "homeport.db")
    bodies = [row[0] for row in connection.execute("SELECT body FROM change WHERE body NOT NULL")]
    connection.close()
    assert bodies
    assert not any(SECRET in body for body in bodies)


async def test_the_mask_written_back_keeps_what_is_stored_and_changes_nothing(rig: Rig) -> None:
    path = f"{G}/namespaces/{await rig.namespace()}/repositories"
    one = f"{path}/a"
    await rig.json("POST", path, json=repository("a"), code=201)
    shown = await rig.json("GET", one)
    assert shown["spec"]["httpConfig"]["password"] == MASK
    again = await rig.json("PUT", one, json=shown)
    assert again["metadata"]["resourceVersion"] == shown["metadata"]["resourceVersion"]
    moved = {"spec": {"url": "https://git.example.com/b"}}
    await rig.json("PATCH", one, json=moved, headers={"Content-Type": MERGE})
    assert await stored(rig, one) == SECRET
    await rig.json("PUT", one, json=repository("a", OTHER))
    assert await stored(rig, one) == OTHER


async def test_a_patch_can_neither_copy_a_secret_nor_guess_it(rig: Rig) -> None:
    path = f"{G}/namespaces/{await rig.namespace()}/repositories"
    await rig.json("POST", path, json=repository("a", annotations={"x": "y"}), code=201)
    secret = "/spec/httpConfig/password"

    async def patch(*operations: Json, code: int) -> Json:
        headers = {"Content-Type": JSON_PATCH}
        return await rig.json("PATCH", f"{path}/a", json=operations, headers=headers, code=code)

    copied = await patch(
        {"op": "copy", "from": secret, "path": "/metadata/annotations/x"}, code=200
    )
    assert copied["metadata"]["annotations"]["x"] == MASK
    await patch({"op": "test", "path": secret, "value": SECRET}, code=422)
    assert await stored(rig, f"{path}/a") == SECRET


async def test_a_mask_of_nothing_is_refused(rig: Rig) -> None:
    path = f"{G}/namespaces/{await rig.namespace()}/repositories"
    status = await rig.refused("POST", path, 422, json=repository("a", MASK))
    assert "spec.httpConfig.password" in status["message"]
    await rig.json("POST", path, json=repository("a"), code=201)
    other = {"spec": {"type": "http"}}
    status = await rig.refused(
        "PATCH", f"{path}/a", 422, json=other, headers={"Content-Type": MERGE}
    )
    assert "spec.httpConfig.password" in status["message"]


async def test_a_complaint_about_a_repository_shows_no_secret(rig: Rig) -> None:
    path = f"{G}/namespaces/{await rig.namespace()}/repositories"
    for config in (
        {"password": SECRET}, {"token": SECRET}, {"tls.crt": SECRET}, {"password": [SECRET]},
        {"username": "me", "password": SECRET * 20}, {"ca.crt": SECRET},
    ):  # fmt: skip
        wrong = repository("a") | {
            "spec": {"type": "git", "url": "https://a", "httpConfig": config}
        }
        status = await rig.refused("POST", path, 422, json=wrong)
        assert SECRET not in json.dumps(status), config


# --- owners -------------------------------------------------------------------------------------


async def kept_fleet(rig: Rig) -> str:
    """The path of a fleet `web` that the ResourceSync `a` keeps, in a fresh namespace."""
    base = f"{G}/namespaces/{await rig.namespace()}"
    await rig.json("POST", f"{base}/resourcesyncs", json=sync("a"), code=201)
    await rig.json("POST", f"{base}/fleets", json=owned("a"), code=201, role="controller")
    return f"{base}/fleets/web"


def owned(by: str, image: str = "quay.io/acme/os:1") -> Json:
    fleet = kube_face.fleet("web")
    fleet["metadata"]["owner"] = f"ResourceSync/{by}"
    fleet["spec"]["template"]["spec"]["os"]["image"] = image
    return fleet


async def test_a_kept_fleet_is_changed_and_deleted_in_git_only(rig: Rig) -> None:
    web = await kept_fleet(rig)
    shown = await rig.json("GET", web)
    assert shown["metadata"]["owner"] == "ResourceSync/a"
    assert "ownerReferences" not in shown["metadata"]
    headers = {"Content-Type": MERGE}
    for change in (
        {"spec": {"template": {"spec": {"os": {"image": "x:2"}}}}},
        {"metadata": {"labels": {"a": "b"}}},
    ):
        status = await rig.refused("PATCH", web, 409, json=change, headers=headers)
        for words in ("ResourceSync a", '"fleets" at "main" of Repository a', "change it there"):
            assert words in status["message"]
    for path in (web, web.rpartition("/")[0]):
        assert "delete it there" in (await rig.refused("DELETE", path, 409))["message"]
    # What changes nothing, and what is a person's own, is welcome.
    assert await rig.json("PUT", web, json=shown) == shown
    noted = await rig.json(
        "PATCH", web, json={"metadata": {"annotations": {"a": "b"}}}, headers=headers
    )
    assert noted["metadata"]["owner"] == "ResourceSync/a"


async def test_people_make_nobody_the_owner(rig: Rig) -> None:
    base = f"{G}/namespaces/{await rig.namespace()}/fleets"
    made = await rig.json("POST", base, json=owned("a"), code=201)
    assert "owner" not in made["metadata"]


async def test_a_free_fleet_is_taken_over_and_anothers_is_not(rig: Rig) -> None:
    namespace = f"{G}/namespaces/{await rig.namespace()}"
    base = f"{namespace}/fleets"
    for name in ("a", "b"):
        await rig.json("POST", f"{namespace}/resourcesyncs", json=sync(name), code=201)
    await rig.json("POST", base, json=kube_face.fleet("web"), code=201)
    taken = await rig.json("PUT", f"{base}/web", json=owned("a"), role="controller")
    assert taken["metadata"]["owner"] == "ResourceSync/a"
    status = await rig.refused("PUT", f"{base}/web", 409, json=owned("b"), role="controller")
    assert "kept by ResourceSync a" in status["message"]
    await rig.json("PUT", f"{base}/web", json=owned("a", "x:2"), role="controller")
    await rig.json("DELETE", f"{base}/web", role="controller")


async def test_a_sync_that_is_gone_keeps_nothing_more(rig: Rig) -> None:
    """Its controller may be in the middle of applying when it is deleted."""
    base = f"{G}/namespaces/{await rig.namespace()}/fleets"
    status = await rig.refused("POST", base, 409, json=owned("a"), role="controller")
    assert "there is no ResourceSync/a" in status["message"]
    await rig.json("POST", base, json=kube_face.fleet("web"), code=201)
    await rig.refused("PUT", f"{base}/web", 409, json=owned("a"), role="controller")


async def test_controllers_delete_nothing_that_people_made(rig: Rig) -> None:
    path = await rig.fleets("mine")
    status = await rig.refused("DELETE", f"{path}/mine", 403, role="controller")
    assert "may not delete it" in status["message"]


async def test_fleets_outlive_their_sync_and_are_free_then(rig: Rig) -> None:
    web = await kept_fleet(rig)
    await rig.json("DELETE", f"{web.removesuffix('fleets/web')}resourcesyncs/a")
    shown = await rig.json("GET", web)
    assert "owner" not in shown["metadata"]
    await rig.json("DELETE", web)


async def test_every_refresh_is_another_note(rig: Rig) -> None:
    path = f"{G}/namespaces/{await rig.namespace()}/resourcesyncs"
    made = await rig.json("POST", path, json=sync("a"), code=201)
    assert made["spec"]["type"] == "fleet"
    notes = [
        (await rig.json("POST", f"{path}/a/refresh", code=201, role="operator"))["metadata"][
            "annotations"
        ]["homeport.dev/refresh-requested"]
        for _ in range(3)
    ]
    assert len(set(notes)) == 3
    await rig.refused("POST", f"{path}/b/refresh", 404)


async def test_the_type_of_a_sync_stays(rig: Rig) -> None:
    path = f"{G}/namespaces/{await rig.namespace()}/resourcesyncs"
    await rig.json("POST", path, json=sync("a"), code=201)
    await rig.json("PUT", f"{path}/a", json=sync("a", path="other"))
    await rig.refused("PUT", f"{path}/a", 422, json=sync("a", type="catalog"))
