"""The reconcile loop: observe, decide, write down, do, write down, tell. Synchronous, one thread.

One pass does one thing and returns how long to rest. It raises only `Fatal`: whatever fails on the
way (podman, the disk, a bad specification) is an answer, is told to the service where it should
know, and is tried again at a pace that lets a small box breathe.

The order in a commit: the journal's record first, the specification files after it. A crash in
between is mended at the start, for the files follow the journal (`specs.SpecFiles.load`). The order
when a specification arrives is the other way round: `desired.json` first, so that the journal never
names a target that is not on the disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Protocol

from agent import (
    appplan,
    embedded,
    errors,
    journal,
    leaving,
    machine,
    osimage,
    parts,
    planner,
    specs,
    states,
    telling,
    world,
)
from agent.facts import Course, Gathering, Offer
from agent.mailbox import Mailbox
from agent.settings import LoopSettings
from resources.records import replace

log = logging.getLogger("agent.loop")

Json = dict[str, Any]

JITTER = 0.2
# After this many repairs in a row that did not last, the pace of repair is the usual one.
REPAIRS_AT_ONCE = 2
BACKOFF_DOUBLINGS_MAX = 20


class Stop(Protocol):
    def is_set(self) -> bool: ...


class Reconciler:
    def __init__(
        self,
        where: world.World,
        settings: LoopSettings,
        mailbox: Mailbox,
        service_reachable: Callable[[], bool | None],
        os_mode: str | None = None,
        forget_keys: Callable[[], None] = lambda: None,
    ) -> None:
        self._world = where
        self._settings = settings
        self._mailbox = mailbox
        # What of the identity is in no file of ours.
        self._forget_keys = forget_keys
        made = parts.assemble(where, settings, os_mode, mailbox.levels)
        self._files, self._system, self._hooks = made.files, made.system, made.hooks
        self._bundles, self._observer, self._executor = made.bundles, made.observer, made.executor
        self._charts, self._pruning, self._pulling = made.charts, made.pruning, made.pulling
        self._applications = made.applications
        self._verifier, self._specs, self._journal = made.verifier, made.specs, made.journal
        self._teller = telling.Teller(mailbox)
        self._bounds = parts.bounds(settings)
        self._course = Course()
        self._gathering = Gathering(
            where,
            made,
            self._course,
            self._teller,
            service_reachable,
            repairs_files=settings.repairs_files,
        )
        self._embedded = embedded.Found()
        self._is_begun = False
        self._is_over = False
        self._passed_over: states.Target | None = None
        # When it did something last; for who looks whether it hangs.
        self.moved_at = where.monotonic()
        self._stop: Stop | None = None
        mailbox.on_offer = where.wake

    @property
    def state(self) -> states.State:
        return self._journal.memory.state

    def run(self, stop: Stop) -> None:
        """Until `stop`. Wake the world after setting it."""
        self._stop = stop
        while not stop.is_set() and not self._is_over:
            rest_s = self.run_once()
            if rest_s > 0:
                self._world.sleep(rest_s)

    def run_once(self) -> float:
        """One pass; the seconds to rest before the next."""
        self.moved_at = self._world.monotonic()
        if self._is_over:
            return self._settings.repair_interval_s
        try:
            if not self._is_begun:
                self._begin()
            return self._pass()
        except (errors.Retry, errors.Reject) as error:
            return self._stumbled(error)
        except OSError as error:
            # The journal or a specification file could not be written. What of it reached the disk
            # is not known, so memory is not to be trusted either: begin as after a crash.
            self._is_begun = False
            return self._trouble(f"the agent's own data: {error.strerror or error}")

    def _stumbled(self, error: errors.Retry | errors.Reject) -> float:
        state = self.state
        if isinstance(state, states.Applying | states.Verifying | states.RollingBack):
            try:
                self._count(error, state)
            except OSError as trouble:
                self._is_begun = False
                return self._trouble(f"the agent's own data: {trouble.strerror or trouble}")
            return 0.0 if self.state is not state else self._bounds.verify_interval_s
        return self._trouble(f"{error.component}: {error.element}: {error.detail}")

    def _count(
        self,
        error: errors.AgentError,
        state: states.Applying | states.Verifying | states.RollingBack,
    ) -> None:
        """Between two specifications every failure counts, or we would stay there for ever."""
        failure = self._gathering.failure(error, state)
        is_back = isinstance(state, states.RollingBack)
        if not is_back and state.stumbles >= machine.APPLY_ATTEMPTS_MAX:
            self._happen(states.Failed(failure))
            return
        pause = self._backoff(state.stumbles + 1)
        self._happen(states.Postponed(self._world.monotonic() + pause))
        if not is_back:
            self._teller.retrying(failure, state.target, self._world.now())

    def _trouble(self, words: str) -> float:
        log.warning("not in sync: %s", errors.one_line(words))
        self._teller.trouble("sync", errors.one_line(words))
        self._course.repairs += 1
        # Repair waits longer than the loop does, so that in between there is a pass without it: a
        # new specification may be what mends it.
        interval_s = self._settings.repair_interval_s
        self._course.repair_not_before = self._world.monotonic() + interval_s
        return self._backoff(self._course.repairs, most_s=interval_s / 2)

    # The start of a life. -------------------------------------------------------------------------

    def _begin(self) -> None:
        self._world.mkdir(self._settings.data_dir)
        self._world.mkdir(self._settings.own_dir, mode=0o700)
        memory = self._journal.load()
        refused = memory.state.target if isinstance(memory.state, states.Refused) else None
        self._specs.load(memory.committed, refused)
        self._embedded = embedded.look(self._world, self._applications.objection)
        self._gathering.embedded = self._embedded
        self._course.current = self._parsed(self._specs.current)
        self._course.desired = self._parsed(self._specs.desired)
        if self._course.current.target not in (memory.committed, states.Target(specs.NOTHING)):
            self._take_over()
        if not memory.is_behind:
            # Cut off between a commit and this.
            self._files.forget_given_back()
        boot_id = self._world.boot_id()
        if memory.boot_id != boot_id:
            self._journal.append(journal.booted(boot_id))
        if trouble := self._hooks.after_reboot(boot_id):
            log.error("hook after the reboot failed: %s", trouble)
        self._teller.trouble("hooks", trouble)
        self._resume()
        self._teller.committed(self._course.current)
        self._gathering.tell_behind()
        self._gathering.tell_system(self._system.slots_or_trouble()[0])
        self._teller.state(self.state, self._world.now(), current=self._course.current.target)
        self._is_begun = True
        log.info(
            "loop begins state=%s current=%s",
            type(self.state).__name__,
            self._course.current.target,
        )

    def _take_over(self) -> None:
        """Another agent has run this device: its files are ours now, without originals."""
        for one in self._course.current.files:
            self._files.adopt(one.path)
        # Else it was in the middle of something, and what is there belongs to neither.
        is_at_rest = self._course.desired.target == self._course.current.target
        for app in self._course.current.applications if is_at_rest else ():
            self._applications.adopt(app)
        self._journal.append(journal.commit(self._course.current.target, self._at()))
        tried = self._specs.gone_back_from()
        if is_at_rest and tried is not None and tried != self._course.current.target:
            detail = "the agent that ran here before went back from it"
            failure = errors.Failure(
                errors.REBOOTING, errors.OS, "", errors.ABORTED, detail, self._at()
            )
            self._journal.append(journal.refuse(tried, failure))

    def _resume(self) -> None:
        self._set(states.resumed(self.state))
        target = states.target_of(self.state)
        desired = self._course.desired.target
        is_new = desired != self._course.current.target and not self._is_refused(desired)
        if isinstance(self.state, states.Decommissioning | states.Refused | states.Idle):
            if is_new and specs.number(desired.version) >= 0:
                self._course.offer = Offer(self._specs.desired, self._course.desired)
        elif target != desired and states.heads_for_target(self.state):
            # Its specification has rotted away: what is there is not whole, so we go back.
            detail = "the specification was lost"
            failure = errors.Failure(
                errors.APPLYING, errors.LIFECYCLE, "", errors.NOT_FOUND, detail, self._at()
            )
            self._happen(states.Failed(failure))
        elif target != desired and not states.heads_back(self.state):
            # Cut off between `desired.json` and the journal, or lost; nothing was begun with it.
            self._journal.append(journal.entered(states.Idle()))
            if is_new:
                self._course.offer = Offer(self._specs.desired, self._course.desired)
        self._learn(desired)

    # One pass. ------------------------------------------------------------------------------------

    def _pass(self) -> float:
        self._take()
        self._screen()
        state = self.state
        goal = self._course.desired if states.heads_for_target(state) else self._course.current
        facts = self._gathering.look(state, goal)
        decision = machine.decide(state, facts, self._bounds)
        match decision:
            case machine.Happen(event):
                self._happen(event)
                return 0.0
            case machine.Do(steps):
                return self._do(steps, goal)
            case machine.Rest(seconds):
                if isinstance(state, states.Idle):
                    self._pruning.prune(self._course.current)
                return seconds
            case machine.Farewell(is_reset):
                patience_s = self._settings.farewell_s
                leaving.say_farewell(
                    self._world, self._mailbox, self._teller, patience_s, is_reset=is_reset
                )
                self._happen(states.Announced())
                return 0.0
            case machine.Wipe(is_reset):
                if is_reset:
                    self._clear()
                self._forget_keys()
                leaving.wipe(self._world, self._settings.data_dir, self._settings.own_dir)
                self._is_over = True
                self._world.reboot()
                return self._settings.repair_interval_s

    def _clear(self) -> None:
        # Nobody else ever needs it.
        from agent import clearing

        work = clearing.Clearing(self._world, self._observer, self._pruning, self._perform)
        work.clear(self._course.current, self._course.desired)

    def _take(self) -> None:
        """Looks at what the service says, and lets through what is new and not refused."""
        device = self._mailbox.take_spec()
        if device is None:
            return
        spec = self._parsed(device)
        version = specs.number(spec.target.version)
        self._learn(spec.target)
        if version < 0:
            log.error("specification without a version passed over")
            return
        if version < specs.number(self._course.current.target.version):
            if spec.target != self._passed_over:
                # Said once: a service that was restored may say it at every poll.
                log.warning("older specification passed over version=%s", spec.target.version)
            self._passed_over = spec.target
            return
        if spec.target.version in (self._course.current.target.version, self._heading_for()):
            return
        self._course.offer = Offer(device, spec)

    def _screen(self) -> None:
        """The same content under a new number: said at once, without trying it again."""
        offer = self._course.offer
        refusal = self._journal.memory.refusal_of(offer.spec.target) if offer else None
        if offer is None or refusal is None or not machine.is_open(self.state):
            return
        self._course.offer = None
        if refusal.target.version == offer.spec.target.version:
            return
        self._refuse(states.Refused(offer.spec.target, refusal.failure))
        self._teller.state(self.state, self._world.now(), current=self._course.current.target)

    # Doing. ---------------------------------------------------------------------------------------

    def _do(self, steps: tuple[planner.Step, ...], goal: specs.Spec) -> float:
        state = self.state
        is_pull = any(_is_download(step) for step in steps)
        spec = self._course.desired if is_pull else goal
        for step in steps:
            if self._stop is not None and self._stop.is_set():
                return 0.0
            try:
                self._perform(step, spec)
            except (errors.Retry, errors.Reject) as error:
                return self._failed(state, error, is_pull=is_pull)
        match state:
            case states.Applying() | states.RollingBack():
                # Whether it is done is seen, not assumed; rounds that do not end it get slower.
                pause = self._backoff(state.stumbles) if state.stumbles else 0.0
                self._happen(states.Postponed(self._world.monotonic() + pause))
                return 0.0
            case states.Verifying():
                return self._bounds.verify_interval_s
            case states.Rebooting():
                self._happen(states.Begun(self._world.monotonic() + self._bounds.reboot_patience_s))
                return 0.0
            case _ if is_pull:
                return 0.0
        if isinstance(steps[-1], osimage.Reboot):
            patience_s = self._bounds.reboot_patience_s
            self._course.repair_not_before = self._world.monotonic() + patience_s
            return self._bounds.verify_interval_s
        return self._repaired()

    def _perform(self, step: planner.Step, spec: specs.Spec) -> None:
        words = planner.words(step)
        self.moved_at = self._world.monotonic()
        self._journal.append(journal.intent(words))
        log.info("step %s", words)
        try:
            if isinstance(step, osimage.Reboot):
                self._mailbox.wait_for_push(self._settings.notice_s)
            if isinstance(step, osimage.Step):
                self._system.perform(step, spec, self._course.current)
            else:
                self._executor.perform(step, spec)
        except (errors.Retry, errors.Reject) as error:
            log.warning("step failed %s: %s", words, error)
            self._journal.append(journal.outcome(words, error.cause))
            raise
        self._journal.append(journal.outcome(words))

    def _failed(
        self, state: states.State, error: errors.Retry | errors.Reject, *, is_pull: bool
    ) -> float:
        is_final = isinstance(error, errors.Reject)
        match state:
            case states.Applying() if isinstance(error, errors.Later):
                pause = self._settings.later_s
                self._happen(states.Later(self._world.monotonic() + pause))
                self._teller.waiting(state.target, error.detail, self._world.now())
            case states.Applying() | states.Verifying() if is_final:
                self._happen(states.Failed(self._gathering.failure(error, state)))
            case states.Fetching() if is_pull and is_final:
                self._happen(states.Failed(self._gathering.failure(error, state)))
            case states.Fetching() if is_pull:
                assert isinstance(error, errors.Retry)
                pause = max(self._backoff(state.attempt + 1), error.after_s)
                self._happen(states.Postponed(self._world.monotonic() + pause))
                self._gathering.tell_fetching(self._gathering.missing(), trouble=error.detail)
            case states.Applying() | states.Verifying() | states.RollingBack():
                self._count(error, state)
            case _:
                raise error
        return 0.0

    def _repaired(self) -> float:
        self._course.repairs += 1
        if self._course.repairs > REPAIRS_AT_ONCE:
            self._course.repair_not_before = (
                self._world.monotonic() + self._settings.repair_interval_s
            )
            self._teller.trouble("sync", "repairs do not last")
        return 0.0

    def _happen(self, event: states.Event) -> None:
        """Follows the table; the journal is written before anything acts on the new state."""
        before = self.state
        after = machine.follow(before, event)
        if isinstance(event, states.Arrived):
            assert self._course.offer is not None
            self._specs.want(self._course.offer.device)
            self._course.desired, self._course.offer = self._course.offer.spec, None
        if isinstance(event, states.Dismissed):
            self._course.offer = None
        if isinstance(event, states.RebootOrdered) and states.heads_for_target(after):
            self._specs.note_rollback(self._course.current.os_image or self._system.booted_name())
        is_again = isinstance(event, states.Blameless | states.Doubtful)
        if is_again and self._course.desired.target != states.target_of(before):
            # It is lost; the service has it still, and is asked as one that does not know it.
            after = states.Idle()
            self._journal.append(journal.entered(after))
            self._mailbox.set_known_version(self._course.current.target.version)
            return
        now = self._world.now()
        match after:
            case states.Idle():
                target = states.target_of(before)
                assert target is not None
                self._pruning.remember(self._course.current, self._course.desired)
                self._journal.append(journal.commit(target, self._at()))
                self._specs.committed()
                self._files.forget_given_back()
                self._course.current = self._course.desired
                self._bundles.forget(self._course.current.applications)
                self._charts.forget(self._course.current.applications)
                self._pulling.forget()
                self._teller.committed(self._course.current)
            case states.Refused():
                self._pruning.remember(self._course.desired)
                self._pulling.forget()
                is_whole = self._is_whole(event) if isinstance(event, states.Restored) else None
                self._refuse(after, is_whole=is_whole)
            case _ if isinstance(event, states.Begun):
                self._set(after)
            case _:
                is_behind = isinstance(event, states.Blameless) and not event.is_whole
                self._journal.append(journal.entered(after, is_behind=is_behind))
                self._set(after)
        if type(before) is not type(after):
            log.info("state %s target=%s", type(after).__name__, states.target_of(after))
            self._say_as_the_reference_does(after)
        if not isinstance(event, states.Begun | states.Postponed):
            self._gathering.tell_behind()
            self._teller.state(after, now, current=self._course.current.target)
        if is_again and isinstance(before, states.RollingBack):
            self._teller.retrying(before.failure, before.target, now)

    def _say_as_the_reference_does(self, state: states.State) -> None:
        """Words that tools look for in the journal of a device."""
        match state:
            case states.RollingBack():
                version = self._course.current.target.version
                log.warning("Attempting to rollback to previous renderedVersion: %s", version)
            case states.Refused():
                log.warning("Marking template version %s as failed", state.target.version)

    def _refuse(self, refused: states.Refused, *, is_whole: bool | None = None) -> None:
        """`is_whole`: whether all was given back; None = nothing was begun with it."""
        is_behind = self._journal.memory.is_behind if is_whole is None else not is_whole
        self._journal.append(journal.refuse(refused.target, refused.failure, is_behind=is_behind))
        self._specs.abandoned()
        self._course.desired = self._course.current

    def _set(self, state: states.State) -> None:
        """With the clocks of this life, which the journal does not keep."""
        self._journal.memory = replace(self._journal.memory, state=state)

    def _parsed(self, device: Json) -> specs.Spec:
        return self._embedded.joined(specs.parse(device))

    # Small answers. -------------------------------------------------------------------------------

    def _is_settled(self) -> bool:
        return isinstance(self.state, states.Idle | states.Refused)

    def _is_whole(self, event: states.Restored) -> bool:
        """Not in a system that two reboots could not leave, whatever its files are."""
        slots, _ = self._system.slots_or_trouble()
        return event.is_whole and not self._system.is_away(self._course.current, slots)

    def _is_refused(self, target: states.Target) -> bool:
        return self._journal.memory.refusal_of(target) is not None

    def _heading_for(self) -> str:
        target = None if self._is_settled() else states.target_of(self.state)
        return target.version if target else ""

    def _learn(self, target: states.Target) -> None:
        """The newest version that need not be told again."""
        refused = [r.target.version for r in self._journal.memory.refusals]
        known = [self._mailbox.known_version(), self._course.current.target.version, target.version]
        self._mailbox.set_known_version(max([*known, *refused], key=specs.number))

    def _backoff(self, attempt: int, *, most_s: float | None = None) -> float:
        most_s = self._settings.retry_max_s if most_s is None else most_s
        pause = self._settings.retry_base_s * 2.0 ** min(max(attempt - 1, 0), BACKOFF_DOUBLINGS_MAX)
        return min(pause, most_s) * (1 + JITTER * (2 * self._world.random() - 1))

    def _at(self) -> str:
        return telling.local(self._world.now())


def _is_download(step: planner.Step) -> bool:
    """For a specification that is to come, as against one that is repaired."""
    if isinstance(step, appplan.FetchBundle | appplan.FetchChart):
        return not step.is_repair
    return isinstance(step, planner.PullImage | osimage.PullOs | appplan.PullCri | appplan.LookUp)
