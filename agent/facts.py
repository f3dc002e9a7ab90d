"""What the machine decides on: one look at the device, with the words that belong to what is seen.

`Gathering` looks and tells; it changes nothing on the device, and nothing in the journal but the
count of reboots that have served their purpose. `Course` is what the loop and it both know: which
specification holds, which is wanted, which waits, and how soon drift may be repaired again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from agent import (
    appplan,
    embedded,
    errors,
    greenboot,
    hooks,
    journal,
    machine,
    osimage,
    parts,
    planner,
    specs,
    states,
    telling,
    world,
)
from resources.records import dataclass, field, replace

Json = dict[str, Any]

Downloads = tuple[planner.PullImage | appplan.Step | osimage.PullOs, ...]


# How long it is told that something was put right.
DRIFT_TOLD_S = 3600.0


@dataclass(frozen=True, slots=True)
class Offer:
    """A specification that has come and is waiting for the machine to take it."""

    device: Json
    spec: specs.Spec


def _nothing() -> specs.Spec:
    return specs.Spec(states.Target(specs.NOTHING))


@dataclass(slots=True)
class Course:
    """`current` is committed, `desired` is being made or refused, `offer` waits."""

    current: specs.Spec = field(default_factory=_nothing)
    desired: specs.Spec = field(default_factory=_nothing)
    offer: Offer | None = None
    # Repairs in a row.
    repairs: int = 0
    repair_not_before: float = 0.0


class Gathering:
    def __init__(
        self,
        where: world.World,
        made: parts.Parts,
        course: Course,
        teller: telling.Teller,
        service_reachable: Callable[[], bool | None],
        *,
        repairs_files: bool = True,
    ) -> None:
        self._world = where
        self._repairs_files = repairs_files
        # What the system has brought; found by the loop at its beginning.
        self.embedded = embedded.Found()
        self._drifted: tuple[states.Target, tuple[str, ...]] | None = None
        self._drift_told_until = 0.0
        self._course = course
        self._teller = teller
        self._probe = service_reachable
        self._system, self._hooks, self._observer = made.system, made.hooks, made.observer
        self._verifier, self._journal, self._gates = made.verifier, made.journal, made.gates
        self._charts, self._pulse = made.charts, made.pulse

    def look(self, state: states.State, goal: specs.Spec) -> machine.Facts:
        memory = self._journal.memory
        offer = self._course.offer
        facts = machine.Facts(
            monotonic=self._world.monotonic(),
            at=telling.local(self._world.now()),
            arrived=offer.spec.target if offer and not self._is_dismissal(offer) else None,
            dismissed=offer.spec.target if offer and self._is_dismissal(offer) else None,
            is_reset=offer is not None and offer.spec.is_reset,
            boot_id=self._world.boot_id(),
            steps_in_target=memory.steps_in_target,
            boots_without_commit=memory.boots_without_commit,
        )
        match state:
            case states.Staging():
                return replace(facts, objection=self._objection(state.target))
            case states.Staged():
                return self._before_the_update(facts, state, goal)
            case states.Decommissioning() | states.Rebooting():
                return facts
            case states.Fetching():
                facts = self._with_plan(facts, state, goal)
                if facts.plan or facts.monotonic < state.not_before or offer:
                    return facts
                objection = self._objection(state.target)
                missing = () if objection else self.missing()
                if not objection:
                    self.tell_fetching(missing)
                facts = replace(facts, objection=objection, missing=missing)
                return self._before_downloads(facts, state) if missing else facts
            case states.RollingBack() if state.stumbles > machine.ROLLBACK_ATTEMPTS_MAX:
                # Enough. The rest is repaired at leisure, once podman or the disk let us.
                return self._probed(facts)
            case _:
                return self._with_plan(facts, state, goal)

    def _before_downloads(self, facts: machine.Facts, state: states.Fetching) -> machine.Facts:
        """Once let in, a target downloads until it has all that it needs."""
        desired = self._course.desired
        is_let_in = state.has_begun or desired.download_window is None
        wait = self._gates.download(desired, is_let_in=is_let_in)
        if wait is not None:
            self._teller.waiting(state.target, wait.words, self._world.now())
        return replace(facts, wait=wait, has_download_window=not is_let_in)

    def _before_the_update(
        self, facts: machine.Facts, state: states.Staged, goal: specs.Spec
    ) -> machine.Facts:
        """It may wait for days; until then what is there is looked after."""
        wait = self._gates.update(self._course.desired)
        self._teller.trouble("holds", self._gates.trouble)
        if wait is None and facts.monotonic >= state.not_before:
            return self._probed(facts)
        if wait is not None:
            self._teller.waiting(state.target, wait.words, self._world.now())
        return self._with_plan(replace(facts, wait=wait), state, goal)

    def _probed(self, facts: machine.Facts) -> machine.Facts:
        """With the time of the answer: a probe into the void takes its time out of the patience."""
        is_reachable = self._probe()
        return replace(facts, is_reachable=is_reachable, monotonic=self._world.monotonic())

    def _with_plan(
        self, facts: machine.Facts, state: states.State, goal: specs.Spec
    ) -> machine.Facts:
        wants = self._system.wanted(state, goal, repairs=self._journal.memory.repair_reboots)
        is_between = states.heads_for_target(state) or isinstance(state, states.RollingBack)
        slots, trouble = self._system.slots_or_trouble()
        if trouble is not None and wants is not None and is_between:
            raise trouble
        self.tell_system(slots)
        if fallen_back := self._system.fallen_back(state, wants, slots, facts.at):
            return replace(facts, objection=fallen_back)
        if self.embedded.broken and _is_first_look(state):
            # A system that brings what cannot run is a bad one; this is the moment to say so.
            return replace(facts, objection=self.failure(self.embedded.broken[0], state))
        try:
            wanted = replace(self._observer.wanted(goal), os=wants)
        except errors.Reject as error:
            if not states.heads_for_target(state):
                raise
            return replace(facts, objection=self.failure(error, state))
        words = ""
        if not states.heads_for_target(state):
            is_blind = trouble is not None and wants is not None
            words = str(trouble) if is_blind else self._system.astray(wants, slots)
            self._tell_astray(words)
        found = self._observer.observed(goal, wanted, closely=is_between)
        observed = replace(found, os=slots)
        is_behind = self._journal.memory.is_behind
        if goal.target.version == specs.NOTHING and not is_behind:
            observed = _of_the_system(wanted, observed)
        self._teller.trouble("embedded", self.embedded.trouble(goal))
        self._teller.applications(goal, observed)
        if is_between and not _is_first_look(state):
            goal, wanted, observed = _of_the_specification(goal, wanted, observed)
        self._teller.trouble("cluster", self._charts.trouble)
        if not is_between and goal.target.version != specs.NOTHING and not is_behind:
            self._tell_drift(planner.drift(wanted, observed), goal, facts)
            if not self._repairs_files:
                wanted = replace(wanted, files=())
                observed = replace(observed, originals=frozenset())
        # Between two specifications it is for the verdict to say what does not stay up.
        plan = self._hooks.woven(
            planner.plan(
                wanted,
                observed,
                revives=not is_between,
                keeps_records=(is_behind or isinstance(state, states.RollingBack))
                and self._system.is_away(self._course.current, slots),
            ),
            state,
            current=self._course.current,
            desired=self._course.desired,
        )
        if plan:
            self._pulse.disturb()
        if is_between:
            facts = replace(facts, plan=plan)
            return self._with_judgement(facts, state, goal, wanted, observed)
        if is_behind and not plan and not words:
            self._journal.append(journal.whole())
            self.tell_behind()
        return replace(facts, plan=self._repair(plan, facts, goal, observed))

    def _tell_drift(self, names: tuple[str, ...], goal: specs.Spec, facts: machine.Facts) -> None:
        """What is put right within a second would never be seen; so it is told for a while."""
        if not self._repairs_files:
            words = f"changed on the device, and left so by its configuration: {_some(names)}"
            self._teller.trouble("drift", words if names else "")
        elif names:
            self._drifted = (goal.target, names)
        elif self._drifted is not None and self._drifted[0] == goal.target:
            words = f"changed on the device, put right {facts.at}: {_some(self._drifted[1])}"
            self._teller.note("drift", words)
            self._drifted, self._drift_told_until = None, facts.monotonic + DRIFT_TOLD_S
        elif facts.monotonic >= self._drift_told_until:
            self._drifted = None
            self._teller.note("drift", "")

    def tell_behind(self) -> None:
        version = self._course.current.target.version
        words = f"going back to renderedVersion {version} is not finished"
        self._teller.trouble("behind", words if self._journal.memory.is_behind else "")

    def tell_system(self, slots: osimage.Slots | None) -> None:
        if slots is not None or self._system.mode == osimage.PACKAGE:
            self._teller.system(self._system.section(self._course.current, slots))

    def _tell_astray(self, words: str) -> None:
        if not words and self._journal.memory.repair_reboots:
            self._journal.append(journal.mended())
        self._teller.trouble("os", words)

    def _with_judgement(
        self,
        facts: machine.Facts,
        state: states.State,
        goal: specs.Spec,
        wanted: planner.Wanted,
        observed: planner.Observed,
    ) -> machine.Facts:
        if isinstance(state, states.Verifying):
            names = {one.app: one.workloads for one in wanted.apps}
            names |= {one.app: (one.container_name,) for one in wanted.containers}
            verdict = self._verifier.verdict(goal, observed, names)
            facts = replace(facts, verdict=verdict)
            is_asked = facts.verdict.is_well is True and state.deadline is not None
            if state.has_rebooted or self._is_new_system(goal):
                facts = replace(facts, is_boot_complete=greenboot.is_boot_complete(self._world))
        else:
            is_asked = not facts.plan
        if is_asked and machine.wants_probe(state):
            return self._probed(facts)
        return facts

    def _is_new_system(self, goal: specs.Spec) -> bool:
        """It may run already: an earlier version brought it, and the boot loader may still take it
        away. For the committed one that is over, whatever a later boot is called."""
        return goal.os_image not in ("", self._course.current.os_image)

    def _repair(
        self,
        plan: tuple[planner.Step, ...],
        facts: machine.Facts,
        goal: specs.Spec,
        observed: planner.Observed,
    ) -> tuple[planner.Step, ...]:
        """Drift."""
        if facts.monotonic < self._course.repair_not_before:
            return ()
        if not plan:
            self._course.repairs = 0
            self._teller.trouble("sync", "")
            self._teller.trouble("limits", self._unlimited(goal))
            self._look_after_health(observed)
        return plan

    def _look_after_health(self, observed: planner.Observed) -> None:
        """Where nothing runs the health checks (no systemd), a start is never called healthy."""
        for one in observed.containers:
            is_checked = one.is_ours and one.state == "running" and one.has_healthcheck
            if is_checked and one.health in ("", "starting"):
                self._verifier.check(one.container)

    def _objection(self, target: states.Target) -> errors.Failure | None:
        assert self._course.desired.target == target
        desired = embedded.without(self._course.desired)
        error = (
            self._gates.objection(desired)
            or self._system.objection(desired)
            or self._observer.objection(desired)
        )
        if error is None:
            return None
        return errors.failure_of(error, phase=errors.PREPARING, at=telling.local(self._world.now()))

    def failure(self, error: errors.AgentError, state: states.State) -> errors.Failure:
        is_early = isinstance(state, states.Fetching | states.Staging) or (
            error.component == errors.HOOKS and error.element.startswith(hooks.BEFORE_UPDATING)
        )
        phase = errors.PREPARING if is_early else errors.APPLYING
        return errors.failure_of(error, phase=phase, at=telling.local(self._world.now()))

    def missing(self) -> Downloads:
        desired = embedded.without(self._course.desired)
        return (*self._system.missing(desired), *self._observer.missing(desired))

    def tell_fetching(self, missing: Downloads, *, trouble: str = "") -> None:
        count = len(self._observer.images(embedded.without(self._course.desired)))
        count += bool(self._course.desired.os_image)
        downloads = (
            planner.PullImage,
            osimage.PullOs,
            appplan.FetchChart,
            appplan.PullCri,
            appplan.LookUp,
        )
        pulls = [one for one in missing if isinstance(one, downloads)]
        pending = tuple(one.image if isinstance(one, osimage.PullOs) else one.app for one in pulls)
        of_charts = sum(isinstance(one, appplan.FetchChart | appplan.PullCri) for one in pulls)
        complete = count - (len(pulls) - of_charts)
        self._teller.fetching(complete, pending, self._world.now(), trouble=trouble)

    def _unlimited(self, spec: specs.Spec) -> str:
        names = self._observer.unenforced(spec)
        return f"without their resource limits: {', '.join(names)}" if names else ""

    def _is_dismissal(self, offer: Offer) -> bool:
        return offer.spec.is_dismissed and not self._course.current.is_dismissed


def _is_first_look(state: states.State) -> bool:
    """At a system that an update has just booted."""
    match state:
        case states.Applying():
            return bool(state.reboots)
        case states.Verifying():
            return state.has_rebooted
    return False


def _of_the_system(wanted: planner.Wanted, observed: planner.Observed) -> planner.Observed:
    """Before anything was ever committed only what the system brings is made: nothing is in its
    way, for nobody has said that it may go."""
    ids = {one.app_id for one in wanted.apps}
    apps = tuple(one for one in observed.apps if one.app_id in ids)
    return replace(observed, apps=apps, containers=(), originals=frozenset())


def _of_the_specification(
    goal: specs.Spec, wanted: planner.Wanted, observed: planner.Observed
) -> tuple[specs.Spec, planner.Wanted, planner.Observed]:
    """Without what the system brings, which is left as it is."""
    ids = {one.app_id for one in wanted.apps if one.is_embedded}
    return (
        embedded.without(goal),
        replace(wanted, apps=tuple(one for one in wanted.apps if not one.is_embedded)),
        replace(observed, apps=tuple(one for one in observed.apps if one.app_id not in ids)),
    )


def _some(names: tuple[str, ...]) -> str:
    shown = ", ".join(names[: telling.NAMES_MAX])
    more = len(names) - telling.NAMES_MAX
    return f"{shown} and {more} more" if more > 0 else shown
