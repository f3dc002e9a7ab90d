"""Each step of a rollout is told of its fleet once, in flightctl's words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from resources import conditions, event, rolloutnews

Json = dict[str, Any]
BATCHES = {
    "deviceSelection": {"strategy": "BatchSequence", "sequence": [{"limit": 1}, {"limit": 2}]}
}
COUNTS = {"done": 9, "selected": 10, "failed": 1}


def rollout(policy: Json | None = None, **status: Any) -> Json:
    target = {"fleet": "web", "templateVersion": "web.v3", "policy": policy}
    return {"metadata": {"name": "web.v3-1"}, "spec": {"target": target}, "status": status}


def records(*phases: str) -> list[Json]:
    return [{"number": n, "phase": phase, "counts": COUNTS} for n, phase in enumerate(phases)]


def stopped(phase: str) -> Json:
    known = conditions.set_condition([], "Progressing", "False", "X", "too many failed", "now", 1)
    return rollout(phase=phase, conditions=known)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        pytest.param(
            None,
            rollout(phase="Pending"),
            [
                "FleetRolloutCreated",
                "FleetRolloutStarted: web.v3 is rolled out to all devices at once.",
            ],
            id="begun",
        ),
        pytest.param(
            None,
            rollout(BATCHES, phase="Pending"),
            ["FleetRolloutCreated", "FleetRolloutStarted: web.v3 is rolled out in 3 batches."],
            id="begun in batches",
        ),
        pytest.param(
            rollout(BATCHES, phase="Active", batches=records("Pending", "Pending", "Pending")),
            rollout(BATCHES, phase="Active", batches=records("Active", "Pending", "Pending")),
            ["FleetRolloutBatchDispatched: Batch 1 of web.v3 has begun."],
            id="a batch begins",
        ),
        pytest.param(
            rollout(BATCHES, phase="Active", batches=records("Active", "Pending", "Pending")),
            rollout(BATCHES, phase="Active", batches=records("Completed", "Active", "Pending")),
            [
                "FleetRolloutBatchCompleted: Batch 1: 9 of 10 devices have web.v3.",
                "FleetRolloutBatchDispatched: Batch 2 of web.v3 has begun.",
            ],
            id="one after the other",
        ),
        pytest.param(
            rollout(BATCHES, phase="Active", batches=records("Active")),
            rollout(BATCHES, phase="Active", batches=records("Active"), counts=COUNTS),
            [],
            id="nothing but counts moved",
        ),
        pytest.param(
            rollout(phase="Active", batches=records("Pending")),
            rollout(phase="Active", batches=records("Active")),
            [],
            id="the only batch is the rollout",
        ),
        pytest.param(
            rollout(phase="Active"),
            rollout(phase="Completed", counts=COUNTS),
            ["FleetRolloutCompleted: 9 of 10 devices have web.v3."],
            id="done",
        ),
        *(
            pytest.param(
                rollout(phase="Active"),
                stopped(phase),
                [f"FleetRolloutFailed: {phase}: too many failed"],
                id=phase,
            )
            for phase in ("Suspended", "Failed", "Aborted")
        ),
        pytest.param(stopped("Failed"), stopped("Failed"), [], id="told already"),
        pytest.param(stopped("Suspended"), rollout(phase="Active"), [], id="goes on"),
    ],
)
def test_what_is_told(old: Json | None, new: Json, told: list[str]) -> None:
    found = rolloutnews.of(old, new)
    words = [f"{news.reason}: {news.message}" for news in found]
    assert len(words) == len(told), words
    assert all(word.startswith(start) for word, start in zip(words, told, strict=True)), words


@pytest.mark.parametrize(
    ("old", "new", "details"),
    [
        (None, rollout(), [None, {"rolloutStrategy": "None"}]),
        (None, rollout(BATCHES), [None, {"rolloutStrategy": "Batched"}]),
        (
            rollout(BATCHES, batches=records("Active", "Pending")),
            rollout(BATCHES, batches=records("Completed", "Active")),
            [
                {
                    "batch": "0",
                    "total": 10,
                    "successful": 9,
                    "successPercentage": 90,
                    "failed": 1,
                    "timedOut": 0,
                },
                {"batch": "1"},
            ],
        ),
        (rollout(), rollout(phase="Completed", counts=COUNTS), [{}]),
        (rollout(), stopped("Aborted"), [{}]),
    ],
    ids=["at once", "in batches", "one after the other", "done", "stopped"],
)
def test_programs_are_told_which_version_and_what_became_of_it(
    old: Json | None, new: Json, details: list[Json | None]
) -> None:
    told = rolloutnews.of(old, new)
    for news, wanted in zip(told, details, strict=True):
        assert (news.details is None) == (wanted is None)
        if news.details is not None and wanted is not None:
            head = {"detailType": news.reason, "templateVersion": "v3"}
            assert news.details == head | wanted
            TypeAdapter(event.Details).validate_python(news.details)


def test_of_a_batch_of_nobody_all_have_succeeded() -> None:
    empty = rollout(BATCHES, batches=[{"number": 0, "phase": "Completed"}])
    [news] = rolloutnews.of(rollout(BATCHES), empty)
    assert news.details is not None
    assert (news.details["total"], news.details["successPercentage"]) == (0, 100)
