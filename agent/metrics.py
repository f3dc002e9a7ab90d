"""What the agent counts about itself, in Prometheus' text format; served by `loopback` if asked to.

The series of requests and of the management certificate are flightctl's, by name and by label, so
that its dashboards work; ours begin with `homeport_agent_`. Counting costs an addition and is
always done; text is made only for who asks. The number of series is fixed: no label holds anything
that the service or a specification could choose, but the reasons of a condition and application
states, which are few.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from agent import version

Json = dict[str, Any]
Sample = tuple[str, Mapping[str, str], float]

SUCCESS, FAILURE, ERROR, PENDING = "success", "failure", "error", "pending"
# A poll is held for up to two minutes, and given up after four.
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 240)
CERTIFICATE = "flightctl_device_mgmt_cert"

_OPERATIONS: Mapping[tuple[str, str, str], str] = {
    ("POST", "enrollmentrequests", ""): "create_enrollmentrequest",
    ("GET", "enrollmentrequests", ""): "get_enrollmentrequest",
    ("GET", "devices", "rendered"): "get_rendered_device_spec",
    ("PUT", "devices", "status"): "update_device_status",
    ("PATCH", "devices", "status"): "patch_device_status",
    ("POST", "certificatesigningrequests", ""): "create_certificate_signing_request",
    ("GET", "certificatesigningrequests", ""): "get_certificate_signing_request",
}
# What each series means: the text of its HELP line, and what the reference page is compared with.
MEANINGS: Mapping[str, tuple[str, str]] = {
    **{
        f"{operation}_duration_seconds": ("histogram", f"Time of requests: {operation}.")
        for operation in _OPERATIONS.values()
    },
    f"{CERTIFICATE}_loaded": ("gauge", "1 if the device has a management certificate."),
    f"{CERTIFICATE}_not_after_timestamp_seconds": ("gauge", "When the certificate ends."),
    f"{CERTIFICATE}_renewal_attempts_total": ("counter", "Attempts to renew the certificate."),
    f"{CERTIFICATE}_renewal_duration_seconds": ("histogram", "Time of attempts to renew it."),
    "homeport_agent_info": ("gauge", "Always 1; which agent this is."),
    "homeport_agent_rendered_version": (
        "gauge",
        "The version that the device was last brought to.",
    ),
    "homeport_agent_condition": ("gauge", "1 if the condition is True, by type and reason."),
    "homeport_agent_applications": ("gauge", "Applications by status."),
    "process_cpu_seconds_total": ("counter", "CPU time of the agent."),
    "process_resident_memory_bytes": ("gauge", "Resident memory of the agent."),
    "process_virtual_memory_bytes": ("gauge", "Virtual memory of the agent."),
    "process_open_fds": ("gauge", "Open files of the agent."),
    "process_start_time_seconds": ("gauge", "When the agent started, in seconds since 1970."),
}


def operation_of(method: str, path: str) -> str:
    """`path` below the API's prefix; empty for what is not counted."""
    kind, _, rest = path.strip("/").partition("/")
    name, _, part = rest.partition("/")
    return _OPERATIONS.get((method, kind, part), "") if name or method == "POST" else ""


class Histogram:
    """Not safe by itself; `Metrics` locks."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BUCKETS_S) + 1)
        self._sum_s = 0.0

    def add(self, seconds: float) -> None:
        self._counts[bisect.bisect_left(BUCKETS_S, seconds)] += 1
        self._sum_s += seconds

    def samples(self, name: str, labels: Mapping[str, str]) -> Iterable[Sample]:
        total = 0
        for bound, count in zip((*BUCKETS_S, float("inf")), self._counts, strict=True):
            total += count
            yield f"{name}_bucket", {**labels, "le": _number(bound)}, total
        yield f"{name}_sum", labels, self._sum_s
        yield f"{name}_count", labels, total


class Metrics:
    """Counted from any thread. `now_values` gives what is measured when somebody asks."""

    def __init__(self, now_values: Callable[[], Iterable[Sample]] = tuple) -> None:
        self._lock = threading.Lock()
        self._now_values = now_values
        self._requests: dict[tuple[str, str], Histogram] = {}
        self._attempts = dict.fromkeys((SUCCESS, FAILURE, PENDING), 0)
        self._renewals = Histogram()

    def requested(self, method: str, path: str, seconds: float, is_well: bool) -> None:
        operation = operation_of(method, path)
        if not operation:
            return
        key = (operation, SUCCESS if is_well else ERROR)
        with self._lock:
            self._requests.setdefault(key, Histogram()).add(seconds)

    def renewed(self, result: str, seconds: float) -> None:
        """An attempt at the management certificate."""
        with self._lock:
            self._attempts[result] += 1
            self._renewals.add(seconds)

    def text(self) -> str:
        with self._lock:
            samples = list(self._counted())
        return exposition([*samples, *self._now_values()])

    def _counted(self) -> Iterable[Sample]:
        for (operation, result), histogram in sorted(self._requests.items()):
            yield from histogram.samples(f"{operation}_duration_seconds", {"result": result})
        for result, count in self._attempts.items():
            yield f"{CERTIFICATE}_renewal_attempts_total", {"result": result}, count
        yield from self._renewals.samples(f"{CERTIFICATE}_renewal_duration_seconds", {})


def of_certificate(not_after: float | None) -> Iterable[Sample]:
    yield f"{CERTIFICATE}_loaded", {}, float(not_after is not None)
    yield f"{CERTIFICATE}_not_after_timestamp_seconds", {}, not_after or 0


def of_status(status: Mapping[str, Any]) -> Iterable[Sample]:
    """From what the loop says of the device."""
    yield "homeport_agent_info", {"version": version.VERSION}, 1
    rendered = str(status.get("config", {}).get("renderedVersion", ""))
    if rendered.isascii() and rendered.isdigit():
        yield "homeport_agent_rendered_version", {}, int(rendered)
    for one in status.get("conditions", ()):
        labels = {"type": one["type"], "reason": one["reason"]}
        yield "homeport_agent_condition", labels, float(one["status"] == "True")
    states: dict[str, int] = {}
    for application in status.get("applications", ()):
        name = str(application.get("status", "Unknown"))
        states[name] = states.get(name, 0) + 1
    for name, count in sorted(states.items()):
        yield "homeport_agent_applications", {"status": name}, count


def exposition(samples: Iterable[Sample]) -> str:
    """Prometheus' text format, version 0.0.4; each series with its HELP and TYPE, once."""
    said: set[str] = set()
    lines: list[str] = []
    for name, labels, value in samples:
        family = _family(name)
        if family not in said:
            said.add(family)
            kind, meaning = MEANINGS[family]
            lines += [f"# HELP {family} {meaning}", f"# TYPE {family} {kind}"]
        inner = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
        lines.append(f"{name}{{{inner}}} {_number(value)}" if inner else f"{name} {_number(value)}")
    return "\n".join(lines) + "\n"


def _family(name: str) -> str:
    for end in ("_bucket", "_sum", "_count"):
        if name not in MEANINGS and name.endswith(end):
            return name.removesuffix(end)
    return name


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if value == float("inf"):
        return "+Inf"
    return str(int(value)) if value == int(value) else repr(value)
