"""Event of flightctl's API: what happened to an object, told once.

On the Kubernetes face events are those of core/v1; this model describes the same facts in the
shape that flightctl's clients read. `details` is told apart by `detailType`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from resources import digest
from resources.kind import Json
from resources.meta import ATOMIC, OPEN, Document, Int64, Model

Reason = Literal[
    "ResourceCreated", "ResourceCreationFailed", "ResourceUpdated", "ResourceUpdateFailed",
    "ResourceDeleted", "ResourceDeletionFailed", "DeviceDecommissioned",
    "DeviceDecommissionFailed", "DeviceCPUCritical", "DeviceCPUWarning", "DeviceCPUNormal",
    "DeviceMemoryCritical", "DeviceMemoryWarning", "DeviceMemoryNormal", "DeviceDiskCritical",
    "DeviceDiskWarning", "DeviceDiskNormal", "DeviceApplicationError",
    "DeviceApplicationDegraded", "DeviceApplicationHealthy", "DeviceDisconnected",
    "DeviceIsRebooting", "DeviceConflictPaused", "DeviceConflictResolved", "DeviceConnected",
    "DeviceContentUpToDate", "DeviceContentOutOfDate", "DeviceContentUpdating",
    "DeviceUpdateFailed", "DeviceVulnerabilityCVECritical", "DeviceVulnerabilityCVEResolved",
    "DeviceVulnerabilityCVEWarning", "DeviceOSImageChanged", "EnrollmentRequestApproved",
    "EnrollmentRequestApprovalFailed", "DeviceMultipleOwnersDetected",
    "DeviceMultipleOwnersResolved", "DeviceSpecValid", "DeviceSpecInvalid", "InternalTaskFailed",
    "InternalTaskPermanentlyFailed", "RepositoryAccessible", "RepositoryInaccessible",
    "ReferencedRepositoryUpdated", "FleetValid", "FleetInvalid", "FleetRolloutCreated",
    "FleetRolloutStarted", "FleetRolloutFailed", "FleetRolloutCompleted",
    "FleetRolloutBatchDispatched", "FleetRolloutDeviceSelected", "FleetRolloutBatchCompleted",
    "ResourceSyncCommitDetected", "ResourceSyncAccessible", "ResourceSyncInaccessible",
    "ResourceSyncParsed", "ResourceSyncParsingFailed", "ResourceSyncSynced",
    "ResourceSyncSyncFailed", "DependencyChangeDetected", "DependencySyncProbeFailed",
    "SystemRestored", "EncryptionMigrationStarted", "EncryptionMigrationCompleted",
    "ApplicationLifecycleChanged",
]  # fmt: skip
REASONS: tuple[str, ...] = get_args(Reason)
# That somebody should look at; the reference has RepositoryInaccessible among the others.
WARNINGS: frozenset[str] = frozenset(
    {
        *("ResourceCreationFailed", "ResourceUpdateFailed", "ResourceDeletionFailed"),
        *("DeviceDecommissionFailed", "DeviceDisconnected", "DeviceConflictPaused"),
        *("DeviceCPUCritical", "DeviceMemoryCritical", "DeviceDiskCritical"),
        *("DeviceCPUWarning", "DeviceMemoryWarning", "DeviceDiskWarning"),
        *("DeviceApplicationError", "DeviceApplicationDegraded", "DeviceUpdateFailed"),
        *("DeviceVulnerabilityCVECritical", "DeviceVulnerabilityCVEWarning"),
        *("DeviceMultipleOwnersDetected", "DeviceSpecInvalid", "EnrollmentRequestApprovalFailed"),
        *("InternalTaskFailed", "InternalTaskPermanentlyFailed"),
        *("FleetInvalid", "FleetRolloutFailed", "DependencySyncProbeFailed"),
        *("ResourceSyncInaccessible", "ResourceSyncParsingFailed", "ResourceSyncSyncFailed"),
        # Ours: of a request for which a signer outside is asked.
        "SigningFailed",
    }
)
MESSAGE_MAX = 1024
# Where an event of core/v1, which has no field for them, carries its `details`, as JSON.
DETAILS = "homeport.dev/details"

_TEMPLATE_VERSION = Field(description="Template version that is rolled out.")
_BATCH = Field(description="Batch of the rollout.")
_DETAIL = Field(description="Tells which details these are.")
_ORIGINAL = Field(description="The event whose handling failed.", json_schema_extra=OPEN)
_OWNER = Field(None, description="Owner in the form Kind/name.")


class ResourceUpdated(Model):
    detail_type: Literal["ResourceUpdated"] = _DETAIL
    updated_fields: list[Literal["owner", "labels", "spec", "spec.selector", "spec.template"]] = (
        Field(description="What was changed.", json_schema_extra=ATOMIC)
    )
    new_owner: str | None = _OWNER
    previous_owner: str | None = _OWNER


class OwnershipChanged(Model):
    detail_type: Literal["DeviceOwnershipChanged"] = _DETAIL
    new_owner: str | None = _OWNER
    previous_owner: str | None = _OWNER


class MultipleOwnersDetected(Model):
    detail_type: Literal["DeviceMultipleOwnersDetected"] = _DETAIL
    matching_fleets: list[str] = Field(
        description="Fleets that select the device.", json_schema_extra=ATOMIC
    )


class MultipleOwnersResolved(Model):
    detail_type: Literal["DeviceMultipleOwnersResolved"] = _DETAIL
    resolution_type: Literal["SingleMatch", "NoMatch", "FleetDeleted"] = Field(
        description="How it was resolved."
    )
    assigned_owner: str | None = _OWNER
    previous_matching_fleets: list[str] | None = Field(
        None, description="Fleets that selected the device before.", json_schema_extra=ATOMIC
    )


class TaskFailed(Model):
    detail_type: Literal["InternalTaskFailed"] = _DETAIL
    error_message: str = Field(description="What went wrong.")
    retry_count: int | None = Field(None, description="How often it was tried.")
    original_event: dict[str, Any] = _ORIGINAL


class TaskPermanentlyFailed(Model):
    detail_type: Literal["InternalTaskPermanentlyFailed"] = _DETAIL
    error_message: str = Field(description="What went wrong.")
    retry_count: int = Field(description="How often it was tried.")
    original_event: dict[str, Any] = _ORIGINAL


class ResourceSyncCompleted(Model):
    detail_type: Literal["ResourceSyncCompleted"] = _DETAIL
    commit_hash: str = Field(description="Commit that was applied.")
    change_count: int = Field(description="Objects that changed.")
    error_count: int = Field(description="Objects that could not be applied.")


class ReferencedRepositoryUpdated(Model):
    detail_type: Literal["ReferencedRepositoryUpdated"] = _DETAIL
    repository: str = Field(description="Name of the Repository.")


class RolloutStarted(Model):
    detail_type: Literal["FleetRolloutStarted"] = _DETAIL
    template_version: str = _TEMPLATE_VERSION
    rollout_strategy: Literal["None", "Batched"] = Field(description="At once, or in batches.")


class RolloutFailed(Model):
    detail_type: Literal["FleetRolloutFailed"] = _DETAIL
    template_version: str = _TEMPLATE_VERSION


class RolloutCompleted(Model):
    detail_type: Literal["FleetRolloutCompleted"] = _DETAIL
    template_version: str = _TEMPLATE_VERSION


class BatchDispatched(Model):
    detail_type: Literal["FleetRolloutBatchDispatched"] = _DETAIL
    template_version: str = _TEMPLATE_VERSION
    batch: str = _BATCH


class BatchCompleted(Model):
    detail_type: Literal["FleetRolloutBatchCompleted"] = _DETAIL
    template_version: str = _TEMPLATE_VERSION
    batch: str = _BATCH
    success_percentage: Int64 = Field(description="Share that succeeded.")
    total: Int64 = Field(description="Devices of the batch.")
    successful: Int64 = Field(description="Devices that succeeded.")
    failed: Int64 = Field(description="Devices that failed.")
    timed_out: Int64 = Field(description="Devices that took too long.")


class DeviceSelected(Model):
    detail_type: Literal["FleetRolloutDeviceSelected"] = _DETAIL
    fleet_name: str = Field(description="Name of the fleet.")
    template_version: str = _TEMPLATE_VERSION


class Vulnerability(Model):
    detail_type: Literal["DeviceVulnerabilityCVE"] = _DETAIL
    cve_id: str = Field(
        max_length=64,
        pattern=r"^CVE-[0-9]{4}-[0-9]{4,}$",
        description="Number of the vulnerability.",
    )
    first_image_digest: str | None = Field(None, description="Digest of an image that has it.")
    first_image_ref: str | None = Field(None, description="Reference of that image.")


class DependencyChanged(Model):
    detail_type: Literal["DependencyChangeDetected"] = _DETAIL
    resource_key: str = Field(description="The outside source that changed.")
    fingerprint: str = Field(description="What is there now.")


class DependencyProbeFailed(Model):
    detail_type: Literal["DependencySyncProbeFailed"] = _DETAIL
    resource_key: str = Field(description="The outside source that could not be read.")
    error: str = Field(description="Why not.")


class LifecycleChanged(Model):
    detail_type: Literal["ApplicationLifecycleChanged"] = _DETAIL
    app_name: str = Field(description="Name of the application.")
    action: Literal["stop", "start", "restart"] = Field(description="What was asked for.")


Details = Annotated[
    ResourceUpdated | OwnershipChanged | MultipleOwnersDetected | MultipleOwnersResolved
    | TaskFailed | TaskPermanentlyFailed | ResourceSyncCompleted | ReferencedRepositoryUpdated
    | RolloutStarted | RolloutFailed | RolloutCompleted | BatchDispatched | BatchCompleted
    | DeviceSelected | Vulnerability | DependencyChanged | DependencyProbeFailed
    | LifecycleChanged,
    Field(discriminator="detail_type"),
]  # fmt: skip


class ObjectReference(Model):
    kind: str = Field(description="Kind of the object.")
    name: str = Field(description="Name of the object.")


class EventSource(Model):
    component: str = Field(description="Part of the service that tells it.")


class Event(Document):
    """Something that happened to an object."""

    involved_object: ObjectReference = Field(description="What it happened to.")
    reason: Reason = Field(description="What happened, in one word that programs can test.")
    message: str = Field(description="The same for people.")
    type: Literal["Normal", "Warning"] = Field(description="Whether someone should look at it.")
    source: EventSource = Field(description="Who tells it.")
    actor: str = Field(description="Who caused it: user:<name> or service:<part>.")
    details: Details | None = Field(None, description="Facts that go with the reason.")


def noted(details: Json | None) -> Json:
    """Metadata of a core/v1 Event with these details."""
    if details is None:
        return {}
    return {"annotations": {DETAILS: digest.canonical(details).decode()}}


def told(about: Json, reason: str, message: str, *, component: str, at: str) -> Json:
    """What a core/v1 Event says of something that happened to an object once; all but its metadata.
    `about` is an ObjectReference."""
    return {
        "involvedObject": about,
        "reason": reason,
        "message": message[:MESSAGE_MAX],
        "type": "Warning" if reason in WARNINGS else "Normal",
        "source": {"component": component},
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
