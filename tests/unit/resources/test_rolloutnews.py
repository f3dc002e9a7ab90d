"""Each step of a rollout is told of its fleet once, in flightctl's words."""

from __future__ import annotations

from typing import Any

import pytest

from resources import conditions, devicenews, rolloutnews
from resources.devicenews import News

Json = dict[str, Any]
BATCHES = {
    "deviceSelection": {"strategy": "BatchSequence", "sequence": [{"limit": 1}, {"limit": 2}]}
}
COUNTS = {"done": 9, "selected": 10}


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


def test_only_what_stopped_is_a_warning() -> None:
    assert News("FleetRolloutFailed", "").is_warning
    assert not News("FleetRolloutBatchCompleted", "").is_warning
    assert "FleetRolloutCompleted" in devicenews.NORMAL
