"""The rules by which fleets own devices (service behaviour, 2.1 to 2.4), each by itself, on both
stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from apiserver import decommissioning, errors
from apiserver.app import create_operations
from apiserver.operations import Operations
from apiserver.store import Store, devices
from apiserver.verbs import WriteOptions
from bench.fleet import ADMIN, DEVICE, FLEET, PLAIN, Service
from resources import conditions
from resources.kind import Json, Kind

APPLIED = WriteOptions(field_manager="me", force=True)


@dataclass(slots=True)
class Site:
    operations: Operations

    async def fleet(self, name: str, selector: Json | None) -> None:
        spec: Json = {"template": {"spec": {}}}
        spec |= {} if selector is None else {"selector": selector}
        document = {"metadata": {"name": name}, "spec": spec}
        await self.operations.create(ADMIN, FLEET, "default", document, PLAIN)

    async def select(self, name: str, selector: Json | None) -> None:
        def change(old: Json) -> Json:
            spec = {key: value for key, value in old["spec"].items() if key != "selector"}
            return old | {"spec": spec | ({} if selector is None else {"selector": selector})}

        await self.operations.patch(ADMIN, FLEET, "default", name, change, PLAIN)

    async def device(self, name: str, **labels: str) -> None:
        document = {"metadata": {"name": name, "labels": labels}, "spec": {}}
        await self.operations.create(ADMIN, DEVICE, "default", document, PLAIN)

    async def label(self, name: str, **labels: str) -> Json:
        def change(old: Json) -> Json:
            return old | {"metadata": old["metadata"] | {"labels": labels}}

        return (await self.operations.patch(ADMIN, DEVICE, "default", name, change, PLAIN)).document

    async def delete(self, kind: Kind, name: str) -> None:
        namespace = "default" if kind.namespaced else ""
        await self.operations.delete(ADMIN, kind, namespace, name)

    async def get(self, name: str) -> Json:
        return await self.operations.get(ADMIN, DEVICE, "default", name)

    async def write(self, verb: str, old: Json, change: Callable[[Json], Json]) -> None:
        """What `change` makes of the device `old`, by this verb."""
        where, new = (ADMIN, DEVICE, "default", old["metadata"]["name"]), change(old)
        if verb == "put":
            await self.operations.update(*where, new, PLAIN)
        elif verb == "patch":
            await self.operations.patch(*where, change, PLAIN)
        else:
            metadata = {key: new["metadata"][key] for key in ("name", "labels")}
            head = {"apiVersion": DEVICE.api_version, "kind": DEVICE.kind}
            config = head | {"metadata": metadata, "spec": new["spec"]}
            await self.operations.apply(*where, config, APPLIED)

    async def owners(self) -> dict[str, str]:
        """device → its owner, and in brackets the fleets that want it where those are several."""
        found = await self.operations.store.read(lambda s: s.list(DEVICE, "default"))
        return {document["metadata"]["name"]: _owner(document) for document in found}


def _owner(document: Json) -> str:
    several = conditions.get(document["status"]["conditions"], "MultipleOwners")
    wanted = f" [{several['message']}]" if several and several["status"] == "True" else ""
    return str(document["metadata"].get("owner") or "-").removeprefix("Fleet/") + wanted


@pytest.fixture
async def site(tmp_path: Path, database_url: str) -> AsyncIterator[Site]:
    store = await Store.open(database_url, data_dir=tmp_path)
    operations = create_operations(store)
    await operations.prepare()
    yield Site(operations)
    await store.close()


def labels(**which: str) -> Json:
    return {"matchLabels": which}


# --- what a selector means (2.1) ----------------------------------------------------------------

EXPRESSIONS = [{"key": "x", "operator": "In", "values": ["1"]}]
SELECTORS: dict[str, tuple[Json | None, list[str]]] = {
    "none selects nothing": (None, []),
    "an empty one selects nothing": (labels(), []),
    "one label": (labels(x="1"), ["both", "x"]),
    "all of several": (labels(x="1", y="2"), ["both"]),
    "expressions say nothing of ownership": ({"matchExpressions": EXPRESSIONS}, []),
    "beside labels they say nothing either": (
        labels(x="1") | {"matchExpressions": [{"key": "y", "operator": "Exists"}]},
        ["both", "x"],
    ),
}


@pytest.mark.parametrize("order", ["fleet first", "devices first", "selector last"])
async def test_a_fleet_owns_by_its_match_labels(site: Site, order: str) -> None:
    which: dict[str, Json] = {"x": {"x": "1"}, "y": {"y": "2"}, "both": {"x": "1", "y": "2"}}
    for case, (selector, owned) in SELECTORS.items():
        if order != "devices first":
            await site.fleet("web", selector if order == "fleet first" else labels(other="z"))
        for name, each in (which | {"bare": {}}).items():
            await site.device(name, **each)
        if order == "devices first":
            await site.fleet("web", selector)
        if order == "selector last":
            await site.select("web", selector)
        found = await site.owners()
        assert sorted(name for name, owner in found.items() if owner == "web") == owned, case
        assert set(found.values()) <= {"web", "-"}, case
        await site.delete(FLEET, "web")
        for name in (*which, "bare"):
            await site.delete(DEVICE, name)


# --- what has ownership decided again (2.2, 2.3) -------------------------------------------------

Step = Callable[[Site], Awaitable[object]]
START = {"d": "a", "e": "a", "both": "a [a,b]", "f": "b", "bare": "-"}
TRIGGERS: dict[str, tuple[Step, dict[str, str]]] = {
    "a selector that lets some go": (
        lambda s: s.select("a", labels(x="1", v="1")),
        {"d": "-", "both": "b"},
    ),
    "a selector that takes others": (
        lambda s: s.select("a", labels(y="1")),
        {"d": "-", "e": "-", "f": "b [a,b]"},
    ),
    "a selector that leaves one of two": (
        lambda s: s.select("b", labels(y="1", z="1")),
        {
            "both": "a",
            "f": "-",
        },
    ),
    "a selector that is emptied": (
        lambda s: s.select("a", labels()),
        {"d": "-", "e": "-", "both": "b"},
    ),
    "a selector that is taken away": (
        lambda s: s.select("a", None),
        {"d": "-", "e": "-", "both": "b"},
    ),
    "the owner of several is deleted": (
        lambda s: s.delete(FLEET, "a"),
        {"d": "-", "e": "-", "both": "b"},
    ),
    "the other one is deleted": (lambda s: s.delete(FLEET, "b"), {"both": "a", "f": "-"}),
    "a third fleet comes": (
        lambda s: s.fleet("c", labels(y="1")),
        {"both": "a [a,b,c]", "f": "b [b,c]"},
    ),
    "all labels are taken away": (lambda s: s.label("both"), {"both": "-"}),
    "the labels of another fleet": (lambda s: s.label("d", y="1"), {"d": "b"}),
    "labels that nobody selects": (lambda s: s.label("d", other="1"), {"d": "-"}),
    "labels that change nothing": (lambda s: s.label("d", x="1", other="1"), {}),
    "no labels, as before": (lambda s: s.label("bare"), {}),
}


@pytest.mark.parametrize("case", TRIGGERS.values(), ids=TRIGGERS)
async def test_whatever_touches_it_decides_ownership_again(
    site: Site, case: tuple[Step, dict[str, str]]
) -> None:
    step, moved = case
    await site.fleet("a", labels(x="1"))
    await site.device("d", x="1")
    await site.device("e", x="1", v="1")
    await site.device("both", x="1", y="1")
    await site.device("f", y="1")
    await site.device("bare")
    await site.fleet("b", labels(y="1"))
    assert await site.owners() == START
    await step(site)
    assert await site.owners() == START | moved


async def test_who_is_dismissed_is_no_fleets_and_becomes_none(site: Site) -> None:
    await site.fleet("a", labels(x="1"))
    await site.device("d", x="1")
    wish = {"target": "Unenroll"}
    await decommissioning.decommission(site.operations, ADMIN, "default", "d", wish)
    await site.fleet("every", labels(y="1"))
    assert await site.owners() == {"d": "-"}


# --- what changes on the device (2.4) ------------------------------------------------------------


async def test_who_leaves_all_fleets_keeps_the_specification_as_its_own(site: Site) -> None:
    service = await Service.over(site.operations)
    await site.device("d", site="a")
    await service.change("the fleet's")
    owned = await site.get("d")
    assert owned["spec"]["config"][0]["inline"][0]["content"] == "the fleet's"
    await site.delete(FLEET, "web")
    left = await site.get("d")
    assert "owner" not in left["metadata"]
    assert left["spec"] == owned["spec"]
    for key in (devices.RENDERED_VERSION, devices.TEMPLATE_VERSION):
        assert left["metadata"]["annotations"][key] == owned["metadata"]["annotations"][key]
    # Now it is anybody's to change.
    changed = await site.operations.patch(
        ADMIN, DEVICE, "default", "d", lambda old: old | {"spec": {}}, PLAIN
    )
    assert changed.document["spec"] == {}


async def test_another_fleet_takes_only_the_owner_until_its_template_comes(site: Site) -> None:
    service = await Service.over(site.operations)
    await site.device("d", site="a")
    await service.change("web's")
    before = await site.get("d")
    await site.fleet("other", labels(site="b"))
    after = await site.label("d", site="b")
    assert after["metadata"]["owner"] == "Fleet/other"
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    for key in (devices.RENDERED_VERSION, devices.TEMPLATE_VERSION):
        assert after["metadata"]["annotations"][key] == before["metadata"]["annotations"][key]


OWNED: dict[str, tuple[Callable[[Json], Json], bool]] = {
    "the same again": (lambda old: old, True),
    "other labels": (
        lambda old: old | {"metadata": old["metadata"] | {"labels": {"site": "a", "n": "1"}}},
        True,
    ),
    "another image": (lambda old: old | {"spec": {"os": {"image": "quay.io/a/b:1"}}}, False),
    "labels and another specification": (
        lambda old: (
            old
            | {
                "spec": {"os": {"image": "quay.io/a/b:1"}},
                "metadata": old["metadata"] | {"labels": {"site": "z"}},
            }
        ),
        False,
    ),
}


@pytest.mark.parametrize("verb", ["put", "patch", "apply"])
async def test_the_specification_of_an_owned_device_is_its_fleets(site: Site, verb: str) -> None:
    service = await Service.over(site.operations)
    await site.device("d", site="a")
    await service.change("web's")
    for case, (change, is_allowed) in OWNED.items():
        old = await site.get("d")
        if is_allowed:
            await site.write(verb, old, change)
            assert (await site.get("d"))["spec"] == old["spec"], case
            continue
        with pytest.raises(errors.Conflict, match="owned by fleet web") as refused:
            await site.write(verb, old, change)
        assert refused.value.code == 409
        assert await site.get("d") == old, case
