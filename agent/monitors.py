"""CPU, memory and disk: is this device running out of something?

An alert fires while usage has stayed strictly above a percentage for longer than a duration; one
sample at or below it resets the clock. A sample that cannot be taken changes no clock: a disk that
does not answer has not become emptier. A monitor comes from the specification where that has one of
its kind (the last one counts), else the default holds. Each is sampled at its own interval.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from agent import durations, sources
from resources.records import dataclass

log = logging.getLogger("agent.monitors")

Json = dict[str, Any]

HEALTHY, WARNING, CRITICAL = "Healthy", "Warning", "Critical"
ERROR, UNKNOWN = "Error", "Unknown"
RESOURCES = ("cpu", "memory", "disk")
IMAGE_MODE_DISK = "/sysroot"
PACKAGE_MODE_DISK = "/"


# Where nothing else is said.
SAMPLING_S = 60.0
# Who asks for more asks for a device that does nothing else.
SAMPLING_S_MIN = 1.0


@dataclass(frozen=True, slots=True)
class Rule:
    severity: str
    percentage: float
    duration_s: float


@dataclass(frozen=True, slots=True)
class Monitor:
    """`path` is a disk's: empty is the disk that the system is on."""

    rules: tuple[Rule, ...]
    sampling_s: float = SAMPLING_S
    path: str = ""


_LOAD = Monitor((Rule(CRITICAL, 90, 1800), Rule(WARNING, 80, 3600)))
DEFAULTS: Mapping[str, Monitor] = {
    "cpu": _LOAD,
    "memory": _LOAD,
    "disk": Monitor((Rule(CRITICAL, 90, 600), Rule(WARNING, 80, 1800))),
}


class Alerts:
    """The clocks of one resource's rules."""

    def __init__(self) -> None:
        self._above_since: dict[Rule, float] = {}
        self._level = UNKNOWN

    def level(self, rules: tuple[Rule, ...], usage: float | None, at_s: float) -> str:
        """`usage` in percent, None = it could not be measured; `at_s` never goes back."""
        if usage is None:
            if self._level not in (WARNING, CRITICAL):
                self._level = ERROR
            return self._level
        since = {
            rule: self._above_since.get(rule, at_s) for rule in rules if usage > rule.percentage
        }
        self._above_since = since
        firing = {rule.severity for rule, start in since.items() if at_s - start > rule.duration_s}
        self._level = next((s for s in (CRITICAL, WARNING) if s in firing), HEALTHY)
        return self._level


class Monitors:
    def __init__(
        self,
        machine: sources.Machine,
        *,
        disk_usage: Callable[[str], float | None] | None = None,
        real_path: Callable[[str], str] = str,
    ) -> None:
        self._machine = machine
        self._disk_usage = disk_usage or disk_usage_of
        self._real_path = real_path
        self._monitors = dict(DEFAULTS)
        self._alerts = {name: Alerts() for name in RESOURCES}
        self._levels = dict.fromkeys(RESOURCES, UNKNOWN)
        self._due_at = dict.fromkeys(RESOURCES, 0.0)
        self._ticks = (0, 0)

    def follow(self, spec: Json) -> None:
        """From now on by what `spec` says. A monitor that it changes is sampled at once; rules that
        stay keep their clocks, but not for another disk."""
        wanted = configured(spec)
        for name in RESOURCES:
            before, after = self._monitors[name], wanted[name]
            if before != after:
                self._due_at[name] = 0.0
            if before.path != after.path:
                self._alerts[name] = Alerts()
        self._monitors = wanted

    @property
    def due_at(self) -> float:
        """When the next sample is due."""
        return min(self._due_at.values())

    def sample(self, *, at_s: float) -> dict[str, str]:
        """`status.resources`, with what is due measured now; `at_s` never goes back."""
        for name in RESOURCES:
            monitor = self._monitors[name]
            if at_s >= self._due_at[name]:
                usage = self._usage(name, monitor)
                self._levels[name] = self._alerts[name].level(monitor.rules, usage, at_s)
                self._due_at[name] = at_s + monitor.sampling_s
        return dict(self._levels)

    def _usage(self, name: str, monitor: Monitor) -> float | None:
        match name:
            case "cpu":
                return self._cpu()
            case "memory":
                return self._memory()
        return self._disk(monitor.path)

    def _cpu(self) -> float | None:
        busy, total = self._machine.cpu_times()
        spent, passed = busy - self._ticks[0], total - self._ticks[1]
        if total == 0:
            return None
        self._ticks = (busy, total)
        return _percent(spent, passed) if passed > 0 else None

    def _memory(self) -> float | None:
        memory = self._machine.memory()
        total = memory.get("MemTotal", 0)
        if not total:
            return None
        free = memory.get("MemFree", 0) + memory.get("Buffers", 0) + memory.get("Cached", 0)
        free += memory.get("SReclaimable", 0) - memory.get("Shmem", 0)
        return _percent(total - free, total)

    def _disk(self, path: str) -> float | None:
        if path:
            return self._disk_usage(self._real_path(path))
        # A device without an image has no /sysroot, and its disk fills up all the same.
        usage = self._disk_usage(self._real_path(IMAGE_MODE_DISK))
        if usage is None:
            usage = self._disk_usage(self._real_path(PACKAGE_MODE_DISK))
        return usage


def configured(spec: Json) -> dict[str, Monitor]:
    """By resource. What cannot be read is left out."""
    found = dict(DEFAULTS)
    for item in _items(spec, "resources"):
        kind = str(item.get("monitorType", "")).lower() if isinstance(item, dict) else ""
        if kind in found:
            rules = (_rule(one) for one in _items(item, "alertRules"))
            found[kind] = Monitor(
                tuple(rule for rule in rules if rule is not None),
                _sampling_s(item.get("samplingInterval")),
                str(item.get("path") or "") if kind == "disk" else "",
            )
    return found


def summarised(levels: Mapping[str, str]) -> tuple[str, str]:
    """(status, info) of the device as far as its resources go."""
    for level, status in ((CRITICAL, "Error"), (WARNING, "Degraded")):
        names = [_SHOWN[name] for name in RESOURCES if levels.get(name) == level]
        if names:
            word = "Critical" if level == CRITICAL else "Degraded"
            return status, f"{word} resource alert: {', '.join(names)}"
    return "Online", ""


def disk_usage_of(path: str) -> float | None:
    try:
        found = os.statvfs(path)
    except OSError:
        return None
    return _percent(found.f_blocks - found.f_bavail, found.f_blocks) if found.f_blocks else None


_SHOWN = {"cpu": "CPU", "memory": "Memory", "disk": "Disk"}


def _items(section: Json, name: str) -> list[Any]:
    found = section.get(name)
    return found if isinstance(found, list) else []


def _rule(item: Any) -> Rule | None:
    try:
        return Rule(
            str(item["severity"]), float(item["percentage"]), durations.parse(item["duration"])
        )
    except (KeyError, TypeError, ValueError) as error:
        log.warning("alert rule left out: %r: %s", item, error)
        return None


def _sampling_s(value: Any) -> float:
    try:
        return max(durations.parse(str(value)), SAMPLING_S_MIN)
    except ValueError as error:
        log.warning("sampling interval not used: %s", error)
        return SAMPLING_S


def _percent(part: float, whole: float) -> float:
    return min(100.0, max(0.0, 100.0 * part / whole))
