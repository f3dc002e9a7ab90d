"""What is told of who owns a device: that another does, and that several fleets select it or do so
no more; the events of flightctl's vocabulary. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from resources import objectnews
from resources.news import News

DETECTED = "DeviceMultipleOwnersDetected"


@dataclass(frozen=True, slots=True)
class Claims:
    """The owner of a device, in the form Kind/name, and the fleets that select it if those are
    several, in order."""

    owner: str | None = None
    fleets: tuple[str, ...] = ()


def of(old: Claims, new: Claims) -> Iterator[News]:
    """What is to be told of a device for whose owner `old` decided, and now `new` does."""
    if old.owner != new.owner:
        yield objectnews.change("Device", ["owner"], old.owner, new.owner)
    if new.fleets and not old.fleets:
        yield from several(new)
    elif old.fleets and not new.fleets:
        yield _resolved(old, new)


def several(claims: Claims) -> Iterator[News]:
    """That several fleets select a device, if they do."""
    if claims.fleets:
        stays = f"it stays with {claims.owner}" if claims.owner else "none of them owns it"
        yield News(
            DETECTED,
            f"Several fleets select the device, so {stays}: {', '.join(claims.fleets)}.",
            {"detailType": DETECTED, "matchingFleets": list(claims.fleets)},
        )


def _resolved(old: Claims, new: Claims) -> News:
    details = {
        "detailType": "DeviceMultipleOwnersResolved",
        "resolutionType": "SingleMatch" if new.owner else "NoMatch",
        "previousMatchingFleets": list(old.fleets),
    }
    said = f"{new.owner} alone selects the device" if new.owner else "No fleet selects the device"
    return News(
        "DeviceMultipleOwnersResolved",
        f"{said}; several did: {', '.join(old.fleets)}.",
        details | ({"assignedOwner": new.owner} if new.owner else {}),
    )
