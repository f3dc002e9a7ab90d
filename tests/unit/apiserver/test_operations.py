"""The registry operations on a real store: the path from a fleet to its devices, and refusals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from apiserver import errors
from apiserver.auth.identity import Caller
from apiserver.operations import ListOptions, Operations, WatchOptions, WriteOptions
from apiserver.store import Store, devices, reports
from resources import registry
from resources.kind import Json
from resources.selectors import parse_fields, parse_labels

ADMIN = Caller(name="admin", role="admin")
PLAIN = WriteOptions()
FLEET = registry.by_kind("Fleet")
DEVICE = registry.by_kind("Device")
VERSION = registry.by_kind("TemplateVersion")
ROLLOUT = registry.by_kind("Rollout")
BACKLOG = registry.by_kind("Backlog")


@pytest.fixture
async def operations(tmp_path: Path) -> AsyncIterator[Operations]:
    store = await Store.open(data_dir=tmp_path)
    made = Operations(store)
    await made.prepare()
    yield made
    await store.close()


def fleet(name: str = "web", image: str = "", **labels: str) -> Json:
    template: Json = {
        "config": [{"name": "motd", "inline": [{"path": "/etc/motd", "content": "x"}]}]
    }
    if image:
        template["os"] = {"image": image}
    return {
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels or {"site": "a"}},
            "template": {"spec": template},
        },
    }


def device(name: str, **labels: str) -> Json:
    return {"metadata": {"name": name, "labels": labels}, "spec": {}}


async def create(operations: Operations, kind: Any, document: Json) -> Json:
    return (await operations.create(ADMIN, kind, "default", document, PLAIN)).document


async def roll(operations: Operations, name: str, version: int, template: Json) -> Json:
    target = f"{name}.v{version}"
    status = {**template, "conditions": []}
    await create(
        operations,
        VERSION,
        {"metadata": {"name": target}, "spec": {"fleet": name}, "status": status},
    )
    spec = {"target": {"fleet": name, "templateVersion": target}}
    await create(operations, ROLLOUT, {"metadata": {"name": f"{target}-1"}, "spec": spec})
    request = {"templateVersion": target, "rollout": f"{target}-1", "limit": 10_000}
    return await operations.bind(ADMIN, "default", name, request)


async def get(operations: Operations, kind: Any, name: str) -> Json:
    return await operations.get(ADMIN, kind, "default", name)


async def test_a_device_without_fleet_is_rendered_at_once(operations: Operations) -> None:
    stored = await create(operations, DEVICE, device("lone"))
    assert stored["metadata"]["annotations"]["device-controller/renderedVersion"] == "1"
    assert stored["status"]["summary"]["status"] == "Unknown"


async def test_labels_decide_the_owner_in_the_same_write(operations: Operations) -> None:
    await create(operations, FLEET, fleet())
    stored = await create(operations, DEVICE, device("d1", site="a"))
    assert stored["metadata"]["owner"] == "Fleet/web"
    backlog = await get(operations, BACKLOG, "devices")
    assert backlog["status"] == {"renderNeeded": 1, "fleets": {"web": 1}}


async def test_a_selector_change_moves_devices(operations: Operations) -> None:
    await create(operations, DEVICE, device("d1", site="a"))
    await create(operations, DEVICE, device("d2", site="b"))
    stored = await create(operations, FLEET, fleet())
    assert (await get(operations, DEVICE, "d1"))["metadata"]["owner"] == "Fleet/web"
    changed = stored | {"spec": fleet(site="b")["spec"]}
    await operations.update(ADMIN, FLEET, "default", "web", changed, PLAIN)
    assert "owner" not in (await get(operations, DEVICE, "d1"))["metadata"]
    assert (await get(operations, DEVICE, "d2"))["metadata"]["owner"] == "Fleet/web"


async def test_two_matching_fleets_move_nothing(operations: Operations) -> None:
    await create(operations, FLEET, fleet())
    await create(operations, DEVICE, device("d1", site="a"))
    await create(operations, FLEET, fleet("other"))
    assert (await get(operations, DEVICE, "d1"))["metadata"]["owner"] == "Fleet/web"
    await operations.delete(ADMIN, FLEET, "default", "web")
    assert (await get(operations, DEVICE, "d1"))["metadata"]["owner"] == "Fleet/other"


async def test_binding_gives_each_device_the_rendered_template(operations: Operations) -> None:
    stored = await create(operations, FLEET, fleet())
    for n in range(5):
        await create(operations, DEVICE, device(f"d{n}", site="a"))
    answer = await roll(operations, "web", 1, stored["spec"]["template"]["spec"])
    assert answer == {"bound": 5, "rendered": 5, "remaining": 0, "failed": 0}
    rendered = await operations.rendered(ADMIN, "default", "d3")
    assert rendered["spec"]["config"][0]["inline"][0]["content"] == "eA=="
    assert rendered["metadata"]["annotations"]["fleet-controller/templateVersion"] == "v1"
    assert (await get(operations, BACKLOG, "devices"))["status"]["renderNeeded"] == 0
    again = await operations.bind(
        ADMIN, "default", "web", {"templateVersion": "web.v1", "rollout": "web.v1-1"}
    )
    assert again["bound"] == 0
    progress = await operations.progress(ADMIN, "default", "web", "web.v1-1")
    assert (progress["total"], progress["rendered"], progress["done"]) == (5, 5, 0)


async def test_going_back_to_an_old_template_is_a_new_version(operations: Operations) -> None:
    stored = await create(operations, FLEET, fleet())
    await create(operations, DEVICE, device("d1", site="a"))
    a = stored["spec"]["template"]["spec"]
    b = {"config": []}
    for number, template in enumerate((a, b, a), start=1):
        await roll(operations, "web", number, template)
    annotations = (await get(operations, DEVICE, "d1"))["metadata"]["annotations"]
    assert annotations["device-controller/renderedVersion"] == "3"


async def test_a_paused_rollout_binds_nothing(operations: Operations) -> None:
    stored = await create(operations, FLEET, fleet())
    await roll(operations, "web", 1, stored["spec"]["template"]["spec"])

    def pause(document: Json) -> Json:
        return document | {"spec": document["spec"] | {"control": {"paused": True}}}

    await operations.patch(ADMIN, ROLLOUT, "default", "web.v1-1", pause, PLAIN)
    with pytest.raises(errors.Conflict, match="paused"):
        await operations.bind(
            ADMIN, "default", "web", {"templateVersion": "web.v1", "rollout": "web.v1-1"}
        )


async def test_a_report_is_stored_as_it_came_and_concluded_from(operations: Operations) -> None:
    await create(operations, DEVICE, device("d1"))
    status = {
        "conditions": [],
        "config": {"renderedVersion": "1"},
        "unheard": {"of": [1]},
        "systemInfo": {"architecture": "amd64"},
    }
    stored = await operations.store.write(
        lambda tx: reports.put(tx, reports.Report("default", "d1", status))
    )
    assert stored is not None
    assert stored["status"]["unheard"] == {"of": [1]}
    assert stored["status"]["summary"]["status"] == "Online"
    assert stored["status"]["updated"]["status"] == "UpToDate"
    online = parse_fields("status.summary.status=Online", DEVICE.selectable)
    page = await operations.list(ADMIN, DEVICE, "default", ListOptions(fields=online, limit=10))
    assert [d["metadata"]["name"] for d in page.items] == ["d1"]


async def test_a_device_kept_up_by_packages_is_refused_an_image(operations: Operations) -> None:
    await create(operations, DEVICE, device("d1"))
    status = {"capabilities": {"osMode": "package"}, "config": {"renderedVersion": "1"}}
    await operations.store.write(
        lambda tx: reports.put(tx, reports.Report("default", "d1", status))
    )

    def with_image(old: Json) -> Json:
        return old | {"spec": {"os": {"image": "quay.io/x/os:1"}}}

    with pytest.raises(errors.Unprocessable, match=r"spec\.os\.image"):
        await operations.patch(ADMIN, DEVICE, "default", "d1", with_image, WriteOptions())


async def test_counters_agree_with_a_recount(operations: Operations) -> None:
    stored = await create(operations, FLEET, fleet())
    for n in range(6):
        await create(operations, DEVICE, device(f"d{n}", site="a" if n % 2 else "b"))
    await roll(operations, "web", 1, stored["spec"]["template"]["spec"])
    await operations.delete(ADMIN, DEVICE, "default", "d1")
    await operations.delete(ADMIN, FLEET, "default", "web")
    page = await operations.list(ADMIN, DEVICE, "default", ListOptions())
    recount: dict[str, int] = {}
    for document in page.items:
        state = document["status"]["updated"]["status"]
        recount[state] = recount.get(state, 0) + 1
    counted = await operations.store.read(lambda s: s.counters("default"))
    assert counted["updated"] == recount
    assert await operations.store.read(lambda s: s.counters("default", "web")) == {
        dimension: {} for dimension in devices.COUNTED
    }


@pytest.mark.parametrize(
    ("document", "field"),
    [
        pytest.param({"metadata": {"name": "UPPER"}, "spec": {}}, "metadata.name", id="name"),
        pytest.param(
            {"metadata": {"name": "d", "labels": {"a b": "c"}}, "spec": {}}, "labels", id="label"
        ),
    ],
)
async def test_what_is_refused_moves_no_version(
    operations: Operations, document: Json, field: str
) -> None:
    before = operations.store.hub.version
    with pytest.raises(errors.Unprocessable, match=field):
        await create(operations, DEVICE, document)
    assert operations.store.hub.version == before


async def test_a_stale_version_is_a_conflict(operations: Operations) -> None:
    stored = await create(operations, FLEET, fleet())
    stale = stored | {"metadata": stored["metadata"] | {"resourceVersion": "1"}}
    with pytest.raises(errors.Conflict):
        await operations.update(ADMIN, FLEET, "default", "web", stale, PLAIN)


async def test_deleting_a_fleet_takes_its_versions_and_rollouts_along(
    operations: Operations,
) -> None:
    stored = await create(operations, FLEET, fleet())
    owner = {"apiVersion": FLEET.api_version, "kind": "Fleet", "name": "web"}
    reference = owner | {"uid": stored["metadata"]["uid"]}
    version = {
        "metadata": {"name": "web.v1", "ownerReferences": [reference]},
        "spec": {"fleet": "web"},
        "status": {"conditions": []},
    }
    await create(operations, VERSION, version)
    await operations.delete(ADMIN, FLEET, "default", "web")
    with pytest.raises(errors.NotFound):
        await get(operations, VERSION, "web.v1")


async def test_a_watch_starts_with_what_is_there_and_follows(operations: Operations) -> None:
    await create(operations, DEVICE, device("d1", site="a"))
    options = WatchOptions(labels=parse_labels("site=a"), timeout_s=5.0, bookmarks=True)
    seen: list[tuple[str, str]] = []
    watch = operations.watch(ADMIN, DEVICE, "default", options)
    async for batch in watch:
        seen += [(event.type, event.document["metadata"]["name"]) for event in batch.events]
        if len(seen) == 1:
            await create(operations, DEVICE, device("d2", site="b"))
            await create(operations, DEVICE, device("d3", site="a"))
        if ("DELETED", "d1") in seen:
            break
        if seen[-1][1] == "d3":
            await operations.delete(ADMIN, DEVICE, "default", "d1")
    await watch.aclose()  # type: ignore[attr-defined]
    assert seen[0] == ("ADDED", "d1")
    assert ("DELETED", "d1") in seen
    assert not any(name == "d2" for _, name in seen)


async def test_a_fleet_shows_its_devices_by_state(operations: Operations) -> None:
    await create(operations, FLEET, fleet())
    for n in range(3):
        await create(operations, DEVICE, device(f"d{n}", site="a"))
    summary = (await get(operations, FLEET, "web"))["status"]["devicesSummary"]
    assert summary["total"] == 3
    assert summary["updateStatus"] == {"OutOfDate": 3}
    page = await operations.list(ADMIN, FLEET, "default", ListOptions())
    assert page.items[0]["status"]["devicesSummary"] == summary
