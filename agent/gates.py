"""Whether downloads or an update may begin now: windows of the specification, holds of workloads,
what the device is short of.

The specification that is to come decides on its own windows. They are asked anew at each look, from
the clock and from files, so there is nothing to be forgotten over a restart; that a download has
been let in once is in the journal. Names of time zones are looked up on the device: one that it
does not know is an objection, for nobody can say when the window would be.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo

from agent import errors, machine, monitors, schedule, specs, world
from agent.holding import Holds
from resources import timestamps

ZONES = "/usr/share/zoneinfo"
LOCALTIME = "/etc/localtime"
HOLD_LOOK_S = 5.0
# As often as resources are measured, unless somebody wants it more often.
SHORT_LOOK_S = 60.0
# An update may be what frees a disk; only downloads fill it further.
OF_UPDATES = ("cpu", "memory")


class Gates:
    def __init__(
        self, where: world.World, levels: Callable[[], Mapping[str, str]] = lambda: {}
    ) -> None:
        self._world = where
        self._levels = levels
        self._zones: dict[str, tzinfo] = {"UTC": UTC}
        self._holds = Holds(where)
        # What is wrong with a hold, for people.
        self.trouble = ""

    def objection(self, spec: specs.Spec) -> errors.Reject | None:
        """Why nobody can say when `spec` may begin."""
        if spec.policy_objection is not None:
            return spec.policy_objection
        windows = (spec.download_window, spec.update_window)
        for component, window in zip(specs.POLICIES.values(), windows, strict=True):
            if window is not None and self._zone(window) is None:
                detail = f"this device knows no time zone {window.zone} (is tzdata installed?)"
                return errors.Reject(errors.FAILED_PRECONDITION, detail, component=component)
        return None

    def download(self, spec: specs.Spec, *, is_let_in: bool) -> machine.Wait | None:
        """`is_let_in`: the window was open once, and counts no more."""
        short = self._short_of(monitors.RESOURCES)
        return short or (None if is_let_in else self._window(spec.download_window, "downloads"))

    def update(self, spec: specs.Spec) -> machine.Wait | None:
        return (
            self._short_of(OF_UPDATES)
            or self._window(spec.update_window, "updates")
            or self._held()
        )

    def _short_of(self, resources: Iterable[str]) -> machine.Wait | None:
        levels = self._levels()
        status, words = monitors.summarised({name: levels.get(name, "") for name in resources})
        return machine.Wait(f"waiting: {words}", SHORT_LOOK_S) if status == "Error" else None

    def _window(self, window: schedule.Window | None, what: str) -> machine.Wait | None:
        zone = self._zone(window) if window is not None else None
        if window is None or zone is None:
            return None
        now = self._world.now()
        if schedule.is_open(window, now, zone):
            return None
        start = schedule.next_start(window, now, zone)
        if start is None:
            return machine.Wait(f"waiting for the window for {what}, which never comes", 3600.0)
        words = f"waiting for the window for {what} at {_local(start, zone)}"
        return machine.Wait(words, (start - now).total_seconds())

    def _held(self) -> machine.Wait | None:
        holds, self.trouble = self._holds.current()
        if not holds:
            return None
        first = holds[0]
        words = f"held by {first.owner} until {timestamps.of(first.until)}"
        words += f": {first.reason}" if first.reason else ""
        words += f" (and by {len(holds) - 1} more)" if len(holds) > 1 else ""
        left = first.until - self._world.now() + timedelta(seconds=1)
        # Files say nothing when they go.
        return machine.Wait(words, min(left.total_seconds(), HOLD_LOOK_S))

    def _zone(self, window: schedule.Window) -> tzinfo | None:
        """None = not known here. The device's own zone is read at each look: it may be moved."""
        if window.zone in self._zones:
            return self._zones[window.zone]
        path = f"{ZONES}/{window.zone}" if window.zone else LOCALTIME
        try:
            raw = self._world.read(path)
        except OSError:
            raw = None
        found = _zone_of(raw, window.zone) if raw else None
        if not window.zone:
            return found or UTC
        if found is not None:
            self._zones[window.zone] = found
        return found


def _zone_of(raw: bytes, name: str) -> tzinfo | None:
    # Imported where there is a window at all: a small agent does not pay for what it does not use.
    import zoneinfo

    try:
        return zoneinfo.ZoneInfo.from_file(io.BytesIO(raw), key=name or None)
    except ValueError:
        return None


def _local(moment: datetime, zone: tzinfo) -> str:
    return moment.astimezone(zone).strftime("%Y-%m-%d %H:%M %Z")
