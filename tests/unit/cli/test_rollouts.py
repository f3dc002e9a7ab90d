"""`rollout`: which attempt a word means, how it goes, and the hand on its levers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import kubeconfig, rollouts
from cli.client import Client, Refused
from cli.kinds import Kinds
from cli.reaching import Reach
from tests.fakes.tiny_api import TinyApi

Json = dict[str, Any]
ROLLOUTS = "/apis/homeport.dev/v1alpha1/namespaces/default/rollouts"
FLEETS = "/apis/flightctl.io/v1beta1/namespaces/default/fleets"


def group(name: str, version: str, plural: str, kind: str) -> Json:
    entry = {
        "resource": plural,
        "singularResource": plural[:-1],
        "responseKind": {"kind": kind},
        "scope": "Namespaced",
    }
    return {"metadata": {"name": name}, "versions": [{"version": version, "resources": [entry]}]}


def rollout(name: str, phase: str, message: str = "", **control: Any) -> Json:
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"u-{name}",
            "resourceVersion": "7",
            "creationTimestamp": "2026-11-26T00:00:00Z",
        },
        "spec": {
            "target": {"fleet": "web", "templateVersion": f"web.{name.rpartition('-')[2]}"},
            "control": control,
        },
        "status": {
            "phase": phase,
            "counts": {"selected": 3, "done": 2, "failed": 1},
            "conditions": [{"type": "Progressing", "message": message}],
        },
    }


@pytest.fixture
def api(tmp_path: Path) -> Iterator[TinyApi]:
    groups = [
        group("flightctl.io", "v1beta1", "fleets", "Fleet"),
        group("homeport.dev", "v1alpha1", "rollouts", "Rollout"),
    ]
    api = TinyApi({"GET /apis": {"items": groups}, "GET /api": {"items": []}})
    api.start(tmp_path)
    yield api
    api.stop()


@pytest.fixture
def reach(api: TinyApi, tmp_path: Path) -> Iterator[Reach]:
    client = Client(kubeconfig.load(api.kubeconfig(tmp_path / "config")))
    yield Reach(client, Kinds(client), "default")
    client.close()


def listed(*items: Json) -> Json:
    return {"metadata": {"resourceVersion": "9"}, "items": list(items)}


@pytest.mark.parametrize("word", ["web", "fleet/web", "rollout/web-v10"])
def test_a_fleet_stands_for_its_latest_rollout(api: TinyApi, reach: Reach, word: str) -> None:
    """Of one second, the one with the higher version: v10 comes after v9."""
    items = [rollout("web-v10", "Active"), rollout("web-v9", "Completed")]
    api.answers[f"GET {ROLLOUTS}"] = listed(*items)
    api.answers[f"GET {ROLLOUTS}/web-v10"] = items[0]
    assert rollouts.find(reach, word).name == "web-v10"


def test_a_fleet_without_rollout_is_told_from_no_fleet(api: TinyApi, reach: Reach) -> None:
    api.answers[f"GET {ROLLOUTS}"] = listed()
    api.answers[f"GET {FLEETS}/web"] = {}
    with pytest.raises(rollouts.NoRollout, match='"web" has no rollout yet'):
        rollouts.find(reach, "web")
    with pytest.raises(Refused) as missing:
        rollouts.find(reach, "nobody")
    assert missing.value.code == 404


@pytest.mark.parametrize(
    ("phase", "ends_well"), [("Completed", True), ("Failed", False), ("Aborted", False)]
)
def test_status_says_what_changes_and_ends_with_the_rollout(
    api: TinyApi, reach: Reach, phase: str, ends_well: bool
) -> None:
    going = rollout("web-v1", "Active", "1 of 3 devices run the new template.")
    ended = rollout("web-v1", phase, "That was it.")
    if not ends_well:
        ended["status"]["failures"] = [{"cause": "no such image", "count": 2, "example": "d-17"}]
    api.answers[f"GET {ROLLOUTS}"] = listed(going)
    events = [{"type": "MODIFIED", "object": item} for item in (going, ended)]
    api.answers[f"WATCH {ROLLOUTS}"] = events
    attempt = rollouts.find(reach, "web")
    lines = rollouts.follow(reach, attempt, 0, watch=True)
    assert next(lines).endswith("Active: 1 of 3 devices run the new template.")
    if ends_well:
        assert list(lines) == ['rollout "web-v1" successfully rolled out']
        return
    assert next(lines) == "2 devices, d-17 for one: no such image"
    with pytest.raises(rollouts.Unsuccessful, match=rf"has ended: {phase}: That was it\."):
        next(lines)


def test_a_lever_is_pulled_once_and_never_after_the_end(api: TinyApi, reach: Reach) -> None:
    api.answers[f"GET {ROLLOUTS}"] = listed(rollout("web-v1", "Active"))
    api.answers[f"PATCH {ROLLOUTS}/web-v1"] = {}
    attempt = rollouts.find(reach, "web")
    assert rollouts.steer(reach, attempt, rollouts.PAUSED, "me")
    sent = api.heard[-1]
    assert sent.method == "PATCH"
    assert sent.body["spec"] == {"control": {"paused": True}}
    assert "metadata" not in sent.body, "devices that report move its version all the time"
    assert not rollouts.steer(reach, attempt, rollouts.RESUMED, "me")
    ended = rollouts.Attempt(attempt.resource, rollout("web-v1", "Failed", "Too late."))
    with pytest.raises(rollouts.Ended, match=r"has ended: Failed: Too late\."):
        rollouts.steer(reach, ended, rollouts.ABORTED, "me")


@pytest.mark.parametrize(
    ("counts", "control", "expected"),
    [
        ({"failed": 2}, {}, {"retry": 1}),
        ({"failed": 2, "refused": 1}, {"retry": 4}, {"retry": 5}),
        ({"failed": 0}, {}, "no device has failed"),
        ({"failed": 2, "refused": 2}, {}, {"retry": 1}),
    ],
)
def test_what_failed_is_tried_once_more_also_after_the_end(
    api: TinyApi, reach: Reach, counts: Json, control: Json, expected: Json | str
) -> None:
    item = rollout("web-v1", "Failed", **control)
    item["status"]["counts"] = counts
    api.answers[f"GET {ROLLOUTS}"] = listed(item)
    api.answers[f"PATCH {ROLLOUTS}/web-v1"] = {}
    attempt = rollouts.find(reach, "web")
    if isinstance(expected, str):
        with pytest.raises(rollouts.NothingToRetry, match=expected):
            rollouts.another_try(attempt)
        return
    control = rollouts.another_try(attempt)
    assert rollouts.steer(reach, attempt, control, "me", afterwards=True)
    assert api.heard[-1].body["spec"] == {"control": expected}


def test_a_fleet_that_was_taken_back_stands_for_what_takes_it_back(
    api: TinyApi, reach: Reach
) -> None:
    back = rollout("web-v1-2", "Active")
    back["spec"]["target"] |= {"templateVersion": "web.v1", "reverts": "web-v2"}
    api.answers[f"GET {ROLLOUTS}"] = listed(back, rollout("web-v2", "Aborted"))
    assert rollouts.find(reach, "web").name == "web-v1-2"


def test_history_is_a_row_for_each_attempt(api: TinyApi, reach: Reach) -> None:
    items = [rollout("web-v1", "Completed", "All."), rollout("web-v2", "Active")]
    api.answers[f"GET {ROLLOUTS}"] = listed(*items)
    head, *rows = rollouts.history(rollouts.of_fleet(reach, "web"))
    assert head.split()[:3] == ["NAME", "TEMPLATE", "PHASE"]
    assert [row.split()[:6] for row in rows] == [
        ["web-v1", "web.v1", "Completed", "3", "2", "1"],
        ["web-v2", "web.v2", "Active", "3", "2", "1"],
    ]
    assert api.heard[-1].query["fieldSelector"] == "spec.target.fleet=web"


@pytest.mark.parametrize(
    ("phase", "control", "approved"),
    [
        ("Suspended", {}, 3),
        ("Waiting", {}, 3),
        ("Waiting", {"paused": True}, None),
        ("Active", {}, None),
        ("Completed", {}, None),
    ],
)
def test_what_waits_is_approved_and_nothing_else(
    api: TinyApi, reach: Reach, phase: str, control: Json, approved: int | None
) -> None:
    item = rollout("web-v1", phase, "Batch 2 succeeded on 50%.")
    item["status"]["currentBatch"] = 2
    item["spec"]["control"] = control
    api.answers[f"GET {ROLLOUTS}"] = listed(item)
    attempt = rollouts.find(reach, "web")
    if approved is None:
        with pytest.raises((rollouts.NothingToApprove, rollouts.Ended), match="Batch 2 succeeded"):
            rollouts.approval(attempt)
        return
    assert rollouts.approval(attempt) == {"approved": approved}
