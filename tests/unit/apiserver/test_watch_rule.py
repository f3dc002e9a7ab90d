"""The watch rule against a model: whatever the interleaving, a client ends with what is listed."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

import pytest

from apiserver.store import watchrule
from apiserver.store.watchrule import Change, Current
from resources.selectors import EVERYTHING, LabelSelector, parse_labels

SELECTORS = [EVERYTHING, parse_labels("a=1"), parse_labels("a!=1,b"), parse_labels("!b")]


@dataclass
class World:
    """Objects, and the log that the store would have written of what happened to them."""

    random: Random
    version: int = 0
    objects: dict[str, tuple[str, Current]] = field(default_factory=dict)
    log: list[Change] = field(default_factory=list)
    born: int = 0

    def step(self) -> None:
        self.version += 1
        name = self.random.choice("pqr")
        if name not in self.objects:
            self.born += 1
            self._put(name, f"{name}{self.born}", self._labels(), "ADDED", None)
        elif self.random.random() < 0.25:
            uid, current = self.objects.pop(name)
            body = {"metadata": {"uid": uid}}
            self._append(name, uid, "DELETED", (current.labels, current.fields), None, body)
        else:
            uid, current = self.objects[name]
            self._put(name, uid, self._labels(), "MODIFIED", current)

    def _labels(self) -> dict[str, str]:
        return {k: str(self.random.randint(1, 2)) for k in "ab" if self.random.random() < 0.6}

    def _put(self, name: str, uid: str, labels: dict[str, str], type_: str, was: object) -> None:
        new = Current(self.version, labels, {})
        self.objects[name] = uid, new
        changed = not isinstance(was, Current) or was.labels != labels
        old = (was.labels, was.fields) if isinstance(was, Current) and changed else None
        self._append(name, uid, type_, old, (labels, {}) if changed else None, None)

    def _append(self, name, uid, type_, old, new, body) -> None:  # type: ignore[no-untyped-def]
        self.log.append(Change(self.version, "K", "ns", name, uid, type_, old, new, body))

    def listed(self, selector: LabelSelector) -> dict[str, int]:
        return {
            uid: current.version
            for uid, current in self.objects.values()
            if selector.matches(current.labels)
        }


@dataclass
class Client:
    """Builds up what it is told; resumes from the version of any event, as clients do."""

    selector: LabelSelector
    cursor: int
    known: dict[str, int]
    last: int = 0

    def read(self, world: World, rows: int) -> None:
        current = dict(world.objects.values())
        for row in [row for row in world.log if row.version > self.cursor][:rows]:
            found = current.get(row.uid)
            event = watchrule.decide(row, found, lambda labels, _: self.selector.matches(labels))
            self.cursor = row.version
            if event is None:
                continue
            assert row.version > self.last, "versions rise strictly"
            self.last = row.version
            if event == "DELETED":
                self.known.pop(row.uid, None)
            else:
                assert found is not None
                self.known[row.uid] = found.version


@pytest.mark.parametrize("seed", range(300))
def test_a_client_that_has_read_the_log_knows_what_a_list_says(seed: int) -> None:
    random = Random(seed)
    world = World(random)
    clients: list[Client] = []
    for _ in range(60):
        world.step()
        if random.random() < 0.15:
            selector = random.choice(SELECTORS)
            clients.append(Client(selector, world.version, world.listed(selector), world.version))
        for client in clients:
            if random.random() < 0.3:
                client.read(world, random.randint(1, 9))
    for client in clients:
        client.read(world, 1_000)
        assert client.known == world.listed(client.selector), str(client.selector)


def test_the_model_notices_a_rule_that_skips_superseded_departures() -> None:
    """The model itself can fail: dropping the DELETED of rows that are not current is noticed."""
    stayed = Change(2, "K", "ns", "p", "p1", "MODIFIED", ({"a": "1"}, {}), ({"a": "2"}, {}), None)
    later = Current(3, {"a": "2"}, {})
    selector = parse_labels("a=1")
    event = watchrule.decide(stayed, later, lambda labels, _: selector.matches(labels))
    assert event == "DELETED", "an object that left must be taken from the client at once"
