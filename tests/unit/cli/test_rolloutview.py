"""The picture of a rollout: what it says, what it leaves unsaid, and that it fits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli import rolloutview

Json = dict[str, Any]
NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def at(seconds_ago: float) -> str:
    return (NOW - timedelta(seconds=seconds_ago)).isoformat()


def rollout(reason: str = "Updating", batches: int = 2, **counts: int) -> Json:
    policy = {"deviceSelection": {"sequence": [{"limit": 1}] * (batches - 1)}}
    known = {"selected": 100, "done": 50, "startedAt": at(600)} | counts
    records: list[Json] = [{"number": n, "phase": "Pending"} for n in range(batches)]
    records[0] = {"number": 0, "phase": "Active", "counts": known, "startedAt": at(600)}
    said = {
        "type": "Progressing",
        "reason": reason,
        "message": "It goes.",
        "lastTransitionTime": at(90),
    }
    return {
        "metadata": {"name": "web.v3-1"},
        "spec": {"target": {"fleet": "web", "templateVersion": "web.v3", "policy": policy}},
        "status": {
            "phase": "Active",
            "currentBatch": 0,
            "batches": records,
            "counts": known,
            "startedAt": at(600),
            "conditions": [said],
        },
    }


def text(document: Json, width: int = 80) -> str:
    return "\n".join(rolloutview.lines(document, NOW, width))


def test_the_whole_picture_on_80_columns() -> None:
    document = rollout(failed=5, timedOut=1, disconnected=4)
    document["status"]["failures"] = [{"cause": "no\nspace", "count": 5, "example": "d-1"}]
    assert text(document).splitlines() == [
        "web.v3-1  Active for 10m",
        "web.v3 to fleet web",
        "",
        "BATCH        STATE      PROGRESS                     DONE   FAILED   LATE   AWAY",
        "batch 1      Active     ############xx..........   50/100        5      1      4",
        "the rest     Pending    ........................        -        0      0      0",
        "all devices             ############xx..........   50/100        5      1      4",
        "",
        "6 devices a minute; about 7m left for the 40 under way",
        "It goes.",
        "",
        "FAILED   CAUSE",
        "     5   no space (such as d-1)",
    ]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        pytest.param(rollout(done=4), "", id="too few are through"),
        pytest.param(rollout(done=100), "10 devices a minute", id="all are through"),
        pytest.param(rollout(held=3), "5 devices a minute", id="some wait for others"),
        pytest.param(rollout(disconnected=50), "5 devices a minute", id="the others are away"),
        pytest.param(rollout("Baking"), "", id="nobody is under way"),
        pytest.param(rollout("SuccessThreshold"), "", id="it is held up"),
    ],
)
def test_a_pace_is_said_where_there_is_one_and_no_end_that_nobody_knows(
    document: Json, said: str
) -> None:
    [*_, line] = ["", *(x for x in text(document).splitlines() if "a minute" in x)]
    assert line == said


@pytest.mark.parametrize("reason", ["NeedsApproval", "SuccessThreshold", "Paused"])
def test_a_gate_says_since_when_and_who_opens_it(reason: str) -> None:
    found = text(rollout(reason))
    assert "It goes. It has waited for 90s." in found
    assert "To go on: homeport rollout" in found


def test_of_many_batches_those_around_the_current_one_are_shown() -> None:
    document = rollout(batches=40)
    document["status"]["currentBatch"] = 20
    found = text(document)
    assert "14 batches before have ended" in found
    assert "14 batches after wait for their turn" in found
    assert "batch 21 " in found
    assert "batch 2 " not in found


def test_one_batch_is_one_row_and_nothing_heard_is_a_picture_too() -> None:
    assert text(rollout(batches=1)).count("all devices") == 1
    bare = rollout()
    del bare["status"]
    assert "No controller has looked at it yet." in text(bare)


@given(
    st.integers(0, 200),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.integers(0, 10**6),
    st.text(max_size=300),
)
def test_no_line_is_wider_than_the_terminal(
    width: int, done: int, failed: int, late: int, cause: str
) -> None:
    selected = done + failed + late + 7
    document = rollout(selected=selected, done=done, failed=failed, timedOut=late)
    document["status"]["failures"] = [{"cause": cause, "count": failed, "example": "d"}]
    found = rolloutview.lines(document, NOW, width)
    assert max(map(len, found)) <= max(width, rolloutview.WIDTH_MIN)
    [row] = [line for line in found if line.startswith("batch 1 ")]
    if width >= 80:
        assert "." in row, "what is open never looks as if it were over"
