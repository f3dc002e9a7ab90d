"""The long poll: what the service wants this device to be.

One `Poll` decides, without a clock and without a socket, what an answer means and when the next
poll may start. The rules:
- polls start as far apart as the pace says, and at least 5 s, whatever they were answered;
- after a failure the pause doubles up to a limit, with jitter; any real answer resets it; on a
  metered network a service that answers with refusals is asked no more often than one that is well;
- a poll that was held for a while and then cut off is none that failed: proxies close what they
  find idle. The next one comes soon, within the pause of a first failure, so that a service that
  has let go of all devices at once does not get them back at once;
- the version we claim to know only moves up;
- 404 in the words of a service that knows no such device counts only when it is said twice: a
  restore in progress or a proxy's fallback may say it once.
"""

from __future__ import annotations

from typing import Any

from agent import pace, transport
from resources.records import dataclass

Json = dict[str, Any]

# The service holds a poll for up to two minutes; a little more than twice that is broken.
TIMEOUT_S = 240.0
JITTER = 0.2
# Proxies that close idle connections sooner than this are not waited in.
HELD_S = 20.0
GATEWAYS = (502, 504)
GONE_TWICE = 2
# Between the first time and the second: a restart of the service may be all that is wrong.
GONE_PAUSE_S = 30.0
NO_CHANGE = 409

DEFAULT = pace.Pace()
RENDERED_VERSION = "device-controller/renderedVersion"
CONFLICT_PAUSED = "device-controller/conflictPaused"


@dataclass(frozen=True, slots=True)
class Offered:
    device: Json


@dataclass(frozen=True, slots=True)
class Unchanged:
    pass


@dataclass(frozen=True, slots=True)
class Gone:
    """Said twice: this device does not exist there any more."""


@dataclass(frozen=True, slots=True)
class Failed:
    why: str
    is_refusal: bool = False  # our certificate was refused, or may have been


@dataclass(frozen=True, slots=True)
class Cut:
    """Nothing came for as long as somebody on the way had patience."""

    why: str


Outcome = Offered | Unchanged | Gone | Failed | Cut


class Poll:
    """State between polls: the known version, failures in a row, times that we were unknown."""

    def __init__(
        self,
        *,
        base_delay_s: float,
        max_delay_s: float,
        known: str = "",
        at_pace: pace.Pace = DEFAULT,
    ) -> None:
        self.configure(base_delay_s=base_delay_s, max_delay_s=max_delay_s, at_pace=at_pace)
        self._is_answered = True
        self._failures = 0
        self._unknown = 0
        self._after_s = 0.0
        self._is_cut = False
        self._known = number(known)

    def configure(self, *, base_delay_s: float, max_delay_s: float, at_pace: pace.Pace) -> None:
        """May change between two polls."""
        self._base_s = base_delay_s
        self._max_s = max_delay_s
        self._pace = at_pace

    @property
    def known(self) -> str:
        """What to claim; empty = nothing, and the service answers at once."""
        return str(self._known) if self._known >= 0 else ""

    def learn(self, version: str) -> None:
        self._known = max(self._known, number(version))

    def answered(self, answer: transport.Answer) -> Outcome:
        self._failures = self._unknown = 0
        self._after_s = 0.0
        self._is_cut = False
        if answer.status != 200:
            return Unchanged()
        device = answer.document
        if not _is_device(device):
            return self._failure("the answer is not a device")
        self.learn(annotations_of(device).get(RENDERED_VERSION, ""))
        return Offered(device)

    def failed(self, error: transport.ServiceError, *, took_s: float = 0.0) -> Outcome:
        self._after_s = 0.0
        self._is_cut = took_s >= HELD_S and is_cut(error)
        if self._is_cut:
            self._failures = 0
            return Cut(str(error))
        # Both have cost a handshake.
        self._is_answered = isinstance(
            error, transport.Rejected | transport.Throttled | transport.Untrusted
        )
        if isinstance(error, transport.Rejected):
            if error.status == NO_CHANGE:
                self._failures = self._unknown = 0
                return Unchanged()
            if is_gone(error):
                self._unknown += 1
                if self._unknown >= GONE_TWICE:
                    return Gone()
            else:
                self._unknown = 0
            return self._failure(str(error), is_refusal=error.status == 401)
        if isinstance(error, transport.Throttled):
            self._after_s = error.after_s
            return self._failure(str(error))
        return self._failure(str(error), is_refusal=True)

    def pause_s(self, *, took_s: float, random: float) -> float:
        """How long to wait now; `took_s` since the last poll's start, `random` in [0, 1)."""
        if self._is_cut and not self._pace.is_metered:
            return self._base_s * random
        if not self._failures:
            return max(0.0, self._pace.until_next_s(random=random) - took_s)
        least_s = max(0.0, pace.LEAST_S - took_s)
        is_dear = self._pace.is_metered and self._is_answered
        max_s = max(self._max_s, self._pace.contact_s) if is_dear else self._max_s
        delay_s = min(self._base_s * 2.0 ** min(self._failures - 1, 30), max_s)
        delay_s *= 1 + JITTER * (2 * random - 1)
        doubt_s = GONE_PAUSE_S if self._unknown else 0.0
        return max(least_s, delay_s, self._after_s, doubt_s)

    def _failure(self, why: str, *, is_refusal: bool = False) -> Failed:
        self._failures += 1
        return Failed(why, is_refusal)


def is_cut(error: transport.ServiceError) -> bool:
    """What proxies do or say that have waited long enough."""
    if isinstance(error, transport.Rejected):
        return error.status in GATEWAYS
    return isinstance(error, transport.Cut)


def is_gone(error: transport.Rejected) -> bool:
    """Exactly the words of a service that looked and found no such device."""
    return error.status == 404 and "Device of name" in error.body and "not found" in error.body


def number(version: str) -> int:
    """-1 = not a version."""
    return int(version) if version.isascii() and version.isdigit() else -1


def annotations_of(device: Json) -> dict[str, str]:
    metadata = device.get("metadata")
    found = metadata.get("annotations") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def _is_device(document: object) -> bool:
    return (
        isinstance(document, dict)
        and isinstance(document.get("metadata"), dict)
        and isinstance(document.get("spec"), dict)
        and number(str(annotations_of(document).get(RENDERED_VERSION, ""))) >= 0
    )
