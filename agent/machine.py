"""The agent's life as one table: states, events, and what follows what. Pure.

Theory of operation. The device is always whole on one specification or on its way to one. The way
forward is Fetching (images, while the old keeps running), Staging (can it work here at all?),
Staged (waiting for leave), Applying (files and containers, step by step), Verifying (does it live?
can we still be reached?) and, by one journal record, Idle. Everything that fails before Applying
leaves nothing behind and is Refused at once; everything after it goes through RollingBack, which is
the same work towards the old specification, and ends in Refused too. From Refused and Idle the
device is kept as the committed specification says; that is all that drift repair is.

Where the target has another operating system, Applying stages it and writes the files, Rebooting
starts it, and Applying goes on from what is observed there. The way back is the same: RollingBack
may have to start the old system (through Rebooting with a `failure`) before it gives back files and
applications. A target that has been bootable and is not what runs has been gone back from by the
boot loader: that is a failure like any other.

No state says how far the work is: what is left to do is planned anew from what is observed. So
any of them may be entered after a crash, and steps may be repeated. What the journal adds is the
direction (forward or back), the verdict on versions that failed, and the budgets that turn a loop
into a refusal.

A newer target waits while the device is between two specifications (Applying to RollingBack): all
of these end within a bound. Before that it simply replaces the older one.

Two laws: all that changes state is in TRANSITIONS, and a pair that is not in it is a bug. `decide`
says what to do next and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from agent import errors, osimage
from agent.states import (
    SERVICE,
    Admitted,
    Announced,
    Applied,
    Applying,
    Arrived,
    Begun,
    Blameless,
    Booted,
    Checked,
    Decommissioning,
    Dismissed,
    Doubtful,
    Event,
    Failed,
    Fetched,
    Fetching,
    Idle,
    Later,
    Opened,
    Postponed,
    Rebooting,
    RebootOrdered,
    Refused,
    Restored,
    RollingBack,
    Staged,
    Staging,
    State,
    Target,
    Unchanged,
    Verified,
    Verifying,
)
from resources.records import dataclass, replace

# Three boots of the health checks of an image-based system, and two power cuts beside them.
BOOTS_MAX = 5
# Repeating after crashes is fine, for ever is not: this many times the size of the plan, and some.
STEPS_PER_PLANNED = 20
STEPS_MAX_LEAST = 200
# Stumbles of the tools (a lock, a full disk) while applying; with the back-off about five minutes.
APPLY_ATTEMPTS_MAX = 6
# The way back gets more: there is nowhere else to go.
ROLLBACK_ATTEMPTS_MAX = 12
# A wait that is all but over.
REST_LEAST_S = 0.1
# Between attempts after which the service was unreachable through no fault of the update.
AGAIN_BASE_S = 60.0
AGAIN_MAX_S = 900.0
# The part of the patience with the network after which it is not clear any more that the way back
# was what brought it: an address is given within seconds.
DOUBT_PART = 0.25
# A network that comes and goes does so twice by chance, but hardly at these two moments.
DOUBTS_MAX = 1


# What counts within one state, and begins anew in the next.
_OF_ONE_STATE = frozenset({"stumbles", "not_before", "deadline"})


def _to(kind: type[Any], state: Any, **changes: Any) -> State:
    """Goes on as `kind` with all that it and `state` both know, and `changes`."""
    names = set(kind.__match_args__) & set(state.__match_args__) - _OF_ONE_STATE
    made: State = kind(**{name: getattr(state, name) for name in names} | changes)
    return made


def _fetch(state: Any, event: Any) -> State:
    return Fetching(event.target)


def _fetch_later(state: Any, event: Any) -> State:
    return _to(Fetching, state, attempt=state.attempt + 1, not_before=event.not_before)


def _doubt(state: Any, event: Any) -> State:
    return replace(_fetch_later(state, event), doubts=state.doubts + 1)


def _admit(state: Any, event: Any) -> State:
    return replace(state, has_begun=True)  # type: ignore[no-any-return]


def _stage(state: Any, event: Any) -> State:
    return _to(Staging, state)


def _staged(state: Any, event: Any) -> State:
    return _to(Staged, state)


def _apply(state: Any, event: Any) -> State:
    return _to(Applying, state, was_reachable=event.was_reachable)


def _later(state: Any, event: Any) -> State:
    return _to(Staged, state, not_before=event.not_before)


def _stumble(state: Any, event: Any) -> State:
    return replace(state, stumbles=state.stumbles + 1, not_before=event.not_before)  # type: ignore[no-any-return]


def _reboot(state: Any, event: Any) -> State:
    return replace(_reboot_back(state, event), rollback_before=event.rollback_before)


def _reboot_back(state: Any, event: Any) -> State:
    reboots = state.reboots + 1
    return _to(Rebooting, state, boot_id=event.boot_id, image=event.image, reboots=reboots)


def _go_on(state: Any, event: Any) -> State:
    return _to(Applying if state.failure is None else RollingBack, state)


def _verify(state: Any, event: Any) -> State:
    return _to(Verifying, state, has_rebooted=state.reboots > 0)


def _begin(state: Any, event: Any) -> State:
    return replace(state, deadline=event.deadline)  # type: ignore[no-any-return]


def _idle(state: Any, event: Any) -> State:
    return Idle()


def _roll_back(state: Any, event: Any) -> State:
    # The way back has as many reboots of its own.
    return _to(RollingBack, state, failure=event.failure, reboots=0)


def _refuse(state: Any, event: Any) -> State:
    return _to(Refused, state, failure=event.failure)


def _give_up(state: Any, event: Any) -> State:
    return _to(Refused, state)


def _leave(state: Any, event: Any) -> State:
    return Decommissioning(event.target, is_reset=event.is_reset)


def _wipe(state: Any, event: Any) -> State:
    return replace(state, is_wiping=True)  # type: ignore[no-any-return]


TRANSITIONS: Mapping[tuple[type[Any], type[Any]], Callable[[Any, Any], State]] = {
    (Idle, Arrived): _fetch,
    (Idle, Dismissed): _leave,
    (Refused, Arrived): _fetch,
    (Refused, Dismissed): _leave,
    (Fetching, Arrived): _fetch,
    (Fetching, Postponed): _fetch_later,
    (Fetching, Admitted): _admit,
    (Fetching, Fetched): _stage,
    (Fetching, Failed): _refuse,
    (Fetching, Dismissed): _leave,
    (Staging, Arrived): _fetch,
    (Staging, Postponed): _fetch_later,
    (Staging, Checked): _staged,
    (Staging, Failed): _refuse,
    (Staging, Dismissed): _leave,
    (Staged, Arrived): _fetch,
    (Staged, Opened): _apply,
    (Staged, Dismissed): _leave,
    (Applying, Later): _later,
    (Applying, Postponed): _stumble,
    (Applying, Unchanged): _idle,
    (Applying, Applied): _verify,
    (Applying, RebootOrdered): _reboot,
    (Applying, Failed): _roll_back,
    (Rebooting, Begun): _begin,
    (Rebooting, Booted): _go_on,
    (Rebooting, Failed): _roll_back,
    (Verifying, Postponed): _stumble,
    (Verifying, Begun): _begin,
    (Verifying, Verified): _idle,
    (Verifying, Failed): _roll_back,
    (RollingBack, Postponed): _stumble,
    (RollingBack, Begun): _begin,
    (RollingBack, RebootOrdered): _reboot_back,
    (RollingBack, Restored): _give_up,
    (RollingBack, Blameless): _fetch_later,
    (RollingBack, Doubtful): _doubt,
    (Decommissioning, Announced): _wipe,
}


def follow(state: State, event: Event) -> State:
    """The next state. A pair that the table does not know is a programmer's error."""
    transition = TRANSITIONS.get((type(state), type(event)))
    assert transition is not None, f"no way from {state!r} by {event!r}"
    return transition(state, event)


# What `decide` may look at. ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Verdict:
    """On the applications of the target: None in `is_well` = not known yet; `is_proving` = well so
    far, and to stay so for a while."""

    is_well: bool | None
    element: str = ""
    cause: str = errors.ABORTED
    detail: str = ""
    is_proving: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Why not now, for people, and the seconds after which to look again."""

    words: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What was observed in this pass. `plan` heads for what `heads_for_target` says.

    `wait` holds up what would be done next: downloads in Fetching, the update in Staged.
    """

    monotonic: float
    at: str
    plan: tuple[Any, ...] = ()
    arrived: Target | None = None
    dismissed: Target | None = None
    # With `dismissed`: and to take everything away.
    is_reset: bool = False
    objection: errors.Failure | None = None
    missing: tuple[Any, ...] = ()
    wait: Wait | None = None
    has_download_window: bool = False
    verdict: Verdict = Verdict(None)
    is_reachable: bool | None = None
    # None = nobody on this device judges a boot.
    is_boot_complete: bool | None = None
    boot_id: str = ""
    steps_in_target: int = 0
    boots_without_commit: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """The times that `decide` needs of the settings."""

    repair_interval_s: float
    verify_interval_s: float
    start_grace_s: float
    stability_s: float
    reach_s: float
    reach_interval_s: float
    boot_reach_s: float
    boot_complete_s: float
    reboot_patience_s: float


@dataclass(frozen=True, slots=True)
class Do:
    steps: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Happen:
    event: Event


@dataclass(frozen=True, slots=True)
class Rest:
    seconds: float


@dataclass(frozen=True, slots=True)
class Farewell:
    """Tell the service, then `Announced`."""

    is_reset: bool = False


@dataclass(frozen=True, slots=True)
class Wipe:
    is_reset: bool = False


Decision = Do | Happen | Rest | Farewell | Wipe


def is_open(state: State) -> bool:
    """Whether a newer specification is taken now; otherwise it waits, and not for long."""
    return isinstance(state, Idle | Refused | Fetching | Staging | Staged)


def wants_probe(state: State) -> bool:
    """Whether `decide` will look at `is_reachable`; a probe costs a connection."""
    match state:
        case Staged():
            return True
        case Verifying():
            return state.was_reachable is True
        case RollingBack():
            return state.failure.component == SERVICE
        case _:
            return False


def decide(state: State, facts: Facts, bounds: Bounds) -> Decision:
    """The next thing to do; the caller does it and comes back."""
    match state:
        case Idle() | Refused():
            return _settled(facts, bounds)
        case Fetching():
            return _fetching(state, facts, bounds)
        case Staging():
            if replacement := _replacement(facts):
                return replacement
            return Happen(Failed(facts.objection) if facts.objection else Checked())
        case Staged():
            return _waiting(state, facts, bounds)
        case Applying():
            return _applying(state, facts)
        case Rebooting():
            if facts.boot_id != state.boot_id:
                return Happen(Booted())
            if state.deadline is None or facts.monotonic >= state.deadline:
                return Do((osimage.Reboot(state.image),))
            return Rest(bounds.reach_interval_s)
        case Verifying():
            return _verifying(state, facts, bounds)
        case RollingBack():
            return _rolling_back(state, facts, bounds)
        case Decommissioning():
            return Wipe(state.is_reset) if state.is_wiping else Farewell(state.is_reset)


def _replacement(facts: Facts) -> Decision | None:
    if facts.dismissed:
        return Happen(Dismissed(facts.dismissed, is_reset=facts.is_reset))
    if facts.arrived:
        return Happen(Arrived(facts.arrived))
    return None


def _settled(facts: Facts, bounds: Bounds) -> Decision:
    if replacement := _replacement(facts):
        return replacement
    return Do(facts.plan) if facts.plan else Rest(bounds.repair_interval_s)


def _fetching(state: Fetching, facts: Facts, bounds: Bounds) -> Decision:
    if replacement := _replacement(facts):
        return replacement
    # The old specification is looked after while the new one is on its way.
    if facts.plan:
        return Do(facts.plan)
    if facts.monotonic < state.not_before:
        return Rest(min(state.not_before - facts.monotonic, bounds.repair_interval_s))
    if facts.objection:
        return Happen(Failed(facts.objection))
    if not facts.missing:
        return Happen(Fetched())
    if facts.wait:
        return Rest(min(max(facts.wait.seconds, REST_LEAST_S), bounds.repair_interval_s))
    if not state.has_begun and facts.has_download_window:
        return Happen(Admitted())
    return Do(facts.missing)


def _waiting(state: Staged, facts: Facts, bounds: Bounds) -> Decision:
    """All that is needed is here; it may be long until the update may begin."""
    if replacement := _replacement(facts):
        return replacement
    left_s = state.not_before - facts.monotonic
    if facts.wait is None and left_s <= 0:
        return Happen(Opened(facts.is_reachable))
    if facts.plan:
        return Do(facts.plan)
    rest_s = max(left_s, facts.wait.seconds if facts.wait else 0.0, REST_LEAST_S)
    return Rest(min(rest_s, bounds.repair_interval_s))


def _applying(state: Applying, facts: Facts) -> Decision:
    if exhausted := _exhausted(state, facts):
        return Happen(Failed(exhausted))
    if facts.objection:
        return Happen(Failed(facts.objection))
    if not facts.plan:
        return Happen(Applied() if facts.steps_in_target else Unchanged())
    if facts.monotonic < state.not_before:
        return Rest(state.not_before - facts.monotonic)
    return _up_to_the_reboot(facts)


def _up_to_the_reboot(facts: Facts) -> Decision:
    """A reboot is the last of a plan, and a state of its own: nothing is done behind it."""
    last = facts.plan[-1]
    if not isinstance(last, osimage.Reboot):
        return Do(facts.plan)
    if len(facts.plan) > 1:
        return Do(facts.plan[:-1])
    return Happen(RebootOrdered(facts.boot_id, last.image, last.rollback_deployment))


def _exhausted(state: Applying | Verifying, facts: Facts) -> errors.Failure | None:
    reason = ""
    if facts.boots_without_commit > BOOTS_MAX:
        reason = f"{facts.boots_without_commit} boots without success"
    elif facts.steps_in_target > max(STEPS_MAX_LEAST, STEPS_PER_PLANNED * len(facts.plan)):
        reason = f"{facts.steps_in_target} steps without success"
    elif state.stumbles > APPLY_ATTEMPTS_MAX:
        reason = f"{state.stumbles} attempts without success"
    elif _needs_reboot(facts):
        reason = _reboots_exhausted(state)
    if not reason:
        return None
    return errors.Failure(errors.APPLYING, errors.LIFECYCLE, "", errors.ABORTED, reason, facts.at)


def _reboots_exhausted(state: Applying | Verifying) -> str:
    if isinstance(state, Verifying):
        return "another operating system was booted meanwhile"
    if state.reboots >= osimage.REBOOTS_MAX:
        return f"{state.reboots} reboots did not start the new system"
    return ""


def _needs_reboot(facts: Facts) -> bool:
    return bool(facts.plan) and isinstance(facts.plan[-1], osimage.Reboot)


def _verifying(state: Verifying, facts: Facts, bounds: Bounds) -> Decision:
    verdict = facts.verdict
    start_s, reach_s, whole_s = _patience(state, facts, bounds)
    if exhausted := _exhausted(state, facts):
        return Happen(Failed(exhausted))
    if facts.objection:
        return Happen(Failed(facts.objection))
    if state.deadline is None:
        return Happen(Begun(facts.monotonic + whole_s))
    if facts.monotonic < state.not_before:
        return Rest(state.not_before - facts.monotonic)
    out_of_reach = state.was_reachable is True and facts.is_reachable is False
    is_judged = facts.is_boot_complete is not False
    # All have begun together; each has a deadline of its own within the one for the whole.
    is_late = facts.monotonic >= state.deadline - (whole_s - start_s)
    if verdict.is_well is False or (verdict.is_well is None and is_late):
        return Happen(Failed(_unwell(verdict, facts.at)))
    if facts.plan and not is_late:
        return Do(facts.plan)
    if verdict.is_well and not facts.plan and not out_of_reach and is_judged:
        return Happen(Verified())
    if out_of_reach and facts.monotonic >= state.deadline - (whole_s - reach_s):
        return Happen(Failed(_unreachable(facts.at)))
    if facts.monotonic >= state.deadline:
        if not is_judged:
            return Happen(Failed(_not_complete(facts.at)))
        return Happen(Failed(_unwell(verdict, facts.at)))
    return Rest(bounds.reach_interval_s if verdict.is_well else bounds.verify_interval_s)


def _patience(state: Verifying, facts: Facts, bounds: Bounds) -> tuple[float, float, float]:
    """Seconds for the applications, for the network, and for all there is to wait for.

    A system that has just been booted needs longer until its network is there.
    """
    start_s = bounds.start_grace_s
    proven_s = start_s + bounds.stability_s
    reach_s = bounds.boot_reach_s if state.has_rebooted else bounds.reach_s
    whole_s = max(proven_s, reach_s) if state.was_reachable else proven_s
    if facts.is_boot_complete is not None:
        whole_s = max(whole_s, bounds.boot_complete_s)
    return proven_s if facts.verdict.is_proving else start_s, reach_s, whole_s


def _unwell(verdict: Verdict, at: str) -> errors.Failure:
    detail = verdict.detail or "did not become healthy in time"
    return errors.Failure(
        errors.APPLYING, errors.APPLICATIONS, verdict.element, verdict.cause, detail, at
    )


def _unreachable(at: str) -> errors.Failure:
    return errors.Failure(
        errors.APPLYING,
        SERVICE,
        "",
        errors.UNAVAILABLE,
        "with this update the device no longer reaches the service",
        at,
    )


def _not_complete(at: str) -> errors.Failure:
    detail = "the health checks of the new system (greenboot) do not call its boot good"
    return errors.Failure(errors.APPLYING, errors.OS, "", errors.ABORTED, detail, at)


def _rolling_back(state: RollingBack, facts: Facts, bounds: Bounds) -> Decision:
    if facts.plan and state.stumbles <= ROLLBACK_ATTEMPTS_MAX:
        if facts.monotonic < state.not_before:
            return Rest(state.not_before - facts.monotonic)
        return _up_to_the_reboot(facts)
    is_whole = state.stumbles <= ROLLBACK_ATTEMPTS_MAX
    if state.failure.component != SERVICE:
        return Happen(Restored(is_whole))
    return _whose_fault(state, facts, bounds, is_whole=is_whole)


def _whose_fault(state: RollingBack, facts: Facts, bounds: Bounds, *, is_whole: bool) -> Decision:
    """Back on the old one, after an update with which the service was out of reach: law 9."""
    reach_s = bounds.boot_reach_s if state.reboots else bounds.reach_s
    pause = min(AGAIN_BASE_S * 2.0 ** min(state.attempt, 8), AGAIN_MAX_S)
    if facts.is_reachable is not False:
        waited_s = 0.0 if state.deadline is None else facts.monotonic - state.deadline + reach_s
        is_doubtful = waited_s >= DOUBT_PART * reach_s and state.doubts < DOUBTS_MAX
        is_again = is_doubtful and is_whole
        return Happen(Doubtful(facts.monotonic + pause) if is_again else Restored(is_whole))
    if state.deadline is None:
        return Happen(Begun(facts.monotonic + reach_s))
    if facts.monotonic < state.deadline:
        return Rest(bounds.reach_interval_s)
    return Happen(Blameless(facts.monotonic + pause, is_whole))
