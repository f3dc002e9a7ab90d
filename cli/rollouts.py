"""`rollout`: how a change reaches a fleet's devices, and the hand on its levers.

A fleet's word stands for its current attempt. The levers are the fields of `spec.control`. They are
levels: pulling one twice does nothing, the server refuses what cannot be, and the controllers say
in the status what came of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cli import tabular, watching, why
from cli.client import MERGE_PATCH, Refused
from cli.kinds import Resource
from cli.problems import Problem
from cli.reaching import Reach
from resources import ages, attempts

Json = dict[str, Any]

HEAD = ["NAME", "TEMPLATE", "PHASE", "DEVICES", "DONE", "FAILED", "STARTED", "DURATION", "MESSAGE"]


class NoRollout(Problem):
    """There is no attempt that the word could mean."""


class Ended(Problem):
    """The attempt is over; nothing can be changed about it."""


class NothingToApprove(Problem):
    """No batch waits for anybody."""


class NothingToRetry(Problem):
    """No device has failed."""


class Unsuccessful(Problem):
    """The attempt ended, and not well."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One Rollout as it is."""

    resource: Resource
    document: Json

    @property
    def name(self) -> str:
        return str(self.document["metadata"]["name"])

    @property
    def shown(self) -> str:
        return f"{self.resource.typed}/{self.name}"

    @property
    def path(self) -> str:
        return self.resource.path(self.document["metadata"]["namespace"], self.name)

    @property
    def status(self) -> Json:
        return self.document.get("status") or {}

    @property
    def phase(self) -> str:
        return str(self.status.get("phase") or "Pending")

    @property
    def control(self) -> Json:
        return self.document["spec"].get("control") or {}

    @property
    def has_ended(self) -> bool:
        return self.phase in attempts.ENDED

    @property
    def message(self) -> str:
        for condition in self.status.get("conditions") or ():
            if condition.get("type") == "Progressing":
                return str(condition.get("message") or "")
        return "No controller has looked at it yet."


def find(reach: Reach, word: str) -> Attempt:
    """`rollout/NAME`, or the current one of `FLEET` or `fleet/FLEET`. Raises NoRollout, Refused."""
    kind, slash, name = word.partition("/")
    resource = reach.kinds.find("rollouts.homeport.dev")
    if slash and resource.answers_to(kind):
        return Attempt(resource, reach.client.ask("GET", resource.path(reach.namespace, name)))
    fleets = reach.kinds.find("fleets.flightctl.io")
    if slash and not fleets.answers_to(kind):
        raise NoRollout(f'"{word}" is neither fleet/NAME nor rollout/NAME')
    fleet = name if slash else word
    found = of_fleet(reach, fleet)
    current = attempts.current([attempt.document for attempt in found])
    if current is not None:
        return next(attempt for attempt in found if attempt.document is current)
    reach.client.ask("GET", fleets.path(reach.namespace, fleet))
    raise NoRollout(
        f'fleets.flightctl.io "{fleet}" has no rollout yet',
        f"homeport describe fleet {fleet} says whether its template is valid",
    )


def of_fleet(reach: Reach, fleet: str) -> list[Attempt]:
    """The attempts, the latest one last."""
    resource = reach.kinds.find("rollouts.homeport.dev")
    query = {"fieldSelector": f"spec.target.fleet={fleet}"}
    listed = watching.listed(
        reach.client, resource.path(reach.namespace), query, "application/json"
    )
    kind = {"apiVersion": resource.api_version, "kind": resource.kind}
    # Created within one second, the later one has the higher version of its template.
    ordered = sorted(listed["items"], key=_age_of)
    return [Attempt(resource, kind | item) for item in ordered]


def _age_of(item: Json) -> tuple[str, int, str]:
    metadata = item["metadata"]
    number = str(item["spec"]["target"]["templateVersion"]).rpartition("v")[2]
    return (
        str(metadata.get("creationTimestamp")),
        int(number) if number.isdigit() else 0,
        str(metadata["name"]),
    )


def follow(reach: Reach, attempt: Attempt, timeout_s: float, *, watch: bool) -> Iterator[str]:
    """How it goes, a line whenever that changes, until it has ended. Raises Unsuccessful where it
    did not end well, watching.Ended when time is up."""
    said = ""
    for current in as_it_goes(reach, attempt, timeout_s) if watch else [attempt]:
        text = f"{current.phase}: {current.message}"
        if current.has_ended:
            yield from why.failures(current.status)
            yield outcome(current)
            return
        if text != said:
            said = text
            yield f"Waiting for {current.shown}: {text}" if watch else text


def outcome(ended: Attempt) -> str:
    """The last word on an attempt. Raises Unsuccessful."""
    if ended.phase == "Completed":
        return f'{ended.resource.kind.lower()} "{ended.name}" successfully rolled out'
    raise Unsuccessful(f"{ended.shown} has ended: {ended.phase}: {ended.message}")


def as_it_goes(
    reach: Reach,
    attempt: Attempt,
    timeout_s: float,
    tell: Callable[[str], None] = watching.say,
) -> Iterator[Attempt]:
    """It as it is, and whenever it becomes another. `tell` hears when the server is gone, and when
    it is back. Raises watching.Ended when time is up, Refused when somebody deletes it."""
    metadata = attempt.document["metadata"]
    path = attempt.resource.path(metadata["namespace"])
    query = {"fieldSelector": f"metadata.name={attempt.name}"}
    watch = watching.Watch(reach.client, path, query, "application/json", tell=tell)
    for item in watching.items_of(watch.begin()):
        yield Attempt(attempt.resource, item)
    until = time.monotonic() + timeout_s if timeout_s else None
    for change in watch.changes(until):
        if change.type == "DELETED":
            message = f'{attempt.resource.resource} "{attempt.name}" was deleted meanwhile'
            raise Refused(404, "NotFound", message)
        yield Attempt(attempt.resource, change.item)


def history(rows: Sequence[Attempt]) -> list[str]:
    now = datetime.now(UTC)
    return tabular.aligned([HEAD, *(_row(attempt, now) for attempt in rows)])


def _row(attempt: Attempt, now: datetime) -> list[str]:
    status, target = attempt.status, attempt.document["spec"]["target"]
    counts = status.get("counts") or {}
    began = ages.moment(str(status.get("startedAt") or ""))
    ended = ages.moment(str(status.get("finishedAt") or ""))
    return [
        attempt.name,
        str(target["templateVersion"]),
        attempt.phase,
        *(str(counts.get(key) or 0) for key in ("selected", "done", "failed")),
        f"{_between(began, now)} ago" if began else "",
        _between(began, ended or now) if began else "",
        attempt.message,
    ]


def _between(one: datetime, other: datetime) -> str:
    return ages.duration(int((other - one).total_seconds()))


# The levers: what each makes of spec.control.
PAUSED: Json = {"paused": True}
RESUMED: Json = {"paused": False}
ABORTED: Json = {"aborted": True}
REVERTED: Json = {"revert": True}


def approval(attempt: Attempt) -> Json:
    """That the batch which waits may begin. Raises NothingToApprove, Ended."""
    _check_under_way(attempt)
    if attempt.phase not in ("Waiting", "Suspended") or attempt.control.get("paused"):
        raise NothingToApprove(
            f"no batch of {attempt.shown} waits for approval: {attempt.phase}: {attempt.message}"
        )
    return {"approved": (attempt.status.get("currentBatch") or 0) + 1}


def another_try(attempt: Attempt) -> Json:
    """That what failed is tried again. Raises NothingToRetry."""
    counts = attempt.status.get("counts") or {}
    if not counts.get("failed"):
        raise NothingToRetry(f"{attempt.shown}: no device has failed")
    return {"retry": (attempt.control.get("retry") or 0) + 1}


def _check_under_way(attempt: Attempt) -> None:
    if attempt.has_ended:
        raise Ended(f"{attempt.shown} has ended: {attempt.phase}: {attempt.message}")


def steer(
    reach: Reach, attempt: Attempt, control: Json, manager: str, *, afterwards: bool = False
) -> bool:
    """Whether that was news to it. Raises Ended, but where it may be asked `afterwards` too."""
    if not afterwards:
        _check_under_way(attempt)
    there = attempt.control
    if all((there.get(key) or False) == value for key, value in control.items()):
        return False
    # Of any version: they are levels, and devices that report move it all the time.
    body = {"spec": {"control": control}}
    query = {"fieldManager": manager}
    reach.client.ask("PATCH", attempt.path, query=query, body=body, content_type=MERGE_PATCH)
    return True
