"""Whether who opened a stream may still read it.

A request is judged when it comes; a stream goes on for an hour. It ends when the proof that it was
opened with ends: a token or a certificate expires, a certificate is revoked, a provider is gone or
says otherwise, or other roles are its user's now. Ended is all that it is, as at its timeout: the
client comes back, and is told then. Kubernetes judges once; here a person who was shut out would go
on reading for up to an hour.

A certificate is read from memory, so it is asked at every look. A token may cost a question to its
provider: once in a minute is what is said of the delay, unless it says itself when it ends. What
can't be asked at the moment ends nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from apiserver.auth.chain import Authenticator, Evidence
from apiserver.auth.identity import Caller
from apiserver.errors import StatusError, Unauthorized

# How often a stream without events looks around.
LOOK_S = 5.0
# Between questions about a token, so that streams which began together do not ask together.
REVIEW_S = (45.0, 60.0)


@dataclass(slots=True)
class Standing:
    """Of one stream. `caller` is who opened it, as was found then."""

    authenticate: Authenticator
    evidence: Evidence
    caller: Caller
    now: Callable[[], float]
    monotonic: Callable[[], float]
    jitter: Callable[[float, float], float]
    _asked_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._asked_at = self.monotonic() + self.jitter(*REVIEW_S)

    def look_s(self) -> float:
        """Until the next look: at the latest when the proof ends."""
        return min(LOOK_S, max(0.0, self.caller.expires_at - self.now()))

    async def is_over(self) -> bool:
        if self.now() >= self.caller.expires_at:
            return True
        if self.evidence.certificate is None and self.monotonic() < self._asked_at:
            return False
        self._asked_at = self.monotonic() + self.jitter(*REVIEW_S)
        try:
            found = await self.authenticate(self.evidence)
        except Unauthorized:
            return True
        except StatusError:
            return False
        return found is None or _rights(found) != _rights(self.caller)


def _rights(caller: Caller) -> object:
    return caller.identity, caller.role, caller.groups, caller.further
