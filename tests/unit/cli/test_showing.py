"""What is printed: pure functions from documents to text."""

from __future__ import annotations

from typing import Any

import pytest

from cli import naming, show, why
from cli.client import Refused

Json = dict[str, Any]

COLUMNS = [
    {"name": "Name", "priority": 0},
    {"name": "Updated", "priority": 0},
    {"name": "Labels", "priority": 1},
]


def table_of(*rows: list[Any]) -> Json:
    return {
        "columnDefinitions": COLUMNS,
        "rows": [
            {"cells": cells, "object": {"metadata": {"namespace": "default"}}} for cells in rows
        ],
    }


def device(**status: Any) -> Json:
    return {
        "kind": "Device",
        "metadata": {
            "name": "abc",
            "annotations": {"device-controller/renderedVersion": "4"},
        },
        "status": status,
    }


def test_columns_are_aligned_and_wide_ones_wait_for_wide() -> None:
    table = table_of(["a-long-name", "UpToDate", "x=y"], ["b", None, ""])
    assert show.Table(wide=False).lines(table) == [
        "NAME          UPDATED",
        "a-long-name   UpToDate",
        "b             <none>",
    ]
    assert show.Table(wide=True).lines(table)[0] == "NAME          UPDATED    LABELS"


def test_what_a_watch_brings_is_aligned_with_the_first_rows_and_has_no_second_head() -> None:
    table = show.Table(wide=False)
    table.lines(table_of(["a-long-name", "Updating", ""]))
    later = {"rows": table_of(["b", "UpToDate", ""])["rows"]}
    assert table.lines(later) == ["b             UpToDate"]
    assert table.lines(later, gone=True) == ["b             UpToDate   (deleted)"]


def test_a_watch_that_begins_empty_gets_its_head_with_the_first_row() -> None:
    table = show.Table(wide=False)
    assert table.lines(table_of()) == []
    assert table.is_empty
    assert table.lines(table_of(["b", "UpToDate", ""])) == ["NAME   UPDATED", "b      UpToDate"]


def test_all_organisations_get_a_column() -> None:
    lines = show.Table(wide=False, namespaces=True).lines(table_of(["b", "UpToDate", ""]))
    assert lines == ["NAMESPACE   NAME   UPDATED", "default     b      UpToDate"]


def test_an_object_is_described_with_why_and_what_happened() -> None:
    document = device(
        summary={"status": "Online"},
        updated={"status": "OutOfDate", "info": "the health check failed"},
        config={"renderedVersion": "3"},
        applications=[{"name": "web", "status": "Running", "ready": "1/1", "restarts": 0}],
        conditions=[{"type": "Updating", "status": "False", "reason": "Error", "message": "no"}],
    )
    text = show.described(document, [{"type": "Warning", "reason": "Failed", "message": "oh"}])
    for expected in (
        "Updated:     OutOfDate",
        "It runs version 3 and shall run 4.",
        "  the health check failed",
        "web           Running   1/1     0",
        "Updating    False    Error",
        "Warning   Failed   <none>      oh",
    ):
        assert expected in text


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
                updated={"status": "UpToDate"},
                applicationsSummary={"status": "Degraded", "info": "web"},
            ),
            ["An application is Degraded: web"],
            id="a sick application",
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
    ("items", "reason", "words"),
    [
        pytest.param(
            [item("abc"), item("abd")], "Ambiguous", ["2 of the devices", "abc, abd"], id="several"
        ),
        pytest.param([item("xyz")], "NotFound", ["none of the devices", "xyz"], id="none so"),
        pytest.param([], "NotFound", ["there are none"], id="none at all"),
        pytest.param([item(f"x{n}") for n in range(9)], "NotFound", ["and 4 more"], id="many"),
    ],
)
def test_a_word_that_means_none_or_several_is_refused_with_the_candidates(
    items: list[Json], reason: str, words: list[str]
) -> None:
    with pytest.raises(Refused) as caught:
        naming.choose(items, "ab", "devices")
    assert caught.value.reason == reason
    assert all(word in str(caught.value) for word in words)
