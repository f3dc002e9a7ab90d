"""What a rollout does next, from its policy and its progress. Pure; levels, not commands.

Theory of operation. The planner is asked again and again with the counts as they are, and answers
the next binding, what is to be noted in the record, or why there is nothing to do. It keeps nothing
between two questions but that record, `status` of the Rollout, and where the record is behind (the
process died before it was written) the devices themselves say which batch they are in. So a lost
answer, a repeated one or another controller's changes nothing: bindings say *at most*, and the API
server counts in the transaction that binds.

A rollout takes its batches one after another. A batch begins when its gate is open, which looks at
how the one before ended; then the devices that it takes are chosen, once; it has ended when each of
them is done, failed, or took too long. What no batch takes follows in one last batch, without
selector and limit and with the devices that are away; without `deviceSelection` it is the only one.
Beside it a disruption budget says how many of the chosen devices may be given the new document at a
time. The API server keeps to it with each binding, for only there counting and giving are one
transaction; the planner asks again while devices are held.

Semantics of batches, limits, thresholds and budgets are flightctl's (service-behaviour §4), with
four decisions of our own (decision record 24); what people and policies may do beyond it is in
decision record 29. Taking back is another attempt's: this one ends, and `attempts` names that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from resources import attempts, formats, timestamps
from resources.kind import Json

# The fleet is counted around each bind; to count 100 000 devices takes as long as to bind 6000.
LIMIT = 50_000
BUSY_S, QUIET_S = 1.0, 30.0
# A timer that has run out a moment early is looked at again, and not at once for ever.
SOON_S = 0.1
# A look costs one count over the fleet: the longer it has been going on, the less often.
LOOKS = 30
DEFAULT_THRESHOLD = 90
DEFAULT_TIMEOUT_S = 24 * 3600

Ended = Literal["Completed", "Failed", "Aborted"]
ENDED: tuple[Ended, ...] = attempts.ENDED


@dataclass(frozen=True, slots=True)
class Bind:
    """Bind up to `limit` devices. With `select`, those that the batch takes become part of it;
    without, the devices of it and of those before are bound that have come to need it again."""

    batch: int
    select: bool = True
    limit: int = LIMIT


@dataclass(frozen=True, slots=True)
class Note:
    """What is true of a batch from now on; to be put into the record, and asked on."""

    batch: int
    phase: Literal["Pending", "Active", "Completed"]
    success_percentage: int | None = None


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to bind now. `recheck_s` is how long a lost wake-up may delay the next look."""

    phase: Literal["Active", "Waiting", "Suspended"]
    reason: str
    message: str
    recheck_s: float


@dataclass(frozen=True, slots=True)
class Finish:
    """The attempt has ended; what it did stays recorded."""

    phase: Ended
    reason: str
    message: str


Decision = Bind | Note | Wait | Finish


def batches_of(policy: Json | None) -> list[Json]:
    """The batches in order, the last one for what the others leave over."""
    selection = (policy or {}).get("deviceSelection") or {}
    return [*(selection.get("sequence") or ()), {}]


def holds(policy: Json | None) -> bool:
    """Whether devices are bound first, and given it later, as a budget or the minute allows."""
    return any((policy or {}).get(key) for key in ("disruptionBudget", "maxDevicesPerMinute"))


def timeout_s(policy: Json | None) -> int:
    """How long a device may take before it counts as failed."""
    return formats.seconds((policy or {}).get("defaultUpdateTimeout")) or DEFAULT_TIMEOUT_S


def may_choose(
    limit: int | str | None, *, population: int, reached: int, chosen: int
) -> int | None:
    """How many devices more a batch may choose; None for all.

    `population` are the fleet's devices that its selector matches, `reached` those of them that
    have the new template, `chosen` those that are in the batch already. A number is for this batch
    alone; a percentage is of the population and counts what earlier batches reached.
    """
    if limit is None or limit == "100%":
        return None
    if isinstance(limit, str):
        # Half a device is rounded up, as Go's math.Round has it.
        return max(0, (population * int(limit.removesuffix("%")) * 2 + 100) // 200 - reached)
    return max(0, limit - chosen)


def may_disturb(budget: Json, *, total: int, available: int, unavailable: int) -> int:
    """How many devices more of a group may be given something new.

    `available` are connected and not being updated, `unavailable` are being updated. Of a group as
    small as `minAvailable` one may still go, or it would never be updated at all.
    """
    most: list[int] = []
    if budget.get("maxUnavailable") is not None:
        most.append(budget["maxUnavailable"] - unavailable)
    if budget.get("minAvailable") is not None:
        most.append(available - min(budget["minAvailable"], total - 1))
    return max(0, min(most))


def plan(
    rollout: Json,
    progress: Mapping[str, Any],
    *,
    now: datetime,
    superseded: bool = False,
    overdue: bool = False,
    spent: Collection[Bind] = (),
    age_s: float = 0.0,
) -> Decision:
    """The next thing to do.

    `progress` has the counts total, unbound, held, done, failed, refused, timedOut, disconnected
    and blocked, and `batches` with number, selected, unbound, done, failed, timedOut and blocked of
    each that has devices; lateInS and placeInS say when the next device is late and when the next
    may be given something, where that is to come. `superseded` says that the fleet has a newer
    template version or attempt, `overdue` that the update timeout has passed, `spent` which
    bindings of this look left nothing more to bind, `age_s` how long the attempt has been under
    way.
    """
    spec = rollout.get("spec") or {}
    control, policy = spec.get("control") or {}, (spec.get("target") or {}).get("policy") or {}
    if control.get("aborted"):
        return Finish("Aborted", "Aborted", "The rollout was aborted.")
    if control.get("revert"):
        return Finish("Aborted", "Reverted", "The rollout is taken back by another one.")
    if superseded:
        return Finish("Aborted", "Superseded", "The fleet's template or policy has changed since.")
    counts = _Counts.of(progress)
    if _is_too_many(policy.get("maxFailures"), counts.lost, counts.wanted):
        message = f"{counts.lost} of {counts.wanted} devices failed; no more are bound."
        if policy.get("onTooManyFailures") == "Revert":
            message += " They are taken back to the last version that ended well, if there is one."
        return Finish("Aborted", attempts.TOO_MANY_FAILURES, message)
    if control.get("paused"):
        return Wait("Waiting", "Paused", "The rollout is paused.", QUIET_S)
    look = _Look(rollout, policy, progress, counts, now, overdue, spent, age_s)
    return look.decision()


@dataclass(frozen=True, slots=True)
class _Counts:
    """Devices of a batch, or of all."""

    wanted: int
    unbound: int
    done: int
    lost: int
    failed: int
    refused: int
    timed_out: int

    @classmethod
    def of(cls, counted: Mapping[str, int]) -> _Counts:
        wanted = counted.get("selected" if "number" in counted else "total", 0)
        failed, timed_out = counted["failed"], counted.get("timedOut", 0)
        return cls(
            wanted=wanted - counted.get("blocked", 0),
            unbound=counted["unbound"],
            done=counted["done"],
            lost=failed + timed_out,
            failed=failed,
            refused=counted.get("refused", 0),
            timed_out=timed_out,
        )

    @property
    def open(self) -> int:
        """Nothing is known yet of so many."""
        return self.wanted - self.done - self.lost

    @property
    def lost_ones(self) -> str:
        """What became of those that did not succeed."""
        told = (
            (self.failed - self.refused, "failed"),
            (self.refused, "could not be rendered"),
            (self.timed_out, "took too long"),
        )
        return ", ".join(f"{number} {what}" for number, what in told if number)

    @property
    def success_percentage(self) -> int | None:
        return self.done * 100 // self.wanted if self.wanted else None


_NOBODY = _Counts(0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class _Look:
    """One question, taken apart."""

    rollout: Json
    policy: Json
    progress: Mapping[str, Any]
    counts: _Counts
    now: datetime
    overdue: bool
    spent: Collection[Bind]
    age_s: float

    def decision(self) -> Decision:
        batch = self._current()
        record = self._record(batch)
        is_last = batch == len(self._sequence()) - 1
        if record.get("phase") == "Completed" and not is_last:
            return self._after(batch, record)
        if record.get("phase") != "Active":
            tried_again = Bind(batch, select=False)
            if self._unbound_members() > 0 and tried_again not in self.spent:
                return tried_again
            return self._gate(batch) or self._begun(batch, is_last=is_last)
        return self._go_on(batch, is_last=is_last)

    def _sequence(self) -> Sequence[Json]:
        return batches_of(self.policy)

    def _current(self) -> int:
        """The record may be behind: devices in a later batch show that it had begun."""
        known: int = (self.rollout.get("status") or {}).get("currentBatch") or 0
        seen: list[int] = [counted["number"] for counted in self.progress.get("batches") or ()]
        return min(max([known, *seen]), len(self._sequence()) - 1)

    def _record(self, batch: int) -> Json:
        recorded = (self.rollout.get("status") or {}).get("batches") or ()
        return next((record for record in recorded if record["number"] == batch), {})

    def _members(self, batch: int) -> _Counts:
        counted = self.progress.get("batches") or ()
        return next((_Counts.of(c) for c in counted if c["number"] == batch), _NOBODY)

    def _unbound_members(self) -> int:
        """Devices whose batch has come and that must be bound once more: what their template is
        made of has changed, or they are to try again."""
        return sum(_Counts.of(c).unbound for c in self.progress.get("batches") or ())

    # --- gates ----------------------------------------------------------------------------

    def _threshold(self, batch: int) -> int:
        given = self._sequence()[batch].get("successThreshold")
        given = given or self.policy.get("successThreshold") or f"{DEFAULT_THRESHOLD}%"
        return int(str(given).removesuffix("%"))

    def _gate(self, batch: int) -> Wait | None:
        """Why the batch may not begin. Its own threshold is held against the last batch before it
        that had devices, as flightctl does."""
        control = (self.rollout.get("spec") or {}).get("control") or {}
        if batch == 0 or (control.get("approved") or 0) > batch:
            return None
        name = name_of(batch, self._sequence())
        last = self._last_report(batch)
        if last is not None:
            before, ended, percentage = last
            threshold = self._threshold(batch)
            if percentage < threshold:
                message = (
                    f"{name_of(before, self._sequence(), capital=True)} succeeded on {percentage}% "
                    f"of its devices, less than {threshold}%: {ended.done} done, "
                    f"{ended.lost_ones or '0 failed'}. "
                    f"{name[0].upper()}{name[1:]} begins when it is approved."
                )
                return Wait("Suspended", "SuccessThreshold", message, QUIET_S)
        if self.policy.get("approval") == "Manual":
            return Wait("Waiting", "Approval", f"Waiting for {name} to be approved.", QUIET_S)
        return None

    def _last_report(self, batch: int) -> tuple[int, _Counts, int] | None:
        for before in range(batch - 1, -1, -1):
            members = self._members(before)
            known = (self._record(before).get("successPercentage"), members.success_percentage)
            # Who succeeded after all, late or at another try, counts; nobody who is lost since.
            found = [percentage for percentage in known if percentage is not None]
            if found:
                return before, members, max(found)
        return None

    # --- one batch ------------------------------------------------------------------------

    def _begun(self, batch: int, *, is_last: bool) -> Decision:
        chosen = Bind(batch)
        if chosen not in self.spent and not (is_last and self.counts.unbound <= 0):
            return chosen
        return Note(batch, "Active")

    def _go_on(self, batch: int, *, is_last: bool) -> Decision:
        members = self.counts if is_last else self._members(batch)
        unbound = members.unbound
        if not is_last:
            unbound = self._unbound_members()
        is_spent = any(bind.batch == batch for bind in self.spent)
        if (unbound > 0 or self.progress.get("held")) and not is_spent:
            return Bind(batch, select=is_last)
        if members.open > 0 or (is_last and members.unbound > 0):
            return self._waiting(batch, members, is_last=is_last)
        return self._finished() if is_last else self._note_end(batch, members)

    def _note_end(self, batch: int, members: _Counts) -> Note:
        return Note(batch, "Completed", members.success_percentage)

    def _after(self, batch: int, record: Json) -> Decision:
        """Between two batches."""
        bake = self._sequence()[batch].get("bakeTime") or self.policy.get("bakeTime")
        if bake and record.get("successPercentage") is not None:
            until = timestamps.read(record["finishedAt"]) + timedelta(
                seconds=formats.seconds(bake) or 0
            )
            left_s = (until - self.now).total_seconds()
            if left_s > 0:
                name = name_of(batch, self._sequence(), capital=True)
                message = f"{name} has ended and is watched for {bake}."
                return Wait("Active", "Baking", message, min(QUIET_S, left_s))
        return Note(batch + 1, "Pending")

    def _waiting(self, batch: int, members: _Counts, *, is_last: bool) -> Decision:
        if self.overdue and is_last and members.unbound > 0:
            message = f"{members.open} of {members.wanted} devices did not report success in time."
            return Finish("Failed", "TimedOut", message)
        message = f"{members.done} of {members.wanted} devices run the new template"
        if len(self._sequence()) > 1:
            message = f"Rolling out {name_of(batch, self._sequence())}: {message}"
        if members.lost:
            message += f", {members.lost_ones}"
        away = self.progress.get("disconnected", 0)
        if away:
            message += f", {away} are disconnected"
        if self.progress.get("held"):
            message += f", {self.progress['held']} wait for {self._held_by()}"
        waiting = self.progress.get("waiting", 0)
        if waiting:
            message += f", {waiting} wait for what they take from outside"
        if is_last and members.unbound > waiting:
            message += f", {members.unbound - waiting} could not be bound"
        quiet = (is_last and members.unbound > 0) or members.open <= away
        recheck_s = QUIET_S if quiet else min(QUIET_S, max(BUSY_S, self.age_s / LOOKS))
        return Wait("Active", "Updating", message + ".", min([recheck_s, *self._timers()]))

    def _held_by(self) -> str:
        if self.progress.get("placeInS") is not None:
            return "their minute"
        return "the disruption budget"

    def _timers(self) -> list[float]:
        """When something will be due that no change tells of."""
        due = [self.progress.get("lateInS")]
        if self.progress.get("held"):
            due.append(self.progress.get("placeInS"))
        return [max(SOON_S, wait_s) for wait_s in due if wait_s is not None]

    def _finished(self) -> Finish:
        counts = self.counts
        if not counts.wanted:
            return Finish("Completed", "Completed", "There are no devices.")
        if not counts.lost:
            message = f"All {counts.wanted} devices run the new template."
            return Finish("Completed", "Completed", message)
        what = f"{counts.lost} of {counts.wanted} devices did not succeed: {counts.lost_ones}"
        is_wanted = bool(self.policy.get("successThreshold") or self.policy.get("deviceSelection"))
        threshold = self._threshold(len(self._sequence()) - 1) if is_wanted else 100
        if (counts.success_percentage or 0) >= threshold:
            return Finish("Completed", "Completed", f"{what}; the policy allows for that.")
        reason = "DevicesFailed" if counts.failed else "TimedOut"
        return Finish("Failed", reason, f"{what}.")


def for_late_joiners(rollout: Json) -> Json:
    """`batch` and `select` of a binding for devices that came to the fleet after the rollout had
    begun. While batches are under way they wait for the last one; only what is in one already is
    bound again."""
    status, target = rollout.get("status") or {}, rollout["spec"]["target"]
    last = len(batches_of(target.get("policy"))) - 1
    if status.get("phase") in ENDED or last == 0:
        return {"batch": last, "select": True}
    current = min(status.get("currentBatch") or 0, last)
    begun = [record["phase"] for record in status.get("batches") or () if record["number"] == last]
    return {"batch": current, "select": current == last and begun == ["Active"]}


def noted(status: Json, note: Note, policy: Json | None, now: str) -> Json:
    """The record with a note in it: its batches, all of them, and the number of the current one."""
    known = {record["number"]: record for record in status.get("batches") or ()}
    records = []
    for number, batch in enumerate(batches_of(policy)):
        shape = {key: batch[key] for key in ("selector", "limit") if batch.get(key) is not None}
        record = {"number": number, "phase": "Pending"} | shape | known.get(number, {})
        if number == note.batch:
            record["phase"] = note.phase
            if note.phase == "Active":
                record.setdefault("startedAt", now)
            if note.phase == "Completed":
                record.setdefault("finishedAt", now)
                if note.success_percentage is not None:
                    record["successPercentage"] = note.success_percentage
        records.append(record)
    return status | {"batches": records, "currentBatch": note.batch}


def name_of(batch: int, sequence: Sequence[Json], *, capital: bool = False) -> str:
    """As flightctl names batches."""
    name = f"batch {batch + 1}" if batch < len(sequence) - 1 else "final implicit batch"
    return name[0].upper() + name[1:] if capital else name


def _is_too_many(most: int | str | None, lost: int, wanted: int) -> bool:
    if most is None:
        return False
    if isinstance(most, str):
        return lost * 100 > int(most.removesuffix("%")) * wanted
    return lost > most
