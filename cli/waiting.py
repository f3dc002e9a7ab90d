"""`wait`: until objects are gone, there, in a condition, or have a value somewhere."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from cli import jsonpath, watching
from cli.client import Client, Refused
from cli.problems import Problem
from cli.targets import Target

Json = dict[str, Any]

LOOK_S = 0.5
WEEK_S = 7 * 24 * 3600.0
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class BadGoal(Problem):
    """`--for` or `--timeout` cannot be read."""


class NothingToWaitFor(Problem):
    """No object was chosen."""


class TimedOut(Problem):
    """It did not come to pass in time."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """The object is gone, or another one has its name."""


@dataclass(frozen=True, slots=True)
class Created:
    """The object is there."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition that was concluded from the specification as it is now."""

    type: str
    value: str = "True"

    def holds(self, document: Json) -> bool:
        generation = document["metadata"].get("generation") or 0
        for condition in (document.get("status") or {}).get("conditions") or ():
            if str(condition.get("type", "")).lower() != self.type.lower():
                continue
            if (condition.get("observedGeneration") or generation) < generation:
                return False
            return str(condition.get("status", "")).lower() == self.value.lower()
        return False


@dataclass(frozen=True, slots=True)
class Value:
    """A path finds something, or this value."""

    path: tuple[jsonpath.Node, ...]
    value: str | None

    def holds(self, document: Json) -> bool:
        found = jsonpath.find(self.path, document)
        if self.value is None:
            return bool(found)
        return len(found) == 1 and jsonpath.text_of(found[0]) == self.value


Goal = Deleted | Created | Condition | Value


def parse(text: str) -> Goal:
    """What `--for` says. Raises BadGoal."""
    name, equals, rest = text.partition("=")
    match name.lower():
        case "delete" if not equals:
            return Deleted()
        case "create" if not equals:
            return Created()
        case "condition" if rest:
            type_, has_value, value = rest.partition("=")
            return Condition(type_, value if has_value else "True")
        case "jsonpath" if rest:
            return _value(rest)
    raise BadGoal(
        f'--for: "{text}" is not delete, create, condition=NAME[=VALUE] or jsonpath=PATH[=VALUE]'
    )


def _value(text: str) -> Value:
    if text.startswith("{"):
        path, brace, rest = text.rpartition("}")
        if not brace:
            raise BadGoal(f"--for: a brace is not closed in {text}")
        path, value = path + brace, rest.removeprefix("=") if rest else None
    else:
        path, equals, rest = text.partition("=")
        value = rest if equals else None
    try:
        return Value(jsonpath.parse(jsonpath.relaxed(path)), value)
    except jsonpath.BadTemplate as error:
        raise BadGoal(f"--for: {error}") from error


def seconds(text: str) -> float:
    """`90s`, `1h30m`; less than nothing is a week, as with kubectl. Raises BadGoal."""
    bare = text.removeprefix("-")
    if bare in ("0", "1"):
        return WEEK_S if text == "-1" else float(bare)
    if not bare or _DURATION.sub("", bare):
        raise BadGoal(f'--timeout: "{text}" is not a duration such as 30s, 5m or 1h30m')
    total = sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(bare))
    return WEEK_S if text.startswith("-") else total


def until(
    client: Client, chosen: Sequence[Target], goal: Goal, timeout_s: float
) -> Iterator[tuple[Target, Json | None]]:
    """Each object as it has come to be as wanted, one after the other: one that comes to it and
    leaves it again while we wait for another counts. Raises TimedOut."""
    deadline = time.monotonic() + timeout_s
    for target in chosen:
        try:
            yield target, _one(client, target, goal, deadline)
        except watching.Ended:
            raise TimedOut(
                f"timed out waiting for the condition on {target.resource.plural}/{target.name}"
            ) from None


def _one(client: Client, target: Target, goal: Goal, deadline: float) -> Json | None:
    if isinstance(goal, Created):
        return _created(client, target, deadline)
    query = {"fieldSelector": f"metadata.name={target.name}"}
    path = target.resource.path(target.namespace or None)
    watch = watching.Watch(client, path, query, "application/json")
    items = watching.items_of(watch.begin())
    kind = {"apiVersion": target.resource.api_version, "kind": target.resource.kind}
    if isinstance(goal, Deleted):
        return _deleted(watch, items, deadline)
    if not items:
        message = f'{target.resource.resource} "{target.name}" not found'
        raise Refused(404, "NotFound", message)
    if goal.holds(items[0]):
        return kind | items[0]
    for change in watch.changes(deadline):
        if change.type == "DELETED":
            message = f'{target.resource.resource} "{target.name}" was deleted meanwhile'
            raise Refused(404, "NotFound", message)
        if goal.holds(change.item):
            return kind | change.item
    raise AssertionError("a watch ends by raising")


def _deleted(watch: watching.Watch, items: Sequence[Json], deadline: float) -> Json | None:
    if not items:
        return None
    for change in watch.changes(deadline):
        if change.type == "DELETED":
            return change.item
    raise AssertionError("a watch ends by raising")


def _created(client: Client, target: Target, deadline: float) -> Json:
    while True:
        try:
            return client.ask("GET", target.path())
        except Refused as refused:
            if refused.code != 404:
                raise
        if time.monotonic() >= deadline:
            raise watching.Ended
        time.sleep(LOOK_S)
