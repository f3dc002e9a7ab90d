"""Devices that are left alone after a restore of the service's database. Pure.

A database from a backup knows less than the devices that went on meanwhile. Which versions of their
specification those have been given since, it can't know; a version that it gives out may be one
that a device already has, with another content, and the device would take it for its own. So
nothing is rendered for a device until it has said where it stands; and who stands ahead of the
service is left alone until a person has looked, and resumes it above the version that it runs.
"""

from __future__ import annotations

from typing import Final

# The service was restored, and the device has not called since.
AWAITING: Final = 1
# It has called, and runs a later version than the service knows. Its status is the backup's until
# it reports.
AHEAD: Final = 2
# The same, and it has reported.
HEARD: Final = 3
FREE: Final = 0


def after_call(pause: int, known: int, rendered: int) -> int:
    """Of a device that asks, and says that it knows the version `known`, 0 for none.

    Nobody needs to have declared the restore: there is no other way to be ahead.
    """
    if known > rendered:
        return HEARD if pause == HEARD else AHEAD
    return FREE if pause == AWAITING else pause


def after_report(pause: int) -> int:
    return HEARD if pause == AHEAD else pause


def is_conflict(pause: int) -> bool:
    """Whether a person is to resume it."""
    return pause in (AHEAD, HEARD)


def version(known: str | None) -> int:
    """What a device says that it knows; 0 for nothing and for what is no number."""
    return int(known) if known and known.isascii() and known.isdigit() and len(known) < 19 else 0
