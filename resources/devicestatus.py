"""The status of a device: the agent's report and the service's conclusions, in one object.

Every top-level part may be absent, since a device that never reported has none of them; within a
part, what the contract demands is demanded.
"""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.alias_generators import to_camel

from resources.applications import AppType
from resources.meta import ATOMIC, OPEN, Condition, Model, Timestamp, conditions

OsMode = Literal["image", "package"]
ResourceState = Literal["Healthy", "Warning", "Critical", "Error", "Unknown"]
IntegrityState = Literal["Verified", "Failed", "Unknown", "Unsupported"]


class AppVolumeStatus(Model):
    name: str = Field(description="Name of the volume.")
    reference: str = Field(description="Image or artifact that the volume was filled from.")


class ApplicationStatus(Model):
    name: str = Field(description="Name of the application.")
    app_type: AppType = Field(description="Kind of the application.")
    status: Literal[
        "Preparing", "Starting", "Running", "Error", "Unknown", "Completed", "Stopped", "Stopping"
    ] = Field(description="What the application is doing.")
    ready: str = Field(description="Parts that run, of all parts, such as 1/2.")
    restarts: int = Field(description="How often its parts were restarted.")
    embedded: bool = Field(description="True if it came with the OS image, not from the spec.")
    run_as: str | None = Field(None, description="User on the device that runs it.")
    volumes: list[AppVolumeStatus] | None = Field(
        None, description="Volumes that it uses.", json_schema_extra=ATOMIC
    )


class ApplicationsSummary(Model):
    status: Literal["Healthy", "Degraded", "Error", "Unknown", "NoApplications"] = Field(
        description="The state of all applications taken together."
    )
    info: str | None = Field(None, description="The same for people, with details.")


class Capabilities(Model):
    os_mode: OsMode | None = Field(
        None, description="Whether the OS is replaced as an image or kept up by packages."
    )


class ConfigStatus(Model):
    rendered_version: str = Field(description="Version of the specification that the device runs.")


class SyncedReference(Model):
    config_provider_name: str = Field(description="Name of the source in spec.config.")
    fingerprint: str | None = Field(None, description="What was last seen there, such as a commit.")
    last_updated_at: Timestamp | None = Field(None, description="When that was seen first.")


class DependencySync(Model):
    config_refs: list[SyncedReference] | None = Field(
        None, description="Outside sources that the specification uses.", json_schema_extra=ATOMIC
    )


class IntegrityCheck(Model):
    status: IntegrityState = Field(description="Outcome of the check.")
    info: str | None = Field(None, description="The same for people, with details.")


class Integrity(Model):
    status: IntegrityState = Field(description="Outcome of all checks taken together.")
    info: str | None = Field(None, description="The same for people, with details.")
    last_verified: Timestamp | None = Field(None, description="When it was last checked.")
    device_identity: IntegrityCheck | None = Field(
        None, description="Whether the device is the one that it says."
    )
    tpm: IntegrityCheck | None = Field(None, description="Whether its key lives in a TPM.")


class Lifecycle(Model):
    status: Literal["Unknown", "Enrolled", "Decommissioning", "Decommissioned"] = Field(
        description="Where the device stands between enrolment and its end."
    )
    info: str | None = Field(None, description="The same for people, with details.")


class OsStatus(Model):
    image: str = Field(description="OS image that is booted.")
    image_digest: str = Field(description="Digest of that image.")


class ResourceStatus(Model):
    cpu: ResourceState = Field(description="Use of processors against the alert rules.")
    memory: ResourceState = Field(description="Use of memory against the alert rules.")
    disk: ResourceState = Field(description="Use of disks against the alert rules.")


class Summary(Model):
    status: Literal[
        "Online",
        "Degraded",
        "Error",
        "Rebooting",
        "PoweredOff",
        "Unknown",
        "AwaitingReconnect",
        "ConflictPaused",
    ] = Field(description="The device as a whole; Unknown while nothing is heard of it.")
    info: str | None = Field(None, description="The same for people, with details.")


class Updated(Model):
    status: Literal["UpToDate", "OutOfDate", "Updating", "Unknown"] = Field(
        description="Whether the device runs what it should."
    )
    info: str | None = Field(None, description="The same for people, with details.")


class SystemInfo(Model):
    """Facts about the machine. Agents add facts of their own, each a string."""

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        strict=True,
        alias_generator=to_camel,
        json_schema_extra=OPEN,
    )
    __pydantic_extra__: dict[str, str] = Field(init=False)

    agent_version: str = Field(description="Version of the agent.")
    architecture: str = Field(description="Processor architecture, such as amd64.")
    boot_id: str = Field(alias="bootID", description="Changes with every boot.")
    operating_system: str = Field(description="Operating system, such as linux.")
    custom_info: dict[str, str] | None = Field(
        None, description="Facts from the site's own collectors."
    )


class SystemdUnit(Model):
    unit: str = Field(description="Name of the unit.")
    description: str = Field(max_length=2048, description="What the unit says of itself.")
    enable_state: Literal[
        "enabled",
        "enabled-runtime",
        "linked",
        "linked-runtime",
        "alias",
        "masked",
        "masked-runtime",
        "static",
        "disabled",
        "indirect",
        "generated",
        "transient",
        "bad",
        "unknown",
        "",
    ] = Field(description="Whether it is started at boot.")
    load_state: Literal[
        "stub", "loaded", "not-found", "bad-setting", "error", "merged", "masked", "unknown"
    ] = Field(description="Whether systemd could read it.")
    active_state: Literal[
        "active",
        "reloading",
        "inactive",
        "failed",
        "activating",
        "deactivating",
        "maintenance",
        "refreshing",
        "unknown",
    ] = Field(description="Whether it runs.")
    sub_state: str = Field(
        max_length=64, pattern=r"^[a-z0-9-]+$", description="The same in its type's own words."
    )


class DeviceStatus(Model):
    applications: list[ApplicationStatus] | None = Field(
        None, description="State of each application.", json_schema_extra=ATOMIC
    )
    applications_summary: ApplicationsSummary | None = Field(
        None, description="State of all applications taken together."
    )
    capabilities: Capabilities | None = Field(None, description="What the device is able to do.")
    conditions: list[Condition] | None = conditions(
        "What is going on: Updating and DeviceDecommissioning by the agent, SpecValid and "
        "MultipleOwners by the service; Ready, Reconciling and Stalled for programs that wait."
    )
    config: ConfigStatus | None = Field(None, description="What the device runs.")
    dependency_sync: DependencySync | None = Field(
        None, description="What is known of the outside sources of the specification."
    )
    integrity: Integrity | None = Field(
        None, description="Whether device and identity can be trusted."
    )
    last_seen: Timestamp | None = Field(None, description="When the device was last heard of.")
    lifecycle: Lifecycle | None = Field(
        None, description="Where the device stands between enrolment and its end."
    )
    os: OsStatus | None = Field(None, description="Operating system that is booted.")
    resources: ResourceStatus | None = Field(
        None, description="Use of resources against the alert rules."
    )
    summary: Summary | None = Field(None, description="The device as a whole.")
    system_info: SystemInfo | None = Field(None, description="Facts about the machine.")
    systemd: list[SystemdUnit] | None = Field(
        None, description="State of the systemd units asked for.", json_schema_extra=ATOMIC
    )
    updated: Updated | None = Field(None, description="Whether the device runs what it should.")
