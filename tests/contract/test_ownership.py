"""Who owns a device does not depend on whether it came with its labels or was given them later."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from apiserver import bindings
from apiserver.operations import Operations
from apiserver.store import Store, Transaction, devices
from bench.fleet import ADMIN, DEVICE, FLEET, PLAIN
from resources import conditions
from resources.kind import Json

SELECTORS = {"a": {"x": "1"}, "b": {"x": "1", "y": "2"}, "c": {"example.com/z": "3"}}
DECIDED = ("owner", "fleet", "candidates", "render_needed", "updated_status", "updated_info")


@pytest.fixture
async def operations(database_url: str, tmp_path: Path) -> Any:
    store = await Store.open(database_url, data_dir=tmp_path)
    operations = Operations(store)
    await operations.prepare()
    for name, labels in SELECTORS.items():
        spec = {"selector": {"matchLabels": labels}, "template": {"spec": {}}}
        document = {"metadata": {"name": name}, "spec": spec}
        await operations.create(ADMIN, FLEET, "default", document, PLAIN)
    yield operations
    await store.close()


STORY = [
    ({}, None, None),
    ({"x": "1"}, "Fleet/a", None),
    ({"x": "1", "y": "2"}, "Fleet/a", "a,b"),
    ({"x": "1", "y": "2", "example.com/z": "3"}, "Fleet/a", "a,b,c"),
    ({"example.com/z": "3"}, "Fleet/c", None),
    ({"y": "2"}, None, None),
    ({"x": "1", "example.com/z": "3"}, None, "a,c"),
    ({"x": "2"}, None, None),
]


async def test_one_match_owns_several_change_nothing_and_are_named_none_sets_free(
    operations: Operations,
) -> None:
    """Contract 7.4, step by step. The condition is there from when several match for the first
    time, and False while they do not."""
    document = {"metadata": {"name": "d"}, "spec": {}}
    await operations.create(ADMIN, DEVICE, "default", document, PLAIN)
    seen = False
    for labels, owner, several in STORY:
        told = await operations.patch(
            ADMIN,
            DEVICE,
            "default",
            "d",
            lambda old, each=labels: old | {"metadata": old["metadata"] | {"labels": each}},  # type: ignore[misc]
            PLAIN,
        )
        assert told.document["metadata"].get("owner") == owner, labels
        found = conditions.get(told.document["status"]["conditions"], "MultipleOwners")
        seen = seen or several is not None
        assert (found is not None) == seen, labels
        if found is not None:
            said = ("True", "MultipleOwners", several) if several else ("False", "", "")
            assert (found["status"], found["reason"], found["message"]) == said, labels


async def test_labels_from_the_start_decide_what_labels_later_decide(
    operations: Operations,
) -> None:
    some = [("x", "1"), ("x", "2"), ("y", "2"), ("example.com/z", "3"), ("other", "a.b_c")]
    subsets = [dict(chosen) for size in range(4) for chosen in itertools.combinations(some, size)]

    def insert(tx: Transaction, name: str, labels: Json) -> None:
        metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "labels": labels}
        metadata["creationTimestamp"] = tx.timestamp
        bindings.insert_device(tx, {"metadata": metadata, "spec": {}})

    def decided(tx: Transaction, name: str) -> list[Any]:
        row = devices.row_by_name(tx.connection, "default", name)
        assert row is not None
        return [row[column] for column in DECIDED]

    for number, labels in enumerate(subsets):
        born, told = f"born-{number}", f"told-{number}"
        await operations.store.write(lambda tx, n=born, each=labels: insert(tx, n, each))  # type: ignore[misc]
        await operations.store.write(lambda tx, n=told: insert(tx, n, {}))  # type: ignore[misc]
        await operations.patch(
            ADMIN,
            DEVICE,
            "default",
            told,
            lambda old, each=labels: old | {"metadata": old["metadata"] | {"labels": each}},  # type: ignore[misc]
            PLAIN,
        )
        found = [await operations.store.write(lambda tx, n=n: decided(tx, n)) for n in (born, told)]  # type: ignore[misc]
        assert found[0] == found[1], labels
    owners = await operations.store.read(
        lambda s: {each["metadata"].get("owner") for each in s.list(DEVICE, "default")}
    )
    assert owners == {None, "Fleet/a", "Fleet/c"}
