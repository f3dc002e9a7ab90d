"""How a Rollout goes, as a picture of some lines. Pure: its document, a moment and a width in.

Nothing is guessed: a rate is what was finished since the batch began, and the time left is said
only while the batch moves, of the devices that can move.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from resources import ages, conditions, rollout_plan

Json = dict[str, Any]

WIDTH_MIN = 40
# Batches around the current one, and causes; of what is left over the number is told.
BATCHES_MAX, CAUSES_MAX = 12, 5
_BAR_MAX = 24
_COLUMNS = "     DONE   FAILED   LATE   AWAY"
# A batch says nothing about its speed before so many devices are through, and so much time.
_HEARD_MIN, _HEARD_S = 5, 5.0
_GATES = {
    "NeedsApproval": "homeport rollout approve {name}",
    "SuccessThreshold": "homeport rollout approve {name}, or a better template",
    "Paused": "homeport rollout resume {name}",
}


def lines(rollout: Json, now: datetime, width: int) -> list[str]:
    """No line is wider than `width`, unless that is less than anybody has."""
    width = max(WIDTH_MIN, width)
    found = [*_head(rollout, now), "", *_table(rollout, width), "", *_pace(rollout, now)]
    text = [line[:width].rstrip() for line in found]
    return [*text, *_words(rollout, now, width), *_failures(rollout, width)]


def _head(rollout: Json, now: datetime) -> Iterator[str]:
    status, target = rollout.get("status") or {}, rollout["spec"]["target"]
    began = ages.moment(str(status.get("startedAt") or ""))
    ended = ages.moment(str(status.get("finishedAt") or ""))
    since = f" for {_span(began, ended or now)}" if began else ""
    phase = status.get("phase") or "Pending"
    yield f"{rollout['metadata']['name']}  {phase}{since}"
    back = f", which takes back {target['reverts']}" if target.get("reverts") else ""
    yield f"{target['templateVersion']} to fleet {target['fleet']}{back}"


def _table(rollout: Json, width: int) -> Iterator[str]:
    status = rollout.get("status") or {}
    records = status.get("batches") or []
    sequence = rollout_plan.batches_of(rollout["spec"]["target"].get("policy"))
    names = [_short(record["number"], sequence) for record in records]
    named = max((len(name) for name in [*names, "all devices"]), default=0)
    bar = min(_BAR_MAX, width - named - len(_COLUMNS) - len("  Completed  "))
    bar = bar if bar >= len("PROGRESS") else 0
    head = f"{'PROGRESS':{bar}}" if bar else ""
    yield f"{'BATCH':{named}}  {'STATE':9}  {head}{_COLUMNS}"
    shown, before, after = _around(records, status.get("currentBatch") or 0)
    if before:
        yield f"{before} batches before have ended"
    for record in shown:
        name = _short(record["number"], sequence)
        yield _row(name, record["phase"], record.get("counts") or {}, named, bar)
    if after:
        yield f"{after} batches after wait for their turn"
    if len(records) != 1:
        yield _row("all devices", "", status.get("counts") or {}, named, bar)


def _around(records: list[Json], current: int) -> tuple[list[Json], int, int]:
    """Some batches, and how many there are before and after them."""
    first = min(max(0, current - BATCHES_MAX // 2), max(0, len(records) - BATCHES_MAX))
    shown = records[first : first + BATCHES_MAX]
    return shown, first, len(records) - first - len(shown)


def _short(number: int, sequence: list[Json]) -> str:
    if len(sequence) == 1:
        return "all devices"
    return rollout_plan.name_of(number, sequence).replace("final implicit batch", "the rest")


def _row(name: str, phase: str, counts: Json, named: int, bar: int) -> str:
    done, wanted = (int(counts.get(key) or 0) for key in ("done", "selected"))
    failed, late, away = (
        int(counts.get(key) or 0) for key in ("failed", "timedOut", "disconnected")
    )
    drawn = f"{_bar(done, failed + late, wanted, bar)}" if bar else ""
    ratio = f"{done}/{wanted}" if wanted else "-"
    return f"{name:{named}}  {phase:9}  {drawn}{ratio:>9}{failed:>9}{late:>7}{away:>7}"


def _bar(done: int, lost: int, wanted: int, width: int) -> str:
    """Done, lost and open, in whole characters: what is not over never looks like it."""
    if not wanted:
        return "." * width
    good = min(width, done * width // wanted)
    room = width - good - (1 if done + lost < wanted else 0)
    bad = min(room, -(-lost * width // wanted))
    return "#" * good + "x" * bad + "." * (width - good - bad)


def _pace(rollout: Json, now: datetime) -> Iterator[str]:
    """How fast the batch under way is, and how long it will take if that stays so."""
    status = rollout.get("status") or {}
    if _progressing(status).get("reason") != "Updating":
        return
    current = status.get("currentBatch") or 0
    record: Json = next((b for b in status.get("batches") or () if b["number"] == current), {})
    began = ages.moment(str(record.get("startedAt") or ""))
    counts = record.get("counts") or {}
    selected, done, failed, late, away, held = (
        int(counts.get(key) or 0)
        for key in ("selected", "done", "failed", "timedOut", "disconnected", "held")
    )
    heard = done + failed
    if began is None or heard < _HEARD_MIN:
        return
    took_s = (now - began).total_seconds()
    if took_s < _HEARD_S:
        return
    rate = heard / took_s
    text = f"{rate * 60:.0f} devices a minute"
    left = max(0, selected - heard - late - away)
    # Who waits for the budget waits for others: their pace is not this one's.
    if left and not held:
        text += f"; about {_about(left / rate)} left for the {left} under way"
    yield text


def _about(seconds: float) -> str:
    """No closer than anybody knows."""
    step = 60 if seconds >= 120 else 10
    return ages.duration(max(1, round(seconds / step)) * step)


def _words(rollout: Json, now: datetime, width: int) -> Iterator[str]:
    """What it does or waits for, since when, and who can do something about it."""
    status = rollout.get("status") or {}
    said = _progressing(status)
    message = str(said.get("message") or "No controller has looked at it yet.")
    gate = _GATES.get(str(said.get("reason")))
    since = ages.moment(str(said.get("lastTransitionTime") or ""))
    if gate and since:
        message += f" It has waited for {_span(since, now)}."
    yield from wrapped(message, width)
    if gate:
        fleet = rollout["spec"]["target"]["fleet"]
        yield from wrapped(f"To go on: {gate.format(name=fleet)}", width)


def _failures(rollout: Json, width: int) -> Iterator[str]:
    causes = (rollout.get("status") or {}).get("failures") or []
    if not causes:
        return
    yield ""
    yield "FAILED   CAUSE"
    for each in causes[:CAUSES_MAX]:
        example = f" (such as {each['example']})" if each.get("example") else ""
        text = " ".join(f"{each['cause']}{example}".split())
        room = width - 9
        yield f"{each['count']:>6}   {textwrap.shorten(text, room, placeholder='...')[:room]}"
    if len(causes) > CAUSES_MAX:
        yield f"         and {len(causes) - CAUSES_MAX} other causes"


def wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width)


def _progressing(status: Json) -> Json:
    return conditions.get(status.get("conditions"), "Progressing") or {}


def _span(one: datetime, other: datetime) -> str:
    return ages.duration(max(0, int((other - one).total_seconds())))
