"""Fleets, rollouts and the backlog, one look at a time, against a small API server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from controllers import fleets, rollouts, worklist
from controllers.client import ApiError, Client, Unreachable
from controllers.freezing import Freezer
from controllers.gitmirror import Mirrors
from controllers.gitprogram import Git
from controllers.remotes import Remotes
from controllers.secretfiles import HostCluster
from controllers.session import Endpoint
from resources import conditions, rollout_plan
from tests.fakes.kube_api import Devices, KubeApi

Json = dict[str, Any]
START = "2026-11-23T00:00:00Z"
NEXT_DAY = "2026-11-24T00:00:01Z"


@pytest.fixture
def api() -> KubeApi:
    return KubeApi()


@pytest.fixture
async def client(api: KubeApi, tmp_path: Path) -> AsyncIterator[Client]:
    socket = tmp_path / "api.sock"
    async with api.served(socket), Endpoint(socket=socket).session() as session:
        yield Client(session, "http://localhost")


def fleet_of(image: str, **more: Any) -> Json:
    return {"spec": {"template": {"spec": {"os": {"image": image}}}, **more}}


def freezer_of(client: Client) -> Freezer:
    """One whose sources are nowhere."""
    nowhere = Path("/nonexistent")
    mirrors = Mirrors(nowhere, Git(nowhere))
    return Freezer(client, Remotes(client), mirrors, HostCluster(environment={}), poll_s=1)


async def look_at_fleet(client: Client, now: str = START) -> fleets.Look:
    freezer = freezer_of(client)
    return await fleets.reconcile(client, "default", "web", freezer=freezer, now=lambda: now)


async def look_at_rollout(client: Client, name: str = "web.v1-1", now: str = START) -> float | None:
    return await rollouts.reconcile(client, "default", name, now=lambda: now)


def status(api: KubeApi, plural: str, name: str) -> Json:
    found = api.get(plural, name)
    assert found is not None
    return found.get("status") or {}


def said(api: KubeApi, type_: str) -> tuple[str, str, str]:
    found = conditions.get(status(api, "fleets", "web")["conditions"], type_)
    assert found is not None
    return found["status"], found["reason"], found["message"]


# --- fleets -------------------------------------------------------------------------------------


async def test_a_fleet_gets_a_version_and_a_rollout_that_it_owns(
    api: KubeApi, client: Client
) -> None:
    fleet = api.put("fleets", "web", fleet_of("os:1"))
    await look_at_fleet(client)
    version, rollout = api.get("templateversions", "web.v1"), api.get("rollouts", "web.v1-1")
    assert version is not None
    assert rollout is not None
    assert version["status"]["os"] == {"image": "os:1"}
    for owned in (version, rollout):
        (owner,) = owned["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("Fleet", fleet["metadata"]["uid"])
    assert rollout["spec"]["target"] == {"fleet": "web", "templateVersion": "web.v1"}
    assert said(api, "Valid") == ("True", "Valid", "")
    assert said(api, "RolloutInProgress")[:2] == ("True", "Active")
    assert said(api, "Ready")[0] == "False"


async def test_looking_again_writes_nothing(api: KubeApi, client: Client) -> None:
    api.put("fleets", "web", fleet_of("os:1"))
    await look_at_fleet(client)
    before = api.version
    await look_at_fleet(client, NEXT_DAY)
    assert api.version == before
    assert not [r for r in api.requests[-4:] if r[0] != "GET"]


async def test_a_fleet_says_which_generation_was_looked_at(api: KubeApi, client: Client) -> None:
    made = api.put("fleets", "web", fleet_of("os:1"))
    await look_at_fleet(client)
    generation = made["metadata"]["generation"]
    assert status(api, "fleets", "web")["observedGeneration"] == generation
    # Also where nothing else is new.
    api.put("fleets", "web", fleet_of("os:1", selector={"matchLabels": {"a": "b"}}))
    await look_at_fleet(client)
    assert status(api, "fleets", "web")["observedGeneration"] == generation + 1


async def test_only_a_changed_template_makes_a_version(api: KubeApi, client: Client) -> None:
    api.put("fleets", "web", fleet_of("os:1"))
    await look_at_fleet(client)
    api.put("fleets", "web", fleet_of("os:1", selector={"matchLabels": {"a": "b"}}))
    await look_at_fleet(client)
    assert api.names("templateversions") == ["web.v1"]
    api.put("fleets", "web", fleet_of("os:2"))
    await look_at_fleet(client)
    assert api.names("templateversions") == ["web.v1", "web.v3"]
    assert api.names("rollouts") == ["web.v1-1", "web.v3-1"]


async def test_going_back_to_an_older_template_is_a_new_version(
    api: KubeApi, client: Client
) -> None:
    for image in ("os:1", "os:2", "os:1"):
        api.put("fleets", "web", fleet_of(image))
        await look_at_fleet(client)
    assert api.names("templateversions") == ["web.v1", "web.v2", "web.v3"]


async def test_a_version_whose_creation_was_not_answered_is_found_again(
    api: KubeApi, client: Client
) -> None:
    api.put("fleets", "web", fleet_of("os:1"))
    await look_at_fleet(client)
    # The lists are read before both are there, the creations are asked for when they are.
    made = (("templateversions", "default", "web.v1"), ("rollouts", "default", "web.v1-1"))
    hidden = {key: api.objects.pop(key) for key in made}

    def raced(method: str, _: str) -> None:
        if method == "POST":
            api.objects.update(hidden)

    api.fault = raced  # type: ignore[assignment]
    await look_at_fleet(client)
    assert [path for method, path in api.requests if method == "POST"].count(
        "/apis/homeport.dev/v1alpha1/namespaces/default/rollouts"
    ) == 2
    assert api.names("templateversions") == ["web.v1"]
    assert api.names("rollouts") == ["web.v1-1"]


@pytest.mark.parametrize(
    ("spec", "named"),
    [
        pytest.param(
            {
                "config": [
                    {
                        "name": "a",
                        "gitRef": {"repository": "r", "targetRevision": "main", "path": "/"},
                    }
                ]
            },
            "spec.template.spec.config[0].gitRef.repository",
            id="a Repository that does not exist",
        ),
        pytest.param(
            {"os": {"image": "os:{{ .metadata.site }}"}},
            "spec.template.spec.os.image",
            id="parameters that no device has",
        ),
        pytest.param(
            {
                "config": [
                    {
                        "name": "a",
                        "httpRef": {
                            "repository": "r",
                            "filePath": "/f",
                            "suffix": "/{{ .metadata.name }}",
                        },
                    }
                ]
            },
            "spec.template.spec.config[0].httpRef.repository",
            id="a source for each device, of a Repository that does not exist",
        ),
    ],
)
async def test_a_template_that_cannot_be_frozen_is_invalid_and_makes_nothing(
    api: KubeApi, client: Client, spec: Json, named: str
) -> None:
    api.put("fleets", "web", {"spec": {"template": {"spec": spec}}})
    await look_at_fleet(client)
    assert api.names("templateversions") == []
    assert said(api, "Valid")[:2] == ("False", "Invalid")
    assert named in said(api, "Valid")[2]
    assert said(api, "Ready")[:2] == ("False", "Invalid")


async def test_what_was_rolling_out_goes_on_when_the_template_breaks(
    api: KubeApi, client: Client
) -> None:
    api.put("fleets", "web", fleet_of("os:1"))
    await look_at_fleet(client)
    api.put("fleets", "web", fleet_of("os:{{ .metadata.site }}"))
    await look_at_fleet(client)
    assert said(api, "Valid")[0] == "False"
    assert said(api, "RolloutInProgress")[:2] == ("True", "Active")


def in_batches(*limits: int) -> Json:
    sequence = [{"limit": limit} for limit in limits]
    return {"deviceSelection": {"strategy": "BatchSequence", "sequence": sequence}}


async def test_a_fleet_says_which_batch_is_under_way(api: KubeApi, client: Client) -> None:
    api.put("fleets", "web", fleet_of("os:1", rolloutPolicy=in_batches(1)))
    await look_at_fleet(client)
    rollout = api.get("rollouts", "web.v1-1")
    assert rollout is not None
    assert rollout["spec"]["target"]["policy"] == in_batches(1)
    assert status(api, "fleets", "web")["rollout"] == {"currentBatch": 0}
    # The one batch is empty, and the last one has none either.
    assert await look_at_rollout(client) is None
    assert [b["phase"] for b in status(api, "rollouts", "web.v1-1")["batches"]] == [
        "Completed",
        "Active",
    ]
    await look_at_fleet(client)
    assert status(api, "fleets", "web").get("rollout") is None


async def test_another_policy_takes_the_place_of_an_attempt_that_goes_by_the_old_one(
    api: KubeApi, client: Client
) -> None:
    api.put("fleets", "web", fleet_of("os:1", rolloutPolicy=in_batches(1)))
    await look_at_fleet(client)
    api.put("fleets", "web", fleet_of("os:1", rolloutPolicy=in_batches(2)))
    await look_at_fleet(client)
    await look_at_fleet(client)
    assert api.names("rollouts") == ["web.v1-1", "web.v1-2"]
    assert await look_at_rollout(client, "web.v1-1") is None
    first = status(api, "rollouts", "web.v1-1")
    assert (first["phase"], first["conditions"][0]["reason"]) == ("Aborted", "Superseded")
    await look_at_rollout(client, "web.v1-2")
    assert status(api, "rollouts", "web.v1-2")["phase"] == "Completed"
    # What has ended is over: a policy alone gives devices nothing new.
    api.put("fleets", "web", fleet_of("os:1", rolloutPolicy=in_batches(3)))
    await look_at_fleet(client)
    assert api.names("rollouts") == ["web.v1-1", "web.v1-2"]


def steer(api: KubeApi, name: str, **control: Any) -> None:
    rollout = api.get("rollouts", name)
    assert rollout is not None
    api.put("rollouts", name, {"spec": rollout["spec"] | {"control": control}})


async def fail(api: KubeApi, client: Client, policy: Json | None = None) -> None:
    """A first version that goes well, and a second that fails on one of three devices."""
    api.devices["web"] = Devices(unbound=3)
    api.put("fleets", "web", fleet_of("os:1"))
    await look_at_fleet(client)
    await look_at_rollout(client)
    api.put("fleets", "web", fleet_of("os:2", **({"rolloutPolicy": policy} if policy else {})))
    await look_at_fleet(client)
    api.devices["web"] = Devices(done=2, failed=1, template="web.v2")
    await look_at_rollout(client, "web.v2-1")
    await look_at_fleet(client)


async def test_a_rollout_is_taken_back_by_another_one_and_the_fleet_is_not_ready(
    api: KubeApi, client: Client
) -> None:
    await fail(api, client)
    steer(api, "web.v2-1", revert=True)
    await look_at_fleet(client)
    back = api.get("rollouts", "web.v1-2")
    assert back is not None
    assert back["spec"]["target"] == {
        "fleet": "web",
        "templateVersion": "web.v1",
        "reverts": "web.v2-1",
    }
    assert said(api, "Reconciling")[0] == "True"
    api.devices["web"] = Devices(done=3, template="web.v1")
    assert await look_at_rollout(client, "web.v1-2") is None
    assert status(api, "rollouts", "web.v1-2")["phase"] == "Completed"
    await look_at_fleet(client)
    await look_at_fleet(client)
    assert api.names("rollouts") == ["web.v1-1", "web.v1-2", "web.v2-1"]
    assert said(api, "Ready")[:2] == ("False", "Reverted")
    assert said(api, "Stalled")[2].startswith("web.v2-1 was taken back to web.v1; change the")
    api.join("web", 2)
    await worklist.reconcile(client, "default", "devices")
    assert api.devices["web"].done == 5, "late joiners are given what the others have"


async def test_the_policy_takes_devices_back_after_too_many_failures(
    api: KubeApi, client: Client
) -> None:
    await fail(api, client, {"maxFailures": 0, "onTooManyFailures": "Revert"})
    assert status(api, "rollouts", "web.v2-1")["phase"] == "Aborted"
    assert api.names("rollouts") == ["web.v1-1", "web.v1-2", "web.v2-1"]


async def test_what_has_failed_is_tried_again_after_the_end_by_another_rollout(
    api: KubeApi, client: Client
) -> None:
    await fail(api, client)
    steer(api, "web.v2-1", retry=1)
    await look_at_fleet(client)
    await look_at_fleet(client)
    assert api.names("rollouts") == ["web.v1-1", "web.v2-1", "web.v2-2"]
    assert await look_at_rollout(client, "web.v2-1") is None, "the record stays"
    assert status(api, "rollouts", "web.v2-1")["phase"] == "Failed"


async def test_a_rollout_says_which_retry_it_has_carried_out(api: KubeApi, client: Client) -> None:
    await fail(api, client)
    api.put("fleets", "web", fleet_of("os:3"))
    await look_at_fleet(client)
    api.devices["web"] = Devices(done=1, busy=2, template="web.v3")
    steer(api, "web.v3-1", retry=2)
    await look_at_rollout(client, "web.v3-1")
    assert status(api, "rollouts", "web.v3-1")["retry"] == 2
    api.devices["web"] = Devices(done=2, failed=1, template="web.v3")
    await look_at_rollout(client, "web.v3-1")
    await look_at_fleet(client)
    assert "web.v3-2" not in api.names("rollouts"), "it has tried"


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "being deleted"])
async def test_a_fleet_that_goes_is_left_alone(api: KubeApi, client: Client, gone: bool) -> None:
    api.put("fleets", "web", {"metadata": {"deletionTimestamp": START}, **fleet_of("os:1")})
    if gone:
        api.delete("fleets", "web")
    await look_at_fleet(client)
    assert api.names("templateversions") == []


# --- rollouts -----------------------------------------------------------------------------------


@pytest.fixture
async def rolling(api: KubeApi, client: Client) -> Devices:
    """A fleet with a version and a rollout, and three devices that nobody has bound."""
    api.put("fleets", "web", fleet_of("os:1"))
    await look_at_fleet(client)
    api.join("web", 3)
    return api.devices["web"]


async def test_a_rollout_binds_watches_and_ends(
    api: KubeApi, client: Client, rolling: Devices
) -> None:
    rolling.eager = False
    assert await look_at_rollout(client) == rollout_plan.BUSY_S
    assert status(api, "rollouts", "web.v1-1")["phase"] == "Active"
    assert rolling.unbound == 0
    rolling.busy, rolling.done = 0, 3
    assert await look_at_rollout(client) is None
    ended = status(api, "rollouts", "web.v1-1")
    assert (ended["phase"], ended["counts"]["done"]) == ("Completed", 3)
    await look_at_fleet(client)
    assert said(api, "Ready") == ("True", "Completed", "All 3 devices run the new template.")


async def test_an_ended_rollout_stays_as_it_is(
    api: KubeApi, client: Client, rolling: Devices
) -> None:
    await look_at_rollout(client)
    rolling.failed, rolling.done = 3, 0
    before = api.version
    assert await look_at_rollout(client, now=NEXT_DAY) is None
    assert api.version == before


async def test_looking_again_at_a_rollout_writes_nothing(
    api: KubeApi, client: Client, rolling: Devices
) -> None:
    rolling.eager = False
    await look_at_rollout(client)
    before = api.version
    await look_at_rollout(client, now="2026-11-23T00:10:00Z")
    assert api.version == before


async def test_failed_devices_end_it_as_failed(
    client: Client, rolling: Devices, api: KubeApi
) -> None:
    rolling.eager = False
    await look_at_rollout(client)
    rolling.busy, rolling.done, rolling.failed = 0, 2, 1
    assert await look_at_rollout(client) is None
    assert status(api, "rollouts", "web.v1-1")["phase"] == "Failed"
    look = await look_at_fleet(client)
    assert said(api, "Ready")[:2] == ("False", "Failed")
    assert look.recheck_s, "what becomes of the devices moves nothing that is watched"


async def test_a_fleet_whose_devices_came_round_is_ready_though_its_rollout_had_failed(
    client: Client, rolling: Devices, api: KubeApi
) -> None:
    rolling.eager = False
    await look_at_rollout(client)
    rolling.busy, rolling.done, rolling.failed = 0, 2, 1
    await look_at_rollout(client)
    await look_at_fleet(client)
    rolling.done, rolling.failed = 3, 0
    look = await look_at_fleet(client)
    text = "All 3 devices run the new template; web.v1-1 had failed."
    assert said(api, "Ready") == ("True", "Mended", text)
    assert not conditions.get(status(api, "fleets", "web")["conditions"], "Stalled")
    assert look.recheck_s is None
    assert status(api, "rollouts", "web.v1-1")["phase"] == "Failed", "which is what became of it"
    # One that joins is no reason to call it failed again.
    rolling.unbound, before = 1, api.version
    await look_at_fleet(client, NEXT_DAY)
    assert api.version == before


async def test_a_disconnected_device_holds_it_up_for_a_day_and_no_longer(
    api: KubeApi, client: Client, rolling: Devices
) -> None:
    rolling.eager, rolling.disconnected = False, 1
    await look_at_rollout(client)
    rolling.busy, rolling.done = 1, 2
    assert await look_at_rollout(client, now="2026-11-23T23:59:00Z") == rollout_plan.QUIET_S
    rolling.busy, rolling.timed_out = 0, 1
    assert await look_at_rollout(client, now=NEXT_DAY) is None
    ended = status(api, "rollouts", "web.v1-1")
    assert (ended["phase"], ended["conditions"][0]["reason"]) == ("Failed", "TimedOut")


async def test_the_policy_says_how_long_it_may_take(
    api: KubeApi, client: Client, rolling: Devices
) -> None:
    target = {"fleet": "web", "templateVersion": "web.v1"}
    budget = {"disruptionBudget": {"maxUnavailable": 1}, "defaultUpdateTimeout": "5m"}
    api.put("rollouts", "web.v1-1", {"spec": {"target": {**target, "policy": budget}}})
    rolling.bindable = False
    await look_at_rollout(client)
    assert await look_at_rollout(client, now="2026-11-23T00:04:00Z") is not None
    assert await look_at_rollout(client, now="2026-11-23T00:06:00Z") is None


async def test_a_pause_binds_nothing_and_costs_no_time(
    api: KubeApi, client: Client, rolling: Devices
) -> None:
    target = {"fleet": "web", "templateVersion": "web.v1"}
    api.put("rollouts", "web.v1-1", {"spec": {"target": target, "control": {"paused": True}}})
    await look_at_rollout(client)
    assert rolling.unbound == 3
    await look_at_fleet(client)
    assert said(api, "RolloutInProgress") == ("False", "Waiting", "The rollout is paused.")
    rolling.eager = False
    api.put("rollouts", "web.v1-1", {"spec": {"target": target}})
    assert await look_at_rollout(client, now=NEXT_DAY) == rollout_plan.BUSY_S
    assert status(api, "rollouts", "web.v1-1")["phase"] == "Active"


async def test_a_pause_that_came_while_we_looked_is_no_failure(
    api: KubeApi, client: Client, rolling: Devices
) -> None:
    def paused_meanwhile(_: str, path: str) -> None:
        if path.endswith("/bindings"):
            target = {"fleet": "web", "templateVersion": "web.v1"}
            api.put(
                "rollouts", "web.v1-1", {"spec": {"target": target, "control": {"paused": True}}}
            )

    api.fault = paused_meanwhile  # type: ignore[assignment]
    assert await look_at_rollout(client) == rollout_plan.BUSY_S
    assert rolling.unbound == 3


async def test_devices_that_cannot_be_bound_are_not_tried_in_a_loop(
    api: KubeApi, client: Client, rolling: Devices
) -> None:
    rolling.bindable = False
    assert await look_at_rollout(client) == rollout_plan.QUIET_S
    assert len([path for _, path in api.requests if path.endswith("/bindings")]) == 1
    (progressing, *_) = status(api, "rollouts", "web.v1-1")["conditions"]
    assert "3 could not be bound" in progressing["message"]


async def test_a_changed_template_ends_the_rollout_before(
    api: KubeApi, client: Client, rolling: Devices
) -> None:
    rolling.eager = False
    await look_at_rollout(client)
    api.put("fleets", "web", fleet_of("os:2"))
    await look_at_fleet(client)
    assert await look_at_rollout(client) is None
    old = status(api, "rollouts", "web.v1-1")
    assert (old["phase"], old["conditions"][0]["reason"]) == ("Aborted", "Superseded")
    rolling.eager = True
    await look_at_rollout(client, "web.v2-1")
    assert status(api, "rollouts", "web.v2-1")["phase"] == "Completed"


async def test_a_rollout_that_is_gone_is_no_work(client: Client) -> None:
    assert await look_at_rollout(client, "nothing.v1-1") is None


# --- the backlog --------------------------------------------------------------------------------


async def test_late_joiners_are_bound_under_the_rollout_that_has_ended(
    api: KubeApi, client: Client, rolling: Devices
) -> None:
    await look_at_rollout(client)
    api.join("web", 2)
    assert await worklist.reconcile(client, "default", "devices") == worklist.RECHECK_S
    assert (rolling.unbound, rolling.done) == (0, 5)
    assert await worklist.reconcile(client, "default", "devices") is None


async def test_an_aborted_rollout_takes_no_late_joiners(
    api: KubeApi, client: Client, rolling: Devices
) -> None:
    target = {"fleet": "web", "templateVersion": "web.v1"}
    api.put("rollouts", "web.v1-1", {"spec": {"target": target, "control": {"aborted": True}}})
    assert await worklist.reconcile(client, "default", "devices") == worklist.RECHECK_S
    assert rolling.unbound == 3


async def test_a_fleet_without_a_version_waits_for_its_own_reconciliation(
    api: KubeApi, client: Client
) -> None:
    api.join("new", 2)
    await worklist.reconcile(client, "default", "devices")
    assert api.devices["new"].unbound == 2


async def test_one_fleet_that_cannot_be_bound_does_not_hold_up_the_others(
    api: KubeApi, client: Client, rolling: Devices
) -> None:
    api.put("fleets", "a", fleet_of("os:1"))
    await fleets.reconcile(client, "default", "a", freezer=freezer_of(client), now=lambda: START)
    api.join("a", 1)

    def refused(_: str, path: str) -> Any:
        from aiohttp import web

        return web.Response(status=500, text="broken") if "/fleets/a/" in path else None

    api.fault = refused
    with pytest.raises(ExceptionGroup) as caught:
        await worklist.reconcile(client, "default", "devices")
    (problem,) = caught.value.exceptions
    assert problem.__notes__ == ["fleet a"]
    assert (api.devices["a"].unbound, rolling.unbound) == (1, 0)


# --- the client ---------------------------------------------------------------------------------


async def test_a_refusal_carries_code_and_reason(api: KubeApi, client: Client) -> None:
    with pytest.raises(ApiError) as caught:
        await client.patch_status("flightctl.io/v1beta1", "default", "fleets", "no", {})
    assert (caught.value.code, caught.value.reason) == (404, "NotFound")


async def test_no_answer_is_told_from_a_refusal(tmp_path: Path) -> None:
    async with Endpoint(socket=tmp_path / "nobody.sock").session() as session:
        with pytest.raises(Unreachable):
            await Client(session, "http://localhost").list_all("flightctl.io/v1beta1", "fleets")


async def test_heads_come_without_bodies(api: KubeApi, client: Client) -> None:
    api.put("fleets", "web", fleet_of("os:1"))
    (head,) = await client.heads("flightctl.io/v1beta1", "default", "fleets")
    assert (head["name"], "spec" in head) == ("web", False)
