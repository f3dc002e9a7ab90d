"""What no specification needs any more goes; nothing else ever does. Commands are scripted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent import pruning, settings, specs, states, world
from agent.accounts import Accounts
from agent.images import Stores
from agent.pulling import Pulling
from agent.throttle import Throttle
from tests.fakes.clocked_world import ClockedWorld

DATA = "/var/lib/flightctl"


class Store:
    """Images of podman's by name, and those that a container uses."""

    def __init__(self, where: ClockedWorld) -> None:
        self.images: set[str] = set()
        self.used: set[str] = set()
        self.removed: list[str] = []
        where.answer = self.answer
        where.mkdir(f"{DATA}/homeport")

    def answer(self, argv: tuple[str, ...]) -> world.Completed:
        reference = argv[-1]
        if argv[:3] == ("podman", "image", "exists"):
            return world.Completed(argv, 0 if reference in self.images else 1, "", "")
        if argv[:3] == ("podman", "artifact", "inspect"):
            return world.Completed(argv, 1, "", "Error: no such artifact")
        if reference in self.used:
            return world.Completed(argv, 2, "", "Error: image used by abc: image is in use")
        self.removed.append(" ".join(argv[:3]) + f" {reference}")
        self.images.discard(reference)
        return world.Completed(argv, 0, "", "")


@pytest.fixture
def where(tmp_path: Path) -> ClockedWorld:
    return ClockedWorld(tmp_path)


def spec(version: str, *images: str, os: str = "") -> specs.Spec:
    apps = tuple(specs.Application(i, "container", i) for i in images)
    return specs.Spec(states.Target(version), applications=apps, os_image=os)


def made(where: ClockedWorld, *, is_on: bool = True) -> pruning.Pruning:
    bounds, accounts = settings.LoopSettings(data_dir=DATA), Accounts(where)
    return pruning.Pruning(
        where,
        DATA,
        Stores(where, Pulling(where, bounds, Throttle(0)), accounts),
        accounts,
        lambda s: {(a.run_as, a.image): a.name for a in s.applications},
        lambda s: (),
        is_on=is_on,
    )


def recorded(where: ClockedWorld) -> list[str]:
    found = json.loads(where.read(f"{DATA}/{pruning.REFERENCES}") or b"{}")
    return [one["image"] for one in found["references"]]


def test_what_only_the_last_one_needed_goes(where: ClockedWorld) -> None:
    store, pruner = Store(where), made(where)
    store.images = {"a:1", "a:2", "b:1", "os:1", "os:2", "by-hand:1"}
    one, two = spec("1", "a:1", "b:1", os="os:1"), spec("2", "a:2", "b:1", os="os:2")
    pruner.remember(one, two)
    pruner.prune(two)
    assert sorted(store.removed) == ["podman image rm a:1", "podman image rm os:1"]
    assert store.images == {"a:2", "b:1", "os:2", "by-hand:1"}
    assert sorted(recorded(where)) == ["a:2", "b:1", "os:2"]
    where.commands.clear()
    pruner.prune(two)
    assert where.commands == []


def test_it_is_off_until_it_is_asked_for_and_then_knows_the_past(where: ClockedWorld) -> None:
    store = Store(where)
    store.images = {"a:1", "a:2"}
    one, two = spec("1", "a:1"), spec("2", "a:2")
    off = made(where, is_on=False)
    off.remember(one, two)
    off.prune(two)
    assert store.removed == []
    made(where).prune(two)
    assert store.images == {"a:2"}


def test_what_is_in_use_is_tried_for_a_while_and_then_forgotten(where: ClockedWorld) -> None:
    store, pruner = Store(where), made(where)
    store.images = store.used = {"a:1"}
    two = spec("2", "a:2")
    pruner.remember(spec("1", "a:1"), two)
    pruner.prune(two)
    where.elapsed_s = 299.0
    pruner.prune(two)
    assert "a:1" in recorded(where)
    where.elapsed_s = 301.0
    pruner.prune(two)
    assert recorded(where) == ["a:2"]
    assert store.removed == []


def test_artifacts_and_the_clusters_images_go_by_their_own_commands(where: ClockedWorld) -> None:
    store = Store(where)
    listed = [{"image": "m:1", "type": "artifact"}, {"image": "c:1", "type": "cri"}, {"image": "g"}]
    where.put(f"{DATA}/{pruning.REFERENCES}", json.dumps({"references": listed}))
    made(where).prune(spec("2"))
    assert store.removed == ["podman artifact rm m:1", "crictl rmi c:1 c:1"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"references": [{}]}'])
def test_a_list_that_cannot_be_read_is_an_empty_one(where: ClockedWorld, text: str) -> None:
    Store(where)
    where.put(f"{DATA}/{pruning.REFERENCES}", text)
    pruner = made(where)
    pruner.remember(spec("1", "a:1"))
    assert recorded(where) == ["a:1"]


def test_who_is_reset_forsakes_all_but_systems(where: ClockedWorld) -> None:
    """Also where pruning is off."""
    store, pruner = Store(where), made(where, is_on=False)
    store.images = {"a:1", "a:2", "os:1", "by-hand:1"}
    store.used = {"a:2"}
    pruner.remember(spec("1", "a:1"))
    pruner.forsake(spec("2", "a:2", os="os:1"))
    assert store.removed == ["podman image rm a:1"]
    assert store.images == {"a:2", "os:1", "by-hand:1"}
