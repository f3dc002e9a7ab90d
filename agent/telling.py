"""What the service is told about the loop's work: conditions, versions, applications, summary.

The words and reasons of `Updating` are those that existing services and tests know. The rule: what
is told was done before; a version is named as rendered only after its commit is in the journal.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from agent import errors, planner, specs, states, workloads
from agent.mailbox import Mailbox
from resources import timestamps

Json = dict[str, Any]

NAMES_MAX = 3
UPDATING = "Updating"
DECOMMISSIONING = "DeviceDecommissioning"


def local(moment: datetime) -> str:
    """As people on the device read a clock; the form that failure messages have always had."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


class Teller:
    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._conditions: dict[str, Json] = {}
        self._troubles: dict[str, str] = {}
        self._notes: dict[str, str] = {}
        self._summary_of_apps: Json = {}
        self._is_rebooting = False

    def state(self, state: states.State, now: datetime, *, current: states.Target) -> None:
        """The condition that belongs to having entered `state`."""
        match state:
            case states.Idle():
                if current.version not in ("", specs.NOTHING):
                    words = f"Updated to desired renderedVersion: {current.version}"
                    self.updating("False", "Updated", words, now)
            case states.Fetching():
                words = f"Device is preparing an update to renderedVersion: {state.target.version}"
                self.updating("True", "Preparing", words, now)
            case states.Staged():
                words = (
                    f"Device is ready to apply update to renderedVersion: {state.target.version}"
                )
                self.updating("True", "ReadyToUpdate", words, now)
            case states.Rebooting():
                what = "OS image" if state.failure is None else "rollback OS"
                words = f"Device is rebooting into {what}: {state.image}"
                self.updating("True", "Rebooting", words, now)
            case states.Applying() | states.Verifying():
                words = f"Device is applying renderedVersion: {state.target.version}"
                self.updating("True", "ApplyingUpdate", words, now)
            case states.RollingBack():
                words = f"Device is rolling back to the previous renderedVersion: {current.version}"
                self.updating("True", "RollingBack", words, now)
            case states.Refused():
                words = state.failure.message(state.target.version)
                self.updating("False", "Error", words, now)
            case states.Decommissioning() if not state.is_wiping:
                self.decommissioning("Started", "Device started decommissioning", now)
            case _:
                pass
        is_rebooting = isinstance(state, states.Rebooting)
        if is_rebooting != self._is_rebooting:
            self._is_rebooting = is_rebooting
            self._tell_summary()

    def retrying(self, failure: errors.Failure, target: states.Target, now: datetime) -> None:
        """The target is kept and tried again."""
        self.updating("True", "ApplyingUpdate", failure.message(target.version), now)

    def waiting(self, target: states.Target, words: str, now: datetime) -> None:
        """Nothing is wrong: its time has not come."""
        message = f"Device is preparing an update to renderedVersion: {target.version}"
        self.updating("True", "Preparing", f"{message}: {words}", now)

    def fetching(
        self, complete: int, pending: tuple[str, ...], now: datetime, *, trouble: str = ""
    ) -> None:
        total = complete + len(pending)
        if not total:
            words = "No images to prefetch"
        elif not pending:
            words = f"All {total} images ready"
        else:
            names = ", ".join(pending[:NAMES_MAX])
            more = len(pending) - NAMES_MAX
            if more > 0:
                names += f", and {more} more pending" if trouble else f" and {more} more"
            verb = "retrying" if trouble else "pending"
            words = f"{complete}/{total} images complete, {verb}: {names}"
            words += f" ({trouble})" if trouble else ""
        self.updating("True", "Preparing", words, now)

    def updating(self, status: str, reason: str, message: str, now: datetime) -> None:
        self._condition(UPDATING, status, reason, message, now)

    def decommissioning(self, reason: str, message: str, now: datetime) -> None:
        self._condition(DECOMMISSIONING, "True", reason, message, now)

    def committed(self, spec: specs.Spec) -> None:
        """After the commit, and at each start."""
        version = spec.target.version or specs.NOTHING
        self._mailbox.set_section("config", {"renderedVersion": version})

    def system(self, section: Json) -> None:
        """What is booted, by its name and its digest."""
        self._mailbox.set_section("os", section)

    def applications(self, spec: specs.Spec, observed: planner.Observed) -> None:
        listed, summary = workloads.applications(spec, observed)
        self._mailbox.set_section("applications", listed)
        self._mailbox.set_section("applicationsSummary", summary)
        self._summary_of_apps = summary
        self._tell_summary()

    def trouble(self, kind: str, words: str) -> None:
        """Something that a person should know though nothing has failed; empty = over."""
        if words:
            self._troubles[kind] = words
        else:
            self._troubles.pop(kind, None)
        self._tell_summary()

    def note(self, kind: str, words: str) -> None:
        """Something to know that is no trouble (any more); empty = enough of it."""
        if self._notes.get(kind, "") == words:
            return
        self._notes[kind] = words
        self._tell_summary()

    def _tell_summary(self) -> None:
        of_apps = self._summary_of_apps.get("status", "")
        notes = [self._troubles[k] for k in sorted(self._troubles)]
        notes += [self._notes[k] for k in sorted(self._notes)]
        status = "Degraded" if self._troubles or of_apps == "Degraded" else "Online"
        if of_apps == "Error":
            status = "Error"
        if self._is_rebooting:
            status = "Rebooting"
        if of_apps in ("Degraded", "Error"):
            notes.insert(0, self._summary_of_apps.get("info", ""))
        info = errors.shortened("; ".join(n for n in notes if n), errors.MESSAGE_CHARS_MAX)
        section = {"status": status, **({"info": info} if info else {})}
        self._mailbox.set_section("summary", section)

    def _condition(self, kind: str, status: str, reason: str, message: str, now: datetime) -> None:
        before = self._conditions.get(kind, {})
        message = errors.shortened(errors.one_line(message), errors.MESSAGE_CHARS_MAX)
        moved = timestamps.of(now)
        if before.get("status") == status:
            moved = before["lastTransitionTime"]
        self._conditions[kind] = {
            "type": kind,
            "status": status,
            "reason": reason,
            "message": message,
            "lastTransitionTime": moved,
        }
        self._mailbox.set_section("conditions", list(self._conditions.values()))
