"""The states that a device can be in and the events that move it, with the journal's form of them.

Only words: what follows what is in `machine`. Each state carries its target and its budgets; none
carries progress, which is always observed. Clocks of one life of the process are not written down.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent import errors
from resources.records import asdict, dataclass, replace

Json = dict[str, Any]

# Whose fault it is that the device cannot be managed any more (law 9).
SERVICE = "service"


@dataclass(frozen=True, slots=True)
class Target:
    """One specification: the version counts deliveries, the hash names the content."""

    version: str
    spec_hash: str = ""


@dataclass(frozen=True, slots=True)
class Idle:
    pass


# Of the states below: `doubts` = how often it was gone back from the target without anybody being
# able to say whether the target or the network was at fault (`Doubtful`).


@dataclass(frozen=True, slots=True)
class Fetching:
    """`has_begun`: the window for downloads was open once; it is not asked for again."""

    target: Target
    attempt: int = 0
    not_before: float = 0.0
    has_begun: bool = False
    doubts: int = 0


@dataclass(frozen=True, slots=True)
class Staging:
    target: Target
    attempt: int = 0
    doubts: int = 0


@dataclass(frozen=True, slots=True)
class Staged:
    target: Target
    attempt: int = 0
    not_before: float = 0.0
    doubts: int = 0


@dataclass(frozen=True, slots=True)
class Applying:
    """`was_reachable` is what the probe just before the first effect said (law 9).

    `reboots`: how often the new system was to be started; `rollback_before`: the deployment that
    could be gone back to before the last time.
    """

    target: Target
    was_reachable: bool | None = None
    attempt: int = 0
    stumbles: int = 0
    not_before: float = 0.0
    reboots: int = 0
    rollback_before: str = ""
    doubts: int = 0


@dataclass(frozen=True, slots=True)
class Rebooting:
    """Ends when the boot id is another one, whatever has been booted then.

    `failure` None = forward, into the system of the target; else on the way back from it.
    `deadline`: by then it has happened, or it is ordered again.
    """

    target: Target
    boot_id: str
    image: str = ""
    was_reachable: bool | None = None
    attempt: int = 0
    reboots: int = 0
    rollback_before: str = ""
    failure: errors.Failure | None = None
    deadline: float | None = None
    doubts: int = 0


@dataclass(frozen=True, slots=True)
class Verifying:
    """`deadline` None = the clock has not started in this life of the process."""

    target: Target
    was_reachable: bool | None = None
    attempt: int = 0
    stumbles: int = 0
    not_before: float = 0.0
    deadline: float | None = None
    has_rebooted: bool = False
    doubts: int = 0


@dataclass(frozen=True, slots=True)
class RollingBack:
    target: Target
    failure: errors.Failure
    attempt: int = 0
    stumbles: int = 0
    not_before: float = 0.0
    deadline: float | None = None
    reboots: int = 0
    doubts: int = 0


@dataclass(frozen=True, slots=True)
class Refused:
    target: Target
    failure: errors.Failure


@dataclass(frozen=True, slots=True)
class Decommissioning:
    target: Target
    is_wiping: bool = False
    # All that specifications brought is taken away before the identity.
    is_reset: bool = False


State = (
    Idle
    | Fetching
    | Staging
    | Staged
    | Applying
    | Rebooting
    | Verifying
    | RollingBack
    | Refused
    | Decommissioning
)


@dataclass(frozen=True, slots=True)
class Arrived:
    target: Target


@dataclass(frozen=True, slots=True)
class Postponed:
    not_before: float


@dataclass(frozen=True, slots=True)
class Admitted:
    """Downloads may begin: their window is open."""


@dataclass(frozen=True, slots=True)
class Fetched:
    pass


@dataclass(frozen=True, slots=True)
class Checked:
    pass


@dataclass(frozen=True, slots=True)
class Opened:
    was_reachable: bool | None


@dataclass(frozen=True, slots=True)
class Later:
    """A hook before the update has asked for another time; nothing else has been done."""

    not_before: float


@dataclass(frozen=True, slots=True)
class Applied:
    pass


@dataclass(frozen=True, slots=True)
class Unchanged:
    """Nothing was done and nothing is to do: there is nothing to verify either."""


@dataclass(frozen=True, slots=True)
class RebootOrdered:
    """Into `image`; the order itself is given in the state that follows."""

    boot_id: str
    image: str = ""
    rollback_before: str = ""


@dataclass(frozen=True, slots=True)
class Booted:
    pass


@dataclass(frozen=True, slots=True)
class Begun:
    """The clock of a deadline starts."""

    deadline: float


@dataclass(frozen=True, slots=True)
class Verified:
    pass


@dataclass(frozen=True, slots=True)
class Failed:
    failure: errors.Failure


@dataclass(frozen=True, slots=True)
class Restored:
    """`is_whole` False: going back was given up; the rest of it is repaired at leisure."""

    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class Blameless:
    """Back on the old one the service is out of reach too: the update was not at fault.

    `is_whole` as in `Restored`."""

    not_before: float
    is_whole: bool = True


@dataclass(frozen=True, slots=True)
class Doubtful:
    """Back on the old one the service was out of reach for a while, and then was not: it may have
    been the update, whose traces take a while to go, or a network that has come back meanwhile."""

    not_before: float


@dataclass(frozen=True, slots=True)
class Dismissed:
    """The service has asked this device to leave."""

    target: Target
    is_reset: bool = False


@dataclass(frozen=True, slots=True)
class Announced:
    pass


Event = (
    Arrived
    | Postponed
    | Admitted
    | Fetched
    | Checked
    | Opened
    | Later
    | Applied
    | Unchanged
    | RebootOrdered
    | Booted
    | Begun
    | Verified
    | Failed
    | Restored
    | Blameless
    | Doubtful
    | Dismissed
    | Announced
)


def target_of(state: State) -> Target | None:
    return getattr(state, "target", None)


def heads_for_target(state: State) -> bool:
    """Whether work is towards the target; otherwise it is towards the committed specification."""
    if isinstance(state, Rebooting):
        return state.failure is None
    return isinstance(state, Applying | Verifying)


def heads_back(state: State) -> bool:
    """Whether the device is on its way from a target that failed."""
    return isinstance(state, RollingBack | Rebooting) and not heads_for_target(state)


def counts_steps(state: State) -> bool:
    """Whether steps and boots count against the budget of a target."""
    return heads_for_target(state)


def resumed(state: State) -> State:
    """`state` in a new life of the process, where clocks of the old one mean nothing."""
    match state:
        case Verifying() | RollingBack():
            return replace(state, deadline=None, not_before=0.0)
        case Rebooting():
            return replace(state, deadline=None)
        case Fetching() | Staged() | Applying():
            return replace(state, not_before=0.0)
        case _:
            return state


_STATES: Mapping[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        Idle,
        Fetching,
        Staging,
        Staged,
        Applying,
        Rebooting,
        Verifying,
        RollingBack,
        Refused,
        Decommissioning,
    )
}
# Clocks of one life of the process; another one must not read them.
_FLEETING = ("not_before", "deadline")


def encode(state: State) -> Json:
    fields = {k: v for k, v in asdict(state).items() if k not in _FLEETING}
    return {"name": type(state).__name__, **fields}


def decode(document: Json) -> State:
    """Fields that this agent does not know are passed over: after a rollback of the operating
    system, an older agent reads what a newer one has written."""
    kind = _STATES[document["name"]]
    fields = {k: v for k, v in document.items() if k in kind.__match_args__}
    if "target" in fields:
        fields["target"] = Target(**fields["target"])
    if fields.get("failure") is not None:
        fields["failure"] = decode_failure(fields["failure"])
    state: State = kind(**fields)
    return state


def encode_failure(failure: errors.Failure) -> Json:
    return asdict(failure)


def decode_failure(document: Json) -> errors.Failure:
    return errors.Failure(**document)
