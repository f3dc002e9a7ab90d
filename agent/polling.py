"""The long poll: what the service wants this device to be.

One `Poll` decides, without a clock and without a socket, what an answer means and when the next
poll may start. The rules:
- polls start at least 5 s apart, whatever they were answered: a service that answers at once must
  not be hammered by its fleet;
- after a failure the pause doubles up to a limit, with jitter; any real answer resets it;
- the version we claim to know only moves up;
- 404 in the words of a service that knows no such device counts only when it is said twice: a
  restore in progress or a proxy's fallback may say it once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from agent import transport

Json = dict[str, Any]

LEAST_S = 5.0
# The service holds a poll for up to two minutes; a little more than twice that is broken.
TIMEOUT_S = 240.0
JITTER = 0.2
GONE_TWICE = 2
# Between the first time and the second: a restart of the service may be all that is wrong.
GONE_PAUSE_S = 30.0
NO_CHANGE = 409

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


Outcome = Offered | Unchanged | Gone | Failed


class Poll:
    """State between polls: the known version, failures in a row, times that we were unknown."""

    def __init__(self, *, base_delay_s: float, max_delay_s: float, known: str = "") -> None:
        self._base_s = base_delay_s
        self._max_s = max_delay_s
        self._failures = 0
        self._unknown = 0
        self._after_s = 0.0
        self._known = number(known)

    @property
    def known(self) -> str:
        """What to claim; empty = nothing, and the service answers at once."""
        return str(self._known) if self._known >= 0 else ""

    def learn(self, version: str) -> None:
        self._known = max(self._known, number(version))

    def answered(self, answer: transport.Answer) -> Outcome:
        self._failures = self._unknown = 0
        self._after_s = 0.0
        if answer.status != 200:
            return Unchanged()
        device = answer.document
        if not _is_device(device):
            return self._failure("the answer is not a device")
        self.learn(annotations_of(device).get(RENDERED_VERSION, ""))
        return Offered(device)

    def failed(self, error: transport.ServiceError) -> Outcome:
        self._after_s = 0.0
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
        least_s = max(0.0, LEAST_S - took_s)
        if not self._failures:
            return least_s
        delay_s = min(self._base_s * 2.0 ** min(self._failures - 1, 30), self._max_s)
        delay_s *= 1 + JITTER * (2 * random - 1)
        doubt_s = GONE_PAUSE_S if self._unknown else 0.0
        return max(least_s, delay_s, self._after_s, doubt_s)

    def _failure(self, why: str, *, is_refusal: bool = False) -> Failed:
        self._failures += 1
        return Failed(why, is_refusal)


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
