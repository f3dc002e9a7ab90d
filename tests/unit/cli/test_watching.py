"""A list that stays true, over lost connections and forgotten changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli import kubeconfig, watching
from cli.client import Client, Refused
from cli.watching import Change
from tests.fakes.tiny_api import TinyApi

Json = dict[str, Any]
PATH = "/apis/flightctl.io/v1beta1/namespaces/default/fleets"
EXPIRED = {"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "too old"}}


def item(name: str, version: int) -> Json:
    return {"metadata": {"name": name, "uid": f"u-{name}", "resourceVersion": str(version)}}


def listed(version: int, *items: Json) -> Json:
    return {"metadata": {"resourceVersion": str(version)}, "items": list(items)}


@pytest.fixture
def api(tmp_path: Path) -> Iterator[TinyApi]:
    api = TinyApi()
    api.start(tmp_path)
    yield api
    api.stop()


@pytest.fixture
def client(api: TinyApi, tmp_path: Path) -> Iterator[Client]:
    made = Client(kubeconfig.load(api.kubeconfig(tmp_path / "config")))
    yield made
    made.close()


def in_turn(*answers: Any) -> Any:
    """Each answer once, the last one for ever."""
    left = list(answers)
    return lambda: left.pop(0) if len(left) > 1 else left[0]


def followed(client: Client, count: int) -> tuple[list[Change], list[str]]:
    told: list[str] = []
    watch = watching.Watch(client, PATH, {}, "application/json", tell=told.append)
    watch.begin()
    changes = watch.changes(time.monotonic() + 20)
    return [next(changes) for _ in range(count)], told


def test_what_changed_is_told_once_where_the_server_forgot_it(api: TinyApi, client: Client) -> None:
    """410: the list is read again, and compared with what was told."""
    api.answers[f"GET {PATH}"] = in_turn(
        listed(5, item("kept", 1), item("changed", 2), item("gone", 3)),
        listed(9, item("kept", 1), item("changed", 8), item("new", 9)),
    )
    event = {"type": "MODIFIED", "object": item("kept", 10)}
    api.answers[f"WATCH {PATH}"] = in_turn([EXPIRED], [event])
    changes, told = followed(client, 4)
    assert [(change.type, change.item["metadata"]["name"]) for change in changes] == [
        ("DELETED", "gone"), ("MODIFIED", "changed"), ("ADDED", "new"), ("MODIFIED", "kept"),
    ]  # fmt: skip
    assert told == []
    assert [h.query["resourceVersion"] for h in api.heard if h.query.get("watch")] == ["5", "9"]


def test_a_watch_goes_on_from_the_last_version_that_it_heard_of(
    api: TinyApi, client: Client
) -> None:
    api.answers[f"GET {PATH}"] = listed(5)
    api.answers[f"WATCH {PATH}"] = in_turn(
        [{"type": "ADDED", "object": item("a", 6)}, {"type": "BOOKMARK", "object": item("", 8)}],
        (503, {"reason": "ServiceUnavailable", "message": "starting"}),
        [{"type": "DELETED", "object": item("a", 9)}],
    )
    changes, _ = followed(client, 2)
    assert [change.type for change in changes] == ["ADDED", "DELETED"]
    assert [h.query["resourceVersion"] for h in api.heard if h.query.get("watch")][-1] == "8"


def test_losing_the_server_is_told_once(api: TinyApi, client: Client, tmp_path: Path) -> None:
    api.answers[f"GET {PATH}"] = listed(5)
    told: list[str] = []
    watch = watching.Watch(client, PATH, {}, "application/json", tell=told.append)
    watch.begin()
    client.access = kubeconfig.Access("https://127.0.0.1:1", client.access.context, "default")
    with pytest.raises(watching.Ended):
        next(watch.changes(time.monotonic() + 1.5))
    assert len(told) == 1
    assert told[0].endswith("connection refused; trying again")


def test_a_no_of_the_server_ends_the_watch(api: TinyApi, client: Client) -> None:
    api.answers[f"GET {PATH}"] = listed(5)
    no = {"type": "ERROR", "object": {"code": 403, "reason": "Forbidden", "message": "no more"}}
    api.answers[f"WATCH {PATH}"] = [no]
    with pytest.raises(Refused, match="no more"):
        followed(client, 1)


def test_pages_of_a_list_are_one_list(api: TinyApi, client: Client) -> None:
    first = listed(5, item("a", 1))
    first["metadata"]["continue"] = "next"
    api.answers[f"GET {PATH}"] = in_turn(first, listed(5, item("b", 2)))
    document = watching.listed(client, PATH, {"labelSelector": "x"}, "application/json")
    assert [each["metadata"]["name"] for each in document["items"]] == ["a", "b"]
    assert document["metadata"] == {"resourceVersion": "5"}
    assert api.heard[-1].query == {"labelSelector": "x", "limit": "500", "continue": "next"}
