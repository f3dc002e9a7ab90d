"""How often this device talks to its service: by the profile of its network. Pure.

`default` is flightctl's way: a long poll that is always open, and news told at once. `metered` is
for networks that are paid for by the byte, where a TLS handshake costs more than what is said in
it: one contact every `contact-interval`, in which the device asks, is told, and reports whatever
has changed. Between contacts it speaks of itself only to say how an update goes, gathered for a few
minutes; and where somebody waits to have said a last word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent import config
from resources.records import dataclass

Json = dict[str, Any]

# A burst of changes is one report.
GATHER_S = 0.2
# An update of files takes seconds, one of applications minutes: its beginning and its end are one.
METERED_GATHER_S = 300.0
# Polls start at least this far apart: a service that answers at once must not be hammered.
LEAST_S = 5.0
JITTER = 0.1


@dataclass(frozen=True, slots=True)
class Pace:
    """`contact_s` between the starts of two polls; `gather_s`: news waits for more of it."""

    contact_s: float = LEAST_S
    gather_s: float = GATHER_S
    is_metered: bool = False

    def until_next_s(self, *, random: float) -> float:
        """With jitter where it is long, or a site would come back in one moment for ever."""
        return (
            self.contact_s * (1 + JITTER * (2 * random - 1)) if self.is_metered else self.contact_s
        )

    def is_news(self, status: Json, told: Json) -> bool:
        """Whether `status` is worth a connection of its own, `told` being what was said last."""
        if not self.is_metered:
            return status != told
        return _stages(status) != _stages(told)


def of(settings: config.Settings) -> Pace:
    if settings.network_profile == config.METERED:
        return Pace(settings.contact_interval_s, METERED_GATHER_S, is_metered=True)
    return Pace()


def _stages(status: Mapping[str, Any]) -> list[Any]:
    """How far an update is, without the words: those move with every megabyte."""
    found = status.get("conditions") or ()
    conditions = [(one.get("type"), one.get("status"), one.get("reason")) for one in found]
    return [status.get("config"), conditions]
