"""Objects for reading, and which object a word means: pure functions of documents."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cli import describing, naming, why
from cli.describing import Page

Json = dict[str, Any]

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def ago(seconds: int) -> str:
    return (NOW - timedelta(seconds=seconds)).isoformat()


def device(**status: Any) -> Json:
    return {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "Device",
        "spec": {"os": {"image": "quay.io/acme/os:2"}},
        "metadata": {
            "name": "abc",
            "creationTimestamp": "2026-11-25T12:00:00Z",
            "annotations": {"device-controller/renderedVersion": "4"},
        },
        "status": status,
    }


def test_an_object_is_described_with_why_and_what_happened() -> None:
    document = device(
        summary={"status": "Online"},
        updated={"status": "OutOfDate", "info": "the health check failed"},
        config={"renderedVersion": "3"},
        os={"image": "quay.io/acme/os:1"},
        systemInfo={"agentVersion": "0.9", "operatingSystem": "linux", "architecture": "amd64"},
        applications=[
            {"name": "web", "appType": "container", "status": "Running", "ready": "1/1",
             "restarts": 0}
        ],
        conditions=[
            {"type": "Updating", "status": "False", "reason": "Error", "message": "no",
             "lastTransitionTime": ago(60)}
        ],
    )  # fmt: skip
    events = [
        {"type": "Warning", "reason": "Failed", "message": "oh", "lastTimestamp": ago(120)},
        {"type": "Normal", "reason": "Seen", "message": "it", "count": 3,
         "lastTimestamp": ago(5), "firstTimestamp": ago(300)},
    ]  # fmt: skip
    text = describing.text_of(document, events, Page(NOW))
    for expected in (
        "Updated:    OutOfDate",
        "OS image:   quay.io/acme/os:1\n            shall be quay.io/acme/os:2",
        "Config:     version 3, shall be 4",
        "Agent:      0.9 on linux/amd64",
        "Created:    2026-11-25T12:00:00Z (24h ago)",
        "It runs version 3 and shall run 4.",
        "  the health check failed",
        "  web    container   Running   1/1     0",
        "  Updating   False    Error    60s   no",
        "  Warning   Failed   2m                oh",
        "  Normal    Seen     5s (x3 over 5m)   it",
    ):
        assert expected in text


@pytest.mark.parametrize(
    ("seen", "line"),
    [
        ("2026-11-26T11:57:00Z", "Last seen:   2026-11-26T11:57:00Z (3m ago)"),
        ("2026-11-26T11:59:55Z", "Last seen:   2026-11-26T11:59:55Z (5s ago)"),
        ("never", "Last seen:   never"),
    ],
)
def test_a_device_is_described_with_when_it_was_last_heard_of(seen: str, line: str) -> None:
    text = describing.text_of(device(lastSeen=seen), [], Page(NOW))
    assert line in text.splitlines()


def test_on_a_terminal_nothing_is_wider_than_it() -> None:
    message = "the service was not reached at https://service.example:7443 within the time " * 3
    document = device(
        updated={"status": "OutOfDate", "info": message},
        conditions=[{"type": "Updating", "status": "False", "reason": "Error", "message": message}],
    )
    text = describing.text_of(document, [], Page(NOW, width=80))
    assert max(len(line) for line in text.splitlines()) <= 80
    assert message.rsplit(maxsplit=1)[-1] in text


def test_a_kind_without_words_of_its_own_shows_its_specification() -> None:
    document = {
        "apiVersion": "flightctl.io/v1beta1",
        "kind": "Repository",
        "metadata": {"name": "r"},
        "spec": {"type": "git", "url": "https://example.com/x.git"},
    }
    text = describing.text_of(document, [], Page(NOW))
    assert "Spec:\n  type: git\n  url: https://example.com/x.git\n" in text


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        pytest.param(device(updated={"status": "UpToDate"}), [], id="nothing to explain"),
        pytest.param(device(), [], id="nothing reported yet"),
        pytest.param(
            device(
                updated={"status": "OutOfDate"},
                conditions=[{"type": "Updating", "status": "False", "message": "told why"}],
            ),
            ["It is OutOfDate. It runs version none and shall run 4.", "told why"],
            id="the condition tells where the summary does not",
        ),
        pytest.param(
            device(
                updated={"status": "OutOfDate", "info": "no label"}, config={"renderedVersion": "4"}
            ),
            ["It is OutOfDate.", "no label"],
            id="what it shall run it runs, and the newest cannot be rendered",
        ),
        pytest.param(
            device(
                updated={"status": "UpToDate"},
                applicationsSummary={"status": "Degraded", "info": "web"},
            ),
            ["An application is Degraded: web"],
            id="a sick application",
        ),
        pytest.param(
            device(
                summary={"status": "ConflictPaused", "info": "It is ahead; resume it."},
                updated={"status": "UpToDate"},
            ),
            ["It is ahead; resume it."],
            id="left alone after a restore",
        ),
        pytest.param(
            device(conditions=[{"type": "SpecValid", "status": "False", "message": "bad spec"}]),
            ["bad spec"],
            id="a specification that cannot be rendered",
        ),
        pytest.param(
            device(conditions=[{"type": "SpecValid", "status": "True", "message": "fine"}]),
            [],
            id="a good condition is no reason",
        ),
        pytest.param(
            {
                "kind": "Rollout",
                "status": {
                    "phase": "Failed",
                    "conditions": [{"type": "Progressing", "message": "3 failed."}],
                    "failures": [{"cause": "no disk", "count": 3, "example": "abc"}],
                },
            },
            ["It is Failed: 3 failed.", "3 devices, abc for one: no disk"],
            id="a failed rollout",
        ),
        pytest.param(
            {
                "kind": "Fleet",
                "status": {
                    "conditions": [
                        {"type": "Valid", "status": "True", "message": ""},
                        {"type": "Ready", "status": "False", "message": "Devices are updated."},
                        {"type": "RolloutInProgress", "status": "True", "message": "1 of 3."},
                    ]
                },
            },
            ["Devices are updated.", "1 of 3."],
            id="a fleet under way",
        ),
        pytest.param({"kind": "Event", "status": {}}, [], id="a kind without reasons"),
    ],
)
def test_reasons_are_those_that_the_service_wrote_down(document: Json, expected: list[str]) -> None:
    assert why.reasons(document) == expected


def item(name: str, alias: str = "") -> Json:
    return {"metadata": {"name": name, "labels": {"alias": alias} if alias else None}}


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        pytest.param("abc", "abc", id="the whole name, though another begins so"),
        pytest.param("abd", "abd1", id="how one begins"),
        pytest.param("north", "xyz", id="an alias"),
    ],
)
def test_a_word_means_one_object(word: str, expected: str) -> None:
    items = [item("abc"), item("abcd"), item("abd1"), item("xyz", "north")]
    assert naming.choose(items, word, "devices")["metadata"]["name"] == expected


@pytest.mark.parametrize(
    ("items", "words"),
    [
        pytest.param([item("abc"), item("abd")], ["means 2: abc, abd", "type more"], id="several"),
        pytest.param([item("xyz")], ['"ab" not found', "there are: xyz"], id="none so"),
        pytest.param([], ["there are: none"], id="none at all"),
        pytest.param([item(f"x{n}") for n in range(9)], ["and 4 more"], id="many"),
    ],
)
def test_a_word_that_means_none_or_several_is_refused_with_the_candidates(
    items: list[Json], words: list[str]
) -> None:
    with pytest.raises(naming.Unclear) as caught:
        naming.choose(items, "ab", "devices")
    told = f"{caught.value} {caught.value.hint}"
    assert all(word in told for word in words)
