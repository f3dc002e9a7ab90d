"""When a signer is asked again: back-off with jitter. Pure; seconds are those of a clock that only
runs forward."""

from __future__ import annotations

from dataclasses import dataclass

from apiserver.pki.orders import Answer, Pending, Unavailable, Unusable

FIRST_S = 1.0
# A person may be deciding at the other end, and an agent waits at this one.
PENDING_S_MAX = 60.0
UNAVAILABLE_S_MAX = 300.0
# The same order mostly gets the same answer.
UNUSABLE_S_MAX = 900.0
# However long a signer says that it wants to be left alone.
ASKED_S_MAX = 3600.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How often it was in vain, and when the next time is."""

    tries: int = 0
    next_at: float = 0.0

    def is_due(self, now: float) -> bool:
        return now >= self.next_at


START = Pace()


def most_s(answer: Answer) -> float:
    """The longest that is waited after such an answer, unless the signer says more."""
    match answer:
        case Pending():
            return PENDING_S_MAX
        case Unavailable():
            return UNAVAILABLE_S_MAX
        case Unusable():
            return UNUSABLE_S_MAX
        case _:
            raise AssertionError("this answer is the last")


def after(answer: Answer, pace: Pace, *, now: float, chance: float) -> Pace:
    """The pace after an answer that is not the last. `chance` is from [0, 1): many that were
    refused together do not come back together."""
    grown_s = min(most_s(answer), FIRST_S * 2.0 ** min(pace.tries, 30))
    delay_s = grown_s * (0.5 + chance / 2)
    if isinstance(answer, Pending | Unavailable) and answer.after_s > 0:
        # Never before it asked to be; a tenth of spread after it.
        asked_s = min(answer.after_s, ASKED_S_MAX) * (1 + chance / 10)
        delay_s = asked_s if isinstance(answer, Pending) else max(delay_s, asked_s)
    return Pace(pace.tries + 1, now + delay_s)
