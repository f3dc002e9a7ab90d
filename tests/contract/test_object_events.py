"""That objects come, change and go, and who owns devices, is told as events, on both stores: in the
transaction of what happened, in sets, and within a bound."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from apiserver import errors, housekeeping
from apiserver.app import create_operations
from apiserver.auditing import Act
from apiserver.auth.identity import ADMIN, Caller
from apiserver.builtins import telling
from apiserver.builtins.events import STORED
from apiserver.operations import Operations
from apiserver.refusals import Refusals
from apiserver.store import Store, Transaction, newsworthy, retiring
from apiserver.verbs import WriteOptions
from resources import conditions, event, registry
from resources.registry import DEVICE, FLEET, ORGANIZATION, REPOSITORY
from tests.fakes.sql import Statements

Json = dict[str, Any]
PERSON = Caller(name="ada", role=ADMIN)
PLAIN, REHEARSAL = WriteOptions(), WriteOptions(dry_run=True)
MANY = newsworthy.TOLD_OF_EACH_MAX + 20


@dataclass(slots=True)
class Site:
    now: datetime = datetime(2026, 11, 26, 10, 10, tzinfo=UTC)
    operations: Operations = field(init=False)
    statements: Statements = field(default_factory=Statements)

    async def create(self, kind: Any, name: str, spec: Json | None = None, **labels: str) -> Json:
        document = {"metadata": {"name": name, "labels": labels}, "spec": spec or {}}
        made = await self.operations.create(PERSON, kind, "default", document, PLAIN)
        return made.document

    async def fleet(self, name: str, **labels: str) -> Json:
        spec = {"selector": {"matchLabels": labels}, "template": {"spec": {}}}
        return await self.create(FLEET, name, spec)

    async def devices(self, number: int, **labels: str) -> None:
        def fill(tx: Transaction) -> None:
            for n in range(number):
                metadata = {"name": f"d{n:03}", "labels": labels}
                document = {"metadata": metadata, "spec": {}}
                self.operations.insert_in(tx, PERSON, DEVICE, document, "default")

        await self.operations.store.write(fill)

    async def change(self, kind: Any, name: str, **parts: Json) -> Json:
        def changed(old: Json) -> Json:
            return old | {part: old.get(part, {}) | new for part, new in parts.items()}

        written = await self.operations.patch(PERSON, kind, "default", name, changed, PLAIN)
        return written.document

    async def delete(self, kind: Any, name: str, **how: Any) -> None:
        namespace = "default" if kind.namespaced else ""
        await self.operations.delete(PERSON, kind, namespace, name, **how)

    async def events(self, about: str = "") -> list[Json]:
        found = await self.operations.store.read(lambda s: s.list(STORED, None))
        found = sorted(found, key=lambda e: int(e["metadata"]["resourceVersion"]))
        return [e for e in found if not about or e["spec"]["involvedObject"]["name"] == about]

    async def told(self, about: str = "") -> list[tuple[str, str]]:
        """Kind and reason of each, in order."""
        said = [event["spec"] for event in await self.events(about)]
        return [(each["involvedObject"]["kind"], each["reason"]) for each in said]


@pytest.fixture
async def site(tmp_path: Path, database_url: str) -> AsyncIterator[Site]:
    site = Site()
    store = await Store.open(database_url, data_dir=tmp_path, clock=lambda: site.now)
    site.operations = create_operations(store)
    await site.operations.prepare()
    yield site
    site.statements.close()
    await store.close()


def details(of: Json) -> Json:
    found: Json = json.loads(of["metadata"]["annotations"][event.DETAILS])
    return found


async def test_that_an_object_came_changed_and_went_is_told_once_each(site: Site) -> None:
    spec = {"type": "http", "url": "https://a.example"}
    made = await site.create(REPOSITORY, "r", spec)
    await site.change(REPOSITORY, "r", metadata={"annotations": {"note": "x"}})
    await site.change(REPOSITORY, "r", metadata={"labels": {"a": "b"}})
    await site.change(REPOSITORY, "r", metadata={"labels": {"a": "b"}})
    await site.delete(REPOSITORY, "r")
    created, updated, deleted = await site.events()
    for each, reason in ((created, "Created"), (updated, "Updated"), (deleted, "Deleted")):
        assert each["spec"]["reason"] == f"Resource{reason}"
        assert each["spec"]["type"] == "Normal"
        about = each["spec"]["involvedObject"]
        assert (about["kind"], about["name"], about["namespace"]) == ("Repository", "r", "default")
        assert about["uid"] == made["metadata"]["uid"]
        assert about["apiVersion"] == "flightctl.io/v1beta1"
    assert details(updated) == {
        "detailType": "ResourceUpdated",
        "updatedFields": ["labels"],
        "previousOwner": None,
        "newOwner": None,
    }
    assert "annotations" not in created["metadata"]


async def test_what_is_refused_or_only_rehearsed_is_not_told(site: Site) -> None:
    document = {"metadata": {"name": "d"}, "spec": {}}
    await site.operations.create(PERSON, DEVICE, "default", document, REHEARSAL)
    await site.create(DEVICE, "d")
    with pytest.raises(errors.AlreadyExists):
        await site.create(DEVICE, "d")
    await site.delete(DEVICE, "d", dry_run=True)
    with pytest.raises(errors.NotFound):
        await site.delete(DEVICE, "e")
    assert await site.told() == [("Device", "ResourceCreated")]


async def test_what_is_written_again_and_again_fills_no_store(site: Site) -> None:
    await site.create(DEVICE, "d")
    for n in range(5):
        await site.change(DEVICE, "d", metadata={"labels": {"n": str(n)}})
    await site.change(DEVICE, "d", spec={"os": {"image": "quay.io/a/b:1"}})
    [labels, spec] = [e for e in await site.events() if e["spec"]["reason"] == "ResourceUpdated"]
    assert (labels["spec"]["count"], details(labels)["updatedFields"]) == (5, ["labels"])
    assert (spec["spec"]["count"], details(spec)["updatedFields"]) == (1, ["spec"])
    site.now += timedelta(hours=1)
    await site.change(DEVICE, "d", metadata={"labels": {"n": "6"}})
    assert (await site.events())[-1]["spec"]["count"] == 1


async def test_what_the_service_forgets_by_itself_goes_silently(site: Site) -> None:
    await site.fleet("web", site="a")
    version = registry.by_kind("TemplateVersion")
    await site.create(version, "web.v1", {"fleet": "web"})
    before = await site.told()
    assert ("TemplateVersion", "ResourceCreated") in before
    await site.delete(version, "web.v1", is_told=False)
    assert await site.told() == before


async def test_a_device_is_told_of_owners_and_of_several_and_when_that_ends(site: Site) -> None:
    """The story that the contract has of one device (behaviour, B), but that it is born with its
    owner."""
    await site.fleet("a", site="x")
    await site.create(DEVICE, "d", site="x")
    assert await site.told("d") == [("Device", "ResourceCreated")]
    await site.fleet("b", site="x")
    detected = (await site.events("d"))[-1]
    assert detected["spec"]["type"] == "Warning"
    assert details(detected) == {
        "detailType": "DeviceMultipleOwnersDetected",
        "matchingFleets": ["a", "b"],
    }
    site.now += timedelta(minutes=1)
    await site.delete(FLEET, "a")
    owner, resolved = (await site.events("d"))[-2:]
    assert details(owner) == {
        "detailType": "ResourceUpdated",
        "updatedFields": ["owner"],
        "previousOwner": "Fleet/a",
        "newOwner": "Fleet/b",
    }
    assert details(resolved) == {
        "detailType": "DeviceMultipleOwnersResolved",
        "resolutionType": "SingleMatch",
        "assignedOwner": "Fleet/b",
        "previousMatchingFleets": ["a", "b"],
    }
    device = await site.operations.get(PERSON, DEVICE, "default", "d")
    found = conditions.get(device["status"]["conditions"], "MultipleOwners")
    assert found is not None
    assert (found["status"], found["lastTransitionTime"]) == ("False", "2026-11-26T10:11:00Z")
    assert (
        owner["spec"]["involvedObject"]["resourceVersion"]
        == (device["metadata"]["resourceVersion"])
    )


async def test_who_is_born_to_several_fleets_says_so(site: Site) -> None:
    await site.fleet("a", site="x")
    await site.fleet("b", site="x")
    device = await site.create(DEVICE, "d", site="x")
    found = conditions.get(device["status"]["conditions"], "MultipleOwners")
    assert found is not None
    assert (found["status"], found["lastTransitionTime"]) == ("True", "2026-11-26T10:10:00Z")
    reasons = [reason for _, reason in await site.told("d")]
    assert reasons == ["ResourceCreated", "DeviceMultipleOwnersDetected"]


async def test_a_fleet_that_moves_more_devices_than_people_read_of_tells_it_itself(
    site: Site,
) -> None:
    await site.devices(MANY, site="x")
    before = len(await site.events())
    assert before == MANY
    await site.fleet("a", site="x")
    assert (await site.told())[before:] == [("Fleet", "ResourceCreated")]
    device = await site.operations.get(PERSON, DEVICE, "default", "d007")
    assert device["metadata"]["owner"] == "Fleet/a"
    # Of fewer each is told.
    await site.operations.delete_collection(PERSON, DEVICE, "default")
    await site.devices(newsworthy.TOLD_OF_EACH_MAX, site="x")
    before = len(await site.events())
    await site.delete(FLEET, "a")
    assert len(await site.events()) == before + newsworthy.TOLD_OF_EACH_MAX + 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_that_a_device_came_costs_its_rows_and_no_look(site: Site) -> None:
    seen = []
    for announce in (lambda _tx, _news: None, telling.announce):
        site.operations.store.announce_by(announce)
        await site.operations.delete_collection(PERSON, DEVICE, "default")
        site.statements.seen.clear()
        await site.devices(10)
        seen.append(Counter(text[:20] for text in site.statements.seen))
    assert seen[1] - seen[0] == {"INSERT INTO object (": 10, "INSERT INTO change (": 10}


async def test_the_service_tells_what_it_failed_at_itself(site: Site) -> None:
    await site.create(DEVICE, "d")
    await site.create(FLEET, "f", {"template": {"spec": {}}})
    refusals = Refusals(site.operations.store)

    def fails(kind: Any, verb: str, name: str, code: int, subresource: str = "") -> None:
        act = Act(PERSON, verb, kind, "default", name, subresource)
        refusals.tell(PERSON, verb, act.about(), code, "InternalError")

    fails(DEVICE, "patch", "d", 500)
    fails(DEVICE, "patch", "d", 500)
    fails(DEVICE, "update", "d", 500, "decommission")
    fails(FLEET, "create", "", 500)
    fails(FLEET, "delete", "f", 403)
    fails(FLEET, "delete", "f", 503)
    await refusals.flush()
    await refusals.flush()
    failed = [e["spec"] for e in await site.events() if e["spec"]["type"] == "Warning"]
    told = [(e["involvedObject"]["name"], e["reason"], e["count"]) for e in failed]
    assert sorted(told) == [
        ("", "ResourceCreationFailed", 1),
        ("d", "DeviceDecommissionFailed", 1),
        ("d", "ResourceUpdateFailed", 2),
    ]


async def test_what_cannot_be_told_of_a_failure_holds_nothing_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the service failed at may be the very object that it cannot read."""
    await site.create(DEVICE, "d")
    store = site.operations.store
    before, refusals = await store.read(lambda s: s.audit_version), Refusals(store)
    for name in ("spoilt", "d"):
        act = Act(PERSON, "patch", DEVICE, "default", name)
        refusals.tell(PERSON, "patch", act.about(), 500, "InternalError")
    get = Transaction.get

    def spoilt(tx: Transaction, kind: Any, namespace: str, name: str) -> Any:
        assert name != "spoilt"
        return get(tx, kind, namespace, name)

    monkeypatch.setattr(Transaction, "get", spoilt)
    with pytest.raises(AssertionError):
        await refusals.flush()
    await refusals.flush()
    assert await store.read(lambda s: s.audit_version) == before + 2
    assert "ResourceUpdateFailed" in [e["spec"]["reason"] for e in await site.events()]


async def test_a_namespace_goes_with_what_was_told_in_it_however_much(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    organization = {"metadata": {"name": "shop"}, "spec": {}}
    await site.operations.create(PERSON, ORGANIZATION, "", organization, PLAIN)
    for n in range(3):
        document = {"metadata": {"name": f"d{n}"}, "spec": {}}
        await site.operations.create(PERSON, DEVICE, "shop", document, PLAIN)
    await site.create(DEVICE, "here")
    # Events are no objects that somebody has to take away first.
    monkeypatch.setattr("apiserver.storing.EMPTIED_MAX", 3)
    assert len(await site.told()) == 4
    await site.operations.delete(PERSON, ORGANIZATION, "", "shop")
    assert [e["metadata"]["namespace"] for e in await site.events()] == ["default"]


async def test_what_happened_is_forgotten_after_a_week(site: Site) -> None:
    await site.create(DEVICE, "d")
    kept = housekeeping.EVENT_KEPT
    assert kept == timedelta(days=7)
    site.now += kept
    assert await housekeeping.forget_events(site.operations, site.now - kept) == 0
    site.now += timedelta(seconds=1)
    assert await housekeeping.forget_events(site.operations, site.now - kept) == 1


async def test_a_look_for_what_is_old_does_not_go_through_what_is_not(tmp_path: Path) -> None:
    """Counted in tens of steps of SQLite's machine: each minute, with nobody writing meanwhile."""
    site = Site()
    store = await Store.open(data_dir=tmp_path, clock=lambda: site.now)
    site.operations = create_operations(store)
    await site.operations.prepare()
    await site.devices(300)

    def steps(tx: Transaction) -> int:
        taken = itertools.count()
        raw: Any = tx.connection.connection.driver_connection
        raw.set_progress_handler(lambda: next(taken) < 0, 10)
        assert retiring.events(tx, STORED, "2026-11-20T00:00:00Z", 500, ("", "")) == []
        raw.set_progress_handler(None, 10)
        return next(taken)

    assert await store.write(steps) < 20
    await store.close()
