"""What the service concludes about a device from what it was told and when (contract 7.6).

Pure: values in, values out. The first rule that applies wins, in the order of the contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

Json = Mapping[str, Any]

NOT_RENDERED = "Device could not be updated to the fleet's latest device spec: "
FETCHING = "What the device's configuration takes from outside is being fetched."
APPLIED = "The device has applied its newest specification."
NOT_APPLIED = "The device has not yet applied its newest specification."
NOT_SCHEDULED = "The device waits for its turn to get what its fleet has newest."
DISCONNECTED = "The device is disconnected: it was last seen more than 5 minutes ago."
AWAITING = "The device has not reconnected since the service was restored."
NEVER_SEEN = "The device is disconnected: it has never been seen."


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """Everything the conclusions depend on. `status` is the agent's own status, as it came;
    `managed` says that a fleet owns the device, `behind` that the fleet is to have another template
    version than it; versions are integers, 0 for none."""

    status: Json
    connected: bool
    seen: bool
    managed: bool
    rendered_version: int
    reported_version: int
    behind: bool = False
    spec_valid: bool = True
    render_needed: bool = False
    spec_os_image: str = ""
    render_error: str = ""
    failed_reason: str = ""
    awaiting_reconnect: bool = False
    conflict_paused: bool = False
    decommissioning: bool = False


@dataclass(frozen=True, slots=True)
class DeviceSummaries:
    """status.summary, .updated, .applicationsSummary and .lifecycle."""

    summary: str
    summary_info: str
    updated: str
    updated_info: str
    applications: str
    applications_info: str
    lifecycle: str
    lifecycle_info: str


def derive(facts: DeviceFacts) -> DeviceSummaries:
    summary, summary_info = _summary(facts)
    updated, updated_info = _updated(facts)
    applications, applications_info = _applications(facts)
    lifecycle, lifecycle_info = _lifecycle(facts)
    return DeviceSummaries(
        summary=summary,
        summary_info=summary_info,
        updated=updated,
        updated_info=updated_info,
        applications=applications,
        applications_info=applications_info,
        lifecycle=lifecycle,
        lifecycle_info=lifecycle_info,
    )


def condition(status: Json, type_: str) -> Json:
    """The agent's condition of that type, or an empty one."""
    for candidate in status.get("conditions") or ():
        if isinstance(candidate, Mapping) and candidate.get("type") == type_:
            return candidate
    return {}


def _gone(facts: DeviceFacts) -> str:
    return DISCONNECTED if facts.seen else NEVER_SEEN


def _is_rebooting(facts: DeviceFacts) -> bool:
    updating = condition(facts.status, "Updating")
    return updating.get("status") == "True" and updating.get("reason") == "Rebooting"


def _summary(facts: DeviceFacts) -> tuple[str, str]:
    if facts.awaiting_reconnect:
        return "AwaitingReconnect", AWAITING
    if facts.conflict_paused:
        return "ConflictPaused", "The device is ahead of the restored service; resume it to go on."
    if not facts.connected:
        return "Unknown", _gone(facts)
    if _is_rebooting(facts):
        return "Rebooting", str(condition(facts.status, "Updating").get("message") or "")
    resources = facts.status.get("resources")
    states = resources if isinstance(resources, Mapping) else {}
    for level, result in (("Critical", "Error"), ("Warning", "Degraded")):
        named = sorted(name for name, state in states.items() if state == level)
        if named:
            return result, f"{level} resource alert: {', '.join(named)}."
    return "Online", "The device reports no problem with its resources."


def _updated(facts: DeviceFacts) -> tuple[str, str]:
    if facts.awaiting_reconnect:
        return "Unknown", AWAITING
    if not facts.connected and facts.seen:
        return "Unknown", DISCONNECTED
    updating = condition(facts.status, "Updating")
    if updating.get("status") == "True":
        return "Updating", str(updating.get("message") or "")
    if facts.render_error:
        return "OutOfDate", NOT_RENDERED + facts.render_error
    if not _is_up_to_date(facts):
        if facts.failed_reason:
            return "OutOfDate", facts.failed_reason
        return "OutOfDate", NOT_SCHEDULED if _waits_for_its_turn(facts) else NOT_APPLIED
    reported = facts.status.get("os")
    image = reported.get("image", "") if isinstance(reported, Mapping) else ""
    capable = facts.status.get("capabilities")
    mode = capable.get("osMode") if isinstance(capable, Mapping) else None
    if facts.spec_os_image and mode and image != facts.spec_os_image:
        return "OutOfDate", f"The device runs {image or 'another OS image'}."
    return "UpToDate", APPLIED


def _is_up_to_date(facts: DeviceFacts) -> bool:
    if facts.render_needed or (facts.managed and facts.behind):
        return False
    if facts.rendered_version == 0:
        return True
    return facts.reported_version == facts.rendered_version and facts.spec_valid


def _waits_for_its_turn(facts: DeviceFacts) -> bool:
    """It has done all that it was asked for."""
    return facts.behind and _is_up_to_date(replace(facts, behind=False))


def _applications(facts: DeviceFacts) -> tuple[str, str]:
    if not facts.connected:
        return "Unknown", _gone(facts)
    applications = facts.status.get("applications")
    if not applications:
        return "NoApplications", "No applications are defined."
    if _is_rebooting(facts):
        return "Degraded", "The device is rebooting."
    said = facts.status.get("applicationsSummary")
    if isinstance(said, Mapping) and isinstance(said.get("status"), str):
        return said["status"], str(said.get("info") or "")
    return "Unknown", ""


def _lifecycle(facts: DeviceFacts) -> tuple[str, str]:
    acknowledged = condition(facts.status, "DeviceDecommissioning")
    match acknowledged.get("reason"):
        case "Completed":
            return "Decommissioned", "The device has decommissioned itself."
        case "Error":
            why = acknowledged.get("message") or "no reason given"
            return "Decommissioned", f"The device could not decommission itself wholly: {why}"
    if facts.decommissioning or acknowledged:
        return "Decommissioning", "The device is being decommissioned."
    return "Enrolled", ""
