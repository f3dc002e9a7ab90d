"""What a change of one device's state is told as: the events of flightctl's vocabulary. Pure.

A transition is told once, by who wrote it; a state that lasts is told by nobody. Who falls silent
is told of as that and as nothing else, for what it last said of itself is old. What was unknown and
turns out well is no news.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from resources.news import News

UNKNOWN: Final = "Unknown"
_MONITORED: Final = (("cpu", "CPU"), ("memory", "Memory"), ("disk", "Disk"))
# What a monitor says → how it is told; the rest is not.
_LEVELS: Final = {"Healthy": "Normal", "Warning": "Warning", "Critical": "Critical"}
_APPLICATIONS: Final = {"Healthy": "Healthy", "Degraded": "Degraded", "Error": "Error"}
_UPDATED: Final = {
    "UpToDate": "DeviceContentUpToDate",
    "OutOfDate": "DeviceContentOutOfDate",
    "Updating": "DeviceContentUpdating",
}


@dataclass(frozen=True, slots=True)
class State:
    """What is told of when it changes, each part with the words that go with it. `failure` is why
    the version that the device is to have failed, if it did; `monitors` and `image` are its own
    words, and empty for those who do not ask for them."""

    summary: tuple[str, str]
    updated: tuple[str, str]
    applications: tuple[str, str]
    failure: str = ""
    spec_valid: tuple[str, str] = ("", "")
    monitors: Mapping[str, Any] | None = None
    image: str = ""


def of(old: State, new: State) -> list[News]:
    """What is to be told of a device that was `old` and is `new`."""
    if new.summary[0] == UNKNOWN:
        if old.summary[0] == UNKNOWN:
            return list(_of_specification(old, new))
        return [_said("DeviceDisconnected", new.summary[1]), *_of_specification(old, new)]
    return [
        *_of_summary(old, new),
        *_of_update(old, new),
        *_of_applications(old, new),
        *_of_monitors(old, new),
        *_of_image(old, new),
        *_of_specification(old, new),
    ]


def _said(reason: str, message: str) -> News:
    """The device chooses the words, and how often."""
    return News(reason, message, same_by="reason")


def _of_summary(old: State, new: State) -> Iterator[News]:
    (was, _), (is_, info) = old.summary, new.summary
    if was == is_:
        return
    if is_ == "Rebooting":
        yield _said("DeviceIsRebooting", info or "The device is rebooting.")
    elif is_ == "Online" or (was == UNKNOWN and is_ in ("Degraded", "Error")):
        # The reference says nothing of who comes back with a problem, and so never calls off the
        # alarm that it was gone.
        yield _said("DeviceConnected", info)


def _of_update(old: State, new: State) -> Iterator[News]:
    (was, _), (is_, info) = old.updated, new.updated
    if new.failure and new.failure != old.failure and is_ == "OutOfDate":
        yield _said("DeviceUpdateFailed", new.failure)
    elif was != is_ and is_ in _UPDATED and not (was == UNKNOWN and is_ == "UpToDate"):
        yield _said(_UPDATED[is_], info)


def _of_applications(old: State, new: State) -> Iterator[News]:
    was, is_ = _healthy(old.applications[0]), _healthy(new.applications[0])
    if was == is_ or is_ not in _APPLICATIONS:
        return
    if was != UNKNOWN or is_ != "Healthy" or old.summary[0] != UNKNOWN:
        yield _said(f"DeviceApplication{is_}", new.applications[1] or f"Applications: {is_}.")
    elif new.applications[0] == is_:
        # An alarm that it left behind is called off; who has no applications never raised one.
        yield _said("DeviceApplicationHealthy", new.applications[1] or "All applications run.")


def _healthy(applications: str) -> str:
    return "Healthy" if applications == "NoApplications" else applications


def _of_monitors(old: State, new: State) -> Iterator[News]:
    before, now = old.monitors or {}, new.monitors or {}
    for key, word in _MONITORED:
        was, is_ = before.get(key), now.get(key)
        if was == is_ or not isinstance(is_, str) or is_ not in _LEVELS:
            continue
        if is_ != "Healthy":
            yield _said(f"Device{word}{is_}", f"{word}: {is_.lower()}.")
        elif was in _LEVELS:
            yield _said(f"Device{word}Normal", f"{word}: back to normal.")


def _of_image(old: State, new: State) -> Iterator[News]:
    if old.image and new.image and old.image != new.image:
        yield _said("DeviceOSImageChanged", f"The device runs {new.image}; it ran {old.image}.")


def _of_specification(old: State, new: State) -> Iterator[News]:
    (was, _), (is_, info) = old.spec_valid, new.spec_valid
    if is_ == "False" and (was != is_):
        yield _said("DeviceSpecInvalid", info or "The specification cannot be rendered.")
    elif is_ == "True" and was == "False":
        yield _said("DeviceSpecValid", "The specification can be rendered.")


def said_by(status: Mapping[str, Any]) -> tuple[Mapping[str, Any], str]:
    """The monitors and the digest of the OS image, of a status as an agent sent it."""
    monitors, os = status.get("resources"), status.get("os")
    digest = os.get("imageDigest") if isinstance(os, Mapping) else None
    return (
        monitors if isinstance(monitors, Mapping) else {},
        digest if isinstance(digest, str) else "",
    )
