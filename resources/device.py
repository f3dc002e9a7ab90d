"""Device: what one machine should run (spec), and what it said it runs (status).

The specification is strict, for people write it, in a device or in a fleet's template. The status
of an agent is not ours to refuse: `check_agent_status` says what is odd about it, and ignores
what a newer agent may add.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, ValidationError

from resources import applications, configproviders, cron, formats, parameters
from resources.applications import AnyApplication, CatalogItemRef
from resources.configproviders import ConfigProvider
from resources.devicestatus import DeviceStatus, OsMode
from resources.errors import FORBIDDEN, INVALID, TOO_LONG, FieldError
from resources.kind import Json
from resources.meta import (
    ATOMIC,
    Complaints,
    Document,
    Duration,
    Model,
    Unique,
    checked,
    complain,
    items,
    keyed,
    mapping,
    raise_all,
    text,
)

MAX_DESCRIPTION = 256
_SEVERITIES = ("Info", "Warning", "Critical")


class OsSpec(Model):
    image: str | None = Field(None, description="Bootable OCI image that the device should run.")
    catalog_item_ref: CatalogItemRef | None = Field(
        None, description="Takes the image from a catalog, instead of image."
    )


class AlertRule(Model):
    severity: Literal["Info", "Warning", "Critical"] = Field(
        description="What the device reports while the rule is met."
    )
    duration: Annotated[str, Field(pattern=formats.ALERT_DURATION)] = Field(
        description="How long the use must stay above the threshold, such as 10m."
    )
    percentage: float = Field(ge=0, le=100, description="Threshold in percent of what there is.")
    description: str = Field(
        max_length=MAX_DESCRIPTION, description="What people are told when the rule is met."
    )


class Monitor(Model):
    alert_rules: list[AlertRule] = Field(
        description="Thresholds, one for each severity, rising from Info to Critical.",
        json_schema_extra=keyed("severity"),
    )
    sampling_interval: str = Field(
        pattern=formats.INTERVAL, description="Time between two measurements, such as 30s."
    )


class CpuMonitor(Monitor):
    monitor_type: Literal["CPU"] = Field(description="Watches the use of processors.")


class MemoryMonitor(Monitor):
    monitor_type: Literal["Memory"] = Field(description="Watches the use of memory.")


class DiskMonitor(Monitor):
    monitor_type: Literal["Disk"] = Field(description="Watches the use of a file system.")
    path: str = Field(max_length=2048, description="A directory on the file system to watch.")


def _monitor_tag(monitor: Any) -> str | None:
    found = monitor.get("monitorType") if isinstance(monitor, dict) else None
    return f"<{found}>" if found in ("CPU", "Memory", "Disk") else None


AnyMonitor = Annotated[
    Annotated[CpuMonitor, Tag("<CPU>")]
    | Annotated[MemoryMonitor, Tag("<Memory>")]
    | Annotated[DiskMonitor, Tag("<Disk>")],
    Discriminator(
        _monitor_tag,
        custom_error_type="monitorType",
        custom_error_message="write one of: CPU, Disk, Memory",
    ),
]


class SystemdSpec(Model):
    match_patterns: (
        list[Annotated[str, Field(max_length=256, pattern=formats.MATCH_PATTERN)]] | None
    ) = Field(
        None,
        description="Units whose state the device reports; * and ? match as in file names.",
        json_schema_extra=ATOMIC,
    )


class UpdateSchedule(Model):
    at: str = Field(description="When, as five cron fields: minute hour day month weekday.")
    start_grace_duration: Duration = Field(
        description="How long after that time work may still begin, such as 2h."
    )
    time_zone: str | None = Field(
        None, description="Zone of the times, such as Europe/Berlin. Default Local, the device's."
    )


class UpdatePolicy(Model):
    download_schedule: UpdateSchedule | None = Field(
        None, description="When the device may download updates. Any time if absent."
    )
    update_schedule: UpdateSchedule | None = Field(
        None, description="When the device may apply updates. Any time if absent."
    )


class Console(Model):
    session_id: str = Field(alias="sessionID", description="Identity of the session.")
    session_metadata: str = Field(description="What the two ends agreed on, as JSON.")


class Decommission(Model):
    target: Literal["Unenroll", "FactoryReset"] = Field(
        description="How far the device is taken back: it forgets the service, or all that it has."
    )


class DeviceSpec(Model):
    os: OsSpec | None = Field(None, description="Operating system image.")
    config: list[ConfigProvider] | None = Field(
        None,
        description="Sources of configuration files; each has a name and one of gitRef, httpRef, "
        "inline, secretRef.",
        json_schema_extra=keyed("name"),
    )
    applications: list[AnyApplication] | None = Field(
        None,
        description="Applications to run; appType says of what kind each is.",
        json_schema_extra=ATOMIC,
    )
    resources: list[AnyMonitor] | None = Field(
        None,
        description="Resources to watch and to alert about, one monitor for each type.",
        json_schema_extra=keyed("monitorType"),
    )
    systemd: SystemdSpec | None = Field(None, description="Systemd units to report on.")
    update_policy: UpdatePolicy | None = Field(
        None, description="When the device may download and apply updates."
    )
    consoles: list[Console] | None = Field(
        None,
        description="Open remote consoles. Read only; set by the service.",
        json_schema_extra=ATOMIC,
    )
    decommissioning: Decommission | None = Field(
        None, description="Takes the device out of service. Read only; set by decommission."
    )


class Device(Document):
    """A machine under management: what it should run, and what it says it runs."""

    spec: DeviceSpec | None = Field(
        None, description="What the device should be; written by its fleet, if it has one."
    )
    status: DeviceStatus | None = Field(
        None, description="What the device reported, and what the service concluded from it."
    )


def check(document: Json) -> None:
    """The rules for a whole Device."""
    raise_all(check_spec(mapping(document, "spec"), "spec"))


def check_spec(spec: Json, path: str, *, templated: bool = False) -> Complaints:
    """The rules for a specification, of a device or (`templated`) of a fleet's template."""
    for key, how in (
        ("consoles", "open a console instead"),
        ("decommissioning", "use the decommission subresource"),
    ):
        if spec.get(key) is not None:
            yield FieldError(f"{path}.{key}", FORBIDDEN, f"is set by the service; {how}")
    if templated:
        yield from parameters.check(spec, path)
    yield from _check_os(mapping(spec, "os"), f"{path}.os", templated)
    yield from configproviders.check(spec, path, templated=templated)
    yield from applications.check(spec, path, templated=templated)
    yield from _check_monitors(spec, path)
    for key in ("downloadSchedule", "updateSchedule"):
        schedule = mapping(spec, "updatePolicy", key)
        yield from _check_schedule(schedule, f"{path}.updatePolicy.{key}")


def _check_os(os: Json, path: str, templated: bool) -> Complaints:
    image = text(os, "image")
    if image is not None and os.get("catalogItemRef") is not None:
        yield FieldError(f"{path}.catalogItemRef", FORBIDDEN, "give either image or catalogItemRef")
    if image:
        yield from complain(f"{path}.image", formats.image(image, templated=templated))
    yield from applications.check_catalog_item(os, path)


def check_os_mode(mode: str, old: Json, new: Json) -> Complaints:
    """A device whose OS is kept up by packages can't be given an image; one that has a target
    already, from before it said so, may keep it or lose it."""
    wanted = mapping(new, "os")
    if mode != "package" or wanted == mapping(old, "os"):
        return
    for key in ("image", "catalogItemRef"):
        if wanted.get(key):
            detail = "the device keeps its OS up by packages, and can't boot an image; remove it"
            yield FieldError(f"spec.os.{key}", FORBIDDEN, detail)


def _check_monitors(spec: Json, path: str) -> Complaints:
    types = Unique("type")
    for index, monitor in items(spec, "resources"):
        here = f"{path}.resources[{index}]"
        kind = text(monitor, "monitorType")
        if kind is not None:
            yield from types.check(f"{here}.monitorType", kind)
        interval_s = formats.seconds(monitor.get("samplingInterval"))
        severities, thresholds = Unique("severity"), {}
        for place, rule in items(monitor, "alertRules"):
            at = f"{here}.alertRules[{place}]"
            severity, percentage = text(rule, "severity"), rule.get("percentage")
            if severity is not None:
                yield from severities.check(f"{at}.severity", severity)
                if isinstance(percentage, int | float):
                    thresholds[severity] = (percentage, at)
            duration_s = formats.seconds(rule.get("duration"))
            if interval_s is not None and duration_s is not None and duration_s <= interval_s:
                detail = f"must be longer than samplingInterval, {monitor['samplingInterval']}"
                yield FieldError(f"{at}.duration", INVALID, detail)
        yield from _check_thresholds(thresholds)


def _check_thresholds(thresholds: dict[str, tuple[float, str]]) -> Complaints:
    rising = [(name, *thresholds[name]) for name in _SEVERITIES if name in thresholds]
    for (lower, low, _), (higher, high, at) in itertools.pairwise(rising):
        if high <= low:
            detail = f"{higher} must lie above {lower}, which is {low:g}"
            yield FieldError(f"{at}.percentage", INVALID, detail)


def _check_schedule(schedule: Json, path: str) -> Complaints:
    yield from checked(schedule, "timeZone", path, formats.time_zone)
    yield from checked(schedule, "startGraceDuration", path, formats.duration)
    at = text(schedule, "at")
    if at is None:
        return
    try:
        gap_s = cron.shortest_gap_s(cron.parse(at))
    except ValueError as error:
        yield FieldError(f"{path}.at", INVALID, str(error))
        return
    grace_s = formats.seconds(schedule.get("startGraceDuration"))
    if gap_s is None:
        yield FieldError(f"{path}.at", INVALID, f"{formats.shown(at)} never comes")
    elif grace_s is not None and grace_s > gap_s:
        detail = f"must not reach into the next start, which can come {gap_s:g} s later"
        yield FieldError(f"{path}.startGraceDuration", INVALID, detail)


def check_agent_status(status: Json, path: str = "status") -> list[FieldError]:
    """What is odd about a status that an agent sent. Unknown fields are not: newer agents have
    more to say, and what they say is kept as it came."""
    try:
        DeviceStatus.model_validate(status)
    except ValidationError as problem:
        return list(_agent_complaints(problem, path))
    return []


def _agent_complaints(problem: ValidationError, path: str) -> Iterator[FieldError]:
    for error in problem.errors(include_url=False, include_context=False, include_input=False):
        if error["type"] == "extra_forbidden":
            continue
        place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error["loc"])
        reason = TOO_LONG if error["type"] == "string_too_long" else INVALID
        yield FieldError(path + place, reason, error["msg"])


__all__ = ["AlertRule", "Device", "DeviceSpec", "DeviceStatus", "OsMode", "check", "check_spec"]
