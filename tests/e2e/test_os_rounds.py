"""Two devices that boot from operating system images, again and again: there, and back.

A file of its own, for it takes as long as all others of these devices.
"""

from __future__ import annotations

import os
import time

import pytest

from tests.e2e import devices, osimages
from tests.e2e.harbour import Harbour
from tests.e2e.lighthouses import Commit

ROUNDS = 10 if os.environ.get("HOMEPORT_SOAK") else 2
REBOOTS_OF_A_DEAD_SYSTEM = osimages.ATTEMPTS + 1  # and the old one again

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300 * (ROUNDS + 1)),
    pytest.mark.skipif(bool(devices.cannot_boot()), reason=f"devices: {devices.cannot_boot()}"),
]


def test_there_and_back_round_after_round(harbour: Harbour) -> None:
    """System, file, container and quadlet in one update with one reboot; then an application that
    is never healthy, a system whose agent does not start, one that cannot reach the service."""
    print(f"[simulated] {ROUNDS} rounds, two devices")
    for number in range(ROUNDS):
        began = time.monotonic()
        system, other = ("v1", "v2") if number % 2 else ("v2", "v1")
        good = Commit(system, f"v{number % 3 + 1}", f"v{(number + 1) % 3 + 1}", 100 + number)
        boots = harbour.boots()
        harbour.apply(good)
        harbour.until_all_are(good)
        harbour.until_up_to_date()
        assert harbour.boots() == [before + 1 for before in boots], "one update is one reboot"
        updated_s = time.monotonic() - began

        harbour.apply(Commit(other, "broken", "v1", 200 + number))
        harbour.until_all_say("health check failed")
        harbour.until_all_are(good)

        boots = harbour.boots()
        harbour.apply(Commit("dead-agent", "v1", "v2", 300 + number))
        harbour.until_all_say("os:dead-agent")
        harbour.until_all_are(good)
        assert harbour.boots() == [before + REBOOTS_OF_A_DEAD_SYSTEM for before in boots]

        boots = harbour.boots()
        harbour.apply(Commit("cut-off", "v2", "v1", 400 + number))
        harbour.until_all_say("no longer reaches the service")
        harbour.until_all_are(good)
        assert harbour.boots() == [before + 2 for before in boots], "there, and back"
        print(
            f"round {number + 1}: updated {updated_s:.0f} s, all {time.monotonic() - began:.0f} s"
        )
